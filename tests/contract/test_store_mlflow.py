"""What is MLflow's own: what people see there, how faults are told, how fast reading starts."""

import os
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mlship.adapters.mlflow.library import session
from mlship.adapters.mlflow.rest import Server
from mlship.adapters.stores import mlflow_fast
from mlship.adapters.stores.mlflow import MlflowStore
from mlship.adapters.stores.mlflow_library import LibraryPlace
from mlship.config import installation
from mlship.domain.release import Release
from mlship.domain.versions import Run
from mlship.errors import (
    ConfigError,
    ConflictError,
    IntegrityError,
    NotFoundError,
    UnavailableError,
)
from tests.fakes.store import tiny_bundle, tiny_release

ROOT = Path(__file__).parents[2]
HASTY = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "2"}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a database with one recorded and registered release, made once; tests copy it."""
    folder = tmp_path_factory.mktemp("template")
    release = tiny_release(tiny_bundle(folder / "bundle"))
    store = MlflowStore(f"sqlite:///{folder}/mlflow.db", "iris", folder / "artifacts", {})
    store.record(Run(release=release, bundle=folder / "bundle"))
    store.point("champion", release)
    return folder


@pytest.fixture
def release(template: Path) -> Release:
    return tiny_release(tiny_bundle(template.parent / f"again{time.monotonic_ns()}"))


@pytest.fixture
def database(template: Path, tmp_path: Path) -> Path:
    path = tmp_path / "mlflow.db"
    path.write_bytes((template / "mlflow.db").read_bytes())
    return path


@pytest.fixture
def store(database: Path, template: Path) -> MlflowStore:
    return MlflowStore(f"sqlite:///{database}", "iris", template / "artifacts", {})


def runs_of(uri: str, name: str = "iris") -> list[Any]:
    with session(uri, {}) as client:
        experiment = client.get_experiment_by_name(name)
        return list(client.search_runs([experiment.experiment_id]))


def test_a_run_shows_what_people_look_for(
    tmp_path: Path, mlflow_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    release = tiny_release(tiny_bundle(tmp_path / "bundle"))
    (tmp_path / "cm.png").write_bytes(b"png")
    run = Run(
        release=release,
        params={"C": "1.0", "long": "x" * 10_000},
        metrics={"accuracy": 0.97, "f1@macro": 0.9},
        tags={"branch": "develop"},
        files={"plots/confusion.png": tmp_path / "cm.png"},
        bundle=tmp_path / "bundle",
    )
    for uri in (f"sqlite:///{tmp_path}/mlflow.db", mlflow_server):
        store = MlflowStore(uri, "looked-at", tmp_path / "artifacts", {})
        store.record(run)
        store.record(run)
        (kept,) = runs_of(uri, "looked-at")
        assert kept.info.status == "FINISHED"
        assert kept.info.run_name == str(release)
        assert kept.data.params == {"C": "1.0", "long": "x" * 5000}
        assert kept.data.metrics == {"accuracy": 0.97, "f1_macro": 0.9}
        tags = kept.data.tags
        assert tags["mlship.release"] == release.id
        assert tags["mlflow.source.git.commit"] == release.commit
        assert tags["mlship.data"] == release.data
        assert tags["branch"] == "develop"
        with session(uri, {}) as client:
            plots = client.list_artifacts(kept.info.run_id, "plots")
            assert [item.path for item in plots] == ["plots/confusion.png"]
            assert len(client.get_metric_history(kept.info.run_id, "accuracy")) == 1
    assert {path.name for path in tmp_path.glob("[!.]*")} == {
        *("artifacts", "bundle", "cm.png", "mlflow.db")
    }


def test_a_metric_measured_again_replaces_the_old_value(
    store: MlflowStore, release: Release, database: Path
) -> None:
    for value in (30.0, 10.0, 20.0):
        store.record(Run(release=release, metrics={"p99_ms": value}))
    (kept,) = runs_of(f"sqlite:///{database}")
    assert kept.data.metrics["p99_ms"] == 20.0


@pytest.mark.parametrize("backend", ["sqlite", "server"])
def test_the_fast_read_says_what_mlflow_s_own_client_says(
    backend: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if backend == "sqlite":
        uri = f"sqlite:///{request.getfixturevalue('database')}"
    else:
        uri = request.getfixturevalue("mlflow_server")
    store = MlflowStore(uri, "compared", tmp_path / "artifacts", {})
    made = []
    for text in ("one", "two", "three"):
        made.append(tiny_release(tiny_bundle(tmp_path / text, text)))
        store.record(Run(release=made[-1], bundle=tmp_path / text))
        store.point("champion", made[-1])
    store.archive(made[0], archived=True)
    with session(uri, {}) as client:
        client.set_registered_model_alias("compared", "canary", "3")
        client.create_model_version("compared", f"{tmp_path}/x".replace("/", "s3://", 1))
        client.delete_model_version("compared", "2")
        slow = LibraryPlace(client, "compared", None).versions()
    fast = list(store.versions())
    assert [(v.number, v.aliases, v.archived) for v in fast] == [
        ("1", (), True),
        ("3", ("canary", "champion"), False),
    ]
    links = [f"{uri}/#/models/compared/versions/{n}" if backend == "server" else "" for n in "13"]
    assert [v.link for v in fast] == links
    assert [msgspec.structs.replace(v, link="") for v in fast] == slow


def test_unknown_tables_are_read_through_mlflow(
    store: MlflowStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = list(store.versions())
    monkeypatch.setattr(mlflow_fast, "_COLUMNS", {"model_versions": {"of_a_later_mlflow"}})
    assert list(store.versions()) == known
    assert known[0].aliases == ("champion",)


def test_reading_imports_no_mlflow_and_writing_prints_nothing(
    tmp_path: Path, mlflow_server: str
) -> None:
    tiny_bundle(tmp_path / "bundle")
    source = """
