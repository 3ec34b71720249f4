"""Does the challenger keep failing, or is it slow? The decision of `mlship watch`.

Both bounds are on shares of requests: more than a share of them fails, or more than 1 % of them
take longer than a time, which is the same as a p99 above it. A share of few requests says little,
so the lower end of its interval has to be above the bound.

The champion gets what the challenger loses. So nothing is decided in favour of a champion that
loses clearly more requests: failures are quick, and would make any model that computes look slow.
Against a slow challenger, it may lose more by the bound of failures: few do not change its speed.

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
MIN_PERIODS: Final = 2
"""With fewer, `judge` decides nothing, because it leaves the worst one out."""
MOMENT_SECONDS: Final = 3.0
"""What is bad for no longer is one bad moment: a worker that ended is back by then."""
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
        verdict: `failed` if the challenger is to be taken off; `undecided` with too few requests,
            or if it is beyond a bound and the champion loses more.
        reason: one line for people.
    """

    verdict: Verdict
    reason: str
    champion: Side = Side()
    challenger: Side = Side()


class Period(NamedTuple):
    """What happened between two looks.

    Attributes:
        since: seconds of a clock that nobody sets.
        until: likewise.
    """

    since: float
    until: float
    champion: Growth
    challenger: Growth


def recent(periods: Sequence[Period], bounds: ChallengerBounds) -> tuple[Period, ...]:
    """Return the periods of the window: those that end in its seconds before the last one."""
    first = periods[-1].until - bounds.seconds if periods else 0.0
    return tuple(period for period in periods if period.until > first)


def judge(periods: Sequence[Period], bounds: ChallengerBounds, *, alone: bool) -> Judgement:
    """Decide whether the challenger is beyond a bound in a window, and the champion no worse.

    One bad moment of the challenger does not count against it: a node that was busy for a second is
    not a challenger that keeps failing. It is beyond a bound in the periods without the worst one,
    or in all of them without `MOMENT_SECONDS` of the worst one. So there is no decision in one
    period, and what is bad for several seconds counts, also between two looks.

    Args:
        periods: of the window.
        bounds: of the target.
        alone: whether the challenger has all traffic. Then it is compared with a champion that
            fails no request, and its speed with nothing.
    """
    champion = Growth() if alone else _together([period.champion for period in periods])
    whole = _together([period.challenger for period in periods])
    rest = _without_worst(periods, lambda each: each.lost)
    verdict: Verdict = "undecided"
    reason = _few(champion, rest[0], bounds, alone=alone)
    if not reason:
        speed = _Speed() if alone else _speed(champion, periods, bounds)
        beyond = "; ".join(filter(None, (_failing(champion, rest, bounds), speed.slow)))
        margin = (bounds.errors or 0.0) if speed.slow else 0.0
        why_not = worse(periods, margin) if beyond and not alone else ""
        if why_not:
            reason = f"{beyond}; the challenger keeps its traffic, because {why_not}"
        elif not beyond and speed.unknown:
            reason = speed.unknown
        else:
            verdict = "failed" if beyond else "passed"
            reason = beyond or _within(champion, whole)
    sides = {"champion": Side.of(champion), "challenger": Side.of(whole)}
    return Judgement(verdict=verdict, reason=reason, **sides)


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


def excess(usual: tuple[int, int], other: tuple[int, int]) -> float:
    """Return the lower end of how much larger the other share is than the usual one.

    Args:
        usual: a count and its total; a share of nothing is 0.
        other: likewise.
    """
    share, low = _share(other), lower(*other)
    if not usual[1]:
        return low
    return share - _share(usual) - math.hypot(share - low, _ends(*usual)[1] - _share(usual))


def _share(part: tuple[int, int]) -> float:
    count, total = part
    return count / total if total else 0.0


def _failing(champion: Growth, rest: Sequence[Growth], bounds: ChallengerBounds) -> str:
    for challenger in rest:
        above = excess((champion.lost, champion.requests), (challenger.lost, challenger.requests))
        if bounds.errors is not None and above > bounds.errors:
            other = f", of the champion's {_lost(champion)}" if champion.requests else ""
            return (
                f"of the challenger's requests, {_lost(challenger)} failed or were answered by "
                f"another release{other}: more than {bounds.errors:.4g} above it"
            )
    return ""


def worse(periods: Sequence[Period], margin: float = 0.0) -> str:
    """Return that the champion loses clearly more, in the window or at its end; else nothing.

    Args:
        periods: of the window.
        margin: the share of its requests by which it may lose more.
    """
    for part, when in ((periods, ""), (periods[-1:], " since the last look")):
        champion = _together([period.champion for period in part])
        challenger = _together([period.challenger for period in part])
        usual = challenger.lost, challenger.requests
        if challenger.requests and excess(usual, (champion.lost, champion.requests)) > margin:
            lost = f"{_lost(champion)}, the challenger {_lost(challenger)}"
            return f"the champion loses more{when}: {lost}"
    return ""


class _Speed(NamedTuple):
    """What is to be said of the challenger's speed: that it is slow, or that this is not known."""

    slow: str = ""
    unknown: str = ""


def _speed(champion: Growth, periods: Sequence[Period], bounds: ChallengerBounds) -> _Speed:
    if bounds.slower is None:
        return _Speed()
    usual = champion.quantile(QUANTILE)
    most = max(bounds.slower * usual, usual + LEAST_MS)
    rest = _without_worst(periods, lambda each: each.slower_than(most))
    needed = bounds.min_requests
    if champion.timed < needed or rest[0].timed < needed:
        return _Speed(
            unknown=f"speed is not compared: the times of {champion.timed} requests of the "
            f"champion and {rest[0].timed} of the challenger are known; each needs {needed}"
        )
    for part in rest:
        slow = part.slower_than(most)
        above = excess((champion.slower_than(most), champion.timed), (slow, part.timed))
        if lower(slow, part.timed) > 1 - QUANTILE and above > 0:
            return _Speed(
                slow=f"{slow} of {part.timed} requests of the challenger took {most:.4g} ms or "
                f"more: its p99 is {part.quantile(QUANTILE):.4g} ms, that of the champion "
                f"{usual:.4g} ms"
            )
    return _Speed()


def _few(champion: Growth, challenger: Growth, bounds: ChallengerBounds, *, alone: bool) -> str:
    needed = bounds.min_requests
    if challenger.requests >= needed and (alone or champion.requests >= needed):
        return ""
    return (
        f"too few requests: {champion.requests} of the champion and {challenger.requests} of the "
        f"challenger in the last {bounds.seconds:g} s, without its worst look; "
        f"each needs {needed}"
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


def _without_worst(
    periods: Sequence[Period], badness: Callable[[Growth], int]
) -> tuple[Growth, Growth]:
    """Return the challenger's requests without those of the period with most bad ones.

    And those without `MOMENT_SECONDS` of that period, in which as many as possible were bad.
    """
    growths = [period.challenger for period in periods]
    worst = max(range(len(growths)), key=lambda place: badness(growths[place]), default=None)
    if worst is None:
        return Growth(), Growth()
    bad, period = growths.pop(worst), periods[worst]
    share = MOMENT_SECONDS / max(MOMENT_SECONDS, period.until - period.since)
    others = _together(growths)
    return others, others.plus(bad.without_worst(share))
