"""Real backends for the contract suites, started once and only when a test asks for them."""

import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from mlship.adapters.mlflow import library
from tests.harness import bystander, forks, migrated, postgres, tracking


@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Import MLflow before workers are forked: each of them would take five seconds for it."""
    if forks.count(session.config) > 1 and any("mlflow" in item.nodeid for item in session.items):
        with migrated.copied():
            pass


@pytest.fixture(autouse=True)
def _migrated(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let new databases of MLflow have tables that are copied, but in tests marked `cold`."""
    create = library.create_database

    def created(path: Path, artifacts: Path, environ: Mapping[str, str]) -> None:
        with migrated.copied():
            create(path, artifacts, environ)

    if not request.node.get_closest_marker("cold"):
        monkeypatch.setattr(library, "create_database", created)


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Give the address of a real `mlflow server` of the tests' own."""
    with tracking.server(tmp_path_factory.mktemp("mlflow-server")) as url:
        yield url


@pytest.fixture(scope="session", name="bystander")
def _bystander() -> Iterator[bystander.Bystander]:
    """Give a process with MLflow and the libraries of models, and without mlship."""
    with bystander.start() as started:
        yield started


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[postgres.Server]:
    """Give a real PostgreSQL server of the tests' own."""
    with postgres.server() as server:
        yield server


@pytest.fixture
def postgres_url(postgres_server: postgres.Server) -> str:
    """Give the address of a new and empty database."""
    return postgres_server.create(f"test_{uuid.uuid4().hex}")
