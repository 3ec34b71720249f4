"""What the errors of PostgreSQL mean for a batch: an exit code, the object, and the next action."""

from typing import Any, NoReturn

import psycopg
import pytest
from psycopg import errors

from mlship.adapters.rows.connections import connected
from mlship.errors import ConfigError, MlshipError, ProjectError, UnavailableError

ADDRESS = "postgresql://writer@db.example.org/lake"


@pytest.mark.parametrize(
    ("error", "kind", "says", "hint"),
    [
        (errors.DiskFull("could not extend file"), UnavailableError, "no room", "free its disk"),
        (errors.AdminShutdown("terminating"), UnavailableError, "cannot be used", "again"),
        (psycopg.OperationalError("timeout"), UnavailableError, "cannot be used", "PGPASSWORD"),
        (
            errors.InsufficientPrivilege("permission denied for schema lake"),
            UnavailableError,
            "does not allow it",
            "USAGE on SCHEMA lake",
        ),
        (
            errors.InsufficientPrivilege("permission denied for table scores"),
            UnavailableError,
            "does not allow it",
            "on TABLE scores",
        ),
        (psycopg.ProgrammingError("invalid option"), ConfigError, "is invalid", "correct"),
        (errors.CheckViolation("check"), ProjectError, "refused: check", ""),
    ],
)
def test_each_error_has_an_object_and_a_next_action(
    error: Exception,
    kind: type[MlshipError],
    says: str,
    hint: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: Any, **__: Any) -> NoReturn:
        raise error

    monkeypatch.setattr(psycopg, "connect", fail)
    with (
        pytest.raises(kind) as caught,
        connected(ADDRESS, "the table", lambda error: ProjectError(f"refused: {error}")),
    ):
        pass
    assert type(caught.value) is kind
    assert says in caught.value.message
    assert hint in caught.value.hint
