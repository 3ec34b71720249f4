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
from mlship.domain.evidence import Record

_BYTES: Final = 32
_MOST: Final = 1_000_000 * _BYTES


class Verifier:
    """The port `mlship.domain.trust.Verify`.

    Args:
        environment: the environment variables, which say where the user's files are.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._path = of_user(environment, "XDG_STATE_HOME", ".local/state") / "verified"

    def __call__(self, signed: Sequence[tuple[str, Record]]) -> Container[Digest]:
        """Return those of some records whose signature is by the public key beside them."""
        known = self._known() if signed else frozenset()
        valid = {record.digest for _, record in signed if _raw(record) in known}
        fresh = [
            record
            for public, record in signed
            if record.digest not in valid and _is_valid(public, record)
        ]
        self._keep(fresh)
        return valid | {record.digest for record in fresh}

    def _known(self) -> frozenset[bytes]:
        try:
            data = files.read_regular(self._path, _MOST)
        except OSError:
            return frozenset()
        if not files.is_private(self._path):
            return frozenset()
        whole = len(data) - len(data) % _BYTES
        return frozenset(data[start : start + _BYTES] for start in range(0, whole, _BYTES))

    def _keep(self, records: Sequence[Record]) -> None:
        """Add records; begin anew where a write was cut off, or the file has grown large.

        Without it nothing is wrong but the time that it takes.
        """
        if not records:
            return
        with suppress(OSError):
            files.make_private(self._path.parent)
            handle = os.open(self._path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
            try:
                size = os.fstat(handle).st_size
                if size % _BYTES or size > _MOST:
                    os.ftruncate(handle, 0)
                os.write(handle, b"".join(map(_raw, records)))
            finally:
                os.close(handle)


def _raw(record: Record) -> bytes:
    return bytes.fromhex(record.digest.removeprefix("sha256:"))


def _is_valid(public: str, record: Record) -> bool:
    envelope = record.envelope
    return envelope is not None and verify(public, envelope.message, envelope.signatures[0].sig)
