"""The decision of watch: what takes a challenger off, and what does not."""

import pytest

from mlship.adapters.targets.envoy import statistics
from mlship.domain.counts import Counts, Growth, Look, Tally, grown
from mlship.domain.deployment import Slot
from mlship.domain.policy import ChallengerBounds
from mlship.domain.watch import Judgement, Period, judge, lower, recent

BOUNDS = ChallengerBounds()
SLOT = Slot("r1")


def growth(requests: int, failed: int = 0, elsewhere: int = 0, **times: int) -> Growth:
    """Return a period; `times` are counts by milliseconds, such as `ms20=3`, by default 5 ms."""
    by_time = {float(name.removeprefix("ms")): count for name, count in times.items()}
    return Growth(
        answered=requests - failed - elsewhere,
        failed=failed,
        elsewhere=elsewhere,
        times=by_time or {5.0: requests},
    )


def judged(
    champion: Growth, *challenger: Growth, bounds: ChallengerBounds = BOUNDS, alone: bool = False
) -> Judgement:
    """Decide on periods of ten seconds, in all of which the champion has the same requests."""
    return judge(looks(champion, *challenger), bounds, alone=alone)


def looks(champion: Growth, *challenger: Growth) -> list[Period]:
    return [
        Period(10.0 * place, 10.0 * place + 10, champion, each)
        for place, each in enumerate(challenger)
    ]


WELL = growth(400)


def test_a_challenger_that_fails_three_in_ten_is_beyond_the_bound() -> None:
    judgement = judged(WELL, *[growth(50, failed=15)] * 3)
    assert judgement.verdict == "failed"
    assert "30 of 100" in judgement.reason
    assert "0 of 1200" in judgement.reason
    assert (judgement.challenger.requests, judgement.challenger.failed) == (150, 45)


def test_requests_that_the_champion_answers_in_its_place_count_like_failures() -> None:
    assert judged(WELL, *[growth(50, elsewhere=50)] * 3).verdict == "failed"


@pytest.mark.parametrize(
    "challenger",
    [growth(50), growth(50, failed=1), growth(500, failed=10)],
    ids=["none", "one of fifty", "as many as the bound"],
)
def test_a_challenger_within_the_bound_keeps_its_traffic(challenger: Growth) -> None:
    assert judged(WELL, *[challenger] * 3).verdict == "passed"


QUICK = growth(400, ms5=400)
GOOD = growth(200, ms5=200)


@pytest.mark.parametrize("bad", [1, 40, 60])
def test_one_bad_moment_does_not_decide(bad: int) -> None:
    """Of 20 requests a second, all of three seconds fail or are slow; the next ones are good."""
    failing = growth(200, failed=bad, ms5=200)
    assert judged(QUICK, GOOD, failing, *[GOOD] * 4).verdict == "passed"
    slow = growth(200, ms5=200 - bad, ms2000=bad)
    assert judged(QUICK, GOOD, slow, *[GOOD] * 4).verdict == "passed"


@pytest.mark.parametrize("place", range(6))
def test_what_is_bad_for_seconds_decides_though_it_is_between_two_looks(place: int) -> None:
    """Workers were down for 8 s: 160 of 1200 requests in the window of a minute."""
    lost = [GOOD] * 6
    lost[place] = growth(200, elsewhere=160, ms5=40)
    judgement = judged(QUICK, *lost)
    assert judgement.verdict == "failed"
    assert "100 of 1140 failed or were answered by another release" in judgement.reason
    slow = [GOOD] * 6
    slow[place] = growth(200, ms5=40, ms2000=160)
    judgement = judged(QUICK, *slow)
    assert judgement.verdict == "failed"
    assert "100 of 1140 requests of the challenger took" in judgement.reason


