"""Gates: pure functions from evidence to a verdict with reasons.

NaN, infinity, no data, stale data and too few samples never pass.
"""

import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final, Literal

from mlship.domain import digests, shapes
from mlship.domain.approvals import approvers
from mlship.domain.bundle import Task
from mlship.domain.checks import Check, Decision, decide
from mlship.domain.compatibility import Compatibility
from mlship.domain.digests import Digest
from mlship.domain.evidence import Record, Step
from mlship.domain.facts import Checked, Evaluated, Number, Trained
from mlship.domain.history import History, latest
from mlship.domain.people import NOBODY, People
from mlship.domain.policy import Bound, PromotePolicy
from mlship.domain.release import Release
from mlship.domain.scores import TestRun
from mlship.domain.workload import WorkloadResult

COMPATIBLE: Final = "compatible"
"""The name of the check that a release can take a part of the champion's traffic."""

DIFFERS: Final = "passed, but not as in the release's commit"
"""What the check of a step says that ran with other files or settings than its release has."""

CLOCKS: Final = timedelta(hours=1)
"""How far the clocks of two machines may be apart without changing a decision."""

ContainerTest = Literal["asked for", "not asked for", "no image"]
"""Whether the image must have passed the container test before production runs it."""


def on_metrics(
    values: Mapping[str, Number],
    bounds: Mapping[str, Bound],
    *,
    champion: Mapping[str, Number] | None = None,
) -> list[Check]:
    """Check metrics against their bounds.

    Args:
        values: the measured values, by metric.
        bounds: the limits, by metric.
        champion: the champion's metrics on the same data. `None` if there is no champion; empty
            if it could not be scored, which fails every bound that needs it.
    """
    checks: list[Check] = []
    for name, bound in bounds.items():
        value = as_float(values.get(name))
        if not math.isfinite(value):
            problem = f"is {value}" if name in values else "was not measured"
            checks.append(Check(name=name, holds=False, text=f"{name} {problem}"))
            continue
        checks += _absolute(name, value, bound)
        checks += _relative(name, value, bound, champion)
    return checks


def on_rows(samples: int, repeated: int, minimum: int) -> list[Check]:
    """Check that enough rows were held out, and not all of them from the training data."""
    text = f"{samples} held-out rows, needs at least {minimum}"
    enough = Check(name="samples", holds=samples >= minimum, text=text)
    if not repeated:
        return [enough]
    text = f"{repeated} of {samples} held-out rows are in the training data too"
    return [enough, Check(name="held out", holds=repeated < samples, text=text)]


def on_exposure(exposed: str) -> list[Check]:
    """Warn of held-out rows that the model may have been trained on, which nothing proves."""
    return [Check(name="held out", holds=True, text=exposed, warns=True)] if exposed else []


def on_baseline(
    values: Mapping[str, Number], baseline: Mapping[str, Number], target: str = ""
) -> Check:
    """Check that a model is better than a constant answer by one of the metrics of its kind.

    A classifier of rare classes may be right less often than the most frequent class would be; its
    probabilities, or else its scores by class, must be better then.

    Args:
        values: the measured values, by metric.
        baseline: those of the constant answer.
        target: the one of several targets to look at, whose metrics are `NAME[TARGET]`.
    """
    if target:
        values, baseline = (
            {
                name.removesuffix(f"[{target}]"): value
                for name, value in metrics.items()
                if name.endswith(f"[{target}]")
            }
            for metrics in (values, baseline)
        )
    names = ["mae", "mse"] if "mse" in baseline else ["accuracy", "log_loss"]
    if "pinball" in baseline:
        names = ["pinball"]
    elif "log_loss" not in values and "mse" not in baseline:
        names = ["accuracy", "f1_macro"]
    pairs = {name: (as_float(values.get(name)), as_float(baseline.get(name))) for name in names}
    better = [
        name
        for name, (own, constant) in pairs.items()
        if (own > constant if name in ("accuracy", "f1_macro") else own < constant)
    ]
    compared = ", ".join(
        f"{name} {own:.4g} ({constant:.4g})" for name, (own, constant) in pairs.items()
    )
    text = f"against a constant answer{f' for {target}' if target else ''}: {compared}"
    return Check(name="baseline", holds=bool(better), text=text)


def on_groups(task: Task, values: Mapping[str, Number]) -> Check:
    """Check that a model without a target tells held-out rows apart at all.

    A clustering must use several clusters, and a detector must take fewer than half of the rows
    for anomalies.
    """
    if task == "anomaly":
        share = as_float(values.get("anomalies"))
        text = f"{100 * share:.4g}% of the held-out rows are anomalies, needs less than half"
        return Check(name="anomalies", holds=share < 0.5, text=text)
    clusters = as_float(values.get("clusters"))
    text = f"{clusters:g} clusters among the held-out rows, needs at least 2"
    return Check(name="clusters", holds=clusters >= 2, text=text)


