"""Is the challenger better? Confidence sequences: intervals that stay valid at every look.

A classic 95% interval is wrong one time in twenty at ONE look. Somebody who looks daily would find
a difference between two equal models far more often. A confidence sequence covers the true value
at all looks at once, so that a promotion may be decided on any day. Standard library only.

Sources:
    Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", Journal of
    the Royal Statistical Society B 86(1), 2024, theorem 2: bounded scores.
    Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, "Time-uniform central limit theory and
    asymptotic confidence sequences", Annals of Statistics 52(6), 2024, theorem 2.2: the rest.
"""

import math
from array import array
from collections.abc import Iterable, Sequence
from itertools import chain

import msgspec

from mlship.domain.evidence import Verdict
from mlship.domain.outcome_metrics import Metric
from mlship.domain.scores import Interval

# The asymptotic method needs this many scores, even if `min_labels` is smaller.
ASYMPTOTIC_FROM = 30
_TRUNCATION = 0.5
_UNKNOWN = Interval(estimate=math.nan, low=math.nan, high=math.nan)


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """The challenger compared with the champion on outcomes.

    Attributes:
        champion_mean: the champion's metric, NaN without outcomes; likewise `challenger_mean`.
        champion_n: outcomes used; for a paired method, the number of pairs.
        estimate: challenger minus champion, in the metric's unit; `low` and `high` bound it with
            the stated confidence at all past and future looks. NaN if unknown.
        reason: one line for people.
    """

    metric: str
    method: str
    confidence: float
    champion_mean: float
    challenger_mean: float
    champion_n: int
    challenger_n: int
    estimate: float
    low: float
    high: float
    verdict: Verdict
    reason: str


def compare(
    champion: Sequence[float],
    challenger: Sequence[float],
    *,
    paired: tuple[Sequence[float], Sequence[float]] = ((), ()),
    metric: Metric,
    confidence: float,
    margin: float,
    min_labels: int,
) -> Comparison:
    """Decide whether the challenger is at most `margin` worse than the champion.

    `passed`: the whole interval lies above -margin in the metric's better direction. `failed`: the
    whole interval lies below. Otherwise `undecided`, also with fewer than `min_labels` outcomes on
    a side, without data, or with a score that is not finite or outside the metric's range. Bounded
    scores get the empirical-Bernstein method, others the asymptotic one.

    Pairs are used if there are at least as many as outcomes on the smaller side. The error rate of
    each method over all looks is at most 1 - confidence. If the method changes on the way, because
    a challenger was shadowed only for a while, the error rates add up.

    Args:
        champion: scores by the metric, in the order in which the outcomes arrived.
        challenger: likewise for the challenger.
        paired: the champion's and the challenger's scores of predictions that both made (shadow
            traffic), in that order.
        metric: the metric of the scores.
        confidence: confidence level of the interval, between 0 and 1.
        margin: how much worse the challenger may be, in the metric's unit.
        min_labels: outcomes required on each side.
    """
    use_pairs = len(paired[0]) >= max(1, min(len(champion), len(challenger)))
    old, new = paired if use_pairs else (champion, challenger)
    kind = f"{'empirical-Bernstein' if metric.range else 'asymptotic'} confidence sequence"
    problem = _problem(old, new, metric, min_labels)
    interval = _UNKNOWN
    if old and new and all(map(math.isfinite, chain(old, new))):
        interval = _interval(old, new, use_pairs, metric, 1 - confidence, min_labels)
    verdict, reason = _judge(interval, metric, margin, confidence)
    if problem:
        verdict, reason = "undecided", problem
    return Comparison(
        metric=metric.name,
        method=f"{kind} {'of paired differences' if use_pairs else 'of each, union bound'}",
        confidence=confidence,
        champion_mean=_mean(old),
        challenger_mean=_mean(new),
        champion_n=len(old),
        challenger_n=len(new),
        **msgspec.structs.asdict(interval),
        verdict=verdict,
        reason=reason,
    )


def bernstein(scores: Iterable[float], alpha: float) -> tuple[float, float]:
    """Return bounds of the mean of scores in [0, 1] that hold at all lengths at once.

    The predictable plug-in empirical-Bernstein confidence sequence (Waudby-Smith and Ramdas 2024,
    theorem 2) with its running intersection: a value that was ruled out stays ruled out. If the
    bounds cross, no single mean fits because it moved: both are NaN.
    """
    # Plain names, and `if` for max and min, since a million outcomes are usual: a third less time.
    log1p, sqrt, budget = math.log1p, math.sqrt, math.log(2 / alpha)
    low, high = 0.0, 1.0
    mean, variance = 0.5, 0.25
    weights = centre = cost = total = squares = 0.0
    for t, x in enumerate(scores, start=1):
        bet = sqrt(2 * budget / (variance * t * log1p(t)))
        if bet > _TRUNCATION:  # noqa: PLR1730
            bet = _TRUNCATION
        weights += bet
        centre += bet * x
        cost += (x - mean) * (x - mean) * (-log1p(-bet) - bet)
        middle, reach = centre / weights, (budget + cost) / weights
        if middle - reach > low:  # noqa: PLR1730
            low = middle - reach
        if middle + reach < high:  # noqa: PLR1730
            high = middle + reach
        total += x
        mean = (0.5 + total) / (t + 1)
        squares += (x - mean) * (x - mean)
        variance = (0.25 + squares) / (t + 1)
    return (low, high) if low <= high else (math.nan, math.nan)


