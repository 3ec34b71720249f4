"""The `mlflow` package, for databases and artifact stores: imported late, and kept silent.

Tracking servers are accessed by `rest`. Only if a server does not serve artifacts itself, the
package accesses their store, with half a minute of patience.

MLflow reads its settings from the process's environment at each call. They are set for the time of
a call and then restored, so that nothing leaks into the programs that mlship starts.
"""

import importlib
import logging
import os
import shutil
import sqlite3
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from mlship import files
from mlship.adapters.mlflow.faults import TWICE, WRONG, broken, denied, unavailable, userinfo
from mlship.config import installation
from mlship.errors import ConfigError, ConflictError, MlshipError, NotFoundError, shown

_DEFAULTS: Final = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "5",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
_HEAVY: Final = (
    "pandas",
    "sqlalchemy.orm",
    "scipy.sparse",
    "fastapi",
    "alembic.command",
    "google.protobuf.message",
    "requests",
)
_LOGGERS: Final = ("alembic", "mlflow", "sqlalchemy")
_BROKEN: Final = ("malformed", "not a database")
_TIMES: Final = 10
_DENIED: Final = {"PERMISSION_DENIED", "UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED"}
_STATUS: Final = {401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND"}
_ABSENT: Final = {"RESOURCE_DOES_NOT_EXIST", "NOT_FOUND", "ENDPOINT_NOT_FOUND"}


def load_ahead() -> None:
    """Start to import, in a thread, the libraries that MLflow needs.

    They take longer to import than MLflow itself. `session` imports MLflow: its import reads the
    environment, which must not change while programs are started. If the command ends first, the
    thread stops after the current library.
    """
    threading.Thread(target=_import_all, args=(_HEAVY,), name="mlflow-ahead").start()


def _import_all(names: Sequence[str]) -> None:
    for name in names:
        if not threading.main_thread().is_alive():
            return
        # Other versions of MLflow may not need it.
        with suppress(ImportError):
            importlib.import_module(name)


@contextmanager
def session(uri: str, environ: Mapping[str, str]) -> Iterator[Any]:
    """Yield a client of a tracking server or database; map its exceptions to mlship's errors.

    Args:
        uri: of the server or database. A database must exist.
        environ: its variables `MLFLOW_*` override the defaults above.

    Raises:
        ConfigError: mlflow is not installed, or rejects a value.
        MlshipError: an error of MLflow, by its kind.
    """
    with _vendor(uri, environ) as client:
        yield client(tracking_uri=uri, registry_uri=uri)


@contextmanager
def _vendor(uri: str, environ: Mapping[str, str]) -> Iterator[Any]:
    """Yield the class of MLflow's client, which is imported now."""
    with _settings(uri, environ):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                from mlflow.exceptions import MlflowException
                from mlflow.tracking import MlflowClient
                from sqlalchemy.exc import SQLAlchemyError
        except ImportError as error:
            message = f"MLflow at {shown(uri)} needs the package mlflow, which is not installed"
            raise ConfigError(message, hint=installation.hint("mlflow")) from error
        try:
            with _silence():
                yield MlflowClient
        except (MlflowException, SQLAlchemyError, OSError) as error:
            raise _translated(error, uri) from error


@contextmanager
def artifacts(uri: str, where: str, environ: Mapping[str, str]) -> Iterator[Any]:
    """Yield MLflow's client of an artifact store.

    Args:
        uri: of the tracking server, for messages.
        where: the artifacts of a run, such as `s3://models/1/3f9a/artifacts`.
        environ: its variables `MLFLOW_*` override the defaults above.

    Raises:
        ConfigError: mlflow or its library for that store is not installed.
        MlshipError: an error of MLflow, by its kind.
    """
    with _vendor(uri, environ):
        from mlflow.store.artifact.artifact_repository_registry import (
            get_artifact_repository,
        )

        yield get_artifact_repository(where, tracking_uri=uri)


def upload(log: Callable[[str, str | None], None], files: Mapping[str, Path]) -> None:
    """Store files as artifacts under their paths.

    Args:
        log: stores a file in a folder of artifacts, under its own name.
        files: by their path.
    """
    with tempfile.TemporaryDirectory(prefix="mlship-") as temporary:
        for path, file in files.items():
            folder, _, name = path.rpartition("/")
            source = file
            if name != file.name:
                source = Path(temporary) / name
                shutil.copyfile(file, source)
            log(str(source), folder or None)


@contextmanager
def existing_is_fine() -> Iterator[None]:
    """Ignore MLflow's error that an object exists: another process created it."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def persist(work: Callable[[], None]) -> None:
    """Call a function, again if another process wrote the same row first.

    Args:
        work: looks at what is there and writes what is missing, so it may be done many times.
    """
    from mlflow.exceptions import MlflowException

    for _ in range(_TIMES):
        try:
            work()
        except MlflowException as error:
            if not any(word in str(error) for word in TWICE):
                raise
        else:
            return
    work()


def create_database(path: Path, artifacts: Path, environ: Mapping[str, str]) -> None:
    """Create MLflow's database atomically; an existing one is kept.

    MLflow's migrations are many transactions. A kill between them leaves a database that MLflow
    refuses, so they run on a database elsewhere, which is then put in place by one link.

    Raises:
        UnavailableError: the disk is full or the folder cannot be written.
    """
    with (
        _vendor(f"sqlite:///{path}", environ),
        tempfile.TemporaryDirectory(prefix="mlship-") as temporary,
    ):
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        draft = Path(temporary) / "new.db"
        with _hasty():
            SqlAlchemyStore(f"sqlite:///{draft}", artifacts.as_uri()).engine.dispose()
        path.parent.mkdir(parents=True, exist_ok=True)
        publish(draft, path)


@contextmanager
def _hasty() -> Iterator[None]:
    """Disable sqlite's disk syncs: the migrations of a new database have 1,600."""
    from sqlalchemy import Engine, event

    def connected(connection: sqlite3.Connection, _record: object) -> None:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA journal_mode = MEMORY")

    event.listen(Engine, "connect", connected)
    try:
        yield
    finally:
        event.remove(Engine, "connect", connected)


def publish(source: Path, path: Path) -> None:
    """Put a copy of a database in place by one link; an existing one is kept.

    Raises:
        OSError: the disk is full or the folder cannot be written.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.new")
    draft.unlink(missing_ok=True)
    try:
        with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(draft)) as new:
            old.backup(new)
        os.link(draft, path)
    except FileExistsError:
        return
    except sqlite3.Error as error:
        raise OSError(str(error)) from error
    finally:
        draft.unlink(missing_ok=True)
    files.sync_folder(path.parent)


def _translated(error: Exception, uri: str) -> MlshipError:
    text = _brief(error, uri)
    if any(word in text for word in _BROKEN):
        return broken(uri, text)
    if "out-of-date database schema" in text:
        message = f"MLflow's database {shown(uri)} was created by another version of MLflow"
        return ConfigError(message, hint=f"back it up, then `mlflow db upgrade {shown(uri)}`")
    if isinstance(error, OSError):
        response = getattr(error, "response", None)
        code = _STATUS.get(getattr(response, "status_code", 0), "")
    else:
        code = str(getattr(error, "error_code", ""))
    return _by_code(code, text, uri)


def _by_code(code: str, text: str, uri: str) -> MlshipError:
    if code in _DENIED:
        return denied(uri)
    if code in _ABSENT:
        return NotFoundError(f"MLflow at {shown(uri)}: {text}", hint="`mlship train` records it")
    if code == "RESOURCE_ALREADY_EXISTS":
        message = f"MLflow at {shown(uri)}: {text}"
        return ConflictError(message, hint="look at it with `mlship status`, then run it again")
    if code in WRONG and "(sqlite3." not in text:
        message = f"MLflow at {shown(uri)} refused a value: {text}"
        return ConfigError(message, hint="change the value that the message names")
    return unavailable(uri, text)


def _brief(error: Exception, uri: str) -> str:
    text = " ".join(str(error).split())
    if userinfo(uri):
        text = text.replace(f"{userinfo(uri)}@", "")
    return text if len(text) <= 300 else text[:297] + "..."


@contextmanager
def _silence() -> Iterator[None]:
    """Keep the vendor's log and warnings off the terminal.

    The streams themselves stay as they are: another thread may be drawing on them.
    """
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL + 1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def _settings(uri: str, environ: Mapping[str, str]) -> Iterator[None]:
    own = {name: value for name, value in environ.items() if name.startswith("MLFLOW_")}
    # MLflow resolves a logged model by the variable, whatever its client was given.
    wanted = {**_DEFAULTS, **own, "MLFLOW_TRACKING_URI": uri}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
