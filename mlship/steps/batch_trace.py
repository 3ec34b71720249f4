"""A prediction of a batch, found by its id: no log has it, because its part can be read again."""

from datetime import datetime
from typing import Final

from mlship.domain import batch as batches
from mlship.domain import shapes
from mlship.domain.batch import Entry, Input, Manifest
from mlship.domain.batch_record import Batched
from mlship.domain.batch_work import Find
from mlship.domain.prediction import Prediction
from mlship.domain.records import Records
from mlship.steps.batch import Batching
from mlship.steps.pipeline import Pipeline

SLOT: Final = "batch"
"""What stands for the slot in a prediction of a batch, which no slot made."""


def find(
    pipeline: Pipeline, batching: Batching, records: Records, prediction: str
) -> Prediction | None:
    """Return a prediction of a published batch; `None` if no batch has it.

    The row is read from the input again, which must be what was scored.

    Raises:
        NotFoundError: the part has no such row, or the row was rejected, or its input is gone.
        IntegrityError: the input was changed since, or a manifest is damaged.
        UnavailableError: a file cannot be read.
    """
    place = batches.row_of(prediction)
    if place is None:
        return None
    prefix, row = place
    for record in reversed(records):
        evidence = record.evidence
        if evidence.step != "batch" or evidence.verdict != "passed":
            continue
        folder = shapes.of(record, Batched).output
        manifest = batching.manifests.read(folder)
        part = _part(manifest, prefix) if manifest else None
        if manifest is None or part is None:
            continue
        bundle = pipeline.bundle(evidence.release)
        request = Find(
            bundle=str(bundle.absolute()),
            digest=evidence.release.bundle,
            input=_input(manifest, part),
            id=prediction,
            row=row,
            output=f"{folder}/{batches.file_of(part.name, manifest.format)}",
            format=manifest.format,
            reading=manifest.reading,
        )
        found = batching.workers(bundle).find(request)
        return Prediction(
            id=prediction,
            release=evidence.release.id,
            slot=SLOT,
            time=datetime.fromisoformat(manifest.time),
            inputs=found.inputs,
            outputs=found.outputs,
            latency_ms=0.0,
        )
    return None


def _part(manifest: Manifest, prefix: str) -> Entry | None:
    parts = (part for part in manifest.parts if _prefix(manifest, part) == prefix)
    return next(parts, None)


def _prefix(manifest: Manifest, part: Entry) -> str:
    return batches.prefix(manifest.release, part.name)


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
