"""What is computed for a request, and what comes of it."""

from array import array
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias

import msgspec

from mlship.domain.bundle import Bundle
from mlship.domain.columns import Column, Columns
from mlship.domain.digests import Digest
from mlship.runtime.faults import Fault
from mlship.runtime.memory import Held

_FLOAT_BYTES = array("d").itemsize


class Table(Columns):
    """Rows that fit the schema, with its columns in its order."""


class Computed(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """The outputs for the rows of a request.

    Attributes:
        names: of the outputs.
        columns: the values of each output, in the order of the rows; the bytes of an array if all
            of them are floats.
    """

    names: tuple[str, ...]
    columns: list[Any]

    def __len__(self) -> int:
        """Return the number of rows."""
        column = self.columns[0]
        return len(column) // _FLOAT_BYTES if type(column) is bytes else len(column)

    def outputs(self) -> Columns:
        """Return the outputs of each row."""
        return Columns(self.names, unpacked(self.columns))


def unpacked(columns: Sequence[Any]) -> list[Column]:
    """Return columns as they came over a link, with arrays of those that are bytes."""
    return [array("d", column) if type(column) is bytes else column for column in columns]


class Refused(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Why there are no outputs, and the HTTP status that says so.

    Attributes:
        reason: a word of `refusals` for metrics; empty for that of the status.
    """

    fault: Fault
    status: int = 400
    reason: str = ""


Answer: TypeAlias = Computed | Refused


class Job:
    """The rows of one request on their way to the model.

    Args:
        rows: at least one.
        deadline: the time of the monotonic clock after which nobody waits for the answer.
        finish: gets the answer, once.
        name: the id of the request.
        limit: the latest deadline that the server allows; a client may have set an earlier one.

    Attributes:
        is_sent: whether its computation may have begun.
        is_done: whether it needs no answer any more.
        queued: the monotonic time when it came; 0 for a model in this process.
        sent: the monotonic time when it was sent to a worker; 0 if it was not.
        is_repeated: whether a worker has ended before it had read it.
        size: about how many bytes it takes until it is answered, with its request.
        held: what it takes of the memory for requests, once it is accepted.
    """

    __slots__ = (
        "_finish",
        "deadline",
        "held",
        "is_done",
        "is_repeated",
        "is_sent",
        "limit",
        "name",
        "queued",
        "rows",
        "sent",
        "size",
    )

    def __init__(
        self,
        rows: Table,
        deadline: float,
        finish: Callable[[Answer], None],
        name: str,
        limit: float = 0.0,
    ) -> None:
        self.rows = rows
        self.deadline = deadline
        self.limit = max(limit, deadline)
        self.name = name
        self.is_sent = False
        self.is_done = False
        self.is_repeated = False
        self.queued = self.sent = 0.0
        self.size = 0
        self.held: Held | None = None
        self._finish = finish

    def hear(self, listen: Callable[[Answer], None]) -> None:
        """Have a function hear of the answer before it is passed on."""
        finish = self._finish

        def heard(answer: Answer) -> None:
            listen(answer)
            finish(answer)

        self._finish = heard

    def drop(self) -> None:
        """Need no answer any more, and let go of the request that it leads to."""
        self.is_done = True
        self._finish = _nothing
        self.release()

    def release(self) -> None:
        """Give back what it takes of the memory: its request is answered."""
        held, self.held = self.held, None
        if held is not None:
            held.release()

    def finish(self, answer: Answer) -> None:
        """Pass the answer on, unless the job is done."""
        if not self.is_done:
            self.is_done = True
            # The exchange that it leads to leads to this job: no circle is left to be collected.
            finish, self._finish = self._finish, _nothing
            finish(answer)


def _nothing(_: Answer) -> None:
    return None


def complete(answer: Answer, job: Job) -> Answer:
    """Return the answer to a job, or why it is none: it has another number of rows."""
    if isinstance(answer, Computed) and len(answer) != len(job.rows):
        message = f"the model returned {len(answer)} outputs for {len(job.rows)} rows"
        return Refused(Fault(message=message, hint="correct the hook, and train again"), 500)
    return answer


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """The state of what computes.

    Attributes:
        is_ready: whether a request can be computed now.
        restarts: how many workers were started again after they had ended.
        hung: how many of them were ended because they did not answer.
        last_restart: why the last of them was started again; empty if none was.
    """

    is_ready: bool = True
    restarts: int = 0
    hung: int = 0
    last_restart: str = ""


class Computer(Protocol):
    """Computes jobs with the model of one bundle."""

    @property
    def bundle(self) -> Bundle:
        """The bundle's manifest."""

    @property
    def digest(self) -> Digest:
        """The bundle's digest."""

    def admit(self, size: int) -> None:
        """Refuse a request of so many bytes if there is no room for it.

        Raises:
            RefusedRequest: there is none.
        """

    def submit(self, job: Job) -> None:
        """Compute a job, now or later, and finish it.

        Raises:
            RefusedRequest: it cannot be computed before its deadline, or there is no room.
        """

    def cancel(self, job: Job) -> None:
        """Drop a job, unless its computation has begun."""

    def health(self) -> Health:
        """Return the state of what computes."""
