"""A bundle and the champion on the same held-out rows, each in a process of its own."""

import dataclasses
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from mlship.adapters.checkout import datafiles
from mlship.adapters.checkout.children import ScoreRequest
from mlship.domain import bundle as bundles
from mlship.domain import digests, outcome_metrics
from mlship.domain.bundle import Row, Task, Value
from mlship.domain.ports import Predictor
from mlship.domain.scores import Interval, Scores
from mlship.errors import ConfigError, ProjectError
from mlship.training import baseline
from mlship.training.columns import rows_of, values_of
from mlship.training.data import Data, read
from mlship.training.scoring import groups, metrics, several, slices
from mlship.training.scoring.scorers import Scorers
from mlship.training.scoring.several import Problem, Truth


@dataclass(frozen=True)
class _Champion:
    """The champion's outputs, or why there are none."""

    outputs: Sequence[Row] = ()
    error: str = ""
    bundle: bundles.Bundle | None = None


def score(request: ScoreRequest, predictor: Predictor) -> Scores:
    """Measure a bundle and the champion, compare them, and draw plots into a folder.

    Raises:
        ProjectError: the data or the bundle's hooks are wrong.
        ConfigError: `data.slices` names a column that the data do not have.
        IntegrityError: a bundle is not what its manifest says.
    """
    data = read(request.root, request.config.data)
    slices.check_names(data, request.config.data.slices)
    manifest = bundles.read(request.bundle)
    rows = rows_of(data.test)
    with ThreadPoolExecutor() as pool:
        release = pool.submit(predictor.predict, request.bundle, _fitting(rows, manifest))
        other = pool.submit(_champion, request.champion, manifest, rows, predictor)
        # matplotlib takes half a second to import: while the bundles predict.
        from mlship.training.scoring import plots

        outputs, champion = release.result(), other.result()
    truth = {target.name: values_of(target.test) for target in data.targets}
    named = (("this release", outputs), ("champion", champion.outputs))
    sides = [
        plots.Side(name=name, predicted=_by_target(manifest.names, side))
        for name, side in named
        if side
    ]
    shared = Scores(
        task=manifest.task,
        data=datafiles.digest_of_held_out(request.root, request.config.data),
        samples=len(rows),
        metrics={},
        targets=manifest.targets,
        repeated=baseline.repeated(data),
        champion_error=champion.error,
        plots=plots.draw(manifest.task, truth, sides, request.plots),
    )
    if manifest.task in bundles.UNSUPERVISED:
        return _without_target(request, data, (outputs, champion.outputs), shared)
    predicted = [side.predicted for side in sides]
    return _with_targets(request, data, manifest, (outputs, champion), (truth, predicted), shared)


def _without_target(
    request: ScoreRequest, data: Data, pair: tuple[Sequence[Row], Sequence[Row]], shared: Scores
) -> Scores:
    """Return the scores of a model without a target: in one space for both, if there are two."""
    space = groups.space_of(request.root, data, request.config.model.preprocess)
    release, champion = (
        digests.plain(groups.measure(shared.task, space, outputs)) if outputs else {}
        for outputs in pair
    )
    return replace(shared, metrics=release, champion=champion, method="")


def _with_targets(
    request: ScoreRequest,
    data: Data,
    manifest: bundles.Bundle,
    pair: tuple[Sequence[Row], _Champion],
    by_target: tuple[Truth, Sequence[Mapping[str, Sequence[Value]]]],
    shared: Scores,
) -> Scores:
    (outputs, champion), (truth, predicted) = pair, by_target
    problem = several.problem_of(manifest, *([champion.bundle] if champion.bundle else []))
    scorers = _scorers(request)
    labels, confusion = _confusion(manifest.task, truth, predicted)
    compared = None
    if champion.outputs:
        wanted = request.config.data.slices
        compared = slices.compare(manifest.task, data, (predicted[0], predicted[1]), wanted)
    return replace(
        shared,
        metrics=_measured(problem, truth, outputs)
        | digests.plain(scorers.measure(manifest, truth, outputs)),
        baseline=_measured(problem, truth, baseline.outputs(problem, data, len(outputs))),
        champion=_measured(problem, truth, champion.outputs) | _also(scorers, champion, truth),
        differences=_differences(problem, truth, (outputs, champion.outputs)),
        labels=labels,
        confusion=confusion,
        slices=compared,
    )


def _scorers(request: ScoreRequest) -> Scorers:
    """Return the project's metrics, with its own function that promotions are decided by.

    So a function that cannot do it is found before its outcomes arrive.
    """
    named, metric = request.config.metrics, outcome_metrics.of(request.config.gates.promote)
    if not metric.is_own:
        return Scorers(root=request.root, named=named)
    together = {**named, metric.name: metric.name}
    return Scorers(root=request.root, named=together, promoted=metric.name)


def _by_target(targets: Sequence[str], outputs: Sequence[Row]) -> dict[str, list[Value]]:
    return {target: [row[target] for row in outputs] for target in targets}


def _confusion(
    task: Task, truth: Truth, predicted: Sequence[Mapping[str, Sequence[Value]]]
) -> tuple[tuple[Value, ...], tuple[tuple[int, ...], ...]]:
    """Return the labels of all sides, and the counts of the first; nothing for several targets."""
    if task != "classification" or len(truth) > 1:
        return (), ()
    (target, values), *_ = truth.items()
    labels = metrics.labels_of(values, [value for side in predicted for value in side[target]])
    return tuple(labels), metrics.confusion(values, predicted[0][target], labels)


def _fitting(rows: list[Row], manifest: bundles.Bundle) -> list[Row]:
    """Return the rows with the bundle's own columns, where they have all of them."""
    names = [field.name for field in manifest.schema.inputs]
    if not rows or not set(names) <= set(rows[0]):
        return rows
    return [{name: row[name] for name in names} for row in rows]


def _champion(
    folder: Path | None, release: bundles.Bundle, rows: list[Row], predictor: Predictor
) -> _Champion:
    """Return the champion's outputs; one that cannot read these rows is no failure of ours."""
    if folder is None:
        return _Champion()
    manifest = bundles.read(folder)
    if (manifest.task, manifest.names) != (release.task, release.names):
        names = ", ".join(manifest.names)
        return _Champion(error=f"the champion is for {manifest.task} of {names}")
    try:
        outputs = predictor.predict(folder, _fitting(rows, manifest))
        return _Champion(outputs=outputs, bundle=manifest)
    except ProjectError as error:
        return _Champion(error=error.message)


def _also(scorers: Scorers, champion: _Champion, truth: Truth) -> dict[str, float | str]:
    """Return the champion's values of the project's own metrics, without those it has none for."""
    values: dict[str, float | str] = {}
    if champion.bundle is None:
        return values
    for name, what in scorers.named.items():
        with suppress(ProjectError, ConfigError):
            one = dataclasses.replace(scorers, named={name: what})
            values |= digests.plain(one.measure(champion.bundle, truth, champion.outputs))
    return values


def _measured(problem: Problem, truth: Truth, outputs: Sequence[Row]) -> dict[str, float | str]:
    if not outputs:
        return {}
    measured: dict[str, float | str] = digests.plain(several.measure(problem, truth, outputs))
    return measured


def _differences(
    problem: Problem, truth: Truth, pair: tuple[Sequence[Row], Sequence[Row]]
) -> dict[str, Interval]:
    return several.differences(problem, truth, pair) if pair[1] else {}