def asymptotic(scores: Sequence[float], alpha: float, first_look: int) -> tuple[float, float]:
    """Return bounds of the mean of unbounded scores, valid from `first_look` scores on.

    Robbins' normal mixture with the sample's deviation (Waudby-Smith et al. 2024, theorem 2.2).
    Like the central limit theorem, it holds for enough scores. NaN if the scores have no variance.
    """
    n, mean = len(scores), _mean(scores)
    variance = sum((x - mean) * (x - mean) for x in scores) / n
    if not variance > 0:
        return math.nan, math.nan
    budget = -2 * math.log(alpha)
    rho2 = (budget + math.log(budget + 1)) / first_look
    grown = n * rho2 + 1
    reach = math.sqrt(variance * 2 * grown / (n * n * rho2) * math.log(math.sqrt(grown) / alpha))
    return mean - reach, mean + reach


def _interval(
    old: Sequence[float],
    new: Sequence[float],
    use_pairs: bool,  # noqa: FBT001 (private)
    metric: Metric,
    alpha: float,
    min_labels: int,
) -> Interval:
    estimate = _mean(new) - _mean(old)
    first_look = max(min_labels, ASYMPTOTIC_FROM)

    def bounds(scores: Sequence[float], error: float, low: float, width: float) -> list[float]:
        if metric.range is None:
            return list(asymptotic(scores, error, first_look))
        # The theorem needs scores in [0, 1].
        return [
            low + width * bound for bound in bernstein(((x - low) / width for x in scores), error)
        ]

    floor, ceiling = metric.range or (math.nan, math.nan)
    width = ceiling - floor
    if use_pairs:
        # An array, since a million outcomes are usual: 8 bytes each, and no object.
        gaps = array("d", (after - before for before, after in zip(old, new, strict=True)))
        low, high = bounds(gaps, alpha, -width, 2 * width)
        return Interval(estimate=estimate, low=low, high=high)
    old_low, old_high = bounds(old, alpha / 2, floor, width)
    new_low, new_high = bounds(new, alpha / 2, floor, width)
    return Interval(estimate=estimate, low=new_low - old_high, high=new_high - old_low)


def _problem(old: Sequence[float], new: Sequence[float], metric: Metric, min_labels: int) -> str:
    if not old or not new:
        side = "the champion" if not old else "the challenger"
        return f"no outcomes for {side} yet"
    if not all(map(math.isfinite, chain(old, new))):
        if metric.name in ("brier", "log_loss"):
            return "a score is NaN: a prediction has no probabilities that add up to 1"
        return "a score is NaN or infinite: an outcome or a prediction is not a number"
    extremes = (each(map(each, (old, new))) for each in (min, max))
    if not all(map(metric.admits, extremes)):
        low, high = metric.range or (-math.inf, math.inf)
        return f"a score for {metric.name} is not between {low:g} and {high:g}"
    needed = min_labels if metric.range else max(min_labels, ASYMPTOTIC_FROM)
    if min(len(old), len(new)) < needed:
        return (
            f"too few outcomes: {len(old)} for the champion and {len(new)} for the challenger; "
            f"each needs {needed}"
        )
    return ""


def _judge(
    interval: Interval, metric: Metric, margin: float, confidence: float
) -> tuple[Verdict, str]:
    low, high = interval.low, interval.high
    if not all(map(math.isfinite, (interval.estimate, low, high))):
        if metric.range:
            return "undecided", f"no interval fits: the {metric.name} of a model drifted over time"
        return "undecided", "the variance of the scores is zero or too large to compare them"
    gain_low, gain_high = (low, high) if metric.better == "higher" else (-high, -low)
    numbers = (
        f"challenger minus champion in {metric.name} is {interval.estimate:+.4g}, "
        f"{100 * confidence:.4g}% interval {low:+.4g} to {high:+.4g}"
    )
    allowed = f"by more than {margin:.4g}" if margin else "than the champion"
    if gain_low > -margin:
        return "passed", f"{numbers}: {'not worse' if margin else 'better'} {allowed}"
    if gain_high < -margin:
        return "failed", f"{numbers}: worse {allowed}"
    return "undecided", f"{numbers}: too wide to decide whether it is worse {allowed}"


def _mean(scores: Sequence[float]) -> float:
    return sum(scores) / len(scores) if scores else math.nan
