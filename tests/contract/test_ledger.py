"""What every ledger promises: the fake, a directory, MLflow, and a registry, a fake and a real one.

Then what only files can suffer; what MLflow alone can is in test_ledger_mlflow.py.
"""

import errno
import fcntl
import multiprocessing
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from mlship.adapters.ledgers import directory
from mlship.adapters.ledgers.directory import DirectoryLedger
from mlship.adapters.ledgers.mlflow import MlflowLedger
from mlship.adapters.ledgers.registry import RegistryLedger
from mlship.domain import digests, dsse
from mlship.domain.evidence import Step, encode, heads
from mlship.domain.ports import Ledger
from mlship.errors import IntegrityError, UnavailableError
from tests.fakes.registry import FakeRegistry
from tests.fakes.store import FakeLedger, tiny_evidence
from tests.harness.artifacts import Place, real_place
from tests.harness.signing import HERE

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("a folder") / "mlflow.db"


BACKENDS = (
    *("fake", "directory", "mlflow-sqlite", "mlflow-server", "registry's fake"),
    pytest.param("registry", marks=pytest.mark.service("registry")),
)


@pytest.fixture(params=BACKENDS)
def reopen(request: pytest.FixtureRequest, tmp_path: Path, database: Path) -> Callable[[], Ledger]:
    """Give a function that opens the same ledger anew, as the next command would."""
    name = f"iris-{uuid.uuid4().hex[:8]}"
    match request.param:
        case "fake":
            fake = FakeLedger()
            return lambda: fake
        case "directory":
            return lambda: DirectoryLedger(tmp_path / "deep" / "ledger", HERE)
        case "mlflow-sqlite":
            uri = f"sqlite:///{database}"
            return lambda: MlflowLedger(uri, name, database.parent / "art ifacts", {}, by=HERE)
        case "registry's fake":
            place = Place(FakeRegistry(), name)
            return lambda: RegistryLedger(place.artifacts(tmp_path / "cache"), by=HERE)
        case "registry":
            place = real_place(name)
            return lambda: RegistryLedger(place.artifacts(tmp_path / "cache"), by=HERE)
        case _:
            uri = request.getfixturevalue("mlflow_server")
            return lambda: MlflowLedger(uri, name, tmp_path / "unused", {}, by=HERE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give the folder of a ledger with three records."""
    ledger = DirectoryLedger(tmp_path / "ledger", HERE)
    steps: tuple[Step, ...] = ("train", "test", "promote")
    for minute, step in enumerate(steps):
        ledger.append(tiny_evidence(step, minute=minute))
    return tmp_path / "ledger"


def file_of(folder: Path, step: str) -> Path:
    digest = next(
        record.digest
        for record in DirectoryLedger(folder).records()
        if record.evidence.step == step
    )
    digits = digest.removeprefix("sha256:")
    return folder / digits[:2] / f"{digits}.json"


def test_a_new_ledger_is_empty_and_reading_makes_nothing(
    reopen: Callable[[], Ledger], tmp_path: Path
) -> None:
    assert list(reopen().records()) == []
    assert list(tmp_path.iterdir()) == []


def test_records_come_back_in_the_order_of_the_chain_not_of_the_clock(
    reopen: Callable[[], Ledger],
) -> None:
    appended = [reopen().append(tiny_evidence(actor=f"s{n}", minute=-n)) for n in range(5)]
    assert list(reopen().records()) == appended
    assert [record.evidence.actor for record in appended] == ["s0", "s1", "s2", "s3", "s4"]


def test_each_record_names_the_heads_before_it_whatever_it_came_with(
    reopen: Callable[[], Ledger],
) -> None:
    stranger = digests.of_bytes(b"stranger")
    first = reopen().append(tiny_evidence(parents=(stranger,)))
    second = reopen().append(tiny_evidence())
    assert first.evidence.parents == ()
    assert second.evidence.parents == (first.digest,)
    assert first.digest != second.digest


def test_a_record_is_appended_after_the_heads_that_its_writer_has_read(
    reopen: Callable[[], Ledger],
) -> None:
    first = reopen().append(tiny_evidence(actor="first"), after=())
    second = reopen().append(tiny_evidence(actor="second"), after=(first.digest,))
    # A writer that has not seen the second one forks the chain; the next record joins it.
    fork = reopen().append(tiny_evidence(actor="fork"), after=(first.digest,))
    assert [second.evidence.parents, fork.evidence.parents] == [(first.digest,)] * 2
    assert set(heads(reopen().records())) == {second.digest, fork.digest}
    joined = reopen().append(tiny_evidence(actor="joined"))
    assert set(joined.evidence.parents) == {second.digest, fork.digest}
    assert len(reopen().records()) == 4


def test_a_metric_that_is_not_a_number_stays_visible(reopen: Callable[[], Ledger]) -> None:
    reopen().append(tiny_evidence(facts={"accuracy": float("nan"), "mae": float("inf")}))
    assert reopen().records()[0].evidence.facts == {"accuracy": "nan", "mae": "inf"}


def test_every_text_comes_back_to_the_letter(reopen: Callable[[], Ledger]) -> None:
    texts = {"edges": "  \n", "signs": "é漢😀\u2028\x00'\"\\%`", "long": " 😀" * 9_000, "": None}
    appended = reopen().append(tiny_evidence(facts=texts))
    assert appended.evidence.facts == texts
    assert list(reopen().records()) == [appended]


def test_a_fork_is_joined_by_the_next_record(tmp_path: Path) -> None:
    left, right = DirectoryLedger(tmp_path / "left"), DirectoryLedger(tmp_path / "right")
    left.append(tiny_evidence("train"))
    right.append(tiny_evidence("approve"))
    for path in (tmp_path / "right").glob("??/*.json"):
        into = tmp_path / "left" / path.parent.name
        into.mkdir(exist_ok=True)
        path.rename(into / path.name)
    assert len(heads(left.records())) == 2
    joined = left.append(tiny_evidence("promote"))
    assert len(joined.evidence.parents) == 2
    assert heads(left.records()) == (joined.digest,)


@pytest.mark.parametrize("step", ["train", "test", "promote"])
def test_an_edited_byte_is_named(folder: Path, step: str) -> None:
    path = file_of(folder, step)
    envelope = dsse.read(path.read_bytes())
    payload = envelope.payload.replace(b"ada@", b"eve@")
    path.write_bytes(msgspec.json.encode(msgspec.structs.replace(envelope, payload=payload)))
    with pytest.raises(IntegrityError, match=path.name):
        DirectoryLedger(folder).records()
    with pytest.raises(IntegrityError, match=path.name):
        DirectoryLedger(folder).append(tiny_evidence())


def test_an_edit_is_seen_by_a_ledger_that_read_the_record_before(folder: Path) -> None:
    ledger = DirectoryLedger(folder)
    assert len(ledger.records()) == 3
    path = file_of(folder, "test")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(IntegrityError, match=path.name):
        ledger.records()


@pytest.mark.parametrize("step", ["train", "test"])
def test_a_removed_record_is_named(folder: Path, step: str) -> None:
    path = file_of(folder, step)
    path.unlink()
    with pytest.raises(IntegrityError, match=f"{path.name[:12]}.* missing"):
        DirectoryLedger(folder).records()


def test_a_record_that_is_added_during_a_look_is_no_tampering(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missed = [file_of(folder, "test")]
    listed = directory._entries

    def late(place: str | Path) -> list[os.DirEntry[str]]:
        if missed and Path(place) == missed[0].parent:
            missed.clear()
            return []
        return listed(place)

    monkeypatch.setattr(directory, "_entries", late)
    assert len(DirectoryLedger(folder).records()) == 3
    assert not missed


@pytest.mark.parametrize("name", ["notes.txt", "ab/notes.json", "ab/" + "f" * 64 + ".json"])
def test_a_foreign_file_is_named(folder: Path, name: str) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("{}")
    with pytest.raises(IntegrityError, match=Path(name).name):
        DirectoryLedger(folder).records()


KINDS: dict[str, Callable[[Path], object]] = {
    "folder": Path.mkdir,
    "dangling link": lambda path: path.symlink_to("nowhere"),
    "pipe": os.mkfifo,
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_file_is_named_as_no_record(folder: Path, kind: str) -> None:
    (folder / "ab").mkdir(exist_ok=True)
    path = folder / "ab" / f"ab{'0' * 62}.json"
    KINDS[kind](path)
    with pytest.raises(IntegrityError, match=f"{path} is not a record") as caught:
        DirectoryLedger(folder).records()
    assert "readable" not in caught.value.hint


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"{}", "not a record of the ledger"),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
    ],
)
def test_a_file_that_holds_no_record_is_named(folder: Path, data: bytes, why: str) -> None:
    digits = digests.of_bytes(data).removeprefix("sha256:")
    path = folder / digits[:2] / f"{digits}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    with pytest.raises(IntegrityError, match=f"{path}: .*{why}"):
        DirectoryLedger(folder).records()


def test_a_record_added_during_a_look_is_no_tampering(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = DirectoryLedger._read
    parent = f"sha256:{file_of(folder, 'test').stem}"
    looks = iter(range(10))

    def torn(ledger: DirectoryLedger) -> list[tuple[digests.Digest, object]]:
        is_first = next(looks) == 0
        return [item for item in whole(ledger) if not (is_first and item[0] == parent)]

    monkeypatch.setattr(DirectoryLedger, "_read", torn)
    assert len(DirectoryLedger(folder).records()) == 3


def test_what_a_killed_writer_left_is_ignored_then_swept(folder: Path) -> None:
    old, young = (file_of(folder, "test").parent / f".{n}.json.1.tmp" for n in ("old", "young"))
    for path in (old, young):
        path.write_bytes(b"{")
    os.utime(old, (time.time() - 7200, time.time() - 7200))
    assert len(DirectoryLedger(folder).records()) == 3
    DirectoryLedger(folder).append(tiny_evidence())
    assert (old.exists(), young.exists()) == (False, True)


def test_a_full_disk_adds_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UnavailableError, match="No space left") as caught:
        DirectoryLedger(folder).append(tiny_evidence())
    assert caught.value.hint
    monkeypatch.undo()
    assert len(DirectoryLedger(folder).records()) == 3
    assert not list(folder.glob("??/.*"))


def test_a_ledger_below_a_file_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UnavailableError, match="cannot write"):
        DirectoryLedger(tmp_path / "file" / "ledger").append(tiny_evidence())


def _append(folder: Path, writer: str, count: int) -> None:
    ledger = DirectoryLedger(folder)
    for number in range(count):
        ledger.append(tiny_evidence(actor=f"{writer}{number}"))


def _two_writers(folder: Path, count: int) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_append, args=(folder, name, count)) for name in "ab"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
    assert [writer.exitcode for writer in writers] == [0, 0]


def test_two_writers_at_once_lose_nothing_and_keep_one_line(tmp_path: Path) -> None:
    _two_writers(tmp_path, 200)
    records = DirectoryLedger(tmp_path).records()
    actors = {record.evidence.actor for record in records}
    assert actors == {f"{name}{number}" for name in "ab" for number in range(200)}
    assert len(records) == 400
    assert all(len(record.evidence.parents) == 1 for record in records[1:])


def test_who_waits_for_the_lock_is_before_who_asks_later(tmp_path: Path) -> None:
    with (tmp_path / ".lock").open("ab") as lock, opened(tmp_path) as turn:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiting = multiprocessing.get_context("fork").Process(
            target=_append, args=(tmp_path, "waiting", 1)
        )
        waiting.start()
        while _locks(turn):
            fcntl.flock(turn, fcntl.LOCK_UN)
            time.sleep(0.01)
    _append(tmp_path, "later", 1)
    waiting.join(60)
    records = DirectoryLedger(tmp_path).records()
    assert [record.evidence.actor for record in records] == ["waiting0", "later0"]


@contextmanager
def opened(folder: Path) -> Iterator[int]:
    handle = os.open(folder, os.O_RDONLY)
    yield handle
    os.close(handle)


def _locks(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def test_a_reader_beside_a_writer_never_sees_a_broken_chain(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    writer = context.Process(target=_append, args=(tmp_path, "a", 150))
    writer.start()
    seen = []
    while writer.is_alive():
        seen.append(len(DirectoryLedger(tmp_path).records()))
    writer.join(60)
    assert writer.exitcode == 0
    assert seen == sorted(seen)
    assert len(DirectoryLedger(tmp_path).records()) == 150


def test_two_writers_without_a_lock_lose_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_args: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", no_locks)
    _two_writers(tmp_path, 150)
    records = DirectoryLedger(tmp_path).records()
    assert len({record.evidence.actor for record in records}) == len(records) == 300
    assert any(len(record.evidence.parents) > 1 for record in records)


def test_two_thousand_records_are_read_in_a_blink(tmp_path: Path) -> None:
    parents: tuple[digests.Digest, ...] = ()
    for number in range(2000):
        data = encode(tiny_evidence(actor=f"s{number}", minute=number, parents=parents))
        digest = digests.of_bytes(data)
        digits = digest.removeprefix("sha256:")
        (tmp_path / digits[:2]).mkdir(exist_ok=True)
        (tmp_path / digits[:2] / f"{digits}.json").write_bytes(data)
        parents = (digest,)
    seconds = []
    for _ in range(3):
        start = time.process_time()
        assert len(DirectoryLedger(tmp_path).records()) == 2000
        seconds.append(time.process_time() - start)
    assert min(seconds) < 0.5, "it takes 0.06 s of a processor"
