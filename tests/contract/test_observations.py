"""What every implementation of `mlship.domain.ports.Observations` keeps: in folders, in PostgreSQL.

Then what only files can suffer; what only a database can is in test_observations_postgres.py.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from mlship.adapters.observations.directory import DirectoryObservations
from mlship.adapters.observations.postgres import PostgresObservations
from mlship.domain.digests import Digest
from mlship.domain.lines import lines_of
from mlship.domain.ports import Observations
from mlship.domain.prediction import Outcome, Prediction, Taken
from mlship.errors import ConflictError, IntegrityError, UnavailableError
from mlship.runtime.postgres import PostgresRecorder

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
OLD, NEW, FOREIGN = (Digest("sha256:" + digit * 64) for digit in "012")
OURS = frozenset({OLD, NEW})


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


Write = Callable[..., None]
BACKENDS = ("directory", pytest.param("postgres", marks=pytest.mark.service("postgresql")))


@pytest.fixture(params=BACKENDS)
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Observations, Write]:
    """Give observations, and what logs predictions as the replica of a slot does."""
    if request.param == "directory":
        segments = iter(range(100))

        def append(slot: str, *made: Prediction) -> None:
            log(tmp_path / slot / "r0", str(next(segments)), *made)

        return in_folders(tmp_path), append
    url = request.getfixturevalue("postgres_url")

    def write(slot: str, *made: Prediction) -> None:
        recorder = PostgresRecorder(url, slot)
        recorder.append(made).result(10)
        recorder.close()

    return PostgresObservations(url, {}, "iris"), write


@pytest.fixture
def folders(tmp_path: Path) -> DirectoryObservations:
    return in_folders(tmp_path)


@pytest.fixture
def observations(opened: tuple[Observations, Write]) -> Observations:
    return opened[0]


@pytest.fixture
def write(opened: tuple[Observations, Write]) -> Write:
    return opened[1]


def in_folders(folder: Path) -> DirectoryObservations:
    return DirectoryObservations([folder / "champion", folder / "challenger"], folder / "o.jsonl")


def names(observations: Observations) -> list[str]:
    return [found.id for found in observations.predictions(OURS)]


def test_nothing_was_logged_yet(observations: Observations) -> None:
    assert names(observations) == []
    assert observations.find("a.0") == []
    assert observations.outcomes(OURS) == []
    assert observations.take([], OURS) == Taken(new=0, known=0)


def test_logs_are_merged_by_time_and_nothing_of_them_is_lost(
    observations: Observations, write: Write
) -> None:
    values = {"nul": "a\0b", "sign": "é\U0001f600", "big": 1e23, "small": 5e-324, "none": None}
    odd = msgspec.structs.replace(prediction("b", 2), inputs=values, outputs={"yes": True, "n": -7})
    write("champion", prediction("c", 3), prediction("a", 1))
    write("challenger", odd)
    assert names(observations) == ["a", "b", "c"]
    assert list(observations.predictions(OURS))[1] == odd
    assert repr(observations.find("b")[0].inputs) == repr(values)


def test_a_prediction_that_was_logged_twice_counts_once(
    observations: Observations, write: Write
) -> None:
    write("champion", prediction("a"), prediction("a"))
    write("champion", prediction("a"))
    write("challenger", prediction("a", release=NEW))
    assert [found.release for found in observations.predictions(OURS)] == [OLD, NEW]


def test_a_prediction_is_found_before_its_shadow(observations: Observations, write: Write) -> None:
    write("challenger", prediction("a.0", -1, release=NEW), prediction("a.01"))
    write("champion", prediction("a.0"))
    assert [found.shadow for found in observations.find("a.0")] == [False, True]
    assert observations.find("a") == []
    assert observations.find("a.0\0") == []


def test_a_torn_last_line_is_skipped_and_a_changed_one_is_not(
    folders: DirectoryObservations, tmp_path: Path
) -> None:
    path = log(tmp_path / "champion", "1", prediction("a"), prediction("b"))
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    assert names(folders) == ["a"]
    path.write_bytes(b"{}\n" + whole)
    with pytest.raises(IntegrityError, match=r"1\.jsonl:1 is invalid"):
        names(folders)


def test_a_line_that_was_changed_is_named_and_others_are_still_traced(
    folders: DirectoryObservations, tmp_path: Path
) -> None:
    path = tmp_path / "champion" / "1.jsonl"
    path.parent.mkdir()
    lines = [lines_of([prediction(name)]) for name in "abc"]
    path.write_bytes(b"".join(lines))
    assert names(folders) == ["a", "b", "c"]
    path.write_bytes(lines[0] + lines[1].replace(b"1.5", b"1.6") + lines[2])
    with pytest.raises(IntegrityError, match=r"1\.jsonl:2 was changed: .* checksum"):
        names(folders)
    with pytest.raises(IntegrityError, match=r"1\.jsonl:2 was changed"):
        folders.find("b")
    with pytest.raises(IntegrityError, match=r"1\.jsonl:2 was changed"):
        folders.take([outcome("a")], OURS)
    assert [found.id for found in folders.find("c")] == ["c"]
    path.write_bytes(lines[0] + lines[1].replace(b'"id":"b"', b'"id":"x"') + lines[2])
    with pytest.raises(IntegrityError, match=r"1\.jsonl:2 was changed"):
        folders.find("b")


def test_a_segment_that_a_former_version_began_is_read_and_its_checksums_count_from_then_on(
    folders: DirectoryObservations, tmp_path: Path
) -> None:
    path = log(tmp_path / "champion", "1", prediction("a"))
    former = path.read_bytes()
    path.write_bytes(former + lines_of([prediction("b")]))
    assert names(folders) == ["a", "b"]
    path.write_bytes(lines_of([prediction("b")]) + former)
    with pytest.raises(IntegrityError, match=r"1\.jsonl:2 was changed"):
        names(folders)


def test_outcomes_are_for_their_owner_alone(folders: DirectoryObservations, tmp_path: Path) -> None:
    log(tmp_path / "champion", "1", prediction("a"))
    own = DirectoryObservations([tmp_path / "champion"], tmp_path / "outcomes" / "o.jsonl")
    before = os.umask(0)
    try:
        own.take([outcome("a")], OURS)
    finally:
        os.umask(before)
    assert modes(tmp_path / "outcomes") == {".": 0o700, "o.jsonl": 0o600}


def modes(folder: Path) -> dict[str, int]:
    found = [folder, *folder.rglob("*")]
    return {str(path.relative_to(folder)): path.stat().st_mode & 0o777 for path in found}


def test_outcomes_arrive_once_and_in_order(observations: Observations, write: Write) -> None:
    write("champion", *(prediction(name) for name in "abc"))
    assert observations.take([outcome("b"), outcome("a"), outcome("b")], OURS) == Taken(
        new=2, known=1
    )
    assert observations.take([outcome("a"), outcome("c")], OURS) == Taken(new=1, known=1)
    assert [found.prediction for found in observations.outcomes(OURS)] == ["b", "a", "c"]
    assert observations.outcomes(OURS)[0] == outcome("b")


def test_outcomes_of_unknown_predictions_are_reported_and_not_kept(
    observations: Observations, write: Write
) -> None:
    write("champion", prediction("a"))
    taken = observations.take([outcome("x\0"), outcome("a"), outcome("y"), outcome("x\0")], OURS)
    assert taken == Taken(new=1, known=0, unknown=("x\0", "y"))
    assert [found.prediction for found in observations.outcomes(OURS)] == ["a"]


def test_predictions_of_other_projects_are_neither_read_nor_given_outcomes(
    observations: Observations, write: Write
) -> None:
    write("champion", prediction("a"), prediction("c", release=NEW))
    write("champion", prediction("b", release=FOREIGN), prediction("a", release=FOREIGN))
    assert names(observations) == ["a", "c"]
    with pytest.raises(ConflictError, match=r"this project's ledger: b by release 222222222222$"):
        observations.take([outcome("a"), outcome("b")], OURS)
    assert observations.outcomes(OURS) == []
    assert observations.take([outcome("c")], OURS).new == 1
    assert [found.prediction for found in observations.outcomes(OURS)] == ["c"]
    assert observations.outcomes({FOREIGN}) == []
    assert sorted(found.release for found in observations.find("a")) == [OLD, FOREIGN]


def test_a_contradiction_is_named_and_nothing_is_kept(
    observations: Observations, write: Write
) -> None:
    write("champion", *(prediction(name) for name in "abc"))
    observations.take([outcome("a")], OURS)
    with pytest.raises(ConflictError, match=r"already have another outcome: a$"):
        observations.take([outcome("b"), outcome("a", "virginica")], OURS)
    for name in "ca":
        # A correction does not choose one of two either, whichever comes first.
        for corrects in (False, True):
            both = [outcome(name), outcome(name, "virginica")]
            for given in (both, both[::-1]):
                with pytest.raises(ConflictError, match=rf"different outcomes at once: {name}$"):
                    observations.take(given, OURS, corrects=corrects)
    assert [found.prediction for found in observations.outcomes(OURS)] == ["a"]


def test_a_correction_counts_in_the_place_of_what_it_replaces(
    observations: Observations, write: Write
) -> None:
    write("champion", *(prediction(name) for name in "abc"))
    observations.take([outcome("a"), outcome("b")], OURS)
    corrections = [outcome("a", "virginica"), outcome("b"), outcome("c")]
    assert observations.take(corrections, OURS, corrects=True) == Taken(new=2, known=1, corrected=1)
    found = observations.outcomes(OURS)
    assert [(each.prediction, each.value, each.is_corrected) for each in found] == [
        ("a", "virginica", True),
        ("b", "setosa", False),
        ("c", "setosa", False),
    ]
    assert observations.take(corrections, OURS, corrects=True) == Taken(new=0, known=3)
    with pytest.raises(ConflictError, match=r"another outcome: a$") as caught:
        observations.take([outcome("a")], OURS)
    assert "mlship feedback --correct" in caught.value.hint
    assert observations.take([outcome("a")], OURS, corrects=True).corrected == 1
    assert observations.outcomes(OURS)[0].value == "setosa"


def test_a_correction_that_contradicts_itself_is_refused(
    observations: Observations, write: Write
) -> None:
    write("champion", prediction("a"))
    observations.take([outcome("a")], OURS)
    twice = [outcome("a", "virginica"), outcome("a", "versicolor")]
    with pytest.raises(ConflictError, match=r"different outcomes at once: a$"):
        observations.take(twice, OURS, corrects=True)
    assert observations.outcomes(OURS)[0].value == "setosa"


def test_a_check_sees_the_predictions_that_have_an_outcome_and_may_refuse_all(
    observations: Observations, write: Write
) -> None:
    write("champion", *(prediction(name) for name in "abc"), prediction("a", release=NEW))
    write("champion", prediction("a", release=FOREIGN))
    seen: list[tuple[str, str]] = []
    given = [outcome("a"), outcome("b")]
    observations.take(given, OURS, check=lambda each: seen.append((each.id, each.release)))
    assert sorted(seen) == [("a", OLD), ("a", NEW), ("b", OLD)]

    def refuse(each: Prediction) -> None:
        raise IntegrityError(each.id, hint="")

    with pytest.raises(IntegrityError):
        observations.take([outcome("c")], OURS, check=refuse)
    assert [each.prediction for each in observations.outcomes(OURS)] == ["a", "b"]


def test_two_writers_keep_each_outcome_once(observations: Observations, write: Write) -> None:
    everything = [str(number) for number in range(40)]
    write("champion", *map(prediction, everything))

    def take(_: int) -> int:
        return sum(observations.take([outcome(name)], OURS).new for name in everything)

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(take, range(4))) == 40
    assert sorted(found.prediction for found in observations.outcomes(OURS)) == sorted(everything)


def test_a_tail_that_a_killed_writer_left_is_repaired(
    folders: DirectoryObservations, tmp_path: Path
) -> None:
    log(tmp_path / "champion", "1", prediction("a"), prediction("b"))
    folders.take([outcome("a")], OURS)
    with (tmp_path / "o.jsonl").open("ab") as file:
        file.write(b'{"prediction": "b", "val')
    assert [found.prediction for found in folders.outcomes(OURS)] == ["a"]
    assert folders.take([outcome("b")], OURS).new == 1
    assert [found.prediction for found in folders.outcomes(OURS)] == ["a", "b"]


def test_a_full_disk_keeps_nothing_of_the_call(
    folders: DirectoryObservations, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log(tmp_path / "champion", "1", prediction("a"), prediction("b"))
    folders.take([outcome("a")], OURS)
    monkeypatch.setattr(os, "fsync", _full)
    with pytest.raises(UnavailableError, match="cannot write outcomes"):
        folders.take([outcome("b")], OURS)
    monkeypatch.undo()
    assert [found.prediction for found in folders.outcomes(OURS)] == ["a"]
    assert folders.take([outcome("b")], OURS).new == 1


def _full(handle: int) -> None:
    raise OSError(28, "No space left on device")
