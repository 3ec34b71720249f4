"""What every implementation of `mlship.domain.removal.Removals` keeps: in folders, in PostgreSQL.

Then kills at every write, replicas that write meanwhile, and spools.
"""

import os
import subprocess
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mlship import files
from mlship.adapters.observations.directory import DirectoryObservations
from mlship.adapters.observations.postgres import PostgresObservations
from mlship.adapters.observations.postgres_removal import PostgresRemovals
from mlship.adapters.observations.removal import DirectoryRemovals, SpoolRemovals
from mlship.domain.lines import lines_of, spooled
from mlship.domain.ports import Observations
from mlship.domain.prediction import Prediction
from mlship.domain.removal import Condition, Removals, Removed, Selection
from mlship.errors import ConflictError, UnavailableError
from mlship.runtime.postgres import PostgresRecorder, row
from mlship.runtime.record import Recorder
from mlship.runtime.spool import Spools
from tests.contract.test_observations import (
    BACKENDS,
    FOREIGN,
    NEW,
    NOON,
    OLD,
    OURS,
    outcome,
    prediction,
)
from tests.harness.kills import Killed, kill_by_raising
from tests.harness.postgres import programs

ADA, BEN = "ada@example.org", "ben@example.org"
OF_ADA = Selection(where=(Condition(column="email", text=ADA),))


def of(email: str, name: str, minute: int = 0, **more: Any) -> Prediction:
    made = prediction(name, minute, release=more.pop("release", OLD))
    return msgspec.structs.replace(made, inputs={"email": email, "length": 1.5, **more})


class Place:
    """Observations, what removes from them, and what logs predictions there."""

    def __init__(
        self, observations: Observations, removals: Removals, write: Callable[..., None]
    ) -> None:
        self.observations, self.removals, self.write = observations, removals, write

    def ids(self) -> list[str]:
        return [each.id for each in self.observations.predictions(OURS)]

    def outcomes(self) -> list[str]:
        return [each.prediction for each in self.observations.outcomes(OURS)]


def in_folders(folder: Path) -> Place:
    logs, kept = folder / "predictions", folder / "outcomes"
    slots = iter("rstuvw")

    def write(*made: Prediction) -> None:
        recorder = Recorder(logs / "production", next(slots), lambda: NOON)
        recorder.append(made).result(10)
        recorder.close()

    observations = DirectoryObservations([logs / "production"], kept / "production.jsonl")
    return Place(observations, DirectoryRemovals(logs, kept), write)


def in_postgres(url: str) -> Place:
    def write(*made: Prediction) -> None:
        recorder = PostgresRecorder(url, "r0")
        recorder.append(made).result(10)
        recorder.close()

    observations = PostgresObservations(url, {}, "iris")
    return Place(observations, PostgresRemovals(observations, tuple), write)


