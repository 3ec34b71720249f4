import math
from collections.abc import Mapping
from datetime import timedelta

import pytest

from mlship.domain import checks, digests, gates
from mlship.domain.digests import Digest
from mlship.domain.evidence import Record, Saw, Verdict
from mlship.domain.facts import Number
from mlship.domain.gates import ContainerTest
from mlship.domain.history import fold
from mlship.domain.policy import Bound, PromotePolicy
from mlship.domain.release import Release
from tests.harness.samples import NOON, record, release

OLD, NEW = release("old"), release("new")


def verdict(value: Number, bound: Bound, champion: Mapping[str, Number] | None = None) -> str:
    values = {} if value is None else {"accuracy": value}
    return checks.decide(gates.on_metrics(values, {"accuracy": bound}, champion=champion)).verdict


@pytest.mark.parametrize(
    ("value", "bound", "expected"),
    [
        (0.9, Bound(min=0.9), "passed"),
        (0.89, Bound(min=0.9), "failed"),
        (0.2, Bound(max=0.2), "passed"),
        (0.21, Bound(max=0.2), "failed"),
        (math.nan, Bound(min=0.0), "failed"),
        (math.nan, Bound(max=1.0), "failed"),
        (math.inf, Bound(min=0.0), "failed"),
        (-math.inf, Bound(max=1.0), "failed"),
        ("nan", Bound(min=0.0), "failed"),
        ("inf", Bound(min=0.0), "failed"),
        ("a lot", Bound(min=0.0), "failed"),
        (None, Bound(min=0.0), "failed"),
        (math.nan, Bound(), "failed"),
    ],
)
def test_a_metric_passes_only_as_a_finite_number_within_bounds(
    value: Number, bound: Bound, expected: str
) -> None:
    assert verdict(value, bound) == expected


@pytest.mark.parametrize(
    ("value", "bound", "champion", "expected"),
    [
        (0.88, Bound(below_champion=0.02), 0.9, "passed"),
        (0.87, Bound(below_champion=0.02), 0.9, "failed"),
        (0.95, Bound(below_champion=0.0), 0.9, "passed"),
        (0.95, Bound(below_champion=0.0), math.nan, "failed"),
        (0.95, Bound(below_champion=0.0), None, "failed"),
        (1.1, Bound(above_champion=0.1), 1.0, "passed"),
        (1.2, Bound(above_champion=0.1), 1.0, "failed"),
    ],
)
def test_a_metric_is_held_against_the_champions(
    value: float, bound: Bound, champion: Number, expected: str
) -> None:
    measured = {} if champion is None else {"accuracy": champion}
    assert verdict(value, bound, measured) == expected


def test_the_first_release_has_no_champion_to_beat() -> None:
    assert verdict(0.5, Bound(below_champion=0.0), None) == "passed"


def test_nothing_to_check_does_not_pass() -> None:
    assert checks.decide([]).verdict == "failed"


def commit_by(author: str) -> dict[str, object]:
    return {"sha": "a" * 40, "dirty": False, "branch": "", "author": author, "subject": ""}


def proven(about: Release, *, after: timedelta = timedelta(0)) -> list[Record]:
    return [
        record(about, "train", facts={"commit": commit_by("ada@example.org")}, after=after),
        record(about, "test", after=after),
        record(about, "verify-staging-workload", after=after),
    ]


@pytest.mark.parametrize(
    ("missing", "expected"),
    [(None, "passed"), ("test", "failed"), ("verify-staging-workload", "failed")],
)
def test_production_takes_what_was_tested_and_verified(missing: str | None, expected: str) -> None:
    records = [one for one in proven(NEW) if one.evidence.step != missing]
    assert gates.for_production(NEW, records, "no image").verdict == expected


def test_a_later_failure_withdraws_an_earlier_pass() -> None:
    records = [*proven(NEW), record(NEW, "test", "failed", after=timedelta(hours=1))]
    assert gates.for_production(NEW, records, "no image").verdict == "failed"


def test_a_dirty_tree_stays_out_of_production() -> None:
    dirty = release("dirty", dirty=True)
    decision = gates.for_production(dirty, proven(dirty), "no image")
    assert decision.verdict == "failed"
    assert "with uncommitted changes" in checks.line(decision.checks[0])


ONE, OTHER = digests.of_bytes(b"one image"), digests.of_bytes(b"another image")
PUSHED = record(NEW, "push-to-registry", saw=Saw(image=ONE))


