"""Daily looks at two models: false alarms for equal models, and power for a better model.

Our confidence sequences are compared with a 95% z-test repeated each day, on the same outcomes. The
first figure must be at most 5%; the second is the control that a difference can be found.
"""

import argparse
import math
import random
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from mlship.domain import outcome_metrics
from mlship.domain.confidence import compare
from mlship.domain.policy import PromotePolicy

CONFIDENCE = 0.95
Z = 1.959964


class Case(NamedTuple):
    """A metric, how outcomes are paired, and how good champion, equal and better models are."""

    metric: str
    paired: bool
    usual: float
    better: float


CASES = (
    Case("accuracy", paired=False, usual=0.80, better=0.96),
    Case("accuracy", paired=True, usual=0.80, better=0.96),
    Case("mae", paired=False, usual=1.0, better=0.7),
    Case("mae", paired=True, usual=1.0, better=0.7),
)


def main() -> None:
    """Print, for each case, how often each method found a difference on any day."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=int, default=60)
    parser.add_argument("--daily", type=int, default=20, help="outcomes a day for each model")
    parser.add_argument("--rounds", type=int, default=120)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    started = time.perf_counter()
    looks = f"{options.days} daily looks, {options.daily} outcomes per day"
    print(f"{options.rounds} pairs of models, {looks}")
    for case in CASES:
        counts = []
        for quality in (case.usual, case.better):
            chance = random.Random(options.seed)
            rounds = [
                told_apart(case, quality, options.days, options.daily, chance)
                for _ in range(options.rounds)
            ]
            counts.append([sum(one) / options.rounds for one in zip(*rounds, strict=True)])
        (ours, naive), (found, found_naive) = counts
        ratio = f"{naive / max(ours, 1 / options.rounds):.0f} times{' or more' if not ours else ''}"
        print(
            f"{case.metric:9}{'paired' if case.paired else 'split':7} "
            f"false alarms for equal models: mlship {ours:.1%}, z-test {naive:.1%} ({ratio})   "
            f"better model found: mlship {found:.0%}, z-test {found_naive:.0%}"
        )
    print(f"{time.perf_counter() - started:.1f} s")


def told_apart(
    case: Case, quality: float, days: int, daily: int, chance: random.Random
) -> tuple[bool, bool]:
    """Return whether our method, and the z-test, gave a verdict on any day of one round."""
    champion = [_score(case.metric, case.usual, chance) for _ in range(days * daily)]
    challenger = [_score(case.metric, quality, chance) for _ in range(days * daily)]

    def ever(test: Callable[[Case, Sequence[float], Sequence[float]], bool]) -> bool:
        looks = range(daily, days * daily + 1, daily)
        return any(test(case, champion[:n], challenger[:n]) for n in looks)

    return ever(_ours), ever(_z_test)


def _score(metric: str, quality: float, chance: random.Random) -> float:
    if metric == "accuracy":
        return float(chance.random() < quality)
    return abs(chance.gauss(0, quality))


def _ours(case: Case, champion: Sequence[float], challenger: Sequence[float]) -> bool:
    found = compare(
        champion,
        challenger,
        paired=(champion, challenger) if case.paired else ((), ()),
        metric=outcome_metrics.of(PromotePolicy(metric=case.metric)),
        confidence=CONFIDENCE,
        margin=0.0,
        min_labels=20,
    )
    return found.verdict != "undecided"


def _z_test(case: Case, champion: Sequence[float], challenger: Sequence[float]) -> bool:
    if case.paired:
        gaps = [new - old for old, new in zip(champion, challenger, strict=True)]
        variance, gap = _variance(gaps), sum(gaps) / len(gaps)
    else:
        variance = _variance(champion) + _variance(challenger)
        gap = (sum(challenger) - sum(champion)) / len(champion)
    return variance > 0 and abs(gap) > Z * math.sqrt(variance / len(champion))


def _variance(scores: Sequence[float]) -> float:
    mean = sum(scores) / len(scores)
    return sum((x - mean) ** 2 for x in scores) / (len(scores) - 1)


if __name__ == "__main__":
    main()