@pytest.fixture(params=BACKENDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "directory":
        return in_folders(tmp_path)
    return in_postgres(request.getfixturevalue("postgres_url"))


def test_a_person_is_removed_with_outcomes_and_shadows_and_others_stay(place: Place) -> None:
    place.write(of(ADA, "a"), of(BEN, "b"), of(ADA, "c", 1))
    place.write(msgspec.structs.replace(prediction("a", release=NEW), inputs={"length": 1}))
    place.observations.take([outcome("a"), outcome("b")], OURS)
    expected = Removed(predictions={OLD: 2, NEW: 1}, outcomes=1)
    assert place.removals.count(OF_ADA, OURS) == expected
    assert place.ids() == ["a", "a", "b", "c"]
    assert place.removals.remove(OF_ADA, OURS) == expected
    assert (place.ids(), place.outcomes()) == (["b"], ["b"])
    assert place.removals.remove(OF_ADA, OURS) == Removed()
    assert not place.removals.unreached(OURS)


def test_a_file_that_is_rewritten_keeps_its_owner_and_its_mode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By sudo, the replica that writes to it and its owner would be locked out."""
    place = in_folders(tmp_path)
    place.write(of(ADA, "a"), of(BEN, "b"))
    (segment,) = tmp_path.rglob("*.jsonl")
    segment.chmod(0o640)
    owners: list[tuple[int, int]] = []
    monkeypatch.setattr(
        files, "_keep_access", lambda former, _: owners.append((former.st_uid, former.st_gid))
    )
    place.removals.remove(OF_ADA, OURS)
    assert place.ids() == ["b"]
    after = segment.stat()
    assert (owners, after.st_mode & 0o777) == ([(after.st_uid, after.st_gid)], 0o640)


def test_corrections_are_removed_with_their_outcomes(place: Place) -> None:
    place.write(of(ADA, "a"), of(BEN, "b"))
    place.observations.take([outcome("a"), outcome("b")], OURS)
    corrected = [outcome("a", "virginica"), outcome("b", "virginica")]
    place.observations.take(corrected, OURS, corrects=True)
    assert place.removals.remove(OF_ADA, OURS) == Removed(predictions={OLD: 1}, outcomes=1)
    (left,) = place.observations.outcomes(OURS)
    assert (left.prediction, left.value) == ("b", "virginica")


def test_ids_are_removed_also_their_outcomes_without_a_prediction(place: Place) -> None:
    place.write(of(ADA, "a"), of(BEN, "b"))
    place.observations.take([outcome("a"), outcome("b")], OURS)
    selection = Selection(ids=frozenset({"a", "x"}))
    assert place.removals.remove(selection, OURS) == Removed(predictions={OLD: 1}, outcomes=1)
    assert (place.ids(), place.outcomes()) == (["b"], ["b"])


def test_old_predictions_are_removed_and_an_outcome_with_the_last_one(place: Place) -> None:
    place.write(of(ADA, "a"), of(BEN, "b"), of(ADA, "c", 9))
    place.write(prediction("b", 9, release=NEW))
    place.observations.take([outcome("a"), outcome("b"), outcome("c")], OURS)
    selection = Selection(before=NOON + timedelta(minutes=5))
    assert place.removals.remove(selection, OURS) == Removed(predictions={OLD: 2}, outcomes=1)
    assert (place.ids(), sorted(place.outcomes())) == (["b", "c"], ["b", "c"])


@pytest.mark.parametrize(
    ("value", "text", "is_removed"),
    [
        ("7", "7", True),
        (7, "7", True),
        (7.0, "7", True),
        (7.5, "7", False),
        (True, "true", True),
        (True, "1", False),
        (None, "", False),
        ('quote " and é \0', 'quote " and é \0', True),
        ("seven", "Seven", False),
    ],
)
def test_a_value_is_compared_as_its_type(
    place: Place, value: Any, text: str, is_removed: bool
) -> None:
    place.write(of(BEN, "a", value=value), of(BEN, "b"))
    selection = Selection(where=(Condition(column="value", text=text),))
    assert place.removals.remove(selection, OURS).total == is_removed
    assert place.ids() == (["b"] if is_removed else ["a", "b"])


def test_all_conditions_must_hold_also_on_outputs(place: Place) -> None:
    place.write(of(ADA, "a"), of(BEN, "b"))
    setosa = Condition(column="species", text="setosa")
    both = Selection(where=(setosa, Condition(column="email", text=BEN)))
    assert place.removals.remove(both, OURS).total == 1
    assert place.ids() == ["a"]
    assert place.removals.remove(Selection(where=(setosa,)), OURS).total == 1


@pytest.mark.service("postgresql")
def test_nothing_of_another_project_is_removed(postgres_url: str) -> None:
    place = in_postgres(postgres_url)
    place.write(of(ADA, "a"), of(ADA, "a", release=FOREIGN), of(ADA, "f", release=FOREIGN))
    place.observations.take([outcome("a")], OURS)
    other = PostgresObservations(postgres_url, {}, "other")
    other.take([outcome("a"), outcome("f")], {FOREIGN})
    assert place.removals.remove(OF_ADA, OURS) == Removed(predictions={OLD: 1}, outcomes=1)
    assert [each.id for each in other.predictions({FOREIGN})] == ["a", "f"]
    assert [each.prediction for each in other.outcomes({FOREIGN})] == ["a", "f"]


@pytest.mark.service("postgresql")
def test_a_dump_of_the_database_has_nothing_of_a_person(postgres_url: str) -> None:
    place = in_postgres(postgres_url)
    place.write(of(ADA, "a"), of(BEN, "b"))
    place.observations.take([outcome("a"), outcome("b")], OURS)
    place.observations.take([outcome("a", "told by Ada")], OURS, corrects=True)
    folder = programs()
    assert folder is not None

    def dump() -> str:
        argv = [str(folder / "pg_dump"), "--dbname", postgres_url]
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout

    assert ADA in dump()
    place.removals.remove(OF_ADA, OURS)
    after = dump()
    assert ADA not in after
    assert "told by Ada" not in after
    assert BEN in after


def everything(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_no_byte_of_a_person_is_left_in_any_file(tmp_path: Path) -> None:
    place = in_folders(tmp_path)
    place.write(of(ADA, "a"), of(BEN, "b"), of(ADA, "c"))
    place.write(of(ADA, "d"))
    place.write(of(BEN, "e"))
    first, *_, last = sorted((tmp_path / "predictions").rglob("*.jsonl"))
    damaged = lines_of([of(ADA, "x")]).replace(b"1.5", b"1.6")
    with first.open("ab") as file:
        file.write(damaged)
    with last.open("ab") as file:
        file.write(lines_of([of(ADA, "torn")])[:-5])
    assert ADA.encode() in everything(tmp_path)
    removed = place.removals.remove(OF_ADA, OURS)
    assert removed.total == 4
    assert ADA.encode() not in everything(tmp_path)
    assert place.ids() == ["b", "e"]
    assert {path.stat().st_mode & 0o777 for path in tmp_path.rglob("*.jsonl")} == {0o600}


def test_a_replica_that_writes_meanwhile_loses_nothing(tmp_path: Path) -> None:
    place = in_folders(tmp_path)
    recorder = Recorder(tmp_path / "predictions" / "production", "r1", lambda: NOON)
    written: list[str] = []
    for turn in range(20):
        for email in (ADA, BEN):
            name = f"{email[:3]}-{turn:02}"
            pending = recorder.append([of(email, name)])
            written += [name] if email == BEN else []
            if email == BEN:
                place.removals.remove(OF_ADA, OURS)
            pending.result(10)
    recorder.close()
    place.removals.remove(OF_ADA, OURS)
    assert place.ids() == written
    assert ADA.encode() not in everything(tmp_path)


def test_the_segment_of_a_running_replica_of_a_former_version_is_refused(tmp_path: Path) -> None:
    place = in_folders(tmp_path)
    place.write(of(ADA, "a"))
    former = tmp_path / "predictions" / "production" / f"r1-20261121T12-{os.getpid()}-7.jsonl"
    former.write_bytes(msgspec.json.encode(of(ADA, "b")) + b"\n")
    with pytest.raises(ConflictError, match="a replica of a former version"):
        place.removals.remove(OF_ADA, OURS)
    assert place.ids() == ["a", "b"]
    gone = former.with_name("r1-20261121T12-99999999-7.jsonl")
    former.rename(gone)
    assert place.removals.remove(OF_ADA, OURS).total == 2
    assert place.ids() == []


class KillAt:
    """Ends the process, as it were, before the call of that number which changes a file."""

    def __init__(self, number: int) -> None:
        self.left = number

    def patch(self, patch: pytest.MonkeyPatch) -> None:
        for name in ("fsync", "replace", "unlink", "open"):
            patch.setattr(os, name, self._counted(getattr(os, name), is_open=name == "open"))

    def _counted(self, act: Callable[..., Any], *, is_open: bool) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            if not is_open or given[1] & os.O_WRONLY:
                self.left -= 1
                if self.left == 0:
                    kill_by_raising()
            return act(*given, **named)

        return call


def leave(folder: Path) -> None:
    """Give the files that this process would have left, had it been killed, to one that was."""
    for leftover in folder.rglob(".*.tmp"):
        leftover.rename(leftover.with_name(leftover.name.replace(str(os.getpid()), "99999999")))


def test_after_a_kill_at_any_write_the_same_call_removes_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kills = 0
    for number in range(1, 100):
        folder, kill = tmp_path / str(number), KillAt(number)
        place = in_folders(folder)
        place.write(of(ADA, "a"), of(BEN, "b"))
        place.write(of(ADA, "c"))
        place.observations.take([outcome(name) for name in "abc"], OURS)
        with monkeypatch.context() as patch:
            kill.patch(patch)
            with suppress(Killed):
                place.removals.remove(OF_ADA, OURS)
        if kill.left > 0:
            break
        kills += 1
        leave(folder)
        place.removals.remove(OF_ADA, OURS)
        assert (place.ids(), place.outcomes()) == (["b"], ["b"])
        assert ADA.encode() not in everything(folder)
        assert not list(folder.rglob(".*.tmp"))
    assert kills >= 10


def test_a_full_disk_is_named_and_the_files_are_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = in_folders(tmp_path)
    place.write(of(ADA, "a"), of(BEN, "b"))

    def full(path: Path, data: bytes, *, mode: int = 0, keeps_access: bool = False) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(files, "write_atomically", full)
    with pytest.raises(UnavailableError, match="No space left on device"):
        place.removals.remove(OF_ADA, OURS)
    assert place.ids() == ["a", "b"]


def test_spools_that_nobody_holds_are_searched_and_held_ones_only_for_damaged_segments(
    tmp_path: Path,
) -> None:
    spools = Spools(tmp_path / "production", "r0", lambda: NOON, 1_000_000)
    removals = SpoolRemovals(tmp_path)
    spool = spools.own()
    spool.append([row(of(ADA, "a")), row(of(BEN, "b"))])
    damaged = spool.folder / "1.damaged"
    damaged.write_bytes(b"0" + spooled(row(of(ADA, "c"))) + b"0" + spooled(row(of(BEN, "d"))))
    assert removals.free() == set()
    assert removals.remove(OF_ADA, OURS).total == 1
    assert damaged.read_bytes() == b"0" + spooled(row(of(BEN, "d")))
    assert removals.count(OF_ADA, OURS) == Removed()
    spool.release()
    assert removals.free() == {spool.name}
    assert removals.remove(OF_ADA, OURS) == Removed(predictions={OLD: 1})
    assert ADA.encode() not in everything(tmp_path)
    after = spools.own()
    assert [each[0] for each in after.batch()] == ["b"]
    after.release()
