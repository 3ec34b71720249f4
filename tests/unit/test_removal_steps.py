"""erase and prune: what they remove, what they record of it, and after a kill anywhere."""

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from mlship.config.backends import ObservationsConfig
from mlship.domain import shapes
from mlship.domain.digests import Digest
from mlship.domain.evidence import Record, encode
from mlship.domain.prediction import Outcome, Prediction, Spool
from mlship.domain.release import Release
from mlship.domain.removal import Condition, Erased, Selection
from mlship.errors import ConfigError, NotFoundError, RefusedError
from mlship.steps.deploy import deploy_production
from mlship.steps.diagnosis import Warned
from mlship.steps.doctor_backends import observations
from mlship.steps.evaluate import evaluate
from mlship.steps.removal import erase, prune, unfinished
from tests.fakes.ports import CONFIG, World, world
from tests.harness.kills import SIDES, Killed, Side, Watch, watched
from tests.unit.test_resume import challenger, proven

ADA = "person@example.org"
OF_ADA = Selection(where=(Condition(column="email", text=ADA),))


@pytest.fixture
def here(tmp_path: Path) -> World:
    return world(tmp_path)


def logged(here: World, release: Release, *names: str, email: str = ADA, days: float = 0) -> None:
    time = here.clock() - timedelta(days=days)
    for name in names:
        here.observations.made.append(
            Prediction(
                id=name,
                release=release.id,
                slot="r0",
                time=time,
                inputs={"email": email},
                outputs={"species": "setosa"},
                latency_ms=1.0,
            )
        )
        here.observations.taken.append(Outcome(prediction=name, value="setosa", time=time))


def duel(here: World) -> tuple[Release, Release]:
    challenger(here)(here.pipeline)
    history = here.pipeline.read().history
    assert history.champion is not None
    assert history.challenger is not None
    return history.champion, history.challenger


def erasures(here: World) -> list[Record]:
    return [record for record in here.ledger.records() if record.evidence.step == "erase"]


def names(here: World) -> tuple[list[str], list[str]]:
    kept = here.observations
    return [each.id for each in kept.made], [each.prediction for each in kept.taken]


def test_an_erasure_is_recorded_with_numbers_and_no_value(here: World) -> None:
    first, second = duel(here)
    logged(here, first, "a", "b")
    logged(here, second, "c")
    logged(here, first, "d", email="ben@example.org")
    result = erase(here.pipeline, OF_ADA)
    assert result.predictions == {str(first): 2, str(second): 1}
    assert (result.outcomes, names(here)) == (3, (["d"], ["d"]))
    begun, ended = erasures(here)
    assert [begun.evidence.verdict, ended.evidence.verdict] == ["undecided", "passed"]
    assert shapes.of(ended, Erased) == shapes.of(begun, Erased)
    assert ended.evidence.actor == "ada"
    stored = b"".join(encode(record.evidence) for record in here.ledger.records())
    assert ADA.encode() not in stored
    assert b"email" not in stored


def test_an_erasure_of_nothing_leaves_no_record(here: World) -> None:
    first, _ = duel(here)
    logged(here, first, "a")
    assert erase(here.pipeline, Selection(ids=frozenset({"x"}))).record is None
    erase(here.pipeline, OF_ADA)
    assert erase(here.pipeline, OF_ADA).record is None
    assert len(erasures(here)) == 2


def test_a_dry_run_counts_and_changes_nothing(here: World) -> None:
    first, _ = duel(here)
    logged(here, first, "a")
    result = erase(here.pipeline, OF_ADA, dry_run=True)
    assert (result.predictions, result.outcomes) == ({str(first): 1}, 1)
    assert (names(here), erasures(here)) == ((["a"], ["a"]), [])


def test_without_a_release_there_is_nothing_to_record_an_erasure_under(here: World) -> None:
    here.observations.taken.append(Outcome(prediction="a", value=1, time=here.clock()))
    with pytest.raises(NotFoundError, match="the ledger has no release"):
        erase(here.pipeline, Selection(ids=frozenset({"a"})))


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("number", [1, 2, 3])
def test_after_a_kill_the_same_command_ends_as_if_nothing_had_happened(
    here: World, side: Side, number: int
) -> None:
    first, _ = duel(here)
    logged(here, first, "a", "b")
    watch = Watch(point=(side, number))
    with pytest.raises(Killed):
        erase(watched(here.pipeline, watch), OF_ADA)
    assert watch.calls == ["ledger.append erase", "removals.remove", "ledger.append erase"][:number]
    erase(here.pipeline, OF_ADA)
    assert names(here) == ([], [])
    begun, ended = erasures(here)
    assert shapes.of(ended, Erased).predictions == {first.id: 2}
    assert shapes.of(ended, Erased) == shapes.of(begun, Erased)
    assert not unfinished(here.ledger.records())