def test_a_short_look_is_left_out_as_a_whole() -> None:
    periods = [Period(2.0 * place, 2.0 * place + 2, WELL, growth(40)) for place in range(30)]
    bad = Period(60.0, 62.0, WELL, growth(40, failed=40))
    assert judge([*periods, bad], BOUNDS, alone=False).verdict == "passed"
    later = [bad._replace(since=since, until=since + 2) for since in (62.0, 64.0)]
    assert judge([*periods, bad, *later], BOUNDS, alone=False).verdict == "failed"


def test_the_worst_requests_are_those_lost_and_the_slowest() -> None:
    rest = growth(10, failed=2, elsewhere=3, ms5=8, ms900=2).without_worst(0.4)
    assert (rest.failed, rest.elsewhere, rest.answered) == (0, 1, 5)
    assert rest.times == {5.0: 6, 900.0: 0}
    assert growth(10, failed=4).without_worst(1.0).requests == 0
    assert growth(3).without_worst(0.0) == growth(3)


@pytest.mark.parametrize("failed", [0, 1000])
def test_one_period_never_decides(failed: int) -> None:
    assert judged(WELL, growth(1000, failed=failed)).verdict == "undecided"


def test_few_requests_of_either_decide_nothing() -> None:
    few = judged(WELL, *[growth(33, failed=33)] * 4)
    assert few.verdict == "undecided"
    assert "1600 of the champion and 99 of the challenger" in few.reason
    assert judged(growth(33), *[growth(50, failed=50)] * 3).verdict == "undecided"
    assert judged(WELL).verdict == "undecided"


def test_requests_are_enough_without_the_worst_period_too() -> None:
    """One of two requests is no share: the bad moment is what makes the rest look worse."""
    judgement = judged(WELL, growth(150, failed=5), growth(2, failed=1))
    assert judgement.verdict == "undecided"
    assert "2 of the challenger" in judgement.reason
    slow = judged(growth(400, ms5=400), growth(150, ms5=149, ms900=2), growth(150, ms900=1))
    assert slow.verdict == "undecided"
    assert "1 of the challenger" in slow.reason


@pytest.mark.parametrize("share", [0.3, 0.6, 1.0])
def test_a_champion_that_fails_as_much_or_more_takes_nothing_off(share: float) -> None:
    champion = growth(400, failed=int(400 * share))
    assert judged(champion, *[growth(100, failed=30)] * 6).verdict == "passed"


FAST_FAILURES = growth(400, failed=400, ms0=400)
"""Errors of a release that does not compute anything."""


@pytest.mark.parametrize(
    ("champion", "reason"),
    [
        (FAST_FAILURES, "the champion loses more: 2400 of 2400, the challenger 0 of 600"),
        (growth(400, failed=40, ms5=400), "the champion loses more: 240 of 2400"),
    ],
    ids=["all fail at once", "some fail"],
)
def test_a_slow_challenger_is_not_taken_off_in_favour_of_a_champion_that_fails(
    champion: Growth, reason: str
) -> None:
    judgement = judged(champion, *[growth(100, ms90=100)] * 6)
    assert judgement.verdict == "undecided"
    assert "its p99 is 90 ms" in judgement.reason
    assert "keeps its traffic" in judgement.reason
    assert reason in judgement.reason


def test_a_champion_that_loses_a_few_requests_does_not_protect_a_slow_challenger() -> None:
    champion, slow = growth(9000, failed=45, ms5=8955), growth(1000, ms500=1000)
    judgement = judged(champion, *[slow] * 6)
    assert judgement.verdict == "failed"
    assert "its p99 is 500 ms" in judgement.reason
    assert judgement.champion.failed == 270
    strict = ChallengerBounds(errors=0.001)
    assert judged(champion, *[slow] * 6, bounds=strict).verdict == "undecided"
    assert judged(champion, *[slow] * 6, bounds=ChallengerBounds(errors=None)).verdict == (
        "undecided"
    )
    many = growth(9000, failed=450, ms5=8550)
    assert judged(many, *[slow] * 6).verdict == "undecided"