def contained(verdict: Verdict = "passed", image: Digest = ONE) -> Record:
    return record(NEW, "test-container", verdict, saw=Saw(image=image))


@pytest.mark.parametrize(
    ("more", "expected", "reason"),
    [
        ([contained(), PUSHED], "passed", "ok: test-container of image"),
        ([contained("failed"), contained(), PUSHED], "passed", "passed"),
        ([contained(image=ONE), contained("failed", OTHER), PUSHED], "passed", "passed"),
        ([PUSHED], "failed", "never run"),
        ([contained(image=OTHER), PUSHED], "failed", "never run"),
        ([contained(), contained("failed"), PUSHED], "failed", "failed"),
        ([contained()], "failed", "no image was pushed"),
    ],
)
def test_an_image_needs_its_own_test_in_a_container(
    more: list[Record], expected: str, reason: str
) -> None:
    decision = gates.for_production(NEW, [*proven(NEW), *more], "asked for")
    assert decision.verdict == expected
    assert reason in checks.line(decision.checks[-1])


def test_a_container_test_that_is_not_asked_for_is_named() -> None:
    decision = gates.for_production(NEW, proven(NEW), "not asked for")
    assert decision.verdict == "passed"
    assert "gates.container is false" in checks.line(decision.checks[-1])


def test_a_promotion_asks_for_the_container_test_too() -> None:
    given = evaluation(), GRACE, LIN
    assert promotion(*given, PUSHED, container="asked for").verdict == "failed"
    assert promotion(*given, PUSHED, contained(), container="asked for").verdict == "passed"


def evaluation(**changes: object) -> Record:
    facts = {
        "champion_n": 300,
        "challenger_n": 300,
        "estimate": 0.1,
        "low": 0.05,
        "high": 0.15,
    } | {
        name: value
        for name, value in changes.items()
        if name not in ("verdict", "champion", "after")
    }
    champion = changes.get("champion", OLD.id)
    saw = Saw(champion=champion, challenger=NEW.id)  # type: ignore[arg-type]
    return record(
        NEW,
        "evaluate",
        changes.get("verdict", "passed"),  # type: ignore[arg-type]
        facts,
        saw=saw,
        after=changes.get("after", timedelta(hours=3)),  # type: ignore[arg-type]
    )


def promotion(
    *more: Record, now: timedelta = timedelta(hours=4), container: ContainerTest = "no image"
) -> checks.Decision:
    records = [
        *proven(OLD),
        record(OLD, "deploy-production", facts={"role": "champion"}),
        *proven(NEW, after=timedelta(hours=1)),
        record(NEW, "deploy-production", facts={"role": "challenger"}, after=timedelta(hours=2)),
        *more,
    ]
    policy = PromotePolicy(min_labels=200, approvals=2, max_age_hours=24)
    return gates.for_promotion(NEW, records, fold(records), policy, NOON + now, container)


def approval(by: str, about: Release = NEW) -> Record:
    return record(about, "approve", facts={"by": by}, after=timedelta(hours=3))


GRACE, LIN = approval("grace@example.org"), approval("lin@example.org")


def test_a_fresh_pass_and_two_other_people_make_a_promotion() -> None:
    assert promotion(evaluation(), GRACE, LIN).verdict == "passed"


@pytest.mark.parametrize(
    "changes",
    [
        {"verdict": "undecided"},
        {"verdict": "failed"},
        {"champion_n": 199},
        {"challenger_n": 199},
        {"challenger_n": "nan"},
        {"estimate": "nan"},
        {"low": "-inf"},
        {"champion": release("older").id},
        {"after": timedelta(hours=-21, minutes=-1)},
        {"after": timedelta(hours=5, minutes=1)},
    ],
    ids=str,
)
def test_an_evaluation_must_be_passed_fresh_big_enough_and_about_this_champion(
    changes: dict[str, object],
) -> None:
    assert promotion(evaluation(**changes), GRACE, LIN).verdict == "failed"


@pytest.mark.parametrize("hours", [-1, 0, 1])
@pytest.mark.parametrize("age", [0, 24])
def test_an_evaluation_counts_though_its_machines_clock_is_an_hour_off(
    age: int, hours: int
) -> None:
    """The promotion is four hours after noon, by a clock that is right."""
    evaluated = evaluation(after=timedelta(hours=4 - age + hours))
    assert promotion(evaluated, GRACE, LIN).verdict == "passed"