def test_an_erasure_that_broke_off_is_gone_on_with_by_the_same_selection_only(here: World) -> None:
    first, _ = duel(here)
    logged(here, first, "a")
    logged(here, first, "b", email="ben@example.org")
    here.removals.broken = Killed()
    with pytest.raises(Killed):
        erase(here.pipeline, OF_ADA)
    here.removals.broken = None
    warning = observations(here.pipeline)
    assert isinstance(warning, Warned)
    assert "an erasure by ada at 2026-03-01 12:" in warning.detail
    erase(here.pipeline, Selection(where=(Condition(column="email", text="ben@example.org"),)))
    assert len(unfinished(here.ledger.records())) == 1
    erase(here.pipeline, OF_ADA)
    assert not unfinished(here.ledger.records())
    assert len(erasures(here)) == 4


def test_an_evaluation_says_how_many_of_its_predictions_were_erased(here: World) -> None:
    first, second = duel(here)
    logged(here, first, "a")
    logged(here, second, "b", "c")
    logged(here, first, "d", email="ben@example.org")
    erase(here.pipeline, OF_ADA)
    facts = evaluate(here.pipeline).evidence.facts
    assert (facts["erased"], facts["champion_n"], facts["challenger_n"]) == (3, 1, 0)
    assert "3 predictions were erased and do not count" in facts["reason"]


def spool(release: Digest, rows: int, silent_seconds: float = 1) -> Spool:
    return Spool(
        name="r0-1",
        slot="r0",
        release=release,
        rows=rows,
        since=None,
        silent_seconds=silent_seconds,
    )


def test_predictions_on_their_way_are_waited_for(
    here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = duel(here)
    logged(here, first, "a")
    left: list[Sequence[Spool]] = [[spool(first.id, 2)], [spool(first.id, 1)], []]
    monkeypatch.setattr(here.removals, "unreached", lambda _: left.pop(0))
    waited: list[float] = []
    assert erase(here.pipeline, OF_ADA, sleep=waited.append).record is not None
    assert waited == [1.0, 1.0]


@pytest.mark.parametrize(
    ("rows", "silent", "says"),
    [(2, 1.0, "2 predictions are still on their way"), (0, 60.0, "has not reported for 60 s")],
)
def test_predictions_that_may_still_arrive_stop_an_erasure_before_anything_is_removed(
    here: World, rows: int, silent: float, says: str
) -> None:
    first, _ = duel(here)
    logged(here, first, "a")
    here.observations.spooled = [spool(first.id, rows, silent)]
    with pytest.raises(RefusedError, match=says):
        erase(here.pipeline, OF_ADA, sleep=lambda _: None)
    assert (names(here), erasures(here)) == ((["a"], ["a"]), [])


def keeping(tmp_path: Path, days: int | None) -> World:
    settings = ObservationsConfig(keep_days=days)
    return world(tmp_path, msgspec.structs.replace(CONFIG, observations=settings))


def test_what_is_too_old_is_pruned_and_recorded(tmp_path: Path) -> None:
    here = keeping(tmp_path, 30)
    first = proven(here, "C=1")
    deploy_production(here.pipeline, first)
    logged(here, first, "old", days=31)
    logged(here, first, "new", days=29)
    assert prune(here.pipeline, dry_run=True).record is None
    assert names(here)[0] == ["old", "new"]
    result = prune(here.pipeline)
    assert (result.predictions, result.outcomes) == ({str(first): 1}, 1)
    assert names(here) == (["new"], ["new"])
    assert result.record is not None
    assert result.record.evidence.facts["predictions"] == {first.id: 1}
    assert prune(here.pipeline).record is None


def test_what_the_running_evaluation_counts_is_not_pruned(tmp_path: Path) -> None:
    here = keeping(tmp_path, 1)
    first, _ = duel(here)
    logged(here, first, "before", days=1)
    logged(here, first, "counts")
    here.clock.now += timedelta(days=40)
    prune(here.pipeline)
    assert names(here)[0] == ["counts"]


def test_without_keep_days_nothing_is_pruned(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="predictions are kept for ever"):
        prune(keeping(tmp_path, None).pipeline)
