"""Opens the prediction log that `--log` names: a folder or a database."""

from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Protocol

import msgspec

from mlship.domain import private
from mlship.domain.digests import Digest
from mlship.domain.predicted import Batch, Predicted, Together
from mlship.domain.prediction import Prediction
from mlship.domain.private import Rule
from mlship.errors import ConfigError, shown
from mlship.runtime.groups import Backlog, Written
from mlship.runtime.record import Recorder


class Sink(Protocol):
    """An open prediction log."""

    def append(self, predictions: Batch) -> Written:
        """Log predictions; the result is done when they are durable."""

    def backlog(self) -> Backlog:
        """Return what is spooled, and not delivered yet."""

    def close(self, deadline: float = 0.0) -> None:
        """Write the pending predictions, and stop.

        Args:
            deadline: the time of the monotonic clock until which spooled ones are delivered.

        Raises:
            UnavailableError: some are left in the spool.
        """


class PrivateSink:
    """A prediction log that lacks the values of some columns.

    Args:
        sink: where the rest is logged.
        rules: by column.
        key: of the hashes.

    Raises:
        ConfigError: a column is logged as a hash, and there is no key.
    """

    def __init__(self, sink: Sink, rules: Mapping[str, Rule], key: str) -> None:
        private.check_key(rules, key)
        self._sink = sink
        self._rules = rules
        self._key = key

    def append(self, predictions: Batch) -> Written:
        """Log predictions; the result is done when they are durable."""
        return self._sink.append(self._logged(predictions))

    def backlog(self) -> Backlog:
        """Return what is spooled, and not delivered yet."""
        return self._sink.backlog()

    def close(self, deadline: float = 0.0) -> None:
        """Write the pending predictions, and stop.

        Raises:
            UnavailableError: some are left in the spool.
        """
        self._sink.close(deadline)

    def _logged(self, batch: Batch) -> Batch:
        if isinstance(batch, Together):
            return Together([self._logged(part) for part in batch.parts])
        if isinstance(batch, Predicted):
            return msgspec.structs.replace(
                batch,
                inputs=private.logged_columns(batch.inputs, self._rules, self._key),
                outputs=private.logged_columns(batch.outputs, self._rules, self._key),
            )
        return [self._logged_one(prediction) for prediction in batch]

    def _logged_one(self, prediction: Prediction) -> Prediction:
        return msgspec.structs.replace(
            prediction,
            inputs=private.logged(prediction.inputs, self._rules, self._key),
            outputs=private.logged(prediction.outputs, self._rules, self._key),
        )


class Spooling(msgspec.Struct, frozen=True, kw_only=True):
    """Where predictions wait while the database is away.

    Attributes:
        folder: of spools, created if it does not exist.
        release: the release that is served.
        max_bytes: the size of a spool at which requests are refused.
        note: shows a line to the operator.
    """

    folder: Path
    release: Digest
    max_bytes: int
    note: Callable[[str], None]


def open_sink(
    log: str, slot: str, clock: Callable[[], datetime], spooling: Spooling | None = None
) -> Sink:
    """Open the log in a folder or at `postgresql://...`.

    Raises:
        ConfigError: the address is invalid, or has another scheme; or a folder has a spool.
        UnavailableError: the folder or the database cannot be written.
    """
    if log.startswith(("postgresql://", "postgres://")):
        if spooling is not None:
            from mlship.runtime.spool import Spools
            from mlship.runtime.spooled import SpoolingRecorder

            spools = Spools(spooling.folder, slot, clock, spooling.max_bytes)
            return SpoolingRecorder(log, spools, slot, spooling.release, spooling.note)
        from mlship.runtime.postgres import PostgresRecorder

        return PostgresRecorder(log, slot)
    if spooling is not None:
        message = f"a spool is for predictions in PostgreSQL, and the log is {shown(log)}"
        raise ConfigError(message, hint="remove --spool, or use postgresql://user@host/database")
    if "://" in log:
        message = f"unsupported prediction log: {shown(log)}"
        raise ConfigError(message, hint="use a folder, or postgresql://user@host/database")
    return Recorder(Path(log), slot, clock)
