"""What is computed for a request, and what comes of it."""

from array import array
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias

import msgspec

from mlship.domain.bundle import Bundle
from mlship.domain.columns import Column, Columns
from mlship.domain.digests import Digest
from mlship.runtime.faults import Fault
from mlship.runtime.memory import Memory

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


def unpacked(columns: Sequence[Any]) -> Sequence[Column]:
    """Return columns as they came over a link, with arrays of those that are bytes."""
    if bytes not in map(type, columns):
        return columns
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


class Job(msgspec.Struct, eq=False):
    """The rows of one request on their way to the model.

    Attributes:
        rows: at least one.
        deadline: the time of the monotonic clock after which nobody waits for the answer.
        answered: gets the answer, once; call `finish`.
        name: the id of the request.
        limit: the latest deadline that the server allows; a client may have set an earlier one;
            by default that.
        size: about how many bytes it takes until it is answered, with its request.
        is_sent: whether its computation may have begun.
        is_done: whether it needs no answer any more.
        is_repeated: whether a worker has ended before it had read it.
        queued: the monotonic time when it came; 0 for a model in this process.
        sent: the monotonic time when it was sent to a worker; 0 if it was not.
        memory: has its size counted, from when it is accepted until its request is answered.
    """

    rows: Table
    deadline: float
    answered: Callable[[Answer], None]
    name: str
    limit: float = 0.0
    size: int = 0
    is_sent: bool = False
    is_done: bool = False
    is_repeated: bool = False
    queued: float = 0.0
    sent: float = 0.0
    memory: Memory | None = None

    @property
    def latest(self) -> float:
        """The time after which its worker is hung."""
        return max(self.limit, self.deadline)

    def hear(self, listen: Callable[[Answer], None]) -> None:
        """Have a function hear of the answer before it is passed on."""
        pass_on = self.answered

        def heard(answer: Answer) -> None:
            listen(answer)
            pass_on(answer)

        self.answered = heard

    def drop(self) -> None:
        """Need no answer any more, and let go of the request that it leads to."""
        self.is_done = True
        self.answered = _nothing
        self.release()

    def take(self, memory: Memory) -> bool:
        """Take its size of the memory until it is released; return whether there is room."""
        if not memory.take(self.size):
            return False
        self.memory = memory
        return True

    def release(self) -> None:
        """Give back what it takes of the memory: its request is answered."""
        memory, self.memory = self.memory, None
        if memory is not None:
            memory.give(self.size)

    def finish(self, answer: Answer) -> None:
        """Pass the answer on, unless the job is done."""
        if not self.is_done:
            self.is_done = True
            # The exchange that it leads to leads to this job: no circle is left to be collected.
            pass_on, self.answered = self.answered, _nothing
            pass_on(answer)


def _nothing(_: Answer) -> None:
    return None


def complete(answer: Answer, job: Job) -> Answer:
    """Return the answer to a job, or why it is none: it has another number of rows."""
    if isinstance(answer, Computed) and len(answer) != job.rows.size:
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
