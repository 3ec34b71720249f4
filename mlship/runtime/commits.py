"""The log as the event loop sees it: one append for each of its turns.

However many requests a turn has, the log's thread is woken once, and wakes the loop once.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable

from mlship.domain.predicted import Batch, Together
from mlship.errors import UnavailableError
from mlship.runtime.record import Record, Writing

SECONDS = 10.0
"""How long a response waits for the log, whose disk or database may hang."""


class Turn:
    """What was appended in one turn of the loop; all of it is written, or nothing."""

    def __init__(self, since: float) -> None:
        self.predictions: list[Batch] = []
        self.since = since
        self.is_done = False
        self._error: BaseException | None = None
        self._callbacks: list[Callable[[Turn], object]] = []

    def add_done_callback(self, fn: Callable[["Turn"], object], /) -> None:
        """Call a function in the loop when the turn is written, or has failed."""
        self._callbacks.append(fn)

    def exception(self) -> BaseException | None:
        """Return why it was not written."""
        return self._error

    def end(self, error: BaseException | None) -> None:
        """Call back once; one that raises keeps no other from being called."""
        if self.is_done:
            return
        self.is_done = True
        self._error = error
        fault: Exception | None = None
        for callback in self._callbacks:
            try:
                callback(self)
            except Exception as raised:  # noqa: BLE001 (it is raised when all have been called)
                fault = raised
        if fault is not None:
            raise fault


class Commits:
    """A `Record` for the thread of an event loop."""

    def __init__(self, record: Record, loop: asyncio.AbstractEventLoop) -> None:
        self._record = record
        self._loop = loop
        self._turn: Turn | None = None
        self._turns: deque[Turn] = deque()
        self._late: set[Turn] = set()

    def append(self, predictions: Batch) -> Turn:
        """Log predictions at the end of this turn of the loop.

        Raises:
            UnavailableError: the log does not end what it was given before; what was given up is
                still in memory.
        """
        if self._late:
            raise _hanging()
        turn = self._turn
        if turn is None:
            turn = self._turn = Turn(self._loop.time())
            self._loop.call_soon(self._flush, turn)
        turn.predictions.append(predictions)
        return turn

    def check(self, now: float) -> None:
        """Give up turns that were not written in time."""
        while self._turns and (self._turns[0].is_done or now - self._turns[0].since > SECONDS):
            turn = self._turns.popleft()
            if not turn.is_done:
                self._late.add(turn)
                turn.end(_hanging())

    def _flush(self, turn: Turn) -> None:
        self._turn = None
        try:
            written = self._record.append(Together(turn.predictions))
        except Exception as error:  # noqa: BLE001 (waiting requests must get any error)
            turn.end(error)
            return
        turn.predictions = []
        self._turns.append(turn)

        def wake(written: Writing) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody waits
                self._loop.call_soon_threadsafe(self._written, turn, written.exception())

        written.add_done_callback(wake)

    def _written(self, turn: Turn, error: BaseException | None) -> None:
        self._late.discard(turn)
        turn.end(error)
        while self._turns and self._turns[0].is_done:
            self._turns.popleft()


def _hanging() -> UnavailableError:
    message = f"the prediction log was not written within {SECONDS:g} seconds"
    return UnavailableError(message, hint="check its disk or database, then retry the request")
