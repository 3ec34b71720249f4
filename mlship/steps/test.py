"""test: the project's own tests, metrics on held-out data, and the gate on both."""

import difflib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from mlship.domain import checks, gates, shapes, shifts
from mlship.domain.bundle import UNSUPERVISED
from mlship.domain.checks import Check
from mlship.domain.evidence import Record, Saw
from mlship.domain.facts import Between, Tested, Trained
from mlship.domain.history import latest
from mlship.domain.profiles import Profile
from mlship.domain.records import Records
from mlship.domain.release import Release
from mlship.domain.scores import Scores, Suite, TestRun
from mlship.domain.shifts import Shifts
from mlship.domain.suites import SuiteRun
from mlship.domain.versions import VERDICT, Run
from mlship.errors import ConfigError, IntegrityError
from mlship.steps import checkout, compatibility, outputs
from mlship.steps.pipeline import Pipeline
from mlship.steps.train import data_sets, finite

SETTINGS: Final = (
    *("gates.test", "gates.baseline", "gates.min_rows", "gates.compatible", "tests", "metrics"),
    "data.slices",
)
"""The settings that decide here, which are those of the release's commit."""

SLICES_WORSE: Final = "slices_worse"
"""A value that `gates.test` can bound besides the metrics: the number of slices that got worse."""


def test(
    pipeline: Pipeline,
    release: Release,
    records: Records | None = None,  # noqa: PT028 (a step, no test of pytest)
) -> Record:
    """Run unit and sanity tests; score the release and the champion on the same held-out rows.

    Returns:
        The evidence `test`, `passed` if every test and every gate passed.

    Raises:
        ProjectError: tests or data cannot be read.
        ConfigError: a gate names a metric that does not exist.
    """
    started = pipeline.clock()
    folder = pipeline.bundle(release)
    records = pipeline.read(records)
    outputs.bring_back(pipeline, release, records)
    differs = checkout.differences(pipeline, release, records, SETTINGS)
    champion = None if records.history.champion == release else records.history.champion
    plots = pipeline.state / "plots" / folder.name
    runs, scores = _tests_and_scores(pipeline, folder, champion, plots)
    _check_names(pipeline, scores)
    own = _checks(pipeline, records, release, champion, runs, scores)
    decision = checks.decide([*checkout.warnings(release, differs), *own])
    run = Run(
        release=release,
        metrics=finite(scores.metrics),
        tags={VERDICT: decision.verdict},
        data=data_sets(pipeline, release),
        files={f"plots/{name}": plots / name for name in scores.plots},
    )
    pipeline.store.record(run)
    facts = Tested(
        task=scores.task,
        samples=scores.samples,
        metrics=dict(scores.metrics),
        champion=dict(scores.champion),
        champion_release=str(champion) if champion else None,
        champion_error=scores.champion_error,
        differences={name: Between.of(interval) for name, interval in scores.differences.items()},
        method=scores.method,
        confidence=scores.confidence,
        labels=scores.labels,
        confusion=scores.confusion,
        plots=scores.plots,
        slices=scores.slices,
        shifts=_shifts(records, release, champion) if champion else None,
        tests=tuple(map(SuiteRun.of, runs)),
        differs=differs,
        checks=decision.checks,
        seconds=round((pipeline.clock() - started).total_seconds(), 3),
    )
    known = champion.id if champion else None
    policy = pipeline.policy("test")
    saw = Saw(bundle=release.bundle, data=scores.data, policy=policy, champion=known)
    return pipeline.learn(release, "test", decision.verdict, facts, saw, after=records)


def check_data(pipeline: Pipeline, release: Release) -> None:
    """Refuse to test a release that was named where the data are others than its own.

    Raises:
        IntegrityError: they are.
    """
    if pipeline.trainer.inputs().data != release.data:
        raise IntegrityError(
            f"{release} was trained with other data than {pipeline.config.data.train} holds now",
            hint=f"test it where commit {release.commit[:12]} and its data are checked out",
        )


def _shifts(records: Sequence[Record], release: Release, champion: Release) -> Shifts:
    """Compare the training data of two releases by the profiles that their trainings recorded."""
    before, after = _profile(records, champion), _profile(records, release)
    if before is None or after is None:
        lacking = "the champion's" if before is None else "this release's"
        return Shifts(unknown=f"{lacking} training recorded no profile of its data")
    return shifts.between(before, after, same=release.data == champion.data)


def _profile(records: Sequence[Record], release: Release) -> Profile | None:
    record = latest(records, "train", release)
    return shapes.of(record, Trained).profile if record else None


def _exposed(records: Sequence[Record], release: Release) -> str:
    record = latest(records, "train", release)
    return shapes.of(record, Trained).exposed if record else ""


def _tests_and_scores(
    pipeline: Pipeline, folder: Path, champion: Release | None, plots: Path
) -> tuple[list[TestRun], Scores]:
    """Run the tests while another process scores; they are independent."""
    champion_folder = pipeline.bundle(champion) if champion else None
    plots.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(1) as pool:
        scores = pool.submit(pipeline.trainer.score, folder, champion_folder, plots)
        runs = _tests(pipeline, folder)
        pipeline.progress.note("scoring on held-out data")
        return runs, scores.result()


def _tests(pipeline: Pipeline, folder: Path) -> list[TestRun]:
    runs = []
    suites: tuple[Suite, ...] = ("unit", "sanity")
    for suite in suites:
        pipeline.progress.note(f"{suite} tests")
        run = pipeline.tester.test(suite, bundle=folder, server=None)
        if run is not None:
            runs.append(run)
    return runs


def _check_names(pipeline: Pipeline, scores: Scores) -> None:
    known = [*scores.metrics, SLICES_WORSE]
    for name in pipeline.config.gates.test:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise ConfigError(
                f"mlship.yaml: gates.test.{name}: no such metric for a {scores.task}",
                hint=f"did you mean {near[0]}?" if near else f"use one of {', '.join(known)}",
            )


def _checks(
    pipeline: Pipeline,
    records: Sequence[Record],
    release: Release,
    champion: Release | None,
    runs: Sequence[TestRun],
    scores: Scores,
) -> list[Check]:
    policy = pipeline.config.gates
    baseline = _against_constant(scores) if policy.baseline else []
    none = Check(name="tests", holds=True, text="the project has no tests of its own")
    return [
        *([gates.on_tests(run) for run in runs] or [none]),
        *gates.on_rows(scores.samples, scores.repeated, policy.min_rows),
        *baseline,
        *gates.on_metrics(
            _bounded(scores, champion),
            policy.test,
            champion=scores.champion if champion else None,
        ),
        *([compatibility.check(pipeline, release, champion)] if champion else []),
        *gates.on_exposure(_exposed(records, release)),
    ]


def _against_constant(scores: Scores) -> list[Check]:
    if scores.task in UNSUPERVISED:
        return [gates.on_groups(scores.task, scores.metrics)]
    return [
        gates.on_baseline(scores.metrics, scores.baseline, target)
        for target in scores.targets or ("",)
    ]


def _bounded(scores: Scores, champion: Release | None) -> dict[str, float | str]:
    """Return the values that gates check, without `slices_worse` if no slice could be judged."""
    if champion is None:
        return {**scores.metrics, SLICES_WORSE: 0}
    if scores.slices is None or not scores.slices.judged:
        return scores.metrics
    return {**scores.metrics, SLICES_WORSE: scores.slices.worse}
