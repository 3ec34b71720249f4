"""Gates: pure functions from what is known to a verdict with reasons.

NaN, infinity, no data, stale data and too few samples never pass.
"""

import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Literal

import msgspec

from mlship.domain import digests
from mlship.domain.approvals import approvers
from mlship.domain.evidence import Record, Verdict
from mlship.domain.history import History, latest
from mlship.domain.policy import Bound, PromotePolicy
from mlship.domain.release import Release

Number = float | int | str | None
"""A metric as evidence holds it: a number, or the text of one that is not finite."""


ContainerTest = Literal["asked for", "not asked for", "no image"]
"""Whether the image that production runs must have passed its test in a container."""


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """A verdict and a line of reason for each thing that was looked at."""

    verdict: Verdict
    reasons: tuple[str, ...]


def decide(checks: Sequence[tuple[bool, str]]) -> Decision:
    """Return `passed` when every check holds and there is at least one."""
    held = bool(checks) and all(holds for holds, _ in checks)
    reasons = tuple(f"{'ok' if holds else 'NOT OK'}: {reason}" for holds, reason in checks)
    return Decision(
        verdict="passed" if held else "failed", reasons=reasons or ("nothing to check",)
    )


def on_metrics(
    values: Mapping[str, Number],
    bounds: Mapping[str, Bound],
    *,
    champion: Mapping[str, Number] | None = None,
) -> Sequence[tuple[bool, str]]:
    """Check metrics against their bounds.

    Args:
        values: what was measured.
        bounds: the limits, by metric.
        champion: the champion's metrics on the same data; `None` where there is no champion,
            empty where it could not be measured, which holds for no bound that needs it.
    """
    checks: list[tuple[bool, str]] = []
    for name, bound in bounds.items():
        value = as_float(values.get(name))
        if not math.isfinite(value):
            what = f"is {value}" if name in values else "was not measured"
            checks.append((False, f"{name} {what}"))
            continue
        checks += _absolute(name, value, bound)
        checks += _relative(name, value, bound, champion)
    return checks


def as_float(value: Number) -> float:
    """Return a metric as a number, NaN where it is none."""
    try:
        return float(value) if value is not None else math.nan
    except ValueError:
        return math.nan


def _absolute(name: str, value: float, bound: Bound) -> list[tuple[bool, str]]:
    checks = []
    if bound.min is not None:
        checks.append((value >= bound.min, f"{name} {value:.4g}, needs at least {bound.min:g}"))
    if bound.max is not None:
        checks.append((value <= bound.max, f"{name} {value:.4g}, allowed up to {bound.max:g}"))
    return checks


def _relative(
    name: str, value: float, bound: Bound, champion: Mapping[str, Number] | None
) -> list[tuple[bool, str]]:
    if bound.below_champion is None and bound.above_champion is None:
        return []
    if champion is None:
        return [(True, f"{name} {value:.4g}, no champion to compare with yet")]
    other = as_float(champion.get(name))
    if not math.isfinite(other):
        return [(False, f"{name}: the champion has none on this data")]
    compared = f"{name} {value:.4g}, the champion has {other:.4g}"
    checks = []
    if bound.below_champion is not None:
        floor = other - bound.below_champion
        allowed = f"may be {bound.below_champion:g} below"
        checks.append((_at_least(value, floor), f"{compared} ({allowed})"))
    if bound.above_champion is not None:
        ceiling = other + bound.above_champion
        allowed = f"may be {bound.above_champion:g} above"
        checks.append((_at_least(ceiling, value), f"{compared} ({allowed})"))
    return checks


def _at_least(value: float, floor: float) -> bool:
    """Compare with room for the rounding of one subtraction."""
    return value >= floor or math.isclose(value, floor, rel_tol=1e-9, abs_tol=1e-12)


def for_production(
    release: Release, records: Sequence[Record], container: ContainerTest
) -> Decision:
    """Decide whether a release may run in production at all."""
    return decide([*_proven(release, records), *_contained(release, records, container)])


def for_promotion(
    release: Release,
    records: Sequence[Record],
    history: History,
    policy: PromotePolicy,
    now: datetime,
    container: ContainerTest,
) -> Decision:
    """Decide whether a release may become champion.

    It needs an evaluation against the champion of now that passed, is fresh and has enough
    outcomes, and approvals by distinct people who are not the release's author.
    """
    checks = [*_proven(release, records), *_contained(release, records, container)]
    if history.champion is not None:
        checks += _evaluated(release, records, history.champion, policy, now)
    checks.append(_approved(release, records, policy.approvals))
    return decide(checks)


def _proven(release: Release, records: Sequence[Record]) -> list[tuple[bool, str]]:
    tree = "dirty" if release.dirty else "clean"
    checks = [(not release.dirty, f"commit {release.commit[:12]}, the tree was {tree}")]
    for step in ("test", "verify-staging-workload"):
        record = latest(records, step, release)
        verdict = record.evidence.verdict if record else "never run"
        checks.append((verdict == "passed", f"{step}: {verdict}"))
    return checks


def _contained(
    release: Release, records: Sequence[Record], container: ContainerTest
) -> list[tuple[bool, str]]:
    """Check the pushed image, which production runs: by its very digest it passed the test."""
    if container == "no image":
        return []
    if container == "not asked for":
        return [(True, "test-container: not asked for (gates.container is false)")]
    pushed = latest(records, "push-to-registry", release)
    if pushed is None:
        return [(False, "test-container: no image was pushed")]
    digest = pushed.evidence.saw["image"]
    tested = latest(
        (one for one in records if one.evidence.saw.get("image") == digest),
        "test-container",
        release,
    )
    verdict = tested.evidence.verdict if tested else "never run"
    return [(verdict == "passed", f"test-container of image {digests.short(digest)}: {verdict}")]


def _evaluated(
    release: Release,
    records: Sequence[Record],
    champion: Release,
    policy: PromotePolicy,
    now: datetime,
) -> list[tuple[bool, str]]:
    record = latest(records, "evaluate", release)
    if record is None:
        return [(False, "evaluate: never run")]
    evidence = record.evidence
    age = now - evidence.time
    fresh = timedelta(0) <= age <= timedelta(hours=policy.max_age_hours)
    counts = [as_float(evidence.facts.get(f"{role}_n")) for role in ("champion", "challenger")]
    enough = all(count >= policy.min_labels for count in counts)
    interval = [as_float(evidence.facts.get(name)) for name in ("estimate", "low", "high")]
    same = evidence.saw.get("champion") == champion.id
    return [
        (evidence.verdict == "passed", f"evaluate: {evidence.verdict}"),
        (same, f"evaluated against the champion of now, {champion}"),
        (fresh, f"evaluated {_hours(age)} ago, may be {policy.max_age_hours:g} h"),
        (enough, f"{counts[0]:g} and {counts[1]:g} outcomes, needs {policy.min_labels} for each"),
        (all(map(math.isfinite, interval)), "the difference and its interval are finite"),
    ]


def _hours(age: timedelta) -> str:
    return f"{age.total_seconds() / 3600:.1f} h"


def _approved(release: Release, records: Sequence[Record], needed: int) -> tuple[bool, str]:
    found = approvers(release, records)
    reason = f"{found.count} of {needed} approvals by others than the author"
    if found.names:
        reason += f" ({', '.join(found.names)})"
    if len(found.names) > found.count:
        reason += "; an account and an address may be one person"
    return found.count >= needed, reason