def test_few_failures_of_the_champion_protect_a_challenger_that_fails_itself() -> None:
    """It is beyond the bound in the window; since the last look, the champion loses 0.5 % more."""
    periods = looks(growth(9000), *[growth(1000, failed=100)] * 5)
    last = Period(50.0, 60.0, growth(9000, failed=45), growth(6000))
    judgement = judge([*periods, last], BOUNDS, alone=False)
    assert judgement.verdict == "undecided"
    assert "the champion loses more since the last look: 45 of 9000" in judgement.reason


def test_a_champion_that_has_begun_to_fail_gets_no_more_traffic() -> None:
    bad = growth(100, failed=30)
    periods = looks(WELL, *[bad] * 5)
    assert judge(periods, BOUNDS, alone=False).verdict == "failed"
    judgement = judge([*periods, Period(50.0, 60.0, FAST_FAILURES, bad)], BOUNDS, alone=False)
    assert judgement.verdict == "undecided"
    assert "30 of 100" in judgement.reason
    assert (
        "the champion loses more since the last look: 400 of 400, the challenger 30 of 100"
        in judgement.reason
    )


def test_speed_is_not_compared_with_few_times_of_either() -> None:
    slow, fast = growth(100, ms90=100), growth(100, ms5=100)
    untimed = growth(400, ms0=15)
    for judgement in (judged(untimed, *[slow] * 6), judged(WELL, *[growth(100, ms5=10)] * 6)):
        assert judgement.verdict == "undecided"
        assert "speed is not compared" in judgement.reason
    assert "90 requests of the champion" in judged(untimed, *[slow] * 6).reason
    errors_only = ChallengerBounds(slower=None)
    assert judged(untimed, *[slow] * 6, bounds=errors_only).verdict == "passed"
    assert judged(WELL, *[fast] * 6).verdict == "passed"
    failing = growth(100, failed=90, ms5=10)
    assert judged(untimed, *[failing] * 6).verdict == "failed"


def test_a_tail_that_the_few_requests_of_the_champion_do_not_show_is_not_slow() -> None:
    """Both have 2 % of 500 ms; the champion's 100 requests happen to have one of them."""
    champion = growth(50, ms5=49, ms500=1).plus(growth(50, ms5=50))
    periods = [
        Period(0.0, 10.0, champion, growth(500, ms5=490, ms500=10)),
        Period(10.0, 20.0, Growth(), growth(500, ms5=490, ms500=10)),
        Period(20.0, 30.0, Growth(), growth(500, ms5=490, ms500=10)),
    ]
    assert champion.quantile(0.99) == 5
    assert judge(periods, BOUNDS, alone=False).verdict == "passed"


def test_late_requests_of_a_champion_without_traffic_excuse_nobody() -> None:
    bad = [growth(100, failed=30)] * 3
    late = growth(2, failed=2)
    assert judged(late, *bad, alone=True).verdict == "failed"
    assert "2 of" not in judged(late, *bad, alone=True).reason


def test_a_challenger_with_all_traffic_is_compared_with_no_failures() -> None:
    bad = [growth(100, failed=30, ms900=100)] * 3
    assert judged(Growth(), *bad).verdict == "undecided"
    assert judged(Growth(), *bad, alone=True).verdict == "failed"
    assert judged(Growth(), *[growth(100, ms900=100)] * 3, alone=True).verdict == "passed"


def test_a_slow_challenger_is_beyond_the_bound() -> None:
    judgement = judged(growth(400, ms50=400), *[growth(100, ms50=80, ms120=20)] * 3)
    assert judgement.verdict == "failed"
    assert "40 of 200 requests of the challenger took 100 ms or more" in judgement.reason
    assert judgement.challenger.p99_ms == 120


