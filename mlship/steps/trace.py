"""trace: from one prediction to its release, data and code; optionally compute it again."""

from collections.abc import Sequence
from typing import Any

import msgspec

from mlship.domain import batch as batches
from mlship.domain import bundle as bundles
from mlship.domain import private, shapes
from mlship.domain.bundle import Row
from mlship.domain.commit import Commit
from mlship.domain.digests import Digest
from mlship.domain.evidence import Record
from mlship.domain.facts import PushedImage, Trained
from mlship.domain.history import fold
from mlship.domain.notation import literal
from mlship.domain.prediction import Outcome, Prediction
from mlship.domain.records import Records
from mlship.domain.release import Release
from mlship.domain.workload import compare
from mlship.errors import IntegrityError, NotFoundError, RefusedError
from mlship.steps import batch_trace
from mlship.steps.batch import Batching
from mlship.steps.pipeline import Pipeline


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """The origin of one prediction.

    Attributes:
        shadow: the prediction of a shadowed challenger for the same request.
        outcome: the true value, if it is known.
        role: of the release when it made the prediction.
        commit: of the training code, if the training is in the ledger.
        version: the number in the model registry, empty if it is not registered.
        evidence: all records of the release, oldest first.
        attached: the documents at its image in the registry, by name: SBOM, provenance, records.
        reproduced: the outputs computed again from the bundle, if requested; likewise
            `shadow_reproduced` those of the shadow.
        differences: between both outputs; empty if they are the same.
    """

    prediction: Prediction
    shadow: Prediction | None
    outcome: Outcome | None
    release: Release
    name: str
    role: str
    commit: Commit | None
    model: dict[str, Any]
    version: str
    evidence: tuple[Record, ...]
    attached: dict[str, Digest] = {}
    reproduced: Row | None = None
    shadow_reproduced: Row | None = None
    differences: tuple[str, ...] = ()


def trace(
    pipeline: Pipeline,
    prediction: str,
    *,
    reproduce: bool = False,
    batching: Batching | None = None,
) -> Trace:
    """Return the trace of a prediction, by the id from the response or in the output of a batch.

    Args:
        pipeline: the project.
        prediction: its id.
        reproduce: whether to compute it again.
        batching: the ports of batches, whose predictions are in no log.

    Raises:
        NotFoundError: the prediction is in no log, or its release is not in the ledger.
        IntegrityError: computed again from its bundle, the prediction or its shadow differs.
        RefusedError: columns that the model needs were not logged.
    """
    records = pipeline.read()
    logged = _find(pipeline, prediction, records, batching)
    if not logged:
        raise NotFoundError(
            f"neither the log of production nor a published batch has the prediction {prediction}",
            hint="copy the id from a response, where it ends in .0, or from the output of a batch",
        )
    releases = {release.id: release for release in records.releases}
    own = [each for each in logged if each.release in releases]
    if not own:
        raise NotFoundError(
            f"release {logged[0].release} of prediction {prediction} is not in the ledger",
            hint="run the command in the project that made the prediction, with its ledger",
        )
    original, shadow = own[0], own[1] if len(own) > 1 else None
    release = releases[original.release]
    result = _trace(pipeline, original, shadow, release, records)
    if not reproduce:
        return result
    outputs = _reproduced(pipeline, original, release)
    other = None
    if shadow is not None:
        other = _reproduced(pipeline, shadow, releases[shadow.release])
    return msgspec.structs.replace(result, reproduced=outputs, shadow_reproduced=other)


def _reproduced(pipeline: Pipeline, prediction: Prediction, release: Release) -> Row:
    """Return what a release answers to the inputs of a prediction now.

    Raises:
        IntegrityError: it is not what it answered.
        RefusedError: columns that the model needs were not logged.
    """
    whose = "the shadow of prediction" if prediction.shadow else "prediction"
    bundle = pipeline.bundle(release)
    manifest = bundles.read(bundle, expected=release.bundle)
    columns = {field.name: field for field in manifest.schema.inputs}
    if lacking := private.lacks(prediction.inputs, columns):
        raise RefusedError(
            f"{whose} {prediction.id} cannot be reproduced, because its log has {lacking}",
            hint="columns that observations.columns names are not logged as they were",
        )
    outputs = pipeline.predictor.predict(bundle, [prediction.inputs])[0]
    differences = [
        f"{field} is {literal(outputs.get(field))}, was {literal(prediction.outputs[field])}"
        for field in compare(prediction.outputs, outputs)
    ]
    if differences:
        raise IntegrityError(
            f"{whose} {prediction.id} cannot be reproduced: {'; '.join(differences)}",
            hint="compare the installed packages with requirements.txt in the bundle",
        )
    return outputs


def _find(
    pipeline: Pipeline, prediction: str, records: Records, batching: Batching | None
) -> Sequence[Prediction]:
    """Return the predictions of an id, shadows last: those of a batch, or those in the log."""
    scored = batching and batch_trace.find(pipeline, batching, records, prediction)
    return scored or pipeline.observations.find(prediction)


def _trace(
    pipeline: Pipeline,
    prediction: Prediction,
    shadow: Prediction | None,
    release: Release,
    records: Records,
) -> Trace:
    trained, pushed = (records.latest(step, release) for step in ("train", "push-to-registry"))
    manifest = bundles.read(pipeline.bundle(release), expected=release.bundle)
    place = batches.row_of(prediction.id)
    outcomes = pipeline.observations.outcomes(records.ids, place[:1] if place else ())
    numbers = [
        version.number for version in pipeline.store.versions() if version.release == release.id
    ]
    return Trace(
        prediction=prediction,
        shadow=shadow,
        outcome=next(
            (outcome for outcome in outcomes if outcome.prediction == prediction.id), None
        ),
        release=release,
        name=str(release),
        role=_role_at(records, prediction, release),
        commit=shapes.of(trained, Trained).commit if trained else None,
        model={"format": manifest.model.format, "task": manifest.task, "metrics": manifest.metrics},
        version=numbers[-1] if numbers else "",
        evidence=tuple(record for record in records if record.evidence.release == release),
        attached=shapes.of(pushed, PushedImage).attached if pushed else {},
    )


def _role_at(records: Sequence[Record], prediction: Prediction, release: Release) -> str:
    history = fold(record for record in records if record.evidence.time <= prediction.time)
    return history.role(release) or "none yet"
