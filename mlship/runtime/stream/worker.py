"""A worker of a stream: it reads messages, has them answered, and commits both together."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

import msgspec

from mlship.domain.stream import Plan, Settings, Side
from mlship.errors import IntegrityError, NotFoundError
from mlship.runtime.stream.brokers import Brokers, Received
from mlship.runtime.stream.link import Results, Values
from mlship.runtime.stream.replies import Replies
from mlship.runtime.stream.transactions import UnfitError

_LONGEST_SECONDS: Final = 1.0
"""Of a transaction, if messages wait: the route is looked at between two of them."""


class Computing(Protocol):
    """What `models.Models` does for a worker."""

    def want(self, plan: Plan) -> None:
        """Begin to load what a plan needs and is not loaded."""

    def arrived(self, *, wait: bool = False) -> Plan | None:
        """Return the plan that was wanted, once, when all that it needs is loaded."""

    def compute(self, asked: Mapping[str, tuple[Side, Values]]) -> dict[str, Results]:
        """Return the results of batches, each by a model of its own."""


class Worker:
    """Answers messages by the plan in a file, until it is stopped.

    Args:
        settings: of the stream.
        plan: the file; a new one is put in its place when the route changes.
        brokers: where messages are read and written.
        models: what computes.
        note: shows a line to the operator.
        clock: returns seconds that only grow.
    """

    def __init__(
        self,
        settings: Settings,
        plan: Path,
        brokers: Brokers,
        models: Computing,
        note: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.is_stopped = False
        self._clock = clock
        self._limit = settings.max_rows
        self._settings = settings
        self._file = plan
        self._seen: tuple[int, int] | None = None
        self._brokers = brokers
        self._models = models
        self._note = note
        self._plan: Plan | None = None
        self._replies: Replies | None = None

    def load(self) -> None:
        """Load the models of the plan, before messages are read.

        Raises:
            MlshipError: there is no plan, or a model cannot be loaded.
        """
        self._look()
        arrived = self._models.arrived(wait=True)
        if arrived is None:
            message = f"{self._file} has no plan"
            raise NotFoundError(message, hint="start the worker by `mlship stream run`")
        self._follow(arrived)

    def run(self) -> None:
        """Answer messages until `is_stopped` is set; a transaction that has begun is finished.

        Raises:
            MlshipError: see `Brokers` and `Computing`; messages without a commit are read again.
        """
        seconds = self._settings.max_ms / 1000
        while not self.is_stopped:
            self.turn(seconds)

    def turn(self, seconds: float) -> int:
        """Answer what arrives within some time; return how many messages it was."""
        self._look()
        arrived = self._models.arrived()
        if arrived is not None:
            self._follow(arrived)
        received = self._brokers.poll(self._limit, seconds)
        if received:
            assert self._replies is not None  # noqa: S101 (load has set it)
            started = self._clock()
            self._commit(self._replies, received)
            self._pace(len(received), self._clock() - started)
        return len(received)

    def _commit(self, replies: Replies, received: Sequence[Received]) -> None:
        """Commit the replies; what its topic does not take is set aside, or left out."""
        sent = list(replies.to(received))
        while True:
            try:
                self._brokers.commit(sent, received)
            except UnfitError as error:
                sent = replies.instead(sent, error, received)
                self._note(f"a message {error.reason}")
            else:
                return

    def _pace(self, count: int, seconds: float) -> None:
        """Take so many messages the next time that a change of the route waits for a second."""
        if seconds > _LONGEST_SECONDS:
            self._limit = max(1, int(count * _LONGEST_SECONDS / seconds))
        elif count == self._limit and seconds < _LONGEST_SECONDS / 2:
            self._limit = min(self._settings.max_rows, 2 * self._limit)

    def _look(self) -> None:
        """Want the plan in the file, if it is another one than before."""
        try:
            status = self._file.stat()
            seen = (status.st_mtime_ns, status.st_ino)
            if seen == self._seen:
                return
            plan = msgspec.json.decode(self._file.read_bytes(), type=Plan)
        except FileNotFoundError:
            return
        except msgspec.DecodeError as error:
            message = f"{self._file} is damaged: {error}"
            raise IntegrityError(message, hint="run `mlship stream run` again") from error
        self._seen = seen
        if self._plan is None or plan.revision != self._plan.revision:
            self._models.want(plan)

    def _follow(self, plan: Plan) -> None:
        """Answer by a plan from the next transaction on."""
        self._plan = plan
        self._replies = Replies(self._settings, plan, self._models)
        shares = ", ".join(f"{side.name} {side.weight} %" for side in plan.sides if side.weight)
        self._note(f"follows route {plan.revision}: {shares}")
