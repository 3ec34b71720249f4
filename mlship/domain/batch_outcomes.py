"""Which runs of batches outcomes are about: those that were published, as the ledger has them."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

import msgspec

from mlship.domain import batch as batches
from mlship.domain import shapes
from mlship.domain.batch import Entry, Manifest
from mlship.domain.batch_record import Batched
from mlship.domain.bundle import Row
from mlship.domain.digests import Digest
from mlship.domain.evidence import Record


class Published(msgspec.Struct, frozen=True, kw_only=True):
    """A run that readers get.

    Attributes:
        name: of the run.
        folder: with its outputs, or the copy of what a table got.
        time: when it was published.
    """

    name: str
    folder: str
    time: datetime


class Answers(msgspec.Struct, frozen=True, kw_only=True):
    """What one release answered in a run.

    Attributes:
        folder: of the run.
        side: the role whose parts are the release's, in a split; empty if all are.
    """

    release: Digest
    folder: str
    side: str = ""


class Answered(NamedTuple):
    """A row of a published output.

    Attributes:
        value: of the column that was looked for, as text.
        id: of the prediction.
        part: that has the row.
    """

    value: str
    id: str
    outputs: Row
    part: Entry


def published(records: Iterable[Record]) -> list[Published]:
    """Return the runs that readers get, each once, the last one first."""
    runs: dict[str, Published] = {}
    for record in records:
        facts = _passed(record)
        if facts is not None and not facts.is_shadow:
            run = Published(name=facts.run, folder=facts.output, time=_time(record, facts))
            runs.setdefault(facts.output, run)
    return sorted(runs.values(), key=lambda each: each.time, reverse=True)


def contests(
    records: Sequence[Record], champion: Digest, challenger: Digest, since: datetime
) -> list[tuple[Answers, ...]]:
    """Return what champion and challenger answered in the runs that compare them.

    In a shadow, both answered each row. In a split, the route gave each row to one of them. A run
    of one release alone compares nothing: nobody knows how its rows differ from others.

    Args:
        records: of the ledger.
        champion: the id of its release.
        challenger: likewise.
        since: runs that were published before do not count.
    """
    passed = [
        (record, facts)
        for record in records
        if (facts := _passed(record)) is not None and _time(record, facts) >= since
    ]
    own = {champion, challenger}
    alone = {
        facts.output: record.evidence.release.id
        for record, facts in passed
        if not facts.is_shadow and not facts.side
    }
    found: dict[str, tuple[Answers, ...]] = {}
    sides: dict[str, dict[Digest, Answers]] = {}
    for record, facts in passed:
        release = record.evidence.release.id
        answers = Answers(release=release, folder=facts.output, side=facts.side)
        shadowed = alone.get(facts.shadowed) if facts.is_shadow else None
        if shadowed is not None and {release, shadowed} == own:
            published = Answers(release=shadowed, folder=facts.shadowed)
            found[facts.output] = (published, answers)
        elif facts.side and release in own:
            sides.setdefault(facts.output, {})[release] = answers
    split = [tuple(each.values()) for each in sides.values() if set(each) == own]
    return [*found.values(), *split]


def parts_of(manifest: Manifest, side: str = "") -> dict[str, Entry]:
    """Return the parts of a run by the prefix of their ids: all, or those of one side."""
    return {
        batches.prefix(manifest.ids_of(part), part.name): part
        for part in manifest.parts
        if side in ("", part.side)
    }


def _passed(record: Record) -> Batched | None:
    """Return the facts of a run that was published, or of a shadow that is complete."""
    if record.evidence.step != "batch" or record.evidence.verdict != "passed":
        return None
    return shapes.of(record, Batched)


def _time(record: Record, facts: Batched) -> datetime:
    return facts.published or record.evidence.time
