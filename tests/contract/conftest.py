"""Real backends for the contract suites, started once and only when a test asks for them."""

import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from mlship.adapters.mlflow import library
from tests.harness import migrated, postgres, tracking


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


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[postgres.Server]:
    """Give a real PostgreSQL server of the tests' own."""
    with postgres.server() as server:
        yield server


@pytest.fixture
def postgres_url(postgres_server: postgres.Server) -> str:
    """Give the address of a new and empty database."""
    return postgres_server.create(f"test_{uuid.uuid4().hex}")
