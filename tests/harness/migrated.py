"""New databases of MLflow with tables that are copied: its migrations of one take a second."""

import functools
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mlship.adapters.mlflow import library


@contextmanager
def copied() -> Iterator[None]:
    """Let MLflow copy the tables of new sqlite databases, in this process and its forks.

    All else that it does with a new database it does as ever.
    """
    make = _copying()
    from mlflow.store.db import utils

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utils, "_initialize_tables", make)
        yield


@functools.cache
def _copying() -> Callable[[Any], None]:
    with library._vendor("sqlite://", {}):
        from mlflow.store.db import utils

        make: Callable[[Any], None] = utils._initialize_tables
        tables = _tables(make)

    def copy(engine: Any) -> None:
        if engine.url.get_backend_name() != "sqlite":
            make(engine)
            return
        engine.dispose()
        Path(engine.url.database).write_bytes(tables)

    return copy


def _tables(make: Callable[[Any], None]) -> bytes:
    """Return a database of which MLflow has made the tables."""
    from sqlalchemy import create_engine

    with tempfile.TemporaryDirectory(prefix="mlship-tests-") as folder:
        path = Path(folder) / "mlflow.db"
        engine = create_engine(f"sqlite:///{path}")
        with library._hasty():
            make(engine)
        engine.dispose()
        return path.read_bytes()