@pytest.mark.parametrize(
    ("champion", "challenger"),
    [
        (growth(400, ms50=400), growth(100, ms99=100)),
        (growth(400, ms1=400), growth(100, ms10=100)),
        (growth(400, ms50=390, ms300=10), growth(100, ms50=90, ms400=10)),
        (growth(400, ms50=400), growth(100, ms50=99, ms900=1)),
    ],
    ids=["below twice", "10 ms are nothing", "both have a tail", "one in a hundred"],
)
def test_a_challenger_that_is_not_much_slower_keeps_its_traffic(
    champion: Growth, challenger: Growth
) -> None:
    assert judged(champion, *[challenger] * 6).verdict == "passed"


def test_a_bound_that_is_null_decides_nothing() -> None:
    bad = [growth(100, failed=50, ms900=100)] * 3
    quick = growth(400, ms5=400)
    errors_only = ChallengerBounds(slower=None, errors=0.6)
    assert judged(quick, *bad, bounds=errors_only).verdict == "passed"
    assert judged(quick, *bad, bounds=ChallengerBounds(errors=None)).verdict == "failed"
    assert judged(quick, *bad, bounds=ChallengerBounds(errors=None, slower=None)).verdict == (
        "passed"
    )


def test_the_window_has_the_last_seconds() -> None:
    periods = looks(WELL, *[WELL] * 20)
    assert recent(periods, BOUNDS) == tuple(periods[-6:])
    assert recent([], BOUNDS) == ()


def test_the_interval_of_a_share_is_wide_for_few_requests() -> None:
    assert lower(0, 0) == 0
    assert lower(0, 10) == pytest.approx(0)
    assert lower(1, 10) < 0.02 < lower(10, 100) < lower(100, 1000) < 0.1


def look(router: str = "one", **numbers: Tally) -> Look:
    return {router: {SLOT: Counts(own=numbers)}}


def tally(answered: int, failed: int = 0, ended: int = 0) -> Tally:
    return Tally(answered=answered, failed=failed, ended=ended)


def test_requests_between_two_looks_are_the_difference() -> None:
    before, after = look(a=tally(10, 2), b=tally(5)), look(a=tally(30, 5), b=tally(5))
    assert grown(before, after, SLOT) == Growth(answered=20, failed=3)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (look(a=tally(1000, 9)), look("two", a=tally(40, 8)), Growth()),
        ({}, look(a=tally(1000, 900)), Growth()),
        (look(a=tally(1000, 900)), {}, Growth()),
        (look(a=tally(1000, 9)), look(a=tally(40, 9)), Growth(answered=40, failed=9)),
        (look(a=tally(1000, 900), b=tally(3)), look(b=tally(4)), Growth(answered=1)),
        (look(a=tally(3)), look(a=tally(3), b=tally(2, 1)), Growth(answered=2, failed=1)),
        (look(), {"one": {}}, Growth()),
    ],
    ids=[
        "the router was started again",
        "it is new",
        "it is gone",
        "a replica was started again",
        "a replica is gone",
        "a replica is new",
        "the slot is gone",
    ],
)
def test_no_count_is_negative_or_of_another_time(
    before: Look, after: Look, expected: Growth
) -> None:
    assert grown(before, after, SLOT) == expected


@pytest.mark.parametrize(
    ("before", "after", "failed"),
    [
        (tally(10, 2, 12), tally(30, 5, 75), 43),
        (tally(10, 2, 12), tally(30, 5, 35), 3),
        (tally(10, 2, 12), tally(10, 9, 12), 7),
        (tally(10, 2, 12), tally(10, 9, 15), 7),
        (tally(10, 9, 12), tally(10, 9, 19), 7),
        (tally(10, 2, 13), tally(10, 2, 12), 0),
        (tally(900, 9, 909), tally(3, 0, 5), 2),
    ],
    ids=[
        "clients gave up, some answers failed",
        "every request got an answer or failed",
        "connections were refused",
        "clients gave up, and others were refused in the same period",
        "connections were refused before the first look",
        "a request ended while the numbers were read",
        "the replica was started again",
    ],
)
def test_requests_that_clients_gave_up_have_failed(
    before: Tally, after: Tally, failed: int
) -> None:
    assert grown(look(a=before), look(a=after), SLOT).failed == failed


