"""Jobs that wait for a worker, in their order: those that are late are answered, not computed."""

from collections import deque
from collections.abc import Sequence

from mlship.runtime.faults import Fault
from mlship.runtime.jobs import Job, Refused, Table
from mlship.runtime.pace import MANY, Pace

MESSAGE_SECONDS = 0.01
"""Requests that take so long in total are sent together. One that ends the worker fails all."""


class JobQueue:
    """The jobs that wait. One that is dropped keeps its place, without its rows, until its turn.

    Attributes:
        rows: the number of rows that wait.
        large: how many of them are of large requests.
    """

    def __init__(self) -> None:
        self._jobs: deque[Job] = deque()
        self.rows = self.large = 0

    def __len__(self) -> int:
        """Return the number of jobs, with those that were dropped."""
        return len(self._jobs)

    def append(self, job: Job) -> None:
        """Let a job wait."""
        self._jobs.append(job)
        self._count(job.rows.size)

    def put_back(self, jobs: Sequence[Job]) -> None:
        """Let jobs that were taken wait again, before all others."""
        for job in reversed(jobs):
            if not job.is_done:
                job.is_repeated = True
                job.is_sent = False
                job.sent = 0.0
                self._jobs.appendleft(job)
                self._count(job.rows.size)

    def drop(self, job: Job) -> None:
        """Forget the rows of a job that waits."""
        self._count(job.rows.size, -1)
        job.rows = Table()

    def check(self, now: float) -> None:
        """Answer jobs that are late."""
        for job in tuple(self._jobs):  # an answer may begin the next request
            if not job.is_done and now > job.deadline:
                self.drop(job)
                refuse_late(job)
        while self._jobs and self._jobs[0].is_done:
            self._jobs.popleft()

    def take(self, share: int, pace: Pace, now: float) -> list[Job]:
        """Return the next jobs: at most a share, and not more than a message may take."""
        jobs: list[Job] = []
        seconds = 0.0
        while self._jobs and len(jobs) < share:
            job = self._jobs[0]
            seconds += pace.of(job.rows.size)
            if jobs and seconds > MESSAGE_SECONDS:
                break
            self._jobs.popleft()
            if job.is_done:
                continue
            if now > job.deadline:
                self.drop(job)
                refuse_late(job)
                continue
            self._count(job.rows.size, -1)
            job.is_sent = True
            job.sent = now
            jobs.append(job)
        return jobs

    def _count(self, size: int, sign: int = 1) -> None:
        self.rows += sign * size
        if size >= MANY:
            self.large += sign * size


def refuse_late(job: Job) -> None:
    """Answer a job whose deadline has passed."""
    message = "the model did not answer before the deadline of the request"
    job.finish(Refused(Fault(message=message, hint="retry later, or send fewer rows"), 504))
