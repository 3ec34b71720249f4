"""Where predictions are logged, by what `--log` says: a folder, or a database's address."""

from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Protocol

from mlship.domain.prediction import Prediction
from mlship.errors import ConfigError, shown
from mlship.runtime.groups import Written
from mlship.runtime.record import Recorder


class Sink(Protocol):
    """A prediction log that is open."""

    def append(self, predictions: Sequence[Prediction]) -> Written:
        """Keep predictions; the result is done when they are durable."""

    def close(self) -> None:
        """Write what waits, and stop."""


def open_sink(log: str, slot: str, clock: Callable[[], datetime]) -> Sink:
    """Return the log at a folder or at `postgresql://...`.

    Raises:
        ConfigError: the address is of another kind, or not understood.
        UnavailableError: the folder or the database cannot be written.
    """
    if log.startswith(("postgresql://", "postgres://")):
        from mlship.runtime.postgres import PostgresRecorder  # noqa: PLC0415 (one is used)

        return PostgresRecorder(log, slot)
    if "://" in log:
        message = f"a prediction log cannot be at {shown(log)}"
        raise ConfigError(message, hint="give a folder, or postgresql://user@host/database")
    return Recorder(Path(log), slot, clock)
