"""Spools on the disk: what a process left at any moment is delivered by the next one, once."""

import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mlship.domain.lines import spooled
from mlship.errors import UnavailableError
from mlship.runtime.groups import Backlog
from mlship.runtime.postgres import Row
from mlship.runtime.spool import BATCH_ROWS, Spool, Spools, rows_of

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
MB = 1_000_000


def row(number: int, *, size: int = 0) -> Row:
    inputs = f'{{"length":1e23,"text":"{"x" * size}"}}'
    time = NOON + timedelta(seconds=number)
    return (f"{number}.0", "sha256:" + "0" * 64, "r0", time, inputs, "{}", 0.5, False)


def spools(folder: Path, slot: str = "r0", *, max_bytes: int = MB) -> Spools:
    return Spools(folder, slot, lambda: NOON, max_bytes)


def own(folder: Path, slot: str = "r0", *, max_bytes: int = MB) -> Spool:
    return spools(folder, slot, max_bytes=max_bytes).own()


def emptied(spool: Spool) -> list[Row]:
    rows: list[Row] = []
    while batch := spool.batch():
        rows += batch
        spool.delivered(len(batch))
    return rows


def segments(spool: Spool) -> list[Path]:
    return sorted(path for path in spool.folder.iterdir() if path.suffix)


def test_rows_come_back_as_they_were_in_order_and_leave_nothing_on_the_disk(tmp_path: Path) -> None:
    spool = own(tmp_path)
    rows = [row(number) for number in range(2 * BATCH_ROWS + 1)]
    spool.append(rows[:1])
    spool.append(rows[1:])
    assert spool.backlog() == Backlog(rows=len(rows), since=NOON)
    assert emptied(spool) == rows
    assert spool.backlog() == Backlog()
    assert segments(spool) == []


def test_a_batch_that_was_not_delivered_is_given_again(tmp_path: Path) -> None:
    spool = own(tmp_path)
    spool.append([row(1), row(2)])
    assert spool.batch() == spool.batch() == [row(1), row(2)]
    spool.delivered(1)
    assert spool.backlog() == Backlog(rows=1, since=row(2)[3])
    spool.append([row(3)])
    assert emptied(spool) == [row(2), row(3)]


def test_a_torn_line_was_never_acknowledged_and_is_left_out(tmp_path: Path) -> None:
    for cut in range(1, len(spooled(row(2))) + 1):
        spool = own(tmp_path)
        spool.append([row(1), row(2)])
        (segment,) = segments(spool)
        os.truncate(segment, segment.stat().st_size - cut)
        spool.release()
        after = own(tmp_path)
        assert after.folder == spool.folder
        assert emptied(after) == [row(1)]
        assert segments(after) == []
        after.release()


def test_a_damaged_line_is_kept_for_a_person_and_counted_until_then(tmp_path: Path) -> None:
    spool = own(tmp_path)
    spool.append([row(1), row(2), row(3)])
    (segment,) = segments(spool)
    data = bytearray(segment.read_bytes())
    data[len(spooled(row(1))) + 30] ^= 1
    segment.write_bytes(data)
    spool.release()
    for _ in range(2):
        after = own(tmp_path)
        emptied(after)
        assert after.backlog().rows == 1
        assert [path.suffix for path in segments(after)] == [".damaged"]
        after.release()
    assert rows_of(bytes(data)) == ([row(1), row(3)], 1)


def test_a_line_damaged_under_a_running_process_is_missed(tmp_path: Path) -> None:
    spool = own(tmp_path)
    spool.append([row(1), row(2)])
    (segment,) = segments(spool)
    os.truncate(segment, segment.stat().st_size - 1)
    assert emptied(spool) == [row(1)]
    assert spool.backlog().rows == 1


def test_a_full_spool_refuses_and_takes_rows_again_after_a_delivery(tmp_path: Path) -> None:
    spool = own(tmp_path, max_bytes=1000)
    spool.append([row(1, size=600)])
    with pytest.raises(UnavailableError, match="is full"):
        spool.append([row(2, size=600)])
    assert emptied(spool) == [row(1, size=600)]
    spool.append([row(2, size=600)])
    assert emptied(spool) == [row(2, size=600)]


def test_rows_of_an_earlier_process_count_for_the_size(tmp_path: Path) -> None:
    spool = own(tmp_path, max_bytes=1000)
    spool.append([row(1, size=600)])
    spool.release()
    with pytest.raises(UnavailableError, match="is full"):
        own(tmp_path, max_bytes=1000).append([row(2, size=600)])


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_disk_that_is_full_in_the_middle_of_a_row_refuses_it_and_keeps_the_others(
    tmp_path: Path,
) -> None:
    spool = own(tmp_path)
    spool.append([row(1, size=600)])
    with largest_file(1000), pytest.raises(UnavailableError, match="cannot be written"):
        spool.append([row(2, size=600)])
    spool.append([row(3)])
    assert emptied(spool) == [row(1, size=600), row(3)]


def test_a_spool_has_one_holder_and_goes_to_another_when_that_ends(tmp_path: Path) -> None:
    first = own(tmp_path)
    second = own(tmp_path)
    assert first.folder != second.folder
    assert spools(tmp_path).abandoned() == []
    first.append([row(1)])
    first.release()
    (taken,) = spools(tmp_path, "r1").abandoned()
    assert taken.name == first.name
    assert spools(tmp_path).abandoned() == []
    assert emptied(taken) == [row(1)]
    taken.remove()
    assert [path.name for path in tmp_path.iterdir()] == [second.name]


def test_a_slot_goes_on_with_its_own_spool_and_knows_whether_it_was_registered(
    tmp_path: Path,
) -> None:
    first = own(tmp_path, "r0")
    first.release()
    other = own(tmp_path, "r1")
    assert other.name != first.name
    again = own(tmp_path, "r0")
    assert (again.name, again.is_registered) == (first.name, False)
    again.register()
    again.release()
    assert own(tmp_path, "r0").is_registered


def test_a_killed_process_leaves_its_spool_to_the_next(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        own(tmp_path).append([row(1)])
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert emptied(own(tmp_path)) == [row(1)]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UnavailableError, match=r"cannot use the spool in .*file"):
        own(tmp_path / "file")
