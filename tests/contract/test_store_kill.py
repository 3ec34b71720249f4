"""Changes of a store that are killed in the middle, or run twice at once, end in one state."""

import os
import shutil
import signal
import traceback
import uuid
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mlship import files
from mlship.adapters.images.registry.registry import Registry
from mlship.adapters.mlflow.library import session
from mlship.adapters.mlflow.rest import Server
from mlship.adapters.stores.directory import DirectoryStore
from mlship.adapters.stores.mlflow import MlflowStore
from mlship.adapters.stores.mlflow_server import ServerPlace
from mlship.adapters.stores.registry import RegistryStore
from mlship.domain import bundle
from mlship.domain.ports import Store
from mlship.domain.release import Release
from mlship.domain.versions import Run
from tests.fakes.store import tiny_bundle, tiny_release
from tests.harness import migrated
from tests.harness.artifacts import real_place

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

CLIENT_CALLS = (
    *("create_experiment", "create_run", "log_batch", "log_metric", "create_logged_model"),
    *("finalize_logged_model", "log_outputs", "set_logged_model_tags"),
    *("set_terminated", "create_registered_model", "create_model_version"),
    *("set_registered_model_alias", "set_model_version_tag"),
)
SERVER_CALLS = (
    *("create", "add", "create_model", "upload", "publish", "finish", "register", "point", "tag"),
)
Point = tuple[Any, str]


