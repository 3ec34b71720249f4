import errno
import fcntl
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from mlship.domain.columns import PIECE_ROWS, Columns
from mlship.domain.digests import Digest
from mlship.domain.predicted import Predicted
from mlship.domain.prediction import Prediction
from mlship.errors import UnavailableError
from mlship.runtime import postgres
from mlship.runtime.record import Recorder

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


def prediction(name: str) -> Prediction:
    return Prediction(
        id=name,
        release=Digest("sha256:" + "0" * 64),
        slot="r0",
        time=NOON,
        inputs={"length": 1.5},
        outputs={"species": "setosa"},
        latency_ms=0.5,
    )


def logged(folder: Path) -> list[str]:
    decoder = msgspec.json.Decoder(Prediction)
    return [
        decoder.decode(line).id
        for path in sorted(folder.glob("*.jsonl"))
        for line in path.read_bytes().splitlines()
    ]


def test_a_prediction_is_in_the_file_when_its_append_is_done(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "new" / "log", "r0", lambda: NOON)
    recorder.append([prediction("a.0"), prediction("a.1")]).result(5)
    assert logged(tmp_path / "new" / "log") == ["a.0", "a.1"]
    recorder.close()
    name = next((tmp_path / "new" / "log").iterdir()).name
    assert name == f"r0-20261121T120000000000-{os.getpid()}-0.jsonl"


def test_requests_that_come_together_are_synced_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    syncs = []
    gate = threading.Event()
    original = os.fdatasync

    def slow(handle: int) -> None:
        gate.wait(5)
        syncs.append(handle)
        original(handle)

    monkeypatch.setattr(os, "fdatasync", slow)
    recorder = Recorder(tmp_path, "r0", lambda: NOON)
    first = recorder.append([prediction("first")])
    while recorder._commit._pending:  # the thread has taken the first
        threading.Event().wait(0.001)
    rest = [recorder.append([prediction(str(number))]) for number in range(50)]
    gate.set()
    for written in (first, *rest):
        written.result(5)
    recorder.close()
    assert len(syncs) == 2
    assert len(logged(tmp_path)) == 51


def test_many_threads_lose_nothing(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, "r0", lambda: NOON)

    def one(number: int) -> None:
        recorder.append([prediction(str(number))]).result(5)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, range(400)))
    recorder.close()
    assert sorted(logged(tmp_path), key=int) == [str(number) for number in range(400)]


def test_a_full_segment_is_followed_by_another(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, "r0", lambda: NOON, segment_bytes=500)
    for number in range(6):
        recorder.append([prediction(str(number))]).result(5)
    recorder.close()
    assert len(list(tmp_path.iterdir())) > 1
    assert logged(tmp_path) == [str(number) for number in range(6)]


def test_a_full_disk_fails_the_request_and_leaves_no_torn_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder(tmp_path, "r0", lambda: NOON)
    recorder.append([prediction("before")]).result(5)
    original = os.write

    def full(handle: int, data: bytes) -> int:
        if len(data) < 100:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return original(handle, data[: len(data) - 50])  # a part still gets onto the disk

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(UnavailableError, match="No space left on device") as caught:
        recorder.append([prediction("lost")]).result(5)
    assert "free disk space" in caught.value.hint
    assert logged(tmp_path) == ["before"]
    monkeypatch.setattr(os, "write", original)
    recorder.append([prediction("after")]).result(5)
    recorder.close()
    assert logged(tmp_path) == ["before", "after"]