def on_champion(champion: Release, found: Compatibility, *, required: bool) -> Check:
    """Check that a release can take a part of the champion's traffic.

    Args:
        champion: of production.
        found: how the release differs from it.
        required: whether a challenger must accept the champion's requests and give its outputs.
            Another problem is never accepted: nothing could be evaluated.
    """
    if found.unrelated:
        text = f"another problem than champion {champion}: {found.unrelated}"
        return Check(name=COMPATIBLE, holds=False, text=text)
    if found.broken:
        text = f"requests for champion {champion} would fail: {'; '.join(found.broken)}"
        text += " (gates.compatible is false)" if not required else ""
        return Check(name=COMPATIBLE, holds=not required, text=text)
    text = f"requests for champion {champion} are valid"
    if found.partial:
        text += f", except {', '.join(found.partial)}"
    return Check(name=COMPATIBLE, holds=True, text=text)


def on_tests(run: TestRun) -> Check:
    """Check a suite of the project's tests: at least one passed, and none failed."""
    text = f"{run.suite} tests: {run.passed} passed, {run.failed} failed"
    text += f", {run.skipped} skipped" if run.skipped else ""
    text += f", {run.deselected} deselected" if run.deselected else ""
    holds = run.failed == 0 and run.passed > 0
    return Check(name=f"{run.suite} tests", holds=holds, text=text)


def on_requests(result: WorkloadResult, release: Release, what: str) -> list[Check]:
    """Check that requests were replayed (`what`, for people), and that this release responded."""
    answered = f"answered by {', '.join(result.releases) or 'no release'}"
    return [
        Check(name="requests", holds=result.requests > 0, text=f"{result.requests} {what}"),
        Check(name="release", holds=result.releases == (str(release),), text=answered),
    ]


def as_float(value: Number) -> float:
    """Return a metric as a number; NaN if it is not a number."""
    try:
        return float(value) if value is not None else math.nan
    except ValueError:
        return math.nan


def _absolute(name: str, value: float, bound: Bound) -> list[Check]:
    checks = []
    if bound.min is not None:
        text = f"{name} {value:.4g}, needs at least {bound.min:g}"
        checks.append(Check(name=name, holds=value >= bound.min, text=text))
    if bound.max is not None:
        text = f"{name} {value:.4g}, allowed up to {bound.max:g}"
        checks.append(Check(name=name, holds=value <= bound.max, text=text))
    return checks


def _relative(
    name: str, value: float, bound: Bound, champion: Mapping[str, Number] | None
) -> list[Check]:
    if bound.below_champion is None and bound.above_champion is None:
        return []
    if champion is None:
        text = f"{name} {value:.4g}, no champion yet to compare with"
        return [Check(name=name, holds=True, text=text)]
    reference = as_float(champion.get(name))
    if not math.isfinite(reference):
        text = f"{name}: the champion has no value on this data"
        return [Check(name=name, holds=False, text=text)]
    compared = f"{name} {value:.4g}, the champion has {reference:.4g}"
    checks = []
    if bound.below_champion is not None:
        holds = _at_least(value, reference - bound.below_champion)
        text = f"{compared} (may be {bound.below_champion:g} below)"
        checks.append(Check(name=name, holds=holds, text=text))
    if bound.above_champion is not None:
        holds = _at_least(reference + bound.above_champion, value)
        text = f"{compared} (may be {bound.above_champion:g} above)"
        checks.append(Check(name=name, holds=holds, text=text))
    return checks


def _at_least(value: float, floor: float) -> bool:
    """Return whether a value is at least `floor`, up to the rounding error of a subtraction."""
    return value >= floor or math.isclose(value, floor, rel_tol=1e-9, abs_tol=1e-12)


def for_production(
    release: Release,
    records: Sequence[Record],
    container: ContainerTest,
    compatible: Sequence[Check] = (),
) -> Decision:
    """Decide whether a release may run in production, beside the champion if there is one."""
    proven = _proven(release, records)
    return decide([*proven, *_contained(release, records, container), *compatible])


def for_promotion(
    release: Release,
    records: Sequence[Record],
    history: History,
    policy: PromotePolicy,
    now: datetime,
    container: ContainerTest,
    people: People = NOBODY,
) -> Decision:
    """Decide whether a release may become champion.

    It needs an evaluation against the current champion that passed, is recent and has enough
    outcomes, and approvals by different people other than the release's author. Where no
    outcomes are compared, it needs the approvals alone, of which there must be one at least.
    """
    checks = [*_proven(release, records), *_contained(release, records, container)]
    if policy.metric == "none":
        text = "evaluate: nothing was compared (gates.promote.metric is none), approvals decide"
        checks.append(Check(name="evaluate", holds=policy.approvals > 0, text=text))
    elif history.champion is not None:
        checks += _evaluated(release, records, history.champion, policy, now)
    checks.append(_approved(release, records, policy.approvals, people))
    return decide(checks)