import sys
from pathlib import Path
from mlship.adapters.stores import mlflow_fast
from mlship.adapters.stores.mlflow import MlflowStore
from mlship.adapters.stores.mlflow_library import LibraryPlace
from mlship.domain.versions import Run
from tests.fakes.store import tiny_release
from mlship.domain import digests

folder, *uris = sys.argv[1:]
folder = Path(folder)
release = tiny_release(digests.of_file(folder / "bundle" / "bundle.json"))
for uri in uris:
    store = MlflowStore(uri, "quiet", folder / "artifacts", {})
    assert not list(store.versions())
    assert "mlflow" not in sys.modules
    store.record(Run(release=release, bundle=folder / "bundle", metrics={"a": 1.0}))
    store.point("champion", release)
    store.fetch(release, folder / f"fetched-{uri[:4]}")
    assert ("mlflow" in sys.modules) == uri.startswith("sqlite"), "a server needs REST only"
"""
    uris = [mlflow_server, f"sqlite:///{tmp_path}/mlflow.db"]
    argv = [sys.executable, "-c", source, str(tmp_path), *uris]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_change_asks_a_server_once_for_what_does_not_change(
    tmp_path: Path, mlflow_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"iris-{uuid.uuid4().hex[:8]}"
    store = MlflowStore(mlflow_server, name, tmp_path / "artifacts", {})
    asked: Counter[str] = Counter()
    for method in ("get", "post"):
        monkeypatch.setattr(Server, method, _counted(getattr(Server, method), asked))
    for number in range(2):
        folder = tmp_path / str(number)
        release = tiny_release(tiny_bundle(folder, f"model {number}"))
        asked.clear()
        store.record(Run(release=release, bundle=folder))
        # Until the first change has created it, it is looked for.
        assert asked["experiments/get-by-name"] == (1 if number else 3)
        asked.clear()
        store.point("champion", release)
        assert asked["experiments/get-by-name"] == 1
        assert asked["registered-models/create"] == (0 if number else 1)
    assert [version.aliases for version in store.versions()] == [(), ("champion",)]


def _counted(function: Callable[..., Any], asked: Counter[str]) -> Callable[..., Any]:
    def called(server: Server, path: str, *args: Any, **kwargs: Any) -> Any:
        asked[path] += 1
        return function(server, path, *args, **kwargs)

    return called


def test_settings_of_mlflow_stay_within_the_call(
    store: MlflowStore, release: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "77")
    before = dict(os.environ)
    store.record(Run(release=release, metrics={"a": 2.0}))
    assert dict(os.environ) == before


def test_a_bundle_changed_in_the_artifacts_is_refused_and_nothing_is_left(
    tmp_path: Path, release: Release
) -> None:
    folder = tmp_path / "bundle"
    tiny_bundle(folder)
    store = MlflowStore(f"sqlite:///{tmp_path}/mlflow.db", "iris", tmp_path / "artifacts", {})
    store.record(Run(release=release, bundle=folder))
    (model,) = (tmp_path / "artifacts").rglob("model.onnx")
    model.write_text("evil")
    with pytest.raises(IntegrityError, match=r"model\.onnx"):
        store.fetch(release, tmp_path / "into" / "fetched")
    assert not list((tmp_path / "into").iterdir())


def test_code_that_python_would_run_from_a_cache_is_refused(
    tmp_path: Path, release: Release
) -> None:
    tiny_bundle(tmp_path / "bundle")
    store = MlflowStore(f"sqlite:///{tmp_path}/mlflow.db", "iris", tmp_path / "artifacts", {})
    store.record(Run(release=release, bundle=tmp_path / "bundle"))
    (code,) = (tmp_path / "artifacts").rglob("code")
    (code / "__pycache__").mkdir()
    (code / "__pycache__" / "pipeline.cpython-311.pyc").write_bytes(b"evil")
    with pytest.raises(IntegrityError, match="__pycache__"):
        store.fetch(release, tmp_path / "fetched")


def test_artifacts_that_are_gone_are_not_found(tmp_path: Path, release: Release) -> None:
    tiny_bundle(tmp_path / "bundle")
    store = MlflowStore(f"sqlite:///{tmp_path}/mlflow.db", "iris", tmp_path / "artifacts", {})
    store.record(Run(release=release, bundle=tmp_path / "bundle"))
    (tmp_path / "artifacts").rename(tmp_path / "moved")
    with pytest.raises(NotFoundError):
        store.fetch(release, tmp_path / "fetched")


def test_mlflow_that_is_not_installed_is_a_matter_of_pip(
    store: MlflowStore, release: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    monkeypatch.delitem(sys.modules, "mlflow.exceptions", raising=False)
    with pytest.raises(ConfigError) as caught:
        store.record(Run(release=release))
    assert caught.value.hint == installation.hint("mlflow")


def test_a_damaged_database_is_not_used(store: MlflowStore, release: Release) -> None:
    assert store._database
    store._database.write_bytes(b"not a database at all" * 100)
    actions: list[Callable[[], object]] = [
        store.versions,
        lambda: store.record(Run(release=release)),
        lambda: store.point("challenger", release),
    ]
    for action in actions:
        with pytest.raises(IntegrityError, match="damaged"):
            action()


def test_a_damaged_page_is_told_as_damage(store: MlflowStore, release: Release) -> None:
    assert store._database
    data = bytearray(store._database.read_bytes())
    data[4096:] = b"\xff" * (len(data) - 4096)
    store._database.write_bytes(data)
    with pytest.raises(IntegrityError, match="damaged"):
        store.versions()
    with pytest.raises(IntegrityError, match="damaged"):
        store.record(Run(release=release))


def test_a_locked_database_is_unavailable_within_seconds(
    store: MlflowStore, release: Release, database: Path
) -> None:
    with closing(sqlite3.connect(database)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        start = time.monotonic()
        with pytest.raises(UnavailableError, match="locked"):
            store.record(Run(release=release))
        assert time.monotonic() - start < 10
    store.record(Run(release=release))


def test_a_database_of_another_mlflow_is_told_with_the_upgrade(
    store: MlflowStore, release: Release, database: Path
) -> None:
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")
        connection.commit()
    with pytest.raises(ConfigError, match="another version") as caught:
        store.record(Run(release=release))
    assert "mlflow db upgrade sqlite:///" in caught.value.hint


def test_a_folder_that_cannot_be_made_is_unavailable(tmp_path: Path, release: Release) -> None:
    (tmp_path / "file").write_text("")
    uri = f"sqlite:///{tmp_path}/file/mlflow.db"
    store = MlflowStore(uri, "iris", tmp_path / "artifacts", {})
    assert not list(MlflowStore(f"sqlite:///{tmp_path}/no.db", "x", tmp_path, {}).versions())
    with pytest.raises(UnavailableError):
        store.record(Run(release=release))


def test_a_deleted_experiment_is_named_with_the_way_back(
    store: MlflowStore, database: Path, tmp_path: Path
) -> None:
    uri = f"sqlite:///{database}"
    with session(uri, {}) as client:
        client.delete_experiment(client.get_experiment_by_name("iris").experiment_id)
    other = tiny_release(tiny_bundle(tmp_path / "other", "other"))
    with pytest.raises(ConflictError, match="iris") as caught:
        store.record(Run(release=other))
    assert "mlflow experiments restore" in caught.value.hint


@contextmanager
def answering(status: int, body: bytes) -> Iterator[tuple[str, list[str]]]:
    """Give the address of a server with one answer, and the credentials that it was sent."""
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers.get("Authorization", ""))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (its name)
            return

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", seen
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("status", [401, 403])
def test_refused_credentials_are_told_with_the_variables_to_set(
    status: int, tmp_path: Path, release: Release
) -> None:
    with answering(status, b"no") as (uri, _):
        store = MlflowStore(uri, "iris", tmp_path, {})
        for action in (store.versions, lambda: store.record(Run(release=release))):
            with pytest.raises(UnavailableError, match="credentials") as caught:
                action()
            assert "MLFLOW_TRACKING_TOKEN" in caught.value.hint


@pytest.mark.parametrize(
    ("environ", "sent"),
    [
        ({}, ""),
        ({"MLFLOW_TRACKING_TOKEN": "t0ken"}, "Bearer t0ken"),
        (
            {"MLFLOW_TRACKING_USERNAME": "ada", "MLFLOW_TRACKING_PASSWORD": "pw"},
            "Basic YWRhOnB3",
        ),
    ],
)
def test_credentials_come_from_the_environment_given(
    environ: dict[str, str], sent: str, tmp_path: Path
) -> None:
    absent = b'{"error_code": "RESOURCE_DOES_NOT_EXIST"}'
    with answering(404, absent) as (uri, seen):
        assert list(MlflowStore(uri, "iris", tmp_path, environ).versions()) == []
    assert seen == [sent]


@pytest.mark.parametrize(("status", "body"), [(200, b"<html>"), (500, b""), (404, b"nginx")])
def test_a_server_that_is_no_mlflow_is_unavailable(
    status: int, body: bytes, tmp_path: Path
) -> None:
    with answering(status, body) as (uri, _), pytest.raises(UnavailableError, match=uri):
        MlflowStore(uri, "iris", tmp_path, HASTY).versions()


@pytest.mark.parametrize("answers", ["nothing listens", "silence"])
def test_a_server_that_is_down_is_told_as_soon_as_is_asked_without_its_password(
    answers: str, tmp_path: Path, release: Release
) -> None:

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if answers == "silence":
            listener.listen()
        uri = f"http://ada:s3cret@127.0.0.1:{listener.getsockname()[1]}"
        store = MlflowStore(uri, "iris", tmp_path, HASTY)
        start = time.monotonic()
        with pytest.raises(UnavailableError, match=r"127.*2 attempts") as caught:
            store.record(Run(release=release))
        assert time.monotonic() - start < 10
        assert "s3cret" not in f"{caught.value} {caught.value.hint}"
        assert "MLFLOW_TRACKING_URI" in caught.value.hint
