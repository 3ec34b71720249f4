"""Addresses of queries and tables: what they name, and that no password is among it."""

import pytest

from mlship.domain.databases import Database, parsed
from mlship.errors import ConfigError

HOST = "postgresql://writer@db.example.org:5432/lake"


@pytest.mark.parametrize(
    ("text", "database", "shown"),
    [
        (
            f"{HOST}#sql/score.sql",
            Database(HOST, query="sql/score.sql"),
            "postgresql://db.example.org:5432/lake#sql/score.sql",
        ),
        (
            f"{HOST}?table=public.scores&sslmode=require",
            Database(f"{HOST}?sslmode=require", table=("public", "scores")),
            "postgresql://db.example.org:5432/lake?sslmode=require&table=public.scores",
        ),
        (
            "postgresql:///lake?table=Scores",
            Database("postgresql:///lake", table=("Scores",)),
            "postgresql:///lake?table=Scores",
        ),
    ],
)
def test_an_address_names_a_query_or_a_table(text: str, database: Database, shown: str) -> None:
    assert parsed(text, "batch.input", "log in") == database
    assert database.shown == shown


def test_names_of_tables_are_quoted() -> None:
    assert Database("", table=("a", 'b"; DROP TABLE c; --')).relation == (
        '"a"."b""; DROP TABLE c; --"'
    )


@pytest.mark.parametrize(
    "text",
    [
        HOST,
        f"{HOST}?table=",
        f"{HOST}?table=a.b.c",
        f"{HOST}?table=a&table=b",
        f"{HOST}?table=a#q.sql",
        f"{HOST}#",
        f"{HOST}#../q.sql",
        f"{HOST}#/q.sql",
        "postgresql://writer:secret@db.example.org/lake?table=a",
        "postgresql://db.example.org/lake?password=secret&table=a",
    ],
)
def test_another_address_is_refused_without_its_password(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parsed(text, "batch.input", "log in")
    assert "secret" not in f"{caught.value.message} {caught.value.hint}"
    assert caught.value.hint
