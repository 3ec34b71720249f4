"""erase and prune: remove predictions of a person, or those that are too old, and record it."""

import hashlib
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

import msgspec

from mlship.domain import private, shapes, undelivered
from mlship.domain.digests import Digest
from mlship.domain.evidence import Record
from mlship.domain.records import Records
from mlship.domain.release import Release
from mlship.domain.removal import Erased, Pruned, Removed, Selection
from mlship.errors import ConfigError, NotFoundError, RefusedError
from mlship.steps.pipeline import Pipeline
from mlship.steps.spooled import WAIT_SECONDS

_PAUSE: Final = 1.0
_FIRST: Final = timedelta(minutes=5)
"""An evaluation may count predictions that are so much older than the challenger's deployment."""


class Removal(msgspec.Struct, frozen=True, kw_only=True):
    """What was removed, or would be.

    Attributes:
        predictions: by the name of their release; of one that is not in the ledger by its id.
        record: of the ledger; `None` if there was nothing to remove, or for a dry run.
        before: of `prune`: earlier predictions; `None` for `erase`.
    """

    predictions: Mapping[str, int]
    outcomes: int
    record: Record | None = None
    before: datetime | None = None


def erase(
    pipeline: Pipeline,
    selection: Selection,
    *,
    dry_run: bool = False,
    sleep: Callable[[float], None] = time.sleep,
) -> Removal:
    """Remove all predictions of a selection with their outcomes, and record how many.

    The ledger gets a record before, with the verdict `undecided`, and one after it. Neither has a
    value of the selection, only a salted hash, by which the same command after a crash goes on
    with the first one. Where there is nothing to erase, nothing is recorded.

    Raises:
        ConfigError: a column is logged as a hash, and there is no key.
        NotFoundError: the project has no release, so there are no predictions.
        RefusedError: predictions are on their way to the database; nothing was removed.
        ConflictError: a replica of a former version writes to a file; nothing was removed.
        UnavailableError: a place cannot be changed; the same command goes on with the rest.
    """
    rules = pipeline.config.observations.columns
    for each in selection.where:
        if rules.get(each.column) == "hash" and not each.hashed:
            private.check_key({each.column: "hash"}, "")
    records = pipeline.read()
    if dry_run:
        return _result(records, pipeline.removals.count(selection, records.ids))
    _wait_for_delivery(pipeline, records, sleep)
    counted = pipeline.removals.count(selection, records.ids)
    begun = _begun(records, selection)
    if begun is None:
        if not (counted.total or counted.outcomes):
            return _result(records, counted)
        salt = secrets.token_hex(16)
        begun = Erased(
            operation=secrets.token_hex(8),
            salt=salt,
            selection=_hash(selection, salt),
            predictions=dict(counted.predictions),
            outcomes=counted.outcomes,
        )
        subject = _subject(records, counted)
        records = records.plus(pipeline.learn(subject, "erase", "undecided", begun, after=records))
    removed = pipeline.removals.remove(selection, records.ids)
    # After a crash less is left than there was.
    total = Removed(predictions=begun.predictions, outcomes=begun.outcomes)
    total = removed if removed.total > total.total else total
    facts = msgspec.structs.replace(
        begun, predictions=dict(total.predictions), outcomes=total.outcomes
    )
    record = pipeline.learn(_subject(records, total), "erase", "passed", facts, after=records)
    return _result(records, total, record)


