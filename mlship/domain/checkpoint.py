"""Checkpoints: what a ledger had at one moment, kept elsewhere, so that nobody removes its end.

The chain shows that a record in its middle is missing. That the newest records were removed, or
that somebody went on from an older one, only shows who has seen them.
"""

import base64
import binascii
import re
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from typing import Final, Protocol

import msgspec

from mlship.domain import digests, dsse
from mlship.domain.digests import Digest
from mlship.errors import IntegrityError

TYPE: Final = "application/vnd.mlship.checkpoint+json"
"""The type of a checkpoint in an envelope."""

_MARK: Final = 20_000
"""Characters of a checkpoint in a text."""
_MARKS: Final = 10
"""So many checkpoints of a text are read."""


GONE: Final = "--gone DIGEST"
"""In a hint, the place of the records that are gone."""


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """What a project had in its ledger.

    Attributes:
        name: of the project; `home` likewise.
        records: how many records counted. Later checkpoints of a ledger have at least as many.
        heads: the last of them.
        time: when it was looked at.
    """

    name: str
    home: str
    records: int
    heads: tuple[Digest, ...]
    time: datetime


class Memory(Protocol):
    """What a machine has seen of a ledger."""

    def seen(self) -> frozenset[Digest]:
        """Return the last records that it has seen; none if it knows nothing."""

    def keep(self, heads: Iterable[Digest]) -> None:
        """Keep the last records instead of those before."""


class Forgetful:
    """The port Memory of a machine that keeps nothing."""

    def seen(self) -> frozenset[Digest]:
        """Return nothing."""
        return frozenset()

    def keep(self, heads: Iterable[Digest]) -> None:
        """Keep nothing."""


FORGETFUL: Final = Forgetful()


def check(seen: Iterable[Digest], kept: Iterable[Digest], who: str, hint: str) -> None:
    """Check that a ledger still has records that somebody has seen in it.

    Args:
        seen: by them.
        kept: all records of the ledger.
        who: has seen them, for people.
        hint: the next action; `GONE` in it is replaced.

    Raises:
        IntegrityError: some are gone.
    """
    gone = sorted(set(seen) - set(kept))
    if gone:
        names = ", ".join(digests.short(digest) for digest in gone[:3])
        message = f"the newest records of the ledger were removed: {who} has seen {names}"
        options = " ".join(f"--gone {digest}" for digest in gone[:_MARKS])
        raise IntegrityError(message, hint=hint.replace(GONE, options))


def seal(checkpoint: Checkpoint, by: dsse.Signing) -> bytes:
    """Return a checkpoint in an envelope.

    Raises:
        ConfigError: the key cannot be read.
    """
    return dsse.seal(digests.canonical_json(checkpoint), by, TYPE)


def read(data: bytes) -> tuple[Checkpoint, dsse.Envelope]:
    """Return a checkpoint and its envelope, whose signature is not verified.

    Raises:
        IntegrityError: it is none.
    """
    envelope = dsse.read(data)
    if envelope.payloadType != TYPE:
        raise _refused(f"it is {envelope.payloadType[:80]!r}")
    try:
        return msgspec.json.decode(envelope.payload, type=Checkpoint), envelope
    except (msgspec.DecodeError, msgspec.ValidationError, RecursionError) as error:
        raise _refused(str(error)) from error


def mark(project: str, data: bytes) -> str:
    """Return a checkpoint in an envelope as an invisible line of a pull request's text."""
    return f"<!-- mlship {project}: ledger {base64.b64encode(data).decode()} -->"


def marked(project: str, text: str) -> list[bytes]:
    """Return what the lines of a project in a text hold; anybody may have written them."""
    pattern = rf"<!-- mlship {re.escape(project)}: ledger ([A-Za-z0-9+/=]{{1,{_MARK}}}) -->"
    found = []
    for line in re.findall(pattern, text):
        with suppress(binascii.Error):
            found.append(base64.b64decode(line, validate=True))
    return found[:_MARKS]


def _refused(reason: str) -> IntegrityError:
    return IntegrityError(
        f"not a checkpoint: {reason}", hint="`mlship ledger checkpoint` makes one"
    )
