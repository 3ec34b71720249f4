"""A prediction of a batch, found by its id: no log has it, because its part can be read again."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from mlship.domain import batch as batches
from mlship.domain import shapes
from mlship.domain.batch import Entry, Input, Manifest
from mlship.domain.batch_record import Batched
from mlship.domain.batch_work import Find
from mlship.domain.evidence import Record
from mlship.domain.prediction import Prediction
from mlship.domain.records import Records
from mlship.errors import NotFoundError
from mlship.steps.batch import Batching
from mlship.steps.pipeline import Pipeline

SLOT: Final = "batch"
"""What stands for the slot in a prediction of a batch, which no slot made."""


def find(
    pipeline: Pipeline, batching: Batching, records: Records, prediction: str
) -> Sequence[Prediction]:
    """Return a prediction of a published batch, and what a challenger answered in its shadow.

    The row is read from the input again, which must be what was scored.

    Raises:
        NotFoundError: the part has no such row, or the row was rejected, or its input is gone.
        IntegrityError: the input or the output was changed since, or a manifest is damaged.
        UnavailableError: a file cannot be read.
    """
    place = batches.row_of(prediction)
    if place is None:
        return ()
    found: list[Prediction] = []
    runs = [
        (record, shapes.of(record, Batched))
        for record in reversed(records)
        if record.evidence.step == "batch" and record.evidence.verdict == "passed"
    ]
    for is_shadow in (False, True):
        for record, facts in runs:
            if facts.is_shadow != is_shadow or (is_shadow and not found):
                continue
            each = _in_run(pipeline, batching, record, facts, prediction, place)
            if each is not None:
                found.append(each)
                break
    return found


def _in_run(
    pipeline: Pipeline,
    batching: Batching,
    record: Record,
    facts: Batched,
    prediction: str,
    place: tuple[str, int],
) -> Prediction | None:
    """Return a prediction as a run has it; `None` if it has no part with the id."""
    release = record.evidence.release
    manifest = batching.manifests.read(facts.output)
    part = _part(manifest, place[0]) if manifest else None
    if manifest is None or part is None or part.side != facts.side:
        return None
    bundle = pipeline.bundle(release)
    request = Find(
        bundle=str(bundle.absolute()),
        digest=release.bundle,
        input=_input(manifest, part),
        id=prediction,
        row=place[1],
        output=f"{facts.output}/{batches.file_of(part.name, manifest.format)}",
        published=part.digest,
        format=manifest.format,
        reading=manifest.reading,
    )
    try:
        row = batching.workers(bundle).find(request)
    except NotFoundError:
        if facts.is_shadow:  # which the challenger rejected
            return None
        raise
    return Prediction(
        id=prediction,
        release=release.id,
        slot=SLOT,
        time=datetime.fromisoformat(manifest.time),
        inputs=row.inputs,
        outputs=row.outputs,
        latency_ms=0.0,
        shadow=facts.is_shadow,
    )


def _part(manifest: Manifest, prefix: str) -> Entry | None:
    parts = (
        part
        for part in manifest.parts
        if batches.prefix(manifest.ids_of(part), part.name) == prefix
    )
    return next(parts, None)


def _input(manifest: Manifest, part: Entry) -> Input:
    seen = next(each for each in manifest.inputs if each.path == part.input)
    return Input(
        path=seen.path,
        format=seen.format,
        version=seen.version,
        digest=seen.digest,
        size=0,
        blocks=(part.block,),
        columns=seen.columns,
    )
