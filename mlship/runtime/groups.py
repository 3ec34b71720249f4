"""Group commit: concurrent requests are written in one batch, and each waits for its batch."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from datetime import datetime
from queue import SimpleQueue
from typing import Generic, TypeVar

import msgspec

from mlship.errors import UnavailableError

Written = Future[None]
"""Done when the predictions are durable; otherwise it raises an `UnavailableError`."""

_T = TypeVar("_T")


class Backlog(msgspec.Struct, frozen=True, kw_only=True):
    """Predictions that are durable here and not yet where they belong.

    Attributes:
        rows: their number.
        since: the time of the oldest one.
    """

    rows: int = 0
    since: datetime | None = None


class GroupCommit(Generic[_T]):
    """Writes the items of many threads in one thread, in batches.

    Args:
        write: makes a batch durable. Its second argument is the monotonic time at which the first
            item of the batch arrived. If it raises, the error goes to every item of the batch.
    """

    def __init__(self, write: Callable[[list[_T], float], None]) -> None:
        self._write = write
        self._pending: list[_T] = []
        self._since = 0.0
        self._written = _unwritten()
        self._lock = threading.Lock()
        # It has one token for each batch that waits, and one for the end. A condition takes longer.
        self._tokens: SimpleQueue[None] = SimpleQueue()
        self._is_closing = False
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    def append(self, item: _T) -> Written:
        """Add an item; the result is done when the item is durable.

        Raises:
            UnavailableError: the log is closed.
        """
        with self._lock:
            if self._is_closing:
                raise UnavailableError("the prediction log is closed", hint="retry the request")
            if not self._pending:
                self._since = time.monotonic()
                self._tokens.put(None)
            self._pending.append(item)
            return self._written

    def close(self) -> None:
        """Write the pending items, and stop."""
        with self._lock:
            self._is_closing = True
        self._tokens.put(None)
        self._thread.join()

    def _run(self) -> None:
        while True:
            self._tokens.get()
            with self._lock:
                if not self._pending:
                    return
                batch, self._pending = self._pending, []
                written, self._written = self._written, _unwritten()
                since = self._since
            try:
                self._write(batch, since)
            except Exception as error:  # noqa: BLE001 (waiting requests must get any error)
                written.set_exception(error)
            else:
                written.set_result(None)


def _unwritten() -> Written:
    """Return a future that cannot be cancelled: a cancelled request shares it with others."""
    written: Written = Future()
    written.set_running_or_notify_cancel()
    return written
