"""Opens the prediction log that `--log` names: a folder or a database."""

from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Protocol

from mlship.domain.prediction import Prediction
from mlship.errors import ConfigError, shown
from mlship.runtime.groups import Written
from mlship.runtime.record import Recorder


class Sink(Protocol):
    """An open prediction log."""

    def append(self, predictions: Sequence[Prediction]) -> Written:
        """Log predictions; the result is done when they are durable."""

    def close(self) -> None:
        """Write the pending predictions, and stop."""


def open_sink(log: str, slot: str, clock: Callable[[], datetime]) -> Sink:
    """Open the log in a folder or at `postgresql://...`.

    Raises:
        ConfigError: the address is invalid, or has another scheme.
        UnavailableError: the folder or the database cannot be written.
    """
    if log.startswith(("postgresql://", "postgres://")):
        from mlship.runtime.postgres import PostgresRecorder

        return PostgresRecorder(log, slot)
    if "://" in log:
        message = f"unsupported prediction log: {shown(log)}"
        raise ConfigError(message, hint="use a folder, or postgresql://user@host/database")
    return Recorder(Path(log), slot, clock)
