"""A request from its rows to its response: computed, then logged, then answered."""

from collections.abc import Callable
from time import monotonic
from typing import NamedTuple

import msgspec

from mlship.domain.columns import Columns
from mlship.runtime import http
from mlship.runtime.dialects import Encode
from mlship.runtime.http import Request, Response
from mlship.runtime.jobs import Computer, Job, Table
from mlship.runtime.memory import SMALL_BODY

Reply = Callable[[Response], None]
_NO_ROWS = Table()


class Exchange(msgspec.Struct, eq=False):
    """A request whose rows are being computed, or whose predictions are being logged.

    Attributes:
        request: as received; a large body is not kept.
        request_id: names its predictions.
        encode: writes the response; what was decoded of the request is not kept.
        route: the route, for metrics.
        started: the monotonic time when it arrived.
        reply: gets the response.
        is_shadow: whether it is mirrored.
        rows: as they are computed.
        outputs: of each row, once they are computed.
        seconds: the time until they were.
        job: what is computed, once it is submitted.
        computer: by whom.
        is_held: whether its response is not read yet.
    """

    request: Request
    request_id: str
    encode: Encode
    route: str
    started: float
    reply: Reply
    is_shadow: bool = False
    rows: Table = _NO_ROWS
    outputs: Columns = _NO_ROWS
    seconds: float = 0.0
    job: Job | None = None
    computer: Computer | None = None
    is_held: bool = False

    def __post_init__(self) -> None:
        """Keep no large body."""
        if len(self.request.body) > SMALL_BODY:
            self.request = msgspec.structs.replace(self.request, body=b"")
        self.is_shadow = http.is_mirrored(self.request.headers)

    def hold(self) -> None:
        """Take memory until `end` is called again: the response is not read yet."""
        self.is_held = True

    def end(self) -> None:
        """Give back the memory that it takes; it is answered, and its response has been read."""
        if self.is_held:
            self.is_held = False
        elif self.job is not None:
            self.job.release()

    def submit(self, computer: Computer, job: Job, rows: Table) -> None:
        """Have the rows computed.

        Raises:
            RefusedRequest: they cannot be computed before the deadline.
        """
        self.rows = rows
        self.job = job
        self.computer = computer
        computer.submit(job)

    def cancel(self) -> None:
        """Drop the request unless its computation has begun: its client has gone."""
        if self.job is not None and self.computer is not None:
            self.computer.cancel(self.job)

    @property
    def waited(self) -> float:
        """The seconds until it was sent to a worker."""
        job = self.job
        return job.sent - job.queued if job is not None and job.sent else 0.0

    def moments(self, ended: float) -> tuple[float, float, float]:
        """Return the monotonic times when it was queued, sent to a worker, and computed.

        What has not happened, or not in a worker, has the time of the end.
        """
        job = self.job
        queued = (job.queued if job is not None else 0.0) or ended
        sent = (job.sent if job is not None else 0.0) or ended
        return queued, sent, self.started + self.seconds if self.seconds else ended

    def elapsed(self) -> float:
        """Return the seconds since it arrived."""
        return monotonic() - self.started


class Answered(NamedTuple):
    """A request with its response.

    Attributes:
        route: the route, for metrics.
        started: the monotonic time when it arrived; `seconds` later it was answered.
        exchange: what was computed for it; `None` if it was answered at once.
    """

    request: Request
    response: Response
    route: str
    started: float
    seconds: float
    exchange: Exchange | None
