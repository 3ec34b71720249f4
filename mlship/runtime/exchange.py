"""A request from its rows to its response: computed, then logged, then answered."""

from collections.abc import Callable
from time import monotonic
from typing import NamedTuple

import msgspec

from mlship.domain.columns import Columns
from mlship.runtime import http
from mlship.runtime.dialects import Call
from mlship.runtime.http import Request, Response
from mlship.runtime.jobs import Computer, Job, Table
from mlship.runtime.memory import SMALL_BODY

Reply = Callable[[Response], None]


class Exchange:
    """A request whose rows are being computed, or whose predictions are being logged.

    Args:
        request: as received; a large body is not kept.
        request_id: names its predictions.
        call: what it asks for.
        at: the route, for metrics, and the monotonic time when it arrived.
        reply: gets the response.

    Attributes:
        rows: as they are computed.
        outputs: of each row, once they are computed.
        seconds: the time until they were.
    """

    __slots__ = (
        "_computer",
        "_is_held",
        "_job",
        "call",
        "is_shadow",
        "outputs",
        "reply",
        "request",
        "request_id",
        "route",
        "rows",
        "seconds",
        "started",
    )

    def __init__(
        self, request: Request, request_id: str, call: Call, at: tuple[str, float], reply: Reply
    ) -> None:
        if len(request.body) > SMALL_BODY:
            request = msgspec.structs.replace(request, body=b"")
        self.request = request
        self.request_id = request_id
        self.call = call
        self.route, self.started = at
        self.reply = reply
        self.is_shadow = http.is_mirrored(request.headers)
        self.rows = Table()
        self._job: Job | None = None
        self._is_held = False
        self.outputs = Columns()
        self.seconds = 0.0
        self._computer: Computer | None = None

    def hold(self) -> None:
        """Take memory until `end` is called again: the response is not read yet."""
        self._is_held = True

    def end(self) -> None:
        """Give back the memory that it takes; it is answered, and its response has been read."""
        if self._is_held:
            self._is_held = False
        elif self._job is not None:
            self._job.release()

    def submit(self, computer: Computer, job: Job, rows: Table) -> None:
        """Have the rows computed.

        Raises:
            RefusedRequest: they cannot be computed before the deadline.
        """
        self.rows = rows
        self._job = job
        self._computer = computer
        computer.submit(job)

    def cancel(self) -> None:
        """Drop the request unless its computation has begun: its client has gone."""
        if self._job is not None and self._computer is not None:
            self._computer.cancel(self._job)

    @property
    def waited(self) -> float:
        """The seconds until it was sent to a worker."""
        job = self._job
        return job.sent - job.queued if job is not None and job.sent else 0.0

    def moments(self, ended: float) -> tuple[float, float, float]:
        """Return the monotonic times when it was queued, sent to a worker, and computed.

        What has not happened, or not in a worker, has the time of the end.
        """
        job = self._job
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
