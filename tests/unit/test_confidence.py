"""Champion against challenger on outcomes: verdicts, the formulas, and what daily looks cost."""

import math
import random
from collections.abc import Iterable, Iterator
from itertools import accumulate

import pytest

from mlship.domain import outcome_metrics
from mlship.domain.confidence import asymptotic, bernstein, compare
from mlship.domain.outcome_metrics import Metric
from mlship.domain.policy import PromotePolicy


def named(name: str) -> Metric:
    return outcome_metrics.of(PromotePolicy(metric=name))


COST = Metric(name="pipeline:cost", better="lower", range=(-5.0, 20.0))
GAIN = Metric(name="pipeline:gain", better="higher", range=(0.0, 10.0))

BAD, GOOD = [1.0, 0.0] * 300, [1.0] * 600
FAR, NEAR = [4.0, 6.0] * 300, [0.5, 1.5] * 300


@pytest.mark.parametrize(
    ("metric", "champion", "challenger", "margin", "verdict"),
    [
        ("accuracy", BAD, GOOD, 0.0, "passed"),
        ("accuracy", GOOD, BAD, 0.0, "failed"),
        ("accuracy", GOOD, BAD, 0.8, "passed"),
        ("accuracy", GOOD, BAD, 0.5, "undecided"),
        ("accuracy", BAD, BAD, 0.0, "undecided"),
        ("accuracy", BAD, BAD, 0.3, "passed"),
        ("accuracy", GOOD, GOOD, 0.0, "undecided"),
        ("mae", FAR, NEAR, 0.0, "passed"),
        ("mae", NEAR, FAR, 0.0, "failed"),
        ("mae", NEAR, FAR, 5.0, "passed"),
        ("mae", FAR, FAR, 0.0, "undecided"),
        ("mse", FAR, NEAR, 0.0, "passed"),
        ("log_loss", FAR, NEAR, 0.0, "passed"),
        ("pinball[0.9]", NEAR, FAR, 0.0, "failed"),
        ("brier", GOOD, BAD, 0.0, "passed"),
        ("brier", BAD, GOOD, 0.0, "failed"),
    ],
)
@pytest.mark.parametrize("shadowed", [False, True])
def test_verdict_follows_the_interval_the_better_direction_and_the_margin(
    metric: str,
    champion: list[float],
    challenger: list[float],
    margin: float,
    verdict: str,
    shadowed: bool,
) -> None:
    if shadowed:
        # The two are not paired by their order here: shuffled, so that the differences vary.
        challenger = random.Random(3).sample(challenger, len(challenger))
    found = compare(
        champion,
        challenger,
        paired=(champion, challenger) if shadowed else ((), ()),
        metric=named(metric),
        confidence=0.95,
        margin=margin,
        min_labels=100,
    )
    assert (found.verdict, "paired" in found.method) == (verdict, shadowed)
    assert found.champion_n == found.challenger_n == 600


@pytest.mark.parametrize("metric", ["accuracy", "mae", "mse"])
@pytest.mark.parametrize(
    ("champion", "challenger", "reason"),
    [
        ([], [], "no outcomes for the champion"),
        (GOOD, [], "no outcomes for the challenger"),
        (BAD, GOOD[:99], "too few outcomes: 600 for the champion and 99"),
        (BAD[:99], GOOD, "too few outcomes: 99 for the champion"),
        ([*BAD, math.nan], GOOD, "NaN or infinite"),
        (BAD, [*GOOD, math.inf], "NaN or infinite"),
        (BAD, [-math.inf, *GOOD], "NaN or infinite"),
    ],
)
def test_no_data_too_little_and_non_finite_never_pass_or_fail(
    metric: str, champion: list[float], challenger: list[float], reason: str
) -> None:
    found = compare(
        champion, challenger, metric=named(metric), confidence=0.95, margin=1e9, min_labels=100
    )
    assert found.verdict == "undecided"
    assert reason in found.reason


def test_a_nan_among_the_pairs_never_passes() -> None:
    paired = ([*BAD, math.nan], [*GOOD, 1.0])
    found = compare(
        [], [], paired=paired, metric=named("accuracy"), confidence=0.95, margin=0.5, min_labels=1
    )
    assert found.verdict == "undecided"


def test_errors_without_spread_and_a_handful_of_errors_never_pass() -> None:
    for few in ([0.0] * 500, [0.1, 0.2, 0.1]):
        found = compare(
            [9.0, 8.0] * 300, few, metric=named("mae"), confidence=0.95, margin=0.0, min_labels=1
        )
        assert found.verdict == "undecided"


