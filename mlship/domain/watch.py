"""Does the challenger keep failing, or is it slow? The decision of `mlship watch`.

Both bounds are on shares of requests: more than a share of them fails, or more than 1 % of them
take longer than a time, which is the same as a p99 above it. A share of few requests says little,
so the lower end of its interval has to be above the bound.

Sources:
    Wilson, "Probable inference, the law of succession, and statistical inference", Journal of the
    American Statistical Association 22, 1927: the interval of a share.
    Newcombe, "Interval estimation for the difference between independent proportions", Statistics
    in Medicine 17, 1998, method 10: the interval of a difference of shares.
"""

import math
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import msgspec

from mlship.domain.counts import Growth
from mlship.domain.evidence import Verdict
from mlship.domain.facts import Facts, Number
from mlship.domain.policy import ChallengerBounds

QUANTILE: Final = 0.99
LEAST_MS: Final = 10.0
"""A challenger that is slower by less is not slow, however quick the champion is."""
_DEVIATIONS: Final = 3.0
"""The interval of a share misses it on one side once in 740 times."""


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """The requests of one release in the window.

    Attributes:
        failed: by its own replicas.
        elsewhere: requests that another release answered in its place.
        p99_ms: null without requests.
    """

    requests: int = 0
    failed: int = 0
    elsewhere: int = 0
    p99_ms: Number = None

    @classmethod
    def of(cls, growth: Growth) -> "Side":
        """Return the numbers of a period for people and evidence."""
        p99 = growth.quantile(QUANTILE) if growth.timed else None
        return cls(
            requests=growth.requests,
            failed=growth.failed,
            elsewhere=growth.elsewhere,
            p99_ms=p99,
        )


class Watched(Facts, frozen=True):
    """The facts of `watch`.

    Attributes:
        champion: the release that it was compared with.
        share: of the traffic in percent, before the challenger was taken off.
        seconds: the length of the window.
        reason: of the verdict, for people.
    """

    champion: str = ""
    share: int = 0
    seconds: Number = None
    bounds: ChallengerBounds | None = None
    champion_side: Side = Side()
    challenger_side: Side = Side()
    reason: str = ""


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """The decision on a window.

    Attributes:
        verdict: `failed` if the challenger is beyond a bound, `undecided` with too few requests.
        reason: one line for people.
    """

    verdict: Verdict
    reason: str
    champion: Side = Side()
    challenger: Side = Side()


class Period(NamedTuple):
    """What happened between two looks.

    Attributes:
        until: seconds of a clock that nobody sets.
    """

    until: float
    champion: Growth
    challenger: Growth


def recent(periods: Sequence[Period], bounds: ChallengerBounds) -> tuple[Period, ...]:
    """Return the periods of the window: those that end in its seconds before the last one."""
    first = periods[-1].until - bounds.seconds if periods else 0.0
    return tuple(period for period in periods if period.until > first)


def judge(periods: Sequence[Period], bounds: ChallengerBounds, *, alone: bool) -> Judgement:
    """Decide whether the challenger is beyond a bound in a window.

    The period that is worst for the challenger does not count against it: one moment in which a
    node was busy is not a challenger that keeps failing. So there is no decision in one period.

    Args:
        periods: of the window.
        bounds: of the target.
        alone: whether the challenger has all traffic. Then it is compared with a champion that
            fails no request, and its speed with nothing.
    """
    champion = _together([period.champion for period in periods])
    challenger = [period.challenger for period in periods]
    whole = _together(challenger)
    sides = {"champion": Side.of(champion), "challenger": Side.of(whole)}
    reason = _few(champion, whole, bounds, alone=alone)
    if reason:
        return Judgement(verdict="undecided", reason=reason, **sides)
    failing = _failing(champion, _without_worst(challenger, lambda each: each.lost), bounds)
    slow = "" if alone else _slow(champion, challenger, bounds)
    reasons = [text for text in (failing, slow) if text]
    if reasons:
        return Judgement(verdict="failed", reason="; ".join(reasons), **sides)
    return Judgement(verdict="passed", reason=_within(champion, whole), **sides)


def lower(count: int, total: int) -> float:
    """Return the lower end of the interval of a share; 0 if it is a share of nothing."""
    return _ends(count, total)[0]


def _ends(count: int, total: int) -> tuple[float, float]:
    """Return Wilson's interval."""
    if not total:
        return 0.0, 1.0
    share, square = count / total, _DEVIATIONS * _DEVIATIONS
    middle = share + square / (2 * total)
    reach = _DEVIATIONS * math.sqrt(share * (1 - share) / total + square / (4 * total * total))
    whole = 1 + square / total
    return max(0.0, (middle - reach) / whole), min(1.0, (middle + reach) / whole)


def excess(champion: Growth, challenger: Growth) -> float:
    """Return the lower end of how much larger the challenger's share of lost requests is."""
    low = lower(challenger.lost, challenger.requests)
    share = challenger.lost / challenger.requests if challenger.requests else 0.0
    if not champion.requests:
        return low
    usual = champion.lost / champion.requests
    high = _ends(champion.lost, champion.requests)[1]
    return share - usual - math.hypot(share - low, high - usual)


def _failing(champion: Growth, challenger: Growth, bounds: ChallengerBounds) -> str:
    if bounds.errors is None or not excess(champion, challenger) > bounds.errors:
        return ""
    other = f", of the champion's {_lost(champion)}" if champion.requests else ""
    return (
        f"of the challenger's requests, {_lost(challenger)} failed or were answered by another "
        f"release{other}: more than {bounds.errors:.4g} above it"
    )


def _slow(champion: Growth, challenger: Sequence[Growth], bounds: ChallengerBounds) -> str:
    if bounds.slower is None:
        return ""
    usual = champion.quantile(QUANTILE)
    most = max(bounds.slower * usual, usual + LEAST_MS)
    rest = _without_worst(challenger, lambda each: each.slower_than(most))
    slow = rest.slower_than(most)
    if not lower(slow, rest.timed) > 1 - QUANTILE:
        return ""
    return (
        f"{slow} of {rest.timed} requests of the challenger took {most:.4g} ms or more: its p99 is "
        f"{rest.quantile(QUANTILE):.4g} ms, that of the champion {usual:.4g} ms"
    )


def _few(champion: Growth, challenger: Growth, bounds: ChallengerBounds, *, alone: bool) -> str:
    needed = bounds.min_requests
    if challenger.requests >= needed and (alone or champion.requests >= needed):
        return ""
    return (
        f"too few requests: {champion.requests} of the champion and {challenger.requests} of the "
        f"challenger in the last {bounds.seconds:g} s; each needs {needed}"
    )


def _within(champion: Growth, challenger: Growth) -> str:
    times = " and ".join(
        f"{growth.quantile(QUANTILE):.4g} ms" for growth in (challenger, champion) if growth.timed
    )
    return (
        f"{_lost(challenger)} requests of the challenger failed or were answered by another "
        f"release, and {_lost(champion)} of the champion; p99 {times or 'not known'}"
    )


def _lost(growth: Growth) -> str:
    return f"{growth.lost} of {growth.requests}"


def _together(growths: Sequence[Growth]) -> Growth:
    total = Growth()
    for growth in growths:
        total = total.plus(growth)
    return total


def _without_worst(growths: Sequence[Growth], badness: Callable[[Growth], int]) -> Growth:
    """Return all periods but the one with most bad requests."""
    worst = max(range(len(growths)), key=lambda place: badness(growths[place]), default=0)
    return _together([growth for place, growth in enumerate(growths) if place != worst])