@pytest.mark.parametrize("hours", [-1, 1])
def test_approvals_and_withdrawals_are_in_the_order_of_the_ledger_not_of_clocks(hours: int) -> None:
    withdrawn = record(
        NEW,
        "withdraw-approval",
        facts={"by": "grace@example.org"},
        after=timedelta(hours=3 + hours),
    )
    assert promotion(evaluation(), GRACE, LIN, withdrawn).verdict == "failed"
    assert promotion(evaluation(), withdrawn, GRACE, LIN).verdict == "passed"


def test_without_an_evaluation_nothing_is_promoted() -> None:
    assert promotion(GRACE, LIN).verdict == "failed"


@pytest.mark.parametrize(
    "approvals",
    [
        [],
        [GRACE],
        [GRACE, approval("grace@example.org")],
        [GRACE, approval(" Grace@Example.org ")],
        [GRACE, approval("ada@example.org")],
        [GRACE, approval("ADA@example.org")],
        [GRACE, approval("lin@example.org", about=OLD)],
        [GRACE, approval("  ")],
        [GRACE, approval("grace")],
        [approval("grace"), approval("7+Grace@users.noreply.github.com")],
        [GRACE, record(NEW, "withdraw-approval", facts={"by": "grace@example.org"}), LIN],
        [GRACE, LIN, record(NEW, "withdraw-approval", facts={"by": " LIN@example.org"})],
    ],
)
def test_approvals_count_distinct_people_other_than_the_author_on_this_release(
    approvals: list[Record],
) -> None:
    assert promotion(evaluation(), *approvals).verdict == "failed"


def test_who_approves_again_after_a_withdrawal_counts() -> None:
    withdrawn = record(NEW, "withdraw-approval", facts={"by": "grace@example.org"})
    given = [GRACE, LIN, withdrawn]
    assert promotion(evaluation(), *given).verdict == "failed"
    assert promotion(evaluation(), *given, GRACE).verdict == "passed"


def test_two_accounts_are_two_people_and_an_address_beside_them_is_no_third() -> None:
    people = [approval("grace"), approval("lin"), approval("grace@example.org")]
    reason = checks.line(promotion(evaluation(), *people).checks[-1])
    assert reason.startswith("ok: 2 of 2 approvals")
    assert "an account and an email address may be the same person" in reason


def test_the_author_cannot_approve_by_the_account_behind_a_hidden_address() -> None:
    hidden = record(NEW, "train", facts={"commit": commit_by("7+Lin@users.noreply.github.com")})
    approved = [hidden, approval("grace"), approval("lin")]
    assert promotion(evaluation(), *approved).verdict == "failed"
    assert promotion(evaluation(), *approved, approval("max")).verdict == "passed"


@pytest.mark.parametrize(
    ("values", "baseline", "expected"),
    [
        ({"accuracy": 0.0, "log_loss": 9.0}, {"accuracy": 0.5, "log_loss": 0.7}, False),
        ({"accuracy": 0.5, "log_loss": 0.7}, {"accuracy": 0.5, "log_loss": 0.7}, False),
        ({"accuracy": 0.6, "log_loss": 0.9}, {"accuracy": 0.5, "log_loss": 0.7}, True),
        ({"accuracy": 0.98, "log_loss": 0.05}, {"accuracy": 0.99, "log_loss": 0.06}, True),
        ({"accuracy": 0.98, "f1_macro": 0.8}, {"accuracy": 0.99, "f1_macro": 0.5}, True),
        ({"mse": 9.0, "mae": 3.0}, {"mse": 4.0, "mae": 2.0}, False),
        ({"mse": 3.0, "mae": 3.0}, {"mse": 4.0, "mae": 2.0}, True),
        ({"mse": "nan", "mae": "nan"}, {"mse": 4.0, "mae": 2.0}, False),
        ({"accuracy": 1.0}, {}, False),
    ],
)
def test_a_model_must_beat_a_constant_answer(
    values: Mapping[str, Number], baseline: Mapping[str, Number], expected: bool
) -> None:
    assert gates.on_baseline(values, baseline).holds is expected


def test_held_out_rows_must_be_enough_and_not_all_known() -> None:
    assert checks.decide(gates.on_rows(9, 0, 10)).verdict == "failed"
    assert checks.decide(gates.on_rows(10, 0, 10)).verdict == "passed"
    some = gates.on_rows(10, 3, 10)
    assert checks.decide(some).verdict == "passed"
    assert "3 of 10 held-out rows are in the training data too" in some[1].text
    assert checks.decide(gates.on_rows(10, 10, 10)).verdict == "failed"