def test_a_challenger_that_hangs_is_beyond_the_bound_though_clients_do_not_wait() -> None:
    """Envoy counts neither an answer nor an error then; clients of the champion give up too."""
    per_look = {"champion": tally(392, 0, 400), "challenger": tally(10, 0, 60)}
    growths = {side: grown(look(a=Tally()), look(a=each), SLOT) for side, each in per_look.items()}
    judgement = judged(growths["champion"], *[growths["challenger"]] * 4)
    assert judgement.verdict == "failed"
    assert "150 of 180" in judgement.reason
    errors_only = ChallengerBounds(slower=None)
    both = judged(growths["champion"], *[growths["champion"]] * 4, bounds=errors_only)
    assert both.verdict == "passed"


def test_times_of_a_slot_that_was_removed_and_is_back_are_all_new() -> None:
    before = {"one": {SLOT: Counts(times={5.0: 100, 900.0: 1})}}
    after = {"one": {SLOT: Counts(times={5.0: 30, 900.0: 50})}}
    assert grown(before, after, SLOT).times == {5.0: 30, 900.0: 50}
    assert grown(before, {"one": {SLOT: Counts(times={7.0: 3})}}, SLOT).times == {7.0: 3}
    assert grown(before, before, SLOT).timed == 0


def test_routers_are_added_up() -> None:
    before = {**look("one", a=tally(1)), **look("two", a=tally(2))}
    after = {**look("one", a=tally(4)), **look("two", a=tally(7)), **look("three", a=tally(99))}
    assert grown(before, after, SLOT) == Growth(answered=8)


ADDRESSES = """{"cluster_statuses": [
 {"name": "r1", "added_via_api": true, "host_statuses": [
  {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 1}}, "weight": 1, "stats": [
   {"name": "cx_total", "value": "3"}, {"name": "rq_error", "value": "4"},
   {"name": "rq_success", "value": "30"}, {"name": "rq_total", "value": "38"},
   {"name": "rq_active", "type": "GAUGE", "value": "3"}]},
  {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 2}}, "priority": 1,
   "stats": [{"name": "rq_error"}, {"name": "rq_success", "value": "7"}]}]},
 {"name": "r1.own", "host_statuses": []},
 {"name": "r2"}]}"""
TIMES = """{"stats": [{"histograms": {"supported_percentiles": [0, 25], "details": [
 {"name": "cluster.r1.upstream_rq_time", "totals": [
  {"lower_bound": 0, "width": 0, "count": 2}, {"lower_bound": 1.2e+02, "width": 10, "count": 5}],
  "intervals": [], "percentiles": []}]}}]}"""


def test_what_envoy_says_is_read() -> None:
    """In the form of version 1.40, which leaves out zeros and the first priority."""
    assert statistics.counts(ADDRESSES, TIMES) == {
        "r1": Counts(
            own={"127.0.0.1:1": tally(30, 4, 35)},
            elsewhere={"127.0.0.1:2": 7},
            times={0: 2, 120: 5},
        ),
        "r2": Counts(),
    }


def test_an_envoy_without_requests_has_no_times() -> None:
    found = statistics.counts('{"cluster_statuses": []}', '{"stats": []}')
    assert found == {}


def test_times_add_up_and_have_quantiles() -> None:
    both = growth(3, ms1=1, ms5=2).plus(growth(1, ms900=1))
    assert both.times == {1: 1, 5: 2, 900: 1}
    assert [both.quantile(share) for share in (0.25, 0.5, 0.75, 0.99)] == [1, 5, 5, 900]
    assert Growth().quantile(0.99) == 0
