"""The release statement: which release an image contains, and what its ledger says of it.

It is attached to the image, signed, with the records themselves, so that whoever has the image and
knows whom to trust needs no ledger. It also anchors the ledger: it names the last records that were
there, so that nobody can remove them unseen. See `docs/decisions/0070-images-are-verified.md`.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import msgspec

from mlship.domain import digests, evidence
from mlship.domain.digests import Digest
from mlship.domain.evidence import Record, Step, Verdict
from mlship.domain.records import Records
from mlship.domain.release import Release
from mlship.errors import IntegrityError

KIND: Final = "https://mlship.dev/release/v1"

_LAST: Final[tuple[Step, ...]] = (
    *("train", "test", "containerize", "test-container", "push-to-registry"),
    *("verify-staging-workload", "evaluate", "deploy-production", "promote"),
)
"""The steps of which the last record is stated."""

_ALL: Final[tuple[Step, ...]] = ("approve", "withdraw-approval")
"""The steps of which every record is stated."""

_MOST: Final = 1_000
"""So many records a statement has at most, when it is read."""


class Stated(msgspec.Struct, frozen=True, kw_only=True):
    """A record of the release.

    Attributes:
        record: its bytes, as the ledger has them.
    """

    step: Step
    verdict: Verdict
    time: datetime
    record: bytes


class Anchor(msgspec.Struct, frozen=True, kw_only=True):
    """What the ledger had.

    Attributes:
        records: how many records of the project counted.
        heads: the last of them.
        time: of the last one of the release.
    """

    records: int
    heads: tuple[Digest, ...]
    time: datetime


class ReleaseStatement(msgspec.Struct, frozen=True, kw_only=True):
    """What is said of a release: only what its records say, each with its own signature, counts.

    Attributes:
        project: its name; `home` as in `mlship.domain.home`.
        release: the release in the image.
        records: of the release, in the order of the ledger.
        ledger: what the ledger had.
    """

    project: str
    home: str
    release: Release
    records: tuple[Stated, ...]
    ledger: Anchor


def of(project: str, home: str, release: Release, records: Records) -> ReleaseStatement | None:
    """Return what a ledger says of a release; `None` if it has nothing to state.

    The same records of the release give the same statement, whatever is added for other releases.
    """
    own = [each for each in records if each.evidence.release == release]
    last = {each.evidence.step: each.digest for each in own if each.evidence.step in _LAST}
    chosen = [
        each
        for each in own
        if each.evidence.step in _ALL or last.get(each.evidence.step) == each.digest
    ]
    stated = [each for each in chosen if digests.of_bytes(evidence.stored(each)) == each.digest]
    if not stated:
        return None
    known = records.listed[: records.listed.index(stated[-1]) + 1]
    return ReleaseStatement(
        project=project,
        home=home,
        release=release,
        records=tuple(map(_stated, stated)),
        ledger=Anchor(
            records=len(known), heads=evidence.heads(known), time=stated[-1].evidence.time
        ),
    )


def _stated(record: Record) -> Stated:
    said = record.evidence
    return Stated(
        step=said.step, verdict=said.verdict, time=said.time, record=evidence.stored(record)
    )


def read(predicate: dict[str, Any]) -> tuple[ReleaseStatement, Sequence[Record]]:
    """Return a statement and its records, whose signatures are not verified.

    Raises:
        IntegrityError: it is none, or has a record that is none.
    """
    try:
        found = msgspec.convert(predicate, ReleaseStatement, strict=False)
    except (msgspec.ValidationError, RecursionError) as error:
        message = f"the release statement cannot be read: {error}"
        raise IntegrityError(message, hint="push the release again") from error
    if len(found.records) > _MOST:
        message = f"the release statement has more than {_MOST} records"
        raise IntegrityError(message, hint="push the release again")
    return found, [evidence.decode(stated.record) for stated in found.records]
