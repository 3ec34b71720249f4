"""The comparison of two releases on outcomes, in words, for all formats."""

from mlship.domain.facts import Evaluated, Number
from mlship.reports.formatting import MISSING, interval, number, percent, signed, whole


def header(evaluated: Evaluated) -> list[str]:
    """Return the names of the columns of `rows`."""
    return [evaluated.metric, "mean", "outcomes"]


def rows(evaluated: Evaluated, champion: str, challenger: str) -> list[list[str]]:
    """Return the mean and the number of outcomes of both; no rows without any outcome.

    Args:
        evaluated: the comparison.
        champion: how to name the champion.
        challenger: how to name the challenger.
    """
    sides = (
        (champion, evaluated.champion_mean, evaluated.champion_n),
        (challenger, evaluated.challenger_mean, evaluated.challenger_n),
    )
    if not any(count for _, _, count in sides):
        return []
    return [[name, _mean(mean, count), whole(count)] for name, mean, count in sides]


def sentence(evaluated: Evaluated) -> str:
    """Return the difference with its interval; empty if it is not known."""
    if not (evaluated.champion_n and evaluated.challenger_n):
        return ""
    within = f"{percent(evaluated.confidence)} interval {interval(evaluated.low, evaluated.high)}"
    return f"Difference {signed(evaluated.estimate)}, {within}, valid at any time"


def _mean(mean: Number, count: Number) -> str:
    return number(mean) if count else MISSING
