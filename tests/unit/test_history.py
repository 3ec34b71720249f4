from datetime import timedelta

from mlship.domain.evidence import Record, Step
from mlship.domain.history import History, fold, latest, releases
from mlship.domain.release import Release
from tests.harness.samples import record, release

Event = tuple[Release, Step, str]
A, B, C = release("a"), release("b"), release("c")


def story(*events: Event) -> list[Record]:
    return [
        record(about, step, facts={"role": role}, after=timedelta(hours=hour))
        for hour, (about, step, role) in enumerate(events)
    ]


FIRST: Event = (A, "deploy-production", "champion")
SECOND: Event = (B, "deploy-production", "challenger")
PROMOTED: Event = (B, "promote", "")
BACK: Event = (A, "rollback", "")


def after(*events: Event) -> History:
    return fold(story(*events))


def test_the_first_release_is_champion() -> None:
    history = after(FIRST)
    assert (history.champion, history.challenger) == (A, None)


def test_a_promotion_keeps_the_old_champion_warm() -> None:
    history = after(FIRST, SECOND, PROMOTED)
    assert (history.champion, history.challenger, history.former) == (B, None, (A,))
    assert history.role(A) == "former champion"
    assert history.role(A.id) == "former champion"


def test_a_rollback_gives_back_the_crown_and_keeps_the_fallen_as_challenger() -> None:
    history = after(FIRST, SECOND, PROMOTED, BACK)
    assert (history.champion, history.challenger, history.former) == (A, B, ())


def test_a_promotion_after_a_rollback_is_another_transition() -> None:
    once, again = after(FIRST, SECOND), after(FIRST, SECOND, PROMOTED, BACK)
    assert once.last != again.last
    assert after(FIRST, SECOND, PROMOTED, BACK, (B, "promote", "x")).champion == B


def test_who_is_rolled_back_beside_another_challenger_stands_by() -> None:
    history = after(FIRST, SECOND, PROMOTED, (C, "deploy-production", "challenger"), BACK)
    assert (history.champion, history.challenger, history.standby) == (A, C, (B,))


def test_reigns_tell_who_was_champion_when() -> None:
    reigns = after(FIRST, SECOND, PROMOTED, BACK).reigns
    assert [reign.release for reign in reigns] == [A, B, A]
    assert [reign.by for reign in reigns] == ["deploy-production", "promote", "rollback"]
    assert reigns[0].until == reigns[1].since
    assert reigns[-1].until is None


def test_retired_is_gone_until_it_is_deployed_again() -> None:
    gone = after(FIRST, SECOND, (B, "retire", ""))
    assert (gone.challenger, gone.retired) == (None, (B,))
    back = after(FIRST, SECOND, (B, "retire", ""), SECOND)
    assert (back.challenger, back.retired) == (B, ())


def test_a_replaced_challenger_is_retired() -> None:
    history = after(FIRST, SECOND, (C, "deploy-production", "challenger"))
    assert (history.challenger, history.retired) == (C, (B,))


def test_what_did_not_pass_changes_nothing() -> None:
    records = [*story(FIRST), record(B, "promote", "failed", after=timedelta(hours=5))]
    assert fold(records).champion == A


def test_sub_steps_change_no_role() -> None:
    assert after(FIRST, SECOND, (B, "promote/route", "")).champion == A


def test_releases_and_the_latest_record() -> None:
    records = story(FIRST, SECOND, PROMOTED, BACK)
    assert releases(records) == [A, B]
    assert latest(records, "promote") == records[2]
    assert latest(records, "promote", A) is None
