"""What every implementation of `mlship.ports.Observations` keeps; here, the one in folders."""

import os
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from mlship.digests import Digest
from mlship.errors import ConflictError, IntegrityError, UnavailableError
from mlship.observations.directory import DirectoryObservations
from mlship.ports import Observations
from mlship.prediction import Outcome, Prediction, Taken

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
OLD, NEW = Digest("sha256:" + "0" * 64), Digest("sha256:" + "1" * 64)


def prediction(name: str, minute: int = 0, *, release: Digest = OLD) -> Prediction:
    return Prediction(
        id=name,
        release=release,
        slot="r0",
        time=NOON + timedelta(minutes=minute),
        inputs={"length": 1.5},
        outputs={"species": "setosa"},
        latency_ms=0.5,
        shadow=release == NEW,
    )


def outcome(name: str, value: str = "setosa") -> Outcome:
    return Outcome(prediction=name, value=value, time=NOON)


def log(folder: Path, segment: str, *predictions: Prediction) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{segment}.jsonl"
    path.write_bytes(b"".join(msgspec.json.encode(one) + b"\n" for one in predictions))
    return path


@pytest.fixture
def observations(tmp_path: Path) -> Observations:
    logs = [tmp_path / "champion", tmp_path / "challenger"]
    return DirectoryObservations(logs, tmp_path / "outcomes.jsonl")


def names(observations: Observations) -> list[str]:
    return [found.id for found in observations.predictions()]


def test_nothing_was_logged_yet(observations: Observations) -> None:
    assert names(observations) == []
    assert observations.find("a.0") == []
    assert observations.outcomes() == []
    assert observations.take([]) == Taken(new=0, known=0)


def test_segments_are_merged_by_time(observations: Observations, tmp_path: Path) -> None:
    log(tmp_path / "champion" / "r0", "2", prediction("c", 3), prediction("a", 1))
    log(tmp_path / "challenger", "1", prediction("b", 2))
    assert names(observations) == ["a", "b", "c"]


def test_a_prediction_that_was_logged_twice_counts_once(
    observations: Observations, tmp_path: Path
) -> None:
    log(tmp_path / "champion", "1", prediction("a"), prediction("a"))
    log(tmp_path / "challenger", "1", prediction("a", release=NEW))
    assert [found.release for found in observations.predictions()] == [OLD, NEW]


def test_a_prediction_is_found_before_its_shadow(
    observations: Observations, tmp_path: Path
) -> None:
    log(tmp_path / "challenger", "1", prediction("a.0", -1, release=NEW), prediction("a.01"))
    log(tmp_path / "champion", "1", prediction("a.0"))
    assert [found.shadow for found in observations.find("a.0")] == [False, True]
    assert observations.find("a") == []


def test_a_torn_last_line_is_skipped_and_a_changed_one_is_not(
    observations: Observations, tmp_path: Path
) -> None:
    path = log(tmp_path / "champion", "1", prediction("a"), prediction("b"))
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    assert names(observations) == ["a"]
    path.write_bytes(b"{}\n" + whole)
    with pytest.raises(IntegrityError, match=r"1\.jsonl:1 was changed"):
        names(observations)


def test_outcomes_arrive_once_and_in_order(observations: Observations, tmp_path: Path) -> None:
    log(tmp_path / "champion", "1", *(prediction(name) for name in "abc"))
    assert observations.take([outcome("b"), outcome("a"), outcome("b")]) == Taken(new=2, known=1)
    assert observations.take([outcome("a"), outcome("c")]) == Taken(new=1, known=1)
    assert [found.prediction for found in observations.outcomes()] == ["b", "a", "c"]


def test_outcomes_of_unknown_predictions_are_reported_and_not_kept(
    observations: Observations, tmp_path: Path
) -> None:
    log(tmp_path / "champion", "1", prediction("a"))
    taken = observations.take([outcome("x"), outcome("a"), outcome("x")])
    assert taken == Taken(new=1, known=0, unknown=("x",))
    assert [found.prediction for found in observations.outcomes()] == ["a"]


def test_a_contradiction_is_named_and_nothing_is_kept(
    observations: Observations, tmp_path: Path
) -> None:
    log(tmp_path / "champion", "1", *(prediction(name) for name in "abc"))
    observations.take([outcome("a")])
    with pytest.raises(ConflictError, match=r"another outcome already: a$"):
        observations.take([outcome("b"), outcome("a", "virginica")])
    with pytest.raises(ConflictError, match=r"already: c$"):
        observations.take([outcome("c"), outcome("c", "virginica")])
    assert [found.prediction for found in observations.outcomes()] == ["a"]


def test_two_writers_keep_each_outcome_once(observations: Observations, tmp_path: Path) -> None:
    everything = [str(number) for number in range(40)]
    log(tmp_path / "champion", "1", *map(prediction, everything))

    def take(_: int) -> int:
        return sum(observations.take([outcome(name)]).new for name in everything)

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(take, range(4))) == 40
    assert sorted(found.prediction for found in observations.outcomes()) == sorted(everything)


def test_a_tail_that_a_killed_writer_left_is_repaired(
    observations: Observations, tmp_path: Path
) -> None:
    log(tmp_path / "champion", "1", prediction("a"), prediction("b"))
    observations.take([outcome("a")])
    with (tmp_path / "outcomes.jsonl").open("ab") as file:
        file.write(b'{"prediction": "b", "val')
    assert [found.prediction for found in observations.outcomes()] == ["a"]
    assert observations.take([outcome("b")]).new == 1
    assert [found.prediction for found in observations.outcomes()] == ["a", "b"]


def test_a_full_disk_keeps_nothing_of_the_call(
    observations: Observations, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log(tmp_path / "champion", "1", prediction("a"), prediction("b"))
    observations.take([outcome("a")])
    monkeypatch.setattr(os, "fsync", _full)
    with pytest.raises(UnavailableError, match="cannot be written"):
        observations.take([outcome("b")])
    monkeypatch.undo()
    assert [found.prediction for found in observations.outcomes()] == ["a"]
    assert observations.take([outcome("b")]).new == 1


def _full(handle: int) -> None:
    raise OSError(28, "No space left on device")
