"""The search for the highest rate at which a target holds a bound."""

import math
from typing import Final, Protocol

import msgspec

from mlship.domain.load import Holding, LoadResult
from mlship.errors import RefusedError, TimedOutError

PRECISION: Final = 1.02
"""The search ends when a rate that holds and one that does not are this close, as a ratio."""
_LOWEST: Final = 0.1
_LENGTHS: Final = (1, 1, 2, 4)
"""How long the runs at one rate are, while it is undecided, as a multiple of the first one.

Beyond the capacity, latencies grow as long as a run lasts; so a longer one decides.
"""
_MISSES: Final = 2


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """A run of the search.

    Attributes:
        rate: requests a second.
        holding: whether the bound was held.
        p99_ms: of the latencies.
        errors: how many requests failed.
    """

    rate: float
    holding: Holding
    p99_ms: float
    errors: int


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """The highest rate that held the bound, its result, and all runs until it was known."""

    rate: float
    result: LoadResult
    trials: tuple[Trial, ...]


class Run(Protocol):
    """Sends requests at a rate."""

    def __call__(self, rate: float, length: int) -> LoadResult:
        """Return the result of a run of so many times the usual length."""


def find_rate(run: Run, start: float, bound_ms: float) -> Found:
    """Double the rate until the bound is missed, then halve the interval (on a log scale).

    A rate at which the bound is missed is tried again, because a pause of the machine makes one
    run slow, but no machine is fast by accident.

    Args:
        run: sends requests.
        start: the first rate.
        bound_ms: the limit of the p99; no request may fail.

    Raises:
        RefusedError: not even a very low rate holds the bound.
        TimedOutError: the generator was too late to tell at some rate.
    """
    trials: list[Trial] = []
    best: LoadResult | None = None
    low, high, rate = 0.0, math.inf, start
    while math.isinf(high) or not low or high / low > PRECISION:
        result = _decided(run, rate, bound_ms, trials)
        match result.against(bound_ms):
            case "held":
                low, best = rate, result
            case "missed":
                high = rate
            case "undecided":
                raise late(result, low)
        if high <= _LOWEST:
            message = f"no rate from {_LOWEST} to {start:g} requests/s holds a p99 of {bound_ms} ms"
            message += f": at {high:g} it is {result.p99_ms:g} ms, and {result.total.errors} of "
            message += f"{result.total.requests} requests fail"
            raise RefusedError(message, hint="set a higher --p99, or find out why it is slow")
        rate = _next(low, high)
    if best is None:
        raise TypeError(best)
    return Found(rate=low, result=best, trials=tuple(trials))


def _next(low: float, high: float) -> float:
    if math.isinf(high):
        return 2 * low
    return math.sqrt(low * high) if low else high / 4


def late(result: LoadResult, held: float = 0.0) -> TimedOutError:
    """Return the error of a run in which the generator was too late to tell.

    Args:
        result: of the run.
        held: a rate that holds the bound, 0 for none.
    """
    message = f"no verdict: at {result.rate:.4g} requests/s the load generator itself was late, by "
    message += f"{result.late_ms:g} ms (p99), beside a p99 of {result.p99_ms:g} ms"
    if held:
        message += f"; {held:.4g} requests/s hold the bound"
    return TimedOutError(
        message,
        hint="lower --rate, give --processes more, or run it on a machine with free cores",
        facts={"result": msgspec.to_builtins(result), "held_rate": held},
    )


def _decided(run: Run, rate: float, bound_ms: float, trials: list[Trial]) -> LoadResult:
    """Run until the bound is held once or missed twice; else return the last, undecided result."""
    missed: list[LoadResult] = []
    for length in _LENGTHS:
        result = run(rate, length)
        holding, errors = result.against(bound_ms), result.total.errors
        trials.append(Trial(rate=rate, holding=holding, p99_ms=result.p99_ms, errors=errors))
        if holding == "missed":
            missed.append(result)
        if holding == "held" or len(missed) == _MISSES:
            return result
    return result
