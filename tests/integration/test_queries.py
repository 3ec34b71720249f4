"""Data of a query of a real PostgreSQL: their identity is that of their rows."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mlship.adapters.checkout import datafiles
from mlship.config.data import DataConfig, ReadConfig
from mlship.errors import ConfigError, ProjectError, UnavailableError
from mlship.training.data import load
from tests.harness.postgres import Server, server

pytestmark = pytest.mark.service("postgresql")


@pytest.fixture(scope="module")
def database() -> Iterator[Server]:
    with server() as running:
        running.create("lake")
        running.execute(
            "lake",
            "CREATE TABLE flowers (id int, petal float8, name text, seen date, y text)",
            "INSERT INTO flowers VALUES (2, 0.5, 'a, \"b\"', '2026-11-23', 'rose'), "
            "(1, 1.25, NULL, '2026-11-24', 'iris'), (10, 3, E'two\\nlines', NULL, 'iris')",
        )
        yield running


@pytest.fixture
def root(tmp_path: Path, database: Server, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PGPASSWORD", database.password)
    (tmp_path / "train.sql").write_text("SELECT id, petal, name, seen, y FROM flowers -- all\n")
    return tmp_path


@pytest.fixture
def text(database: Server) -> str:
    return f"postgresql://mlship@{database.host}:{database.port}/lake#train.sql"


def digest(root: Path, text: str) -> str:
    return datafiles.sources(root, DataConfig(train=text, target="y"))[text]


def test_a_query_is_known_by_its_rows_in_whatever_order(
    root: Path, text: str, database: Server
) -> None:
    known = digest(root, text)
    frame = load(root, text, ReadConfig(parse_dates=("seen",)))
    assert list(frame.columns) == ["id", "petal", "name", "seen", "y"]
    assert sorted(frame.petal) == [0.5, 1.25, 3.0]
    assert set(frame.name.dropna()) == {'a, "b"', "two\nlines"}
    assert str(frame.seen.dtype).startswith("datetime64")
    # An update writes rows anew, at the end of the table.
    database.execute("lake", "UPDATE flowers SET petal = petal WHERE id = 2")
    assert digest(root, text) == known
    assert load(root, text, ReadConfig(parse_dates=("seen",))).equals(frame)
    (root / "train.sql").write_text("SELECT id, petal, name, seen, y FROM flowers ORDER BY id DESC")
    assert digest(root, text) == known
    database.execute("lake", "UPDATE flowers SET petal = 4 WHERE id = 10")
    assert digest(root, text) != known
    database.execute("lake", "UPDATE flowers SET petal = 3 WHERE id = 10")
    assert digest(root, text) == known


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("SELEC 1", "syntax error"),
        ("SELECT * FROM nowhere", "nowhere"),
        ("INSERT INTO flowers (id) VALUES (9) RETURNING id", "read-only"),
        ("", "syntax error"),
    ],
)
def test_a_query_that_the_database_refuses_is_named(
    root: Path, text: str, query: str, says: str
) -> None:
    (root / "train.sql").write_text(query)
    with pytest.raises(ProjectError, match=says) as caught:
        digest(root, text)
    assert "train.sql" in caught.value.message


def test_a_database_that_does_not_let_one_in_is_unavailable(
    root: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", "wrong")
    with pytest.raises(UnavailableError) as caught:
        digest(root, text)
    assert "PGPASSWORD" in caught.value.hint
    with pytest.raises(UnavailableError):
        digest(root, "postgresql://mlship@127.0.0.1:1/lake#train.sql")


def test_options_for_files_are_refused(root: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="not for a query"):
        load(root, text, ReadConfig(sep=";"))
