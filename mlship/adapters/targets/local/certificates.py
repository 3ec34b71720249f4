"""The certificate of a local target's router, in a file that Envoy reads again when it changes.

The user's two files are replaced one after the other. So they are copied into one file, and only
when they fit together: Envoy never sees the half of a renewal.
"""

from pathlib import Path

from mlship import files
from mlship.adapters.targets.envoy import resources
from mlship.adapters.targets.envoy.limits import TYPES
from mlship.adapters.targets.local.state import State, Tls
from mlship.domain import digests, tls

NAME = "router"
_Versions = tuple[files.Version, ...]


class Certificates:
    """Keeps Envoy's copy of a certificate and its key current."""

    def __init__(self, state: State) -> None:
        self._path = state.certificate
        self._written: tuple[Tls, _Versions] | None = None
        self._refused: _Versions | None = None

    def step(self, wanted: Tls | None) -> None:
        """Copy the files if they have changed; without any, there is no copy.

        Raises:
            ConfigError: they do not fit together, once for each change; the former copy stays.
            OSError: they cannot be read now, or the copy cannot be written.
        """
        if wanted is None:
            self._path.unlink(missing_ok=True)
            self._written = None
            return
        paths = Path(wanted.certificate), Path(wanted.key)
        version = tuple(map(files.version_of, paths))
        if (wanted, version) == self._written or version == self._refused:
            return
        self._refused = version
        tls.check(*paths)
        certificate, key = (path.read_bytes() for path in paths)
        if tuple(map(files.version_of, paths)) == version:
            self._refused = None
            files.write_atomically(self._path, secret(certificate, key), mode=0o600)
            self._written = wanted, version


def secret(certificate: bytes, key: bytes) -> bytes:
    """Return the file for Envoy: a resource of its secret discovery service."""
    item = {
        "name": NAME,
        "tls_certificate": {
            "certificate_chain": {"inline_string": certificate.decode()},
            "private_key": {"inline_string": key.decode()},
        },
    }
    kind = "extensions.transport_sockets.tls.v3.Secret"
    typed = {"@type": f"{TYPES}.{kind}"} | item
    return resources.text({"version_info": digests.of_bytes(certificate), "resources": [typed]})
