"""Runs in an object store: the manifest, put there once, is what makes a run."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlship.adapters.rows import object_runs
from mlship.domain import shapes
from mlship.domain.batch_record import Batched
from mlship.errors import ConfigError, ConflictError, IntegrityError, UnavailableError
from mlship.runtime.batches.writing import Outputs
from mlship.steps.trace import trace
from tests.fakes.batch import KilledError
from tests.harness.batches import Here

STORE = "memory://bucket14/scores"


@pytest.fixture
def store() -> Iterator[Any]:
    system = fsspec.filesystem("memory")
    yield system
    if system.exists("/bucket14"):
        system.rm("/bucket14", recursive=True)


@pytest.fixture
def here(tmp_path: Path, store: Any) -> Here:
    assert not store.exists("/bucket14")
    made = Here(tmp_path, output=STORE, keep=("key",))
    made.write("a.parquet", key=list(range(25)))
    return made


def keys(store: Any, folder: str) -> list[int]:
    """Return the keys of a run as a reader does: of the parts that its manifest names."""
    manifest = json.loads(store.cat_file(f"{folder}/_manifest.json"))
    found: list[int] = []
    for part in manifest["parts"]:
        with store.open(f"{folder}/part-{part['name']}.parquet") as file:
            found += pq.read_table(file).column("key").to_pylist()
    return sorted(found)


def test_a_run_is_what_its_manifest_names(here: Here, store: Any) -> None:
    result = here.run()
    assert result.folder.startswith(f"{STORE}/release-")
    assert keys(store, result.folder) == list(range(25))
    assert shapes.of(result.record, Batched).output == result.folder
    with store.open(store.glob(f"{result.folder}/part-*")[0]) as file:
        own = pq.read_table(file).column("id").to_pylist()[0]
    assert trace(here.world.pipeline, own, batching=here.ports).prediction.id == own
    assert not list(here.root.glob(".mlship/batch/journals/*"))


def test_the_same_run_writes_nothing_and_another_release_is_beside(here: Here, store: Any) -> None:
    first = here.run()
    before = {path: store.modified(path) for path in store.find("/bucket14")}
    assert not here.run().is_new
    assert {path: store.modified(path) for path in store.find("/bucket14")} == before
    here.release = msgspec.structs.replace(here.release, params=here.release.bundle)
    second = here.run()
    assert second.folder != first.folder
    assert keys(store, first.folder) == keys(store, second.folder) == list(range(25))


@pytest.mark.parametrize("place", range(3))
def test_a_killed_run_has_no_manifest_and_goes_on(here: Here, store: Any, place: int) -> None:
    here.workers.kill_at = place
    with pytest.raises(KilledError):
        here.run()
    assert not [path for path in store.find("/bucket14") if path.endswith("_manifest.json")]
    here.workers.kill_at = None
    result = here.run()
    assert keys(store, result.folder) == list(range(25))
    # The part that was written when the kill came is redone, and no other one.
    assert len(here.workers.scored) == 3 + 1


def test_a_part_that_was_removed_meanwhile_is_scored_again(here: Here, store: Any) -> None:
    here.workers.kill_at = 2
    with pytest.raises(KilledError):
        here.run()
    here.workers.kill_at = None
    for path in store.glob("/bucket14/scores/*/*/part-*"):
        store.rm(path)
    assert keys(store, here.run().folder) == list(range(25))


def test_a_manifest_is_never_replaced(
    here: Here, store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = object_runs._create

    def late(path: str, data: bytes) -> None:
        store.pipe_file(path, others)
        own(path, data)

    result = here.run()
    manifest = store.cat_file(f"{result.folder}/_manifest.json")
    monkeypatch.setattr(object_runs, "_create", late)
    # Another machine has committed the same outputs.
    store.rm(f"{result.folder}/_manifest.json")
    others = manifest
    here.run()
    assert store.cat_file(f"{result.folder}/_manifest.json") == manifest
    # Its outputs have other bytes, as those of another version of a library.
    store.rm(f"{result.folder}/_manifest.json")
    others = manifest.replace(b"sha256:", b"sha256:0", 1_000)
    with pytest.raises(ConflictError, match="was written meanwhile, and names other outputs"):
        here.run()
    assert store.cat_file(f"{result.folder}/_manifest.json") == others


class Upload(io.BytesIO):
    """An object of a store that is there when it is closed."""

    ended = ""

    def close(self) -> None:
        self.ended = self.ended or "published"
        super().close()

    def discard(self) -> None:
        self.ended = "discarded"


def test_a_part_that_fails_is_not_put_in_its_place(
    store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    schema = pa.schema([("id", pa.string())])
    batch = pa.record_batch([pa.array(["a"])], schema=schema)
    uploads = []

    def upload(*_: Any) -> Upload:
        uploads.append(Upload())
        return uploads[-1]

    monkeypatch.setattr(type(store), "open", upload)
    for fails in (True, False):
        outputs = Outputs(f"{STORE}/x", "p", "parquet", schema, {})
        outputs.write(batch)
        if fails:
            outputs.discard()
        else:
            outputs.finish()
    assert [each.ended for each in uploads] == ["discarded", "published"]


def test_outputs_are_no_inputs_of_the_bucket_that_has_both(here: Here, store: Any) -> None:
    with (here.root / "lake" / "a.parquet").open("rb") as file:
        store.pipe_file("/bucket14/in/a.parquet", file.read())
    here.configure(input="memory://bucket14")
    here.workers.kill_at = 1
    with pytest.raises(KilledError):
        here.run()
    here.workers.kill_at = None
    assert shapes.of(here.run().record, Batched).files == 1
    assert not here.run().is_new


def test_a_published_part_that_is_gone_is_told(here: Here, store: Any) -> None:
    result = here.run()
    store.rm(store.glob(f"{result.folder}/part-*")[0])
    with pytest.raises(IntegrityError, match="is gone"):
        here.run()


def test_a_store_that_does_not_answer_or_allow_is_named(
    here: Here, store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Access Denied")

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(5, "connection reset")

    with monkeypatch.context() as patch:
        patch.setattr(type(store), "pipe_file", refuse)
        with pytest.raises(UnavailableError, match="the store does not allow it") as caught:
            here.run()
        assert "grant the credentials" in caught.value.hint
        patch.setattr(type(store), "pipe_file", fail)
        with pytest.raises(UnavailableError, match="connection reset; nothing was published"):
            here.run()
    with monkeypatch.context() as patch:
        patch.setattr(type(store), "cat_file", fail)
        with pytest.raises(UnavailableError, match=r"connection reset$") as caught:
            object_runs.read(f"{STORE}/run-1")
        assert caught.value.hint.endswith("then run the command again")
    assert not store.glob("/bucket14/scores/*/*/_manifest.json")
    here.workers.asked.clear()
    assert here.run().record.evidence.verdict == "passed"
    assert not here.workers.scored, "finished parts are kept"
    here.configure(output="nothing://bucket/scores")
    with pytest.raises(ConfigError, match="nothing"):
        here.run()
