"""Finds the rows of published batches that outcomes are about: by their ids, or by a column.

No log has these rows, so the published outputs are read. What is in memory grows with the outcomes,
not with the rows of a run.
"""

from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from mlship.domain import batch as batches
from mlship.domain import batch_outcomes
from mlship.domain.batch import Entry, Manifest
from mlship.domain.batch_outcomes import Answered, Published
from mlship.domain.bundle import ID
from mlship.domain.prediction import Prediction
from mlship.domain.records import Records
from mlship.errors import NotFoundError, ProjectError, some
from mlship.steps.batch import Batching
from mlship.steps.batch_trace import SLOT
from mlship.steps.outcome_files import Received

Check = Callable[[Received, Prediction], None]
"""Raises an error if an outcome cannot be the true value of a prediction."""


class Key(NamedTuple):
    """How outcomes name rows, if not by the ids of predictions.

    Attributes:
        column: that the output keeps.
        run: that has the rows; empty for the last one that was published before each outcome.
    """

    column: str
    run: str = ""


def by_id(
    batching: Batching, records: Records, outcomes: Sequence[Received], check: Check
) -> frozenset[str]:
    """Return the ids of outcomes that are rows of published batches.

    Raises:
        ProjectError: an outcome cannot be the true value of its row.
        NotFoundError, IntegrityError, UnavailableError: an output cannot be read as it was written.
    """
    wanted: dict[str, dict[str, list[Received]]] = defaultdict(lambda: defaultdict(list))
    for each in outcomes:
        if (place := batches.row_of(each.name)) is not None:
            wanted[place[0]][each.name].append(each)
    found: set[str] = set()
    for run in batch_outcomes.published(records) if wanted else ():
        manifest = batching.manifests.read(run.folder)
        if manifest is None:
            continue
        for prefix, part in batch_outcomes.parts_of(manifest).items():
            own = wanted.pop(prefix, {})
            found |= _of_part(batching, run, manifest, part, own, check) if own else set()
        if not wanted:
            break
    return frozenset(found)


def _of_part(
    batching: Batching,
    run: Published,
    manifest: Manifest,
    part: Entry,
    wanted: Mapping[str, Sequence[Received]],
    check: Check,
) -> set[str]:
    found = set()
    for row in batching.outputs.rows(run.folder, manifest, [part], ID, wanted):
        for each in wanted[row.value]:
            check(each, _prediction(row, manifest, run))
        found.add(row.id)
    return found


class Joined(NamedTuple):
    """The rows of outcomes, as far as they were found by a column.

    Attributes:
        ids: of the rows, in the order of the outcomes; `None` for one that has none.
        unknown: values of the column that no row has.
        looked_in: the names of runs.
    """

    ids: list[str | None]
    unknown: tuple[str, ...]
    looked_in: tuple[str, ...]


def by_key(
    batching: Batching,
    records: Records,
    outcomes: Sequence[Received],
    key: Key,
    check: Check,
    now: datetime,
) -> Joined:
    """Return the ids of the rows that a column names.

    Args:
        batching: the ports of batches.
        records: of the ledger.
        outcomes: whose names are values of the column.
        key: the column, and the run.
        check: of each outcome.
        now: the time of outcomes that have none.

    Raises:
        NotFoundError: there is no such run, none before an outcome, or its outputs are gone.
        ProjectError: the run does not keep the column, two rows have the same value, or an outcome
            cannot be the true value of its row.
        IntegrityError, UnavailableError: an output cannot be read as it was written.
    """
    runs = _runs(records, key)
    of_run: dict[int, array[int]] = defaultdict(lambda: array("q"))
    for number, each in enumerate(outcomes):
        place = 0 if key.run else _last_before(runs, each.time or now)
        of_run[-1 if place is None else place].append(number)
    ids: list[str | None] = [None] * len(outcomes)
    looked_in = [runs[place] for place in of_run if place >= 0]
    for place, numbers in of_run.items():
        if place >= 0:
            own = [outcomes[number] for number in numbers]
            found = _of_run(batching, runs[place], own, key.column, check)
            for number, id_ in zip(numbers, found, strict=True):
                ids[number] = id_
    unknown = dict.fromkeys(each.name for each, id_ in zip(outcomes, ids, strict=True) if not id_)
    return Joined(ids, tuple(unknown), tuple(run.name for run in looked_in))


def _runs(records: Records, key: Key) -> list[Published]:
    runs = batch_outcomes.published(records)
    if key.run:
        runs = [each for each in runs if each.name == key.run]
    if not runs:
        message = f"the ledger has no published batch {key.run}".rstrip()
        hint = (
            "run `mlship batch`; the name of a run is what follows run- in the path of its folder"
        )
        raise NotFoundError(message, hint=hint)
    return runs


def _last_before(runs: Sequence[Published], time: datetime) -> int | None:
    return next((place for place, run in enumerate(runs) if run.time <= time), None)


def _of_run(
    batching: Batching, run: Published, outcomes: Sequence[Received], column: str, check: Check
) -> list[str | None]:
    """Return the ids of the rows that have the values, in the order of the outcomes."""
    manifest = batching.manifests.read(run.folder)
    if manifest is None:
        message = f"the outputs of the batch {run.name} are gone: {run.folder}"
        raise NotFoundError(message, hint="restore them, or run the command where they are")
    if column not in manifest.keep:
        kept = f"it keeps {', '.join(manifest.keep)}" if manifest.keep else "it keeps none"
        message = f"the outputs of the batch {run.name} have no column {column}: {kept}"
        hint = f"add {column} to batch.keep for the next batch, or name another run with --run"
        raise ProjectError(message, hint=hint)
    wanted, others = _by_name(outcomes)
    for row in batching.outputs.rows(run.folder, manifest, manifest.parts, column, wanted):
        first = wanted[row.value]
        if isinstance(first, str):
            message = f"{column} {row.value[:60]} is in two rows of the batch {run.name}: "
            message += f"{first} and {row.id}"
            raise ProjectError(message, hint="name the predictions of these outcomes by their ids")
        wanted[row.value] = row.id
        prediction = _prediction(row, manifest, run)
        for each in (first, *others.get(row.value, ())):
            check(each, prediction)
    found = (wanted[each.name] for each in outcomes)
    return [id_ if isinstance(id_, str) else None for id_ in found]


def _by_name(
    outcomes: Iterable[Received],
) -> tuple[dict[str, Received | str], dict[str, list[Received]]]:
    """Return the first outcome of each name, and the other ones of those that have more.

    The id of a row takes the place of its outcome when it is found: two tables of a million names
    would be much memory.
    """
    first: dict[str, Received | str] = {}
    others: dict[str, list[Received]] = {}
    for each in outcomes:
        if first.setdefault(each.name, each) is not each:
            others.setdefault(each.name, []).append(each)
    return first, others


def nothing_found(key: Key, joined: Joined) -> NotFoundError:
    """Return the error for outcomes of which none is about a row of a batch."""
    names = some([name[:60] for name in joined.unknown])
    where = f"the batch {', '.join(joined.looked_in)}"
    message = f"{where} has no row with this {key.column}: {names}"
    if not joined.looked_in:
        message = f"no batch was published before the outcome of {key.column} {names}"
    return NotFoundError(message, hint="name the run that the outcomes are about with --run")


def _prediction(row: Answered, manifest: Manifest, run: Published) -> Prediction:
    return Prediction(
        id=row.id,
        release=manifest.ids_of(row.part),
        slot=SLOT,
        time=run.time,
        inputs={},
        outputs=row.outputs,
        latency_ms=0.0,
    )