def digest_of_comparison(policy: PromotePolicy) -> Digest:
    """Return the digest of what an evaluation depends on; one on other terms does not count."""
    terms = policy.metric, policy.better, policy.range, policy.min_labels
    return digests.of_value([*terms, policy.confidence, policy.margin])


def _proven(release: Release, records: Sequence[Record]) -> list[Check]:
    text = f"commit {release.commit[:12]}, no uncommitted changes"
    if release.dirty:
        trained = latest(records, "train", release)
        names = shapes.of(trained, Trained).uncommitted if trained else ""
        text = f"commit {release.commit[:12]} with uncommitted changes" + f": {names}" * bool(names)
    return [
        Check(name="commit", holds=not release.dirty, text=text),
        on_step("train", latest(records, "train", release)),
        on_step("test", latest(records, "test", release)),
        on_step("verify-staging-workload", latest(records, "verify-staging-workload", release)),
    ]


def on_step(step: Step, record: Record | None, detail: str = "") -> Check:
    """Check that a step passed, with the files and the settings of its release's commit."""
    verdict = record.evidence.verdict if record else "never run"
    facts = shapes.read(record) if record else None
    if verdict == "passed" and isinstance(facts, Checked) and facts.differs:
        text = f"{step}{detail}: {DIFFERS}: {facts.differs}"
        return Check(name=step, holds=False, text=text)
    return Check(name=step, holds=verdict == "passed", text=f"{step}{detail}: {verdict}")


def _contained(
    release: Release, records: Sequence[Record], container: ContainerTest
) -> list[Check]:
    """Check that the pushed image, which production runs, passed the container test."""
    if container == "no image":
        return []
    if container == "not asked for":
        text = "test-container: not required (gates.container is false)"
        return [Check(name="test-container", holds=True, text=text)]
    pushed = latest(records, "push-to-registry", release)
    digest = pushed.evidence.saw.image if pushed else None
    if digest is None:
        text = "test-container: no image was pushed"
        return [Check(name="push-to-registry", holds=False, text=text)]
    of_image = (record for record in records if record.evidence.saw.image == digest)
    test = latest(of_image, "test-container", release)
    return [on_step("test-container", test, f" of image {digests.short(digest)}")]


def _evaluated(
    release: Release,
    records: Sequence[Record],
    champion: Release,
    policy: PromotePolicy,
    now: datetime,
) -> list[Check]:
    record = latest(records, "evaluate", release)
    if record is None:
        return [on_step("evaluate", record)]
    facts = shapes.of(record, Evaluated)
    age = now - record.evidence.time
    counts = as_float(facts.champion_n), as_float(facts.challenger_n)
    interval = as_float(facts.estimate), as_float(facts.low), as_float(facts.high)
    return [
        on_step("evaluate", record),
        Check(
            name="evaluated champion",
            holds=record.evidence.saw.champion == champion.id,
            text=f"evaluated against the current champion, {champion}",
        ),
        Check(
            name="conditions of the evaluation",
            # Records of older versions do not have them.
            holds=record.evidence.saw.policy in (None, digest_of_comparison(policy)),
            text=f"evaluated by {policy.metric} and on the terms of gates.promote as they are now",
        ),
        Check(
            name="age of the evaluation",
            holds=-CLOCKS <= age <= timedelta(hours=policy.max_age_hours) + CLOCKS,
            text=_aged(age, policy.max_age_hours),
        ),
        Check(
            name="outcomes",
            holds=all(count >= policy.min_labels for count in counts),
            text=f"{counts[0]:g} and {counts[1]:g} outcomes, needs {policy.min_labels} for each",
        ),
        Check(
            name="interval",
            holds=all(map(math.isfinite, interval)),
            text="the difference and its interval are finite",
        ),
    ]


def _aged(age: timedelta, most: float) -> str:
    hours = age.total_seconds() / 3600
    if age < -CLOCKS:
        return f"evaluated {-hours:.1f} h from now: the clock of that machine or of this one is off"
    return f"evaluated {max(hours, 0.0):.1f} h ago, allowed up to {most:g} h"


def _approved(release: Release, records: Sequence[Record], needed: int, people: People) -> Check:
    found = approvers(release, records, people)
    text = f"{found.count} of {needed} approvals by people other than the author"
    if found.names:
        text += f": {', '.join(found.names)}"
    if len(found.names) > found.count:
        text += "; an account and an email address may be the same person"
    return Check(name="approvals", holds=found.count >= needed, text=text)