def test_a_large_request_is_written_in_pieces_and_all_of_it_or_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder(tmp_path, "r0", lambda: NOON)
    number = 2 * PIECE_ROWS + 1
    large = Predicted(
        request_id="large",
        release=Digest("sha256:" + "0" * 64),
        slot="r0",
        time=NOON,
        inputs=Columns(("length",), [[1.5] * number]),
        outputs=Columns(("species",), [["setosa"] * number]),
        latency_ms=0.5,
    )
    recorder.append([prediction("before")]).result(5)
    original, writes = os.write, [0]

    def full_at_the_third(handle: int, data: bytes) -> int:
        writes[0] += 1
        if writes[0] == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return original(handle, data)

    monkeypatch.setattr(os, "write", full_at_the_third)
    with pytest.raises(UnavailableError, match="No space left on device"):
        recorder.append(large).result(5)
    assert logged(tmp_path) == ["before"]
    recorder.append(large).result(5)
    recorder.close()
    assert logged(tmp_path) == ["before", *(f"large.{place}" for place in range(number))]


def test_after_a_failed_sync_the_segment_is_not_trusted_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder(tmp_path, "r0", lambda: NOON)
    original = os.fdatasync

    def broken(handle: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fdatasync", broken)
    with pytest.raises(UnavailableError):
        recorder.append([prediction("lost")]).result(5)
    monkeypatch.setattr(os, "fdatasync", original)
    recorder.append([prediction("after")]).result(5)
    recorder.close()
    assert len(list(tmp_path.iterdir())) == 2
    assert logged(tmp_path) == ["after"]


def test_only_the_owner_may_read_the_log_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        recorder = Recorder(tmp_path / "log", "r0", lambda: NOON)
        recorder.close()
    finally:
        os.umask(before)
    (segment,) = (tmp_path / "log").iterdir()
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o700
    assert segment.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("how", ["replaced", "removed"])
def test_a_segment_that_another_process_takes_away_is_followed_by_another(
    tmp_path: Path, how: str
) -> None:
    recorder = Recorder(tmp_path, "r0", lambda: NOON)
    recorder.append([prediction("a"), prediction("b")]).result(5)
    (segment,) = tmp_path.iterdir()
    other = tmp_path / "other"
    other.write_bytes(segment.read_bytes().splitlines(keepends=True)[1])
    if how == "replaced":
        other.replace(segment)
    else:
        other.unlink()
        segment.unlink()
    recorder.append([prediction("c")]).result(5)
    recorder.close()
    assert logged(tmp_path) == (["b", "c"] if how == "replaced" else ["c"])


def test_a_write_waits_for_whoever_replaces_the_segment(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, "r0", lambda: NOON)
    (segment,) = tmp_path.iterdir()
    with segment.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        written = recorder.append([prediction("a")])
        with pytest.raises(TimeoutError):
            written.result(0.2)
        segment.unlink()
    written.result(5)
    recorder.close()
    assert logged(tmp_path) == ["a"]


def test_a_request_that_is_given_up_takes_no_other_with_it(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, "r0", lambda: NOON)
    given_up = recorder.append([prediction("a")])
    assert not given_up.cancel()
    recorder.append([prediction("b")]).result(5)
    recorder.close()
    assert logged(tmp_path) == ["a", "b"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UnavailableError, match="file/log"):
        Recorder(tmp_path / "file" / "log", "r0", lambda: NOON)


def test_a_closed_log_refuses(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, "r0", lambda: NOON)
    recorder.close()
    with pytest.raises(UnavailableError, match="closed"):
        recorder.append([prediction("late")])


def test_the_rows_of_many_predictions_are_made_when_they_are_inserted() -> None:
    """And again each time, since a database may have to be asked twice."""
    predictions = [prediction(f"{number}.0") for number in range(2 * PIECE_ROWS + 1)]
    taken: list[int] = []

    class Counted(list[Prediction]):
        def __iter__(self) -> Iterator[Prediction]:
            for number, each in enumerate(predictions):
                taken.append(number)
                yield each

    pieces = postgres.Joined(
        [postgres.Pieces(predictions[:1]), postgres.Pieces(Counted(predictions))]
    )
    assert taken == []
    first = next(iter(pieces))
    assert (len(first), len(taken)) == (1 + PIECE_ROWS, PIECE_ROWS)
    for _ in range(2):
        rows = [row for piece in pieces for row in piece]
        assert rows == [postgres.row(each) for each in [predictions[0], *predictions]]
