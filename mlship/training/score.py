"""A bundle and the champion on the same held-out rows, each in a process of its own."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from mlship.adapters.checkout import datafiles
from mlship.adapters.checkout.children import ScoreRequest
from mlship.domain import bundle as bundles
from mlship.domain import digests, outcome_metrics
from mlship.domain.bundle import Row, Task, Value
from mlship.domain.ports import Predictor
from mlship.domain.scores import Interval, Scores
from mlship.errors import ConfigError, ProjectError
from mlship.training import baseline, metrics, slices
from mlship.training.columns import rows_of, values_of
from mlship.training.data import read
from mlship.training.scorers import Scorers


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
    truth = values_of(data.test_target)
    with ThreadPoolExecutor() as pool:
        release = pool.submit(predictor.predict, request.bundle, _fitting(rows, manifest))
        other = pool.submit(_champion, request.champion, manifest, rows, predictor)
        # matplotlib takes half a second to import: while the bundles predict.
        from mlship.training import plots

        outputs, champion = release.result(), other.result()
    predicted = [row[data.target] for row in outputs]
    of_champion = [row[data.target] for row in champion.outputs]
    scorers = _scorers(request)
    labels: list[Value] = []
    if manifest.task == "classification":
        labels = metrics.labels_of(truth, [*predicted, *of_champion])
    sides = [plots.Side(name="this release", predicted=predicted)]
    if champion.outputs:
        sides.append(plots.Side(name="champion", predicted=of_champion))
    compared = None
    if champion.outputs:
        pair = predicted, of_champion
        compared = slices.compare(manifest.task, data, pair, request.config.data.slices)
    drawn = plots.draw(manifest.task, truth, sides, request.plots)
    return Scores(
        task=manifest.task,
        data=datafiles.digest_of_held_out(request.root, request.config.data),
        samples=len(rows),
        metrics=_measured(manifest.task, truth, outputs, data.target)
        | digests.plain(scorers.measure(manifest, truth, outputs)),
        baseline=_measured(
            manifest.task, truth, baseline.outputs(manifest.task, data, len(rows)), data.target
        ),
        repeated=baseline.repeated(data),
        champion=_measured(manifest.task, truth, champion.outputs, data.target)
        | _also(scorers, champion, truth),
        champion_error=champion.error,
        differences=_differences(manifest.task, truth, (outputs, champion.outputs), data.target),
        labels=tuple(labels),
        confusion=metrics.confusion(truth, predicted, labels) if labels else (),
        plots=drawn,
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
    if (manifest.task, manifest.target) != (release.task, release.target):
        kind = "classifies" if manifest.task == "classification" else "estimates"
        return _Champion(error=f"the champion {kind} {manifest.target}")
    try:
        outputs = predictor.predict(folder, _fitting(rows, manifest))
        return _Champion(outputs=outputs, bundle=manifest)
    except ProjectError as error:
        return _Champion(error=error.message)


def _also(scorers: Scorers, champion: _Champion, truth: Sequence[Value]) -> dict[str, float | str]:
    """Return the champion's values of the project's own metrics, without those it has none for."""
    values: dict[str, float | str] = {}
    if champion.bundle is None:
        return values
    for name, what in scorers.named.items():
        with suppress(ProjectError, ConfigError):
            one = replace(scorers, named={name: what})
            values |= digests.plain(one.measure(champion.bundle, truth, champion.outputs))
    return values


def _measured(
    task: Task, truth: Sequence[Value], outputs: Sequence[Row], target: str
) -> dict[str, float | str]:
    if not outputs:
        return {}
    measured: dict[str, float | str] = digests.plain(metrics.measure(task, truth, outputs, target))
    return measured


def _differences(
    task: Task, truth: Sequence[Value], pair: tuple[Sequence[Row], Sequence[Row]], target: str
) -> dict[str, Interval]:
    return metrics.differences(task, truth, pair, target) if pair[1] else {}
