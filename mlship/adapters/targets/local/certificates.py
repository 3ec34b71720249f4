"""The certificate of a local target's router, in a file that Envoy reads again when it changes.

The user's two files are replaced one after the other. So they are copied into one file, and only
when they fit together: Envoy never sees the half of a renewal.
"""

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from mlship import files
from mlship.adapters.targets.envoy import resources
from mlship.adapters.targets.local.state import State, Tls
from mlship.domain import digests, tls
from mlship.errors import ConfigError

NAME = "router"
RETRY_SECONDS = 1.0
"""Until a refused pair of files is checked again, which costs a handshake."""
_BLOCK: Final = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)
_Versions = tuple[files.Version, ...]


class Certificates:
    """Keeps Envoy's copy of a certificate and its key current."""

    def __init__(self, state: State, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._path = state.certificate
        self._written: tuple[Tls, _Versions] | None = None
        self._refused: tuple[Tls, _Versions] | None = None
        self._refused_at = 0.0
        self._told = ""

    def step(self, wanted: Tls | None) -> None:
        """Copy the files if they have changed; without any, there is no copy.

        Those that were refused are looked at again after a second: the reason may have been that
        they could not be read, or that it was too early.

        Raises:
            ConfigError: they do not fit together, or clients would refuse them, once for each
                reason; the former copy stays.
            OSError: they cannot be read now, or the copy cannot be written; likewise once.
        """
        if wanted is None:
            self._path.unlink(missing_ok=True)
            self._written = self._refused = None
            self._told = ""
            return
        try:
            self._renew(wanted)
        except (OSError, ConfigError) as error:
            text = str(error)
            if text != self._told:
                self._told = text
                raise

    def _renew(self, wanted: Tls) -> None:
        paths = Path(wanted.certificate), Path(wanted.key)
        version = tuple(map(files.version_of, paths))
        if (wanted, version) == self._written:
            self._refused, self._told = None, ""
            return
        now = self._clock()
        if (wanted, version) == self._refused and now < self._refused_at + RETRY_SECONDS:
            return
        self._refused, self._refused_at = (wanted, version), now
        tls.check(*paths)
        certificate, key = (path.read_bytes() for path in paths)
        self._refused = None
        if tuple(map(files.version_of, paths)) == version:
            files.write_atomically(self._path, secret(certificate, key), mode=0o600)
            self._written, self._told = (wanted, version), ""


def secret(certificate: bytes, key: bytes) -> bytes:
    """Return the file for Envoy: a resource of its secret discovery service."""
    return resources.secret(
        NAME,
        digests.of_bytes(certificate),
        {"inline_string": _text(certificate)},
        {"inline_string": _text(key)},
    )


def _text(data: bytes) -> str:
    """Return the blocks of a file in PEM, without what is beside them.

    `tls.check` skips it, but Envoy refuses a file that begins with a byte order mark.
    """
    text = data.decode("ascii", errors="replace")
    return "".join(f"{block[0]}\n" for block in _BLOCK.finditer(text))