def start(work: Callable[[], None]) -> int:
    """Run `work` in a forked child; return the child's process id."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:  # noqa: BLE001 (a child must never go on as a second pytest)
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return child


def in_child(work: Callable[[], None]) -> bool:
    """Run `work` in a child; tell whether it finished or was killed."""
    status = os.waitpid(start(work), 0)[1]
    assert not os.WIFEXITED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFEXITED(status)


def dying(points: Sequence[Point], at: int) -> None:
    """Make this process kill itself after its call number `at` of any of these functions."""
    calls = iter(range(10_000))

    def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
        def called(*args: Any, **kwargs: Any) -> Any:
            result = function(*args, **kwargs)
            if next(calls) == at:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return called

    for owner, name in points:
        setattr(owner, name, wrap(getattr(owner, name)))


def change(store: Store, release: Release, folder: Path) -> None:
    run = Run(
        release=release,
        params={"C": "1.0"},
        metrics={"accuracy": 0.9},
        tags={"branch": "develop"},
        files={"report.md": folder / "golden.jsonl"},
        bundle=folder,
    )
    store.record(run)
    store.point("champion", release)
    store.archive(release, archived=True)


def killed_everywhere(
    open_store: Callable[[], Store], points: Callable[[], Sequence[Point]], folder: Path
) -> list[Release]:
    """Change the store for a new release, killed at each point in turn, then whole."""
    releases: list[Release] = []
    finished = False
    while not finished:
        digest = tiny_bundle(folder / str(len(releases)), f"model {len(releases)}")
        release = tiny_release(digest)

        def work(release: Release = release, at: int = len(releases)) -> None:
            dying(points(), at)
            change(open_store(), release, folder / str(at))

        finished = in_child(work)
        store = open_store()
        change(store, release, folder / str(len(releases)))
        releases.append(release)
        versions = store.versions()
        assert [version.release for version in versions] == [r.id for r in releases]
        assert versions[-1].aliases == ("champion",)
        assert versions[-1].archived
        fetched = store.fetch(release, folder / f"fetched{len(releases)}")
        assert bundle.read(fetched, expected=digest)
    return releases


@pytest.fixture(params=["sqlite", "server"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/mlflow.db"
    else:
        yield request.getfixturevalue("mlflow_server")


def test_mlflow_converges_wherever_the_process_was_killed(uri: str, tmp_path: Path) -> None:
    from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository
    from mlflow.tracking import MlflowClient

    points: list[Point] = [(MlflowClient, call) for call in CLIENT_CALLS]
    points += [(LocalArtifactRepository, "log_artifact")]
    if uri.startswith("http"):
        points = [(ServerPlace, call) for call in SERVER_CALLS]
        points += [(Server, "create"), (Server, "upload")]
    name = f"iris-{uuid.uuid4().hex[:8]}"
    releases = killed_everywhere(
        lambda: MlflowStore(uri, name, tmp_path / "artifacts", {}), lambda: points, tmp_path
    )
    assert len(releases) > 10, "each call in turn was the last one of a process"
    with session(uri, {}) as client:
        experiment = client.get_experiment_by_name(name)
        runs = client.search_runs([experiment.experiment_id])
        assert len(runs) == len(releases)
        assert {run.info.status for run in runs} == {"FINISHED"}
        assert {run.data.tags["mlship.bundle"] for run in runs} == {r.bundle for r in releases}


def test_a_directory_converges_wherever_the_process_was_killed(tmp_path: Path) -> None:
    points: list[Point] = [
        *((files, "write_atomically"), (os, "link"), (os, "mkdir"), (os, "replace")),
        *((os, "rename"), (os, "unlink"), (os, "fsync"), (shutil, "copytree")),
        *((Path, "touch"), (Path, "unlink"), (Path, "mkdir")),
    ]
    releases = killed_everywhere(
        lambda: DirectoryStore(tmp_path / "store", "iris"), lambda: points, tmp_path
    )
    assert len(releases) > 10
    assert len(list((tmp_path / "store" / "iris" / "runs").iterdir())) == len(releases)


@pytest.mark.service("registry")
def test_a_registry_converges_wherever_the_process_was_killed(tmp_path: Path) -> None:
    points: list[Point] = [(Registry, call) for call in ("bring", "put_manifest")]
    place = real_place("iris")
    releases = killed_everywhere(
        lambda: RegistryStore(place.artifacts(tmp_path / "cache"), "iris"), lambda: points, tmp_path
    )
    assert len(releases) > 10
    elsewhere = RegistryStore(place.artifacts(tmp_path / "elsewhere"), "iris")
    assert [version.release for version in elsewhere.versions()] == [each.id for each in releases]


@pytest.mark.cold
@pytest.mark.parametrize("statement", [1, 100, 400, 700])
def test_a_database_that_was_being_made_is_made_whole_or_not_at_all(
    statement: int, tmp_path: Path
) -> None:
    from sqlalchemy import Engine, event

    release = tiny_release(tiny_bundle(tmp_path / "bundle"))
    store = MlflowStore(f"sqlite:///{tmp_path}/mlflow.db", "iris", tmp_path / "artifacts", {})

    def work() -> None:
        executed = iter(range(10_000))

        def count(*_args: object) -> None:
            if next(executed) == statement:
                os.kill(os.getpid(), signal.SIGKILL)

        event.listen(Engine, "before_cursor_execute", count)
        change(store, release, tmp_path / "bundle")

    assert not in_child(work)
    assert not (tmp_path / "mlflow.db").exists()
    with migrated.copied():
        change(store, release, tmp_path / "bundle")
    assert [version.release for version in store.versions()] == [release.id]


KINDS = (
    *("directory", "sqlite", "server"),
    pytest.param("registry", marks=pytest.mark.service("registry")),
)


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_at_once_register_a_release_once(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    name = f"iris-{uuid.uuid4().hex[:8]}"
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    if kind == "server":
        uri = request.getfixturevalue("mlflow_server")

    place = real_place(name) if kind == "registry" else None

    def open_store() -> Store:
        if place is not None:
            return RegistryStore(place.artifacts(tmp_path / str(os.getpid())), name)
        if kind == "directory":
            return DirectoryStore(tmp_path / "store", name)
        return MlflowStore(uri, name, tmp_path / "artifacts", {})

    releases = []
    for turn in range(5):
        folder = tmp_path / f"bundle{turn}"
        releases.append(tiny_release(tiny_bundle(folder, f"model {turn}")))
        work = partial(change, open_store(), releases[-1], folder)
        children = [start(work), start(work)]
        assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
        fetched = open_store().fetch(releases[-1], tmp_path / f"fetched{turn}")
        assert bundle.read(fetched, expected=releases[-1].bundle)
    versions = open_store().versions()
    assert [version.release for version in versions] == [release.id for release in releases]
    assert [version.aliases for version in versions] == [()] * 4 + [("champion",)]
    if kind == "sqlite":
        with session(uri, {}) as client:
            experiment = client.get_experiment_by_name(name)
            assert len(client.search_runs([experiment.experiment_id])) == len(releases)
