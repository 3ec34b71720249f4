"""Group commit: requests that come together are written together, and each waits for its batch."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

from mlship.errors import UnavailableError

Written = Future[None]
"""Done when the predictions are durable; holds an `UnavailableError` where they are not."""

_T = TypeVar("_T")


class GroupCommit(Generic[_T]):
    """Has one thread write what many hand in, batch after batch.

    Args:
        write: makes a batch durable; is told the monotonic time since which the first of the
            batch waits. What it raises, all of the batch get.
    """

    def __init__(self, write: Callable[[list[_T], float], None]) -> None:
        self._write = write
        self._waiting: list[_T] = []
        self._since = 0.0
        self._written = _unwritten()
        self._changed = threading.Condition()
        self._is_closing = False
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    def append(self, item: _T) -> Written:
        """Hand an item in; the result is done when it is durable.

        Raises:
            UnavailableError: it is closed.
        """
        with self._changed:
            if self._is_closing:
                raise UnavailableError("the prediction log is closed", hint="ask again")
            if not self._waiting:
                self._since = time.monotonic()
            self._waiting.append(item)
            self._changed.notify()
            return self._written

    def close(self) -> None:
        """Write what waits, and stop."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._is_closing:
                    self._changed.wait()
                if not self._waiting:
                    return
                batch, self._waiting = self._waiting, []
                written, self._written = self._written, _unwritten()
                since = self._since
            try:
                self._write(batch, since)
            except Exception as error:  # noqa: BLE001 (those who wait must hear of anything)
                written.set_exception(error)
            else:
                written.set_result(None)


def _unwritten() -> Written:
    """Return a future that nobody can cancel: a request that is given up shares it with others."""
    written: Written = Future()
    written.set_running_or_notify_cancel()
    return written
