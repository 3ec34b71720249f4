"""Signatures that were verified already: their records need no second look.

Whether a signature is valid follows from the bytes of a record, which its digest stands for, and
never changes. So a file of the user's has the digests of records with a valid signature, 32 bytes
each: `~/.local/state/mlship/verified`, or in `$XDG_STATE_HOME`. Whose signature counts is decided
anew each time.
"""

import os
from collections.abc import Container, Mapping, Sequence
from contextlib import suppress
from typing import Final

from mlship import files
from mlship.adapters.keys.ed25519 import verify
from mlship.adapters.keys.places import of_user
from mlship.domain.digests import Digest
from mlship.domain.trust import Sealed

_BYTES: Final = 32
_MOST: Final = 1_000_000 * _BYTES


class Kept:
    """The digests of what was found valid before.

    Args:
        environment: the environment variables, which say where the user's files are.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._path = of_user(environment, "XDG_STATE_HOME", ".local/state") / "verified"
        self._known: frozenset[bytes] | None = None

    def __contains__(self, digest: object) -> bool:
        """Return whether something is known to be valid. The file is read once."""
        if self._known is None:
            self._known = self._read()
        return isinstance(digest, str) and _raw(Digest(digest)) in self._known

    def add(self, fresh: Sequence[Digest]) -> None:
        """Add digests; begin anew where a write was cut off, or the file has grown large.

        Without it nothing is wrong but the time that it takes.
        """
        if not fresh:
            return
        self._known = (self._known or frozenset()).union(map(_raw, fresh))
        with suppress(OSError):
            files.make_private(self._path.parent)
            handle = os.open(self._path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
            try:
                size = os.fstat(handle).st_size
                if size % _BYTES or size > _MOST:
                    os.ftruncate(handle, 0)
                os.write(handle, b"".join(map(_raw, fresh)))
            finally:
                os.close(handle)

    def _read(self) -> frozenset[bytes]:
        try:
            data = files.read_regular(self._path, _MOST)
        except OSError:
            return frozenset()
        if not files.is_private(self._path):
            return frozenset()
        whole = len(data) - len(data) % _BYTES
        return frozenset(data[start : start + _BYTES] for start in range(0, whole, _BYTES))


class Verifier:
    """The port `mlship.domain.trust.Verify`.

    Args:
        environment: the environment variables, which say where the user's files are.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment

    def __call__(self, signed: Sequence[Sealed]) -> Container[Digest]:
        """Return the digests of those envelopes whose signature is by the key beside them."""
        kept = Kept(self._environment)
        valid = {digest for _, digest, _ in signed if digest in kept}
        fresh = [
            digest
            for public, digest, envelope in signed
            if digest not in valid and verify(public, envelope.message, envelope.signatures[0].sig)
        ]
        kept.add(fresh)
        return valid.union(fresh)


def _raw(digest: Digest) -> bytes:
    return bytes.fromhex(digest.removeprefix("sha256:"))