def test_scores_that_overflow_and_scores_outside_the_metric_never_pass() -> None:
    huge = compare(
        [1e308] * 99, NEAR, metric=named("mse"), confidence=0.95, margin=0.0, min_labels=9
    )
    assert huge.verdict == "undecided"
    wrong = compare(
        BAD, [2.0] * 600, metric=named("accuracy"), confidence=0.95, margin=0.0, min_labels=9
    )
    assert (wrong.verdict, wrong.reason) == (
        "undecided",
        "a score for accuracy is not between 0 and 1",
    )


def test_a_challenger_that_got_worse_on_the_way_does_not_pass_on_its_past() -> None:
    found = compare(
        BAD,
        [1.0] * 3000 + [0.0] * 3000,
        metric=named("accuracy"),
        confidence=0.95,
        margin=0.0,
        min_labels=9,
    )
    assert (found.verdict, "drifted" in found.reason) == ("undecided", True)


def test_the_pairs_count_once_they_are_as_many_as_the_smaller_side() -> None:
    few = compare(
        BAD,
        GOOD,
        paired=([1.0] * 5, [0.0] * 5),
        metric=named("accuracy"),
        confidence=0.95,
        margin=0.0,
        min_labels=100,
    )
    assert (few.verdict, few.challenger_n) == ("passed", 600)
    shadow_only = compare(
        BAD,
        [],
        paired=(BAD, GOOD),
        metric=named("accuracy"),
        confidence=0.95,
        margin=0.0,
        min_labels=100,
    )
    assert (shadow_only.verdict, shadow_only.challenger_n) == ("passed", 600)


def test_the_difference_is_challenger_minus_champion_in_the_metric_itself() -> None:
    found = compare(FAR, NEAR, metric=named("mae"), confidence=0.95, margin=0.0, min_labels=100)
    assert (found.champion_mean, found.challenger_mean, found.estimate) == (5.0, 1.0, -4.0)
    assert found.low < -4.0 < found.high < 0


def test_the_bernstein_bounds_of_the_first_scores_are_those_of_the_theorem() -> None:
    # By hand for alpha 0.05: the first bet is cut at 1/2, the prior mean is 1/2, so the reach is
    # (ln 40 + (1 - 1/2)^2 (ln 2 - 1/2)) / (1/2) > 1: one score says nothing.
    assert bernstein([1.0], 0.05) == (0.0, 1.0)
    # All ones: what is left of the reach shrinks with the sum of bets, n/2 while they are cut.
    n = 20
    means = [0.5, *((0.5 + total) / (t + 1) for t, total in enumerate(accumulate([1] * n), 1))]
    cost = sum((1 - mean) ** 2 for mean in means[:n]) * (math.log(2) - 0.5)
    low, high = bernstein([1.0] * n, 0.05)
    assert low == pytest.approx(1 - (math.log(40) + cost) / (n / 2))
    assert high == 1.0


def test_the_bernstein_bounds_mirror() -> None:
    chance = random.Random(5)
    scores = [chance.random() for _ in range(400)]
    low, high = bernstein(scores, 0.05)
    mirrored_low, mirrored_high = bernstein([1 - x for x in scores], 0.05)
    assert [1 - mirrored_high, 1 - mirrored_low] == pytest.approx([low, high])
    assert 0 < low < 0.5 < high < 1


def test_what_was_ruled_out_once_stays_ruled_out() -> None:
    chance = random.Random(5)
    scores = [float(chance.random() < 0.3) for _ in range(300)]
    bounds = [bernstein(scores[:n], 0.05) for n in range(1, 300, 7)]
    lows, highs = zip(*bounds, strict=True)
    assert list(lows) == sorted(lows)
    assert list(highs) == sorted(highs, reverse=True)


def test_the_asymptotic_bounds_are_those_of_the_theorem() -> None:
    # n = 100, deviation 1 around 10, tuned to 100: rho2 = (b + ln(b + 1)) / 100, b = 2 ln 20.
    budget = 2 * math.log(20)
    rho2 = (budget + math.log(budget + 1)) / 100
    reach = math.sqrt(
        2 * (100 * rho2 + 1) / (100**2 * rho2) * math.log(math.sqrt(100 * rho2 + 1) / 0.05)
    )
    low, high = asymptotic([9.0, 11.0] * 50, 0.05, 100)
    assert [low, high] == pytest.approx([10 - reach, 10 + reach])
    # A single look's z interval is narrower: looking again costs something.
    assert reach > 1.96 / math.sqrt(100)


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["accuracy", "mae"])
@pytest.mark.parametrize("shadowed", [False, True])
def test_daily_looks_at_equal_models_raise_no_more_alarms_than_promised(
    metric: str, shadowed: bool
) -> None:
    chance, alarms, z_alarms, rounds = random.Random(11), 0, 0, 60
    for _ in range(rounds):
        arms = [[_draw(metric, chance) for _ in range(600)] for _ in range(2)]
        looks = [[arm[:n] for arm in arms] for n in range(20, 601, 20)]
        alarms += any(_alarm(metric, old, new, shadowed) for old, new in looks)
        z_alarms += any(abs(gap) > reach for gap, reach in _z_looks(arms, range(20, 601, 20)))
    assert alarms / rounds <= 0.05
    # The control: the same looks with a classic interval do raise false alarms.
    assert z_alarms / rounds > 0.15


