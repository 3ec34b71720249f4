"""What every store promises, on the fake, a directory, MLflow, and a registry."""

import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mlship.adapters.stores.directory import DirectoryStore
from mlship.adapters.stores.mlflow import MlflowStore
from mlship.adapters.stores.registry import RegistryStore
from mlship.domain import bundle, digests
from mlship.domain.ports import Store
from mlship.domain.release import Release
from mlship.domain.versions import Run
from mlship.errors import ConflictError, IntegrityError, NotFoundError
from tests.fakes.registry import FakeRegistry
from tests.fakes.store import FakeStore, tiny_bundle, tiny_release
from tests.harness.artifacts import Place, real_place

SHARED = (
    *("directory", "mlflow-sqlite", "mlflow-server", "registry's fake"),
    pytest.param("registry", marks=pytest.mark.service("registry")),
)
BACKENDS = ("fake", *SHARED)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("a folder") / "mlflow.db"


@pytest.fixture(params=BACKENDS)
def reopen(request: pytest.FixtureRequest, tmp_path: Path, database: Path) -> Callable[[], Store]:
    """Give a function that opens the same store anew, as the next command would."""
    name = f"iris-{uuid.uuid4().hex[:8]}"
    match request.param:
        case "fake":
            fake = FakeStore(lambda: datetime.now(UTC))
            return lambda: fake
        case "directory":
            return lambda: DirectoryStore(tmp_path / "store", name)
        case "mlflow-sqlite":
            uri = f"sqlite:///{database}"
            return lambda: MlflowStore(uri, name, database.parent / "art ifacts", {})
        case "registry's fake" | "registry":
            fake = request.param != "registry"
            place = Place(FakeRegistry(), name) if fake else real_place(name)
            return lambda: RegistryStore(place.artifacts(tmp_path / "cache"), name)
        case _:
            uri = request.getfixturevalue("mlflow_server")
            return lambda: MlflowStore(uri, name, tmp_path / "unused", {})


@pytest.fixture
def store(reopen: Callable[[], Store]) -> Store:
    return reopen()


@pytest.fixture
def made(tmp_path: Path) -> tuple[Release, Path]:
    folder = tmp_path / "made"
    return tiny_release(tiny_bundle(folder)), folder


def another(tmp_path: Path, text: str) -> tuple[Release, Path]:
    folder = tmp_path / f"made-{text}"
    return tiny_release(tiny_bundle(folder, text)), folder


def test_a_new_store_has_no_versions_and_no_bundles(
    store: Store, made: tuple[Release, Path], tmp_path: Path
) -> None:
    assert list(store.versions()) == []
    with pytest.raises(NotFoundError):
        store.fetch(made[0], tmp_path / "fetched")
    assert not (tmp_path / "fetched").exists()


def test_a_fetched_bundle_is_the_recorded_one_byte_for_byte(
    reopen: Callable[[], Store], made: tuple[Release, Path], tmp_path: Path
) -> None:
    release, folder = made
    reopen().record(Run(release=release, bundle=folder))
    fetched = reopen().fetch(release, tmp_path / "deep" / "fetched")
    assert fetched == tmp_path / "deep" / "fetched"
    assert bundle.read(fetched, expected=release.bundle) == bundle.read(folder)
    assert [path.name for path in fetched.parent.iterdir()] == ["fetched"]


def test_fetching_again_leaves_the_folder_and_refuses_a_damaged_one(
    store: Store, made: tuple[Release, Path], tmp_path: Path
) -> None:
    release, folder = made
    store.record(Run(release=release, bundle=folder))
    fetched = store.fetch(release, tmp_path / "fetched")
    assert store.fetch(release, fetched) == fetched
    (fetched / "model" / "model.onnx").write_bytes(b"another")
    with pytest.raises(IntegrityError, match=r"model\.onnx"):
        store.fetch(release, fetched)


def test_a_bundle_that_the_release_does_not_name_is_refused(
    store: Store, made: tuple[Release, Path], tmp_path: Path
) -> None:
    release, _ = made
    _, other = another(tmp_path, "other")
    with pytest.raises(IntegrityError):
        store.record(Run(release=release, bundle=other))
    with pytest.raises(NotFoundError):
        store.fetch(release, tmp_path / "fetched")


def test_a_missing_file_is_named(store: Store, made: tuple[Release, Path], tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"no-plot\.png"):
        store.record(Run(release=made[0], files={"plot.png": tmp_path / "no-plot.png"}))


def test_only_a_release_with_a_recorded_bundle_can_be_named(
    store: Store, made: tuple[Release, Path]
) -> None:
    release, _ = made
    with pytest.raises(NotFoundError):
        store.point("champion", release)
    store.record(Run(release=release, params={"C": "1.0"}))
    with pytest.raises(NotFoundError):
        store.point("champion", release)
    with pytest.raises(NotFoundError):
        store.archive(release, archived=True)
    assert list(store.versions()) == []


def test_pointing_registers_once_and_moves_the_alias(
    reopen: Callable[[], Store], made: tuple[Release, Path], tmp_path: Path
) -> None:
    first, second = made, another(tmp_path, "second")
    for release, folder in (first, second):
        reopen().record(Run(release=release, bundle=folder))
    reopen().point("champion", first[0])
    reopen().point("champion", first[0])
    reopen().point("challenger", second[0])
    before = reopen().versions()
    assert [(v.number, v.release, v.aliases) for v in before] == [
        ("1", first[0].id, ("champion",)),
        ("2", second[0].id, ("challenger",)),
    ]
    reopen().point("champion", second[0])
    reopen().point("challenger", None)
    reopen().point("challenger", None)
    after = reopen().versions()
    assert [(v.number, v.aliases) for v in after] == [("1", ()), ("2", ("champion",))]
    assert [v.created for v in after] == [v.created for v in before]
    assert all(v.created.utcoffset() == timedelta(0) for v in after)