def prune(pipeline: Pipeline, *, dry_run: bool = False) -> Removal:
    """Remove predictions that are older than `observations.keep_days`, and record how many.

    What an evaluation of the running challenger counts stays, however old it is.

    Raises:
        ConfigError: keep_days is not set.
        NotFoundError: the project has no release, so there are no predictions.
        ConflictError: a replica of a former version writes to a file; nothing was removed.
        UnavailableError: a place cannot be changed; the same command goes on with the rest.
    """
    days = pipeline.config.observations.keep_days
    if days is None:
        raise ConfigError(
            "observations.keep_days is not set, so predictions are kept for ever",
            hint="set keep_days under observations in mlship.yaml, such as 90",
        )
    records = pipeline.read()
    before = pipeline.clock() - timedelta(days=days)
    since = records.history.challenger_since
    if since is not None:
        before = min(before, since - _FIRST)
    selection = Selection(before=before)
    removed = (
        pipeline.removals.count(selection, records.ids)
        if dry_run
        else pipeline.removals.remove(selection, records.ids)
    )
    record = None
    if removed.total and not dry_run:
        facts = Pruned(
            before=before, predictions=dict(removed.predictions), outcomes=removed.outcomes
        )
        record = pipeline.learn(_subject(records, removed), "prune", "passed", facts, after=records)
    return _result(records, removed, record, before)


def erased_since(records: Iterable[Record], releases: Iterable[Digest], since: datetime) -> int:
    """Return how many predictions of releases were erased since a time.

    An erasure that was not finished counts with what it was about to erase.
    """
    wanted = set(releases)
    operations: dict[str, int] = {}
    for record in records:
        if record.evidence.step == "erase" and record.evidence.time >= since:
            facts = shapes.of(record, Erased)
            number = sum(facts.predictions.get(release, 0) for release in wanted)
            operations[facts.operation] = number
    return sum(operations.values())


def unfinished(records: Iterable[Record]) -> Sequence[Record]:
    """Return the records of erasures that began and did not end."""
    begun: dict[str, Record] = {}
    for record in records:
        if record.evidence.step == "erase":
            operation = shapes.of(record, Erased).operation
            if record.evidence.verdict == "passed":
                begun.pop(operation, None)
            else:
                begun[operation] = record
    return list(begun.values())


def _begun(records: Records, selection: Selection) -> Erased | None:
    """Return the facts of an erasure of the same selection that did not end."""
    for record in unfinished(records):
        facts = shapes.of(record, Erased)
        if secrets.compare_digest(facts.selection, _hash(selection, facts.salt)):
            return facts
    return None


def _hash(selection: Selection, salt: str) -> str:
    """Return a salted hash of a selection, which is slow to compute: values may be guessable."""
    plain = (
        sorted(selection.ids),
        sorted((each.column, each.text) for each in selection.where),
    )
    text = msgspec.json.encode(plain)
    return hashlib.scrypt(text, salt=bytes.fromhex(salt), n=1 << 14, r=8, p=1, dklen=32).hex()


def _wait_for_delivery(
    pipeline: Pipeline, records: Records, sleep: Callable[[float], None]
) -> None:
    """Wait until the database has what replicas have spooled: it may be of the selection.

    Raises:
        RefusedError: it does not have it after some seconds.
    """
    left = WAIT_SECONDS
    while sentences := undelivered.sentences(spools := pipeline.removals.unreached(records.ids)):
        if left <= 0 or not any(spool.rows for spool in spools):
            message = f"nothing was erased, because it would be incomplete: {'; '.join(sentences)}"
            hint = "wait until `mlship status` does not list them any more; of a replica that is "
            hint += "gone, remove the row in mlship_spools (`mlship guide predictions`)"
            raise RefusedError(message, hint=hint)
        sleep(_PAUSE)
        left -= _PAUSE


def _subject(records: Records, removed: Removed) -> Release:
    """Return the release under which the removal is recorded: the newest one that it concerns.

    Raises:
        NotFoundError: the project has none.
    """
    releases = list(records.releases)
    if not releases:
        raise NotFoundError(
            "the ledger has no release, so no prediction is this project's",
            hint="run the command in the project that made the predictions, with its ledger",
        )
    own = [release for release in releases if release.id in removed.predictions]
    return (own or releases)[-1]


def _result(
    records: Records,
    removed: Removed,
    record: Record | None = None,
    before: datetime | None = None,
) -> Removal:
    names = {release.id: str(release) for release in records.releases}
    return Removal(
        predictions={
            names.get(release, str(release) or "damaged lines"): number
            for release, number in removed.predictions.items()
        },
        outcomes=removed.outcomes,
        record=record,
        before=before,
    )