def _draw(metric: str, chance: random.Random) -> float:
    return float(chance.random() < 0.8) if metric == "accuracy" else chance.expovariate(1)


def _alarm(metric: str, old: list[float], new: list[float], shadowed: bool) -> bool:
    paired = (old, new) if shadowed else ((), ())
    found = compare(
        old, new, paired=paired, metric=named(metric), confidence=0.95, margin=0.0, min_labels=20
    )
    return found.verdict != "undecided"


def _z_looks(arms: list[list[float]], looks: Iterable[int]) -> Iterator[tuple[float, float]]:
    """Return the difference of the first scores' means and a classic interval's reach, by look."""
    sums = [list(accumulate(arm)) for arm in arms]
    squares = [list(accumulate(x * x for x in arm)) for arm in arms]
    for n in looks:
        means = [total[n - 1] / n for total in sums]
        deviations = sum(total[n - 1] for total in squares) - n * sum(mean**2 for mean in means)
        yield means[1] - means[0], 1.96 * math.sqrt(deviations) / n


LEFT, RIGHT = [3.0, 5.0, 1.0] * 200, [4.0, 8.0, 6.0] * 200


@pytest.mark.parametrize("shadowed", [False, True])
def test_a_declared_direction_and_range_decide_the_verdict_and_the_method(shadowed: bool) -> None:
    def found(metric: Metric) -> tuple[str, str]:
        chance = random.Random(3)
        other = chance.sample(RIGHT, len(RIGHT))
        pairs = (LEFT, other) if shadowed else ((), ())
        result = compare(
            LEFT, other, paired=pairs, metric=metric, confidence=0.95, margin=0.0, min_labels=9
        )
        assert result.low < 3.0 < result.high
        return result.verdict, result.method.split(" ")[0]

    assert found(COST) == ("failed", "empirical-Bernstein")
    assert found(GAIN) == ("passed", "empirical-Bernstein")
    assert found(Metric(name="pipeline:gain", better="higher")) == ("passed", "asymptotic")


def test_a_score_outside_the_declared_range_never_passes() -> None:
    found = compare(LEFT, [*RIGHT, 10.1], metric=GAIN, confidence=0.95, margin=0.0, min_labels=9)
    assert (found.verdict, found.reason) == (
        "undecided",
        "a score for pipeline:gain is not between 0 and 10",
    )


@pytest.mark.slow
@pytest.mark.parametrize("shadowed", [False, True])
def test_the_interval_of_a_bounded_metric_covers_the_true_difference_at_all_looks(
    shadowed: bool,
) -> None:
    # Costs of a model that is nearly always right: 0, seldom 20, now and then a gain of 5. The
    # challenger errs less: the true difference is 20 * (0.02 - 0.05) = -0.6.
    chance, rounds, missed, z_missed, found = random.Random(17), 80, 0, 0, 0
    looks = range(20, 801, 20)
    for _ in range(rounds):
        old, new = ([_cost(chance, share) for _ in range(800)] for share in (0.05, 0.02))
        intervals = [_of_costs(old[:n], new[:n], shadowed) for n in looks]
        missed += not all(low <= -0.6 <= high for low, high in intervals)
        found += intervals[-1][1] - intervals[-1][0] < 12
        z_missed += any(abs(gap + 0.6) > reach for gap, reach in _z_looks([old, new], looks))
    assert missed / rounds <= 0.05
    # The controls: the intervals do shrink, and a classic one misses the truth at some look.
    assert found == rounds
    assert z_missed / rounds > 0.15


def _cost(chance: random.Random, share: float) -> float:
    draw = chance.random()
    return 20.0 if draw < share else -5.0 if draw > 0.9 else 0.0


def _of_costs(old: list[float], new: list[float], shadowed: bool) -> tuple[float, float]:
    pairs = (old, new) if shadowed else ((), ())
    result = compare(
        old, new, paired=pairs, metric=COST, confidence=0.95, margin=0.0, min_labels=20
    )
    return result.low, result.high