def test_an_alias_of_nothing_can_be_removed(store: Store) -> None:
    store.point("champion", None)
    assert list(store.versions()) == []


def test_archiving_is_undone_by_its_reverse_and_leaves_aliases(
    store: Store, made: tuple[Release, Path]
) -> None:
    release, folder = made
    store.record(Run(release=release, bundle=folder))
    store.point("champion", release)
    for archived in (True, True, False, False, True):
        store.archive(release, archived=archived)
        (version,) = store.versions()
        assert (version.archived, version.aliases) == (archived, ("champion",))


def test_recording_adds_to_what_is_there(
    reopen: Callable[[], Store], made: tuple[Release, Path], tmp_path: Path
) -> None:
    release, folder = made
    (tmp_path / "report.md").write_text("good")
    reopen().record(Run(release=release, params={"C": "1.0"}, metrics={"accuracy": 0.9}))
    reopen().record(Run(release=release, bundle=folder))
    reopen().record(
        Run(
            release=release,
            metrics={"accuracy": 0.9, "f1": 0.8},
            tags={"branch": "develop"},
            files={"reports/test.md": tmp_path / "report.md"},
        )
    )
    reopen().point("challenger", release)
    assert len(reopen().versions()) == 1
    assert reopen().fetch(release, tmp_path / "fetched").is_dir()


def test_a_version_is_as_young_as_its_registration(
    store: Store, made: tuple[Release, Path]
) -> None:
    release, folder = made
    store.record(Run(release=release, bundle=folder))
    store.point("champion", release)
    (version,) = store.versions()
    assert abs(version.created - datetime.now(UTC)) < timedelta(minutes=1)


def test_releases_of_one_bundle_are_told_apart(store: Store, made: tuple[Release, Path]) -> None:
    release, folder = made
    twin = tiny_release(release.bundle, commit="b" * 40)
    for each in (release, twin):
        store.record(Run(release=each, bundle=folder))
        store.point("champion", each)
    assert [v.release for v in store.versions()] == [release.id, twin.id]
    assert digests.parse(store.versions()[0].release)


def test_files_of_a_run_are_fetched_by_their_paths(
    reopen: Callable[[], Store], made: tuple[Release, Path], tmp_path: Path
) -> None:
    release, folder = made
    (tmp_path / "one.txt").write_text("one")
    (tmp_path / "two ü.bin").write_bytes(bytes(range(256)) * 1000)
    files = {
        "outputs/one.txt": tmp_path / "one.txt",
        "outputs/deep/two ü.bin": tmp_path / "two ü.bin",
    }
    reopen().record(Run(release=release, bundle=folder, files=files))
    fetched = reopen().fetch(release, tmp_path / "fetched", files=list(files))
    assert {
        path.relative_to(fetched).as_posix(): path.read_bytes()
        for path in fetched.rglob("*")
        if path.is_file()
    } == {name: path.read_bytes() for name, path in files.items()}
    with pytest.raises(NotFoundError):
        reopen().fetch(release, tmp_path / "other", files=["outputs/none.txt"])


@pytest.fixture(params=SHARED)
def as_project(
    request: pytest.FixtureRequest, tmp_path: Path, database: Path
) -> Callable[[str], Store]:
    """Give a function that opens one store as the project with a home does."""
    name = f"iris-{uuid.uuid4().hex[:8]}"
    match request.param:
        case "directory":
            return lambda home: DirectoryStore(tmp_path / "store", name, home)
        case "mlflow-sqlite":
            uri, artifacts = f"sqlite:///{database}", database.parent / "art ifacts"
            return lambda home: MlflowStore(uri, name, artifacts, {}, home=home)
        case "registry's fake" | "registry":
            fake = request.param != "registry"
            place = Place(FakeRegistry(), name) if fake else real_place(name)
            return lambda home: RegistryStore(place.artifacts(tmp_path / "cache"), name, home)
        case _:
            uri = request.getfixturevalue("mlflow_server")
            return lambda home: MlflowStore(uri, name, tmp_path / "unused", {}, home=home)


def test_a_model_of_another_project_is_neither_recorded_nor_pointed_to(
    as_project: Callable[[str], Store], made: tuple[Release, Path], tmp_path: Path
) -> None:
    release, folder = made
    as_project("//").record(Run(release=release, bundle=folder))
    ada, bob = as_project("github.com/ada/iris"), as_project("github.com/bob/iris")
    ada.record(Run(release=release, bundle=folder))  # it has a remote by now
    ada.point("champion", release)
    other, other_folder = another(tmp_path, "other")
    with pytest.raises(ConflictError, match=r"ada/iris.*bob/iris"):
        bob.record(Run(release=other, bundle=other_folder))
    with pytest.raises(ConflictError, match=r"ada/iris.*bob/iris"):
        bob.point("champion", None)
    as_project("").record(Run(release=release, bundle=folder))
    as_project("//").point("champion", release)
    assert [version.release for version in ada.versions()] == [release.id]
    assert ada.versions()[0].aliases == ("champion",)
