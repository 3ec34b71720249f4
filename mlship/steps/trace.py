"""trace: from one prediction to everything behind it; and computing it again."""

from collections.abc import Sequence
from typing import Any

import msgspec

from mlship.domain import bundle as bundles
from mlship.domain import shapes
from mlship.domain.bundle import Row
from mlship.domain.commit import Commit
from mlship.domain.evidence import Record
from mlship.domain.facts import Trained
from mlship.domain.history import fold
from mlship.domain.prediction import Outcome, Prediction
from mlship.domain.records import Records
from mlship.domain.release import Release
from mlship.domain.workload import compare
from mlship.errors import IntegrityError, NotFoundError
from mlship.steps.pipeline import Pipeline


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """Everything behind one prediction.

    Attributes:
        shadow: what a shadowed challenger said to the same request.
        outcome: what turned out to be true, where it is known.
        role: of the release when it made the prediction.
        commit: of the code that made the model, where its training is in the ledger.
        version: the number in the model registry, empty where it is not registered.
        evidence: all that is known of the release, oldest first.
        reproduced: the outputs computed again from the bundle, where that was asked for.
        differences: where they are not the same; empty when they are.
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
    reproduced: Row | None = None
    differences: tuple[str, ...] = ()


def trace(pipeline: Pipeline, prediction: str, *, reproduce: bool = False) -> Trace:
    """Return what is behind the prediction of that id, as the answer to a request named it.

    Raises:
        NotFoundError: no log knows the prediction, or the ledger not its release.
        IntegrityError: computed again from its bundle, the prediction comes out otherwise.
    """
    logged = pipeline.observations.find(prediction)
    if not logged:
        raise NotFoundError(
            f"the log of production has no prediction {prediction}",
            hint="copy the id from a response; it ends in .0",
        )
    records = pipeline.read()
    made = logged[0]
    release = next((known for known in records.releases if known.id == made.release), None)
    if release is None:
        raise NotFoundError(
            f"release {made.release} of prediction {prediction} is not in the ledger",
            hint="run it where the release was trained, or with its ledger",
        )
    found = _trace(pipeline, logged[0], logged[1] if len(logged) > 1 else None, release, records)
    if not reproduce:
        return found
    outputs = pipeline.predictor.predict(pipeline.bundle(release), [made.inputs])[0]
    differences = tuple(
        f"{field} is {outputs.get(field)!r}, was {made.outputs[field]!r}"
        for field in compare(made.outputs, outputs)
    )
    if differences:
        raise IntegrityError(
            f"prediction {prediction} is not reproduced: {'; '.join(differences)}",
            hint="compare the installed packages with requirements.txt in the bundle",
        )
    return msgspec.structs.replace(found, reproduced=outputs, differences=differences)


def _trace(
    pipeline: Pipeline,
    made: Prediction,
    shadow: Prediction | None,
    release: Release,
    records: Records,
) -> Trace:
    trained = records.latest("train", release)
    manifest = bundles.read(pipeline.bundle(release), expected=release.bundle)
    outcomes = pipeline.observations.outcomes()
    numbers = [
        version.number for version in pipeline.store.versions() if version.release == release.id
    ]
    return Trace(
        prediction=made,
        shadow=shadow,
        outcome=next((outcome for outcome in outcomes if outcome.prediction == made.id), None),
        release=release,
        name=str(release),
        role=_role_at(records, made, release),
        commit=shapes.of(trained, Trained).commit if trained else None,
        model={"format": manifest.model.format, "task": manifest.task, "metrics": manifest.metrics},
        version=numbers[-1] if numbers else "",
        evidence=tuple(record for record in records if record.evidence.release == release),
    )


def _role_at(records: Sequence[Record], made: Prediction, release: Release) -> str:
    then = fold(record for record in records if record.evidence.time <= made.time)
    return then.role(release) or "none yet"
