"""The pool of workers: a queue that is bounded by time and by size, and workers that are replaced.

A request that cannot be answered before its deadline is refused when it comes. One that may have
been computed when its worker ended is not computed again: it may be what ended the worker.
"""

import math
from collections.abc import Callable
from time import monotonic
from typing import assert_never

from mlship import errors
from mlship.domain.bundle import Bundle
from mlship.domain.digests import Digest
from mlship.errors import MlshipError
from mlship.runtime import refusals
from mlship.runtime.faults import Fault, RefusedRequest
from mlship.runtime.job_queue import MESSAGE_SECONDS, JobQueue, refuse_late
from mlship.runtime.jobs import Answer, Health, Job, Refused, complete
from mlship.runtime.link import Answers, Failed, Loaded, Report, Unfit
from mlship.runtime.memory import Memory
from mlship.runtime.pace import MANY, Pace
from mlship.runtime.ports import Watcher
from mlship.runtime.pressure import Pressure
from mlship.runtime.processes import Events, Worker

GRACE_SECONDS = 1.0
"""A worker all of whose requests are so long past their deadline is hung."""
SILENT_SECONDS = 3.0
SILENT_FACTOR = 20
"""While others wait and no worker is free, one is hung that takes so long and so many times as long
as its rows take in the mean."""
_TURN_SECONDS = 0.5
"""A check counts no more of the time: workers are not to blame when the machine stands still."""
FIRST_PAUSE = 0.25
LONGEST_PAUSE = 5.0
_SUSPECT = "the request may be the cause: check its rows before you send it again"
_NO_ROOM = "requests that are not answered yet take all memory that is for them"

Start = Callable[[Events], Worker]


class Slot:
    """The place of one worker, and of those that follow it.

    Attributes:
        rows: the number of rows in the latest message to its worker.
        large: how many of them are of large requests.
        fault: why its worker cannot compute, as it told before it ends.
    """

    def __init__(self, pool: "Pool") -> None:
        self.worker: Worker | None = None
        self.is_ready = False
        self.jobs: list[Job] = []
        self.rows = self.large = 0
        self.sent = 0.0
        self.silent = 0.0
        self.ends = 0
        self.start_at: float | None = None
        self.is_hung = False
        self.fault = ""
        self._pool = pool

    @property
    def is_free(self) -> bool:
        """Whether it can be sent jobs."""
        return self.is_ready and not self.jobs and not self.is_hung

    def reported(self, report: Report) -> None:
        """Pass a message on."""
        self._pool.reported(self, report)

    def lost(self, *, is_unread: bool) -> None:
        """Pass on that it can be sent no more."""
        self._pool.lost(self, is_unread=is_unread)

    def ended(self, reason: str) -> None:
        """Pass the end on."""
        self._pool.ended(self, reason)


class Pool:
    """Computes jobs in workers.

    Args:
        bundle: the manifest of what they serve.
        digest: its digest.
        start: starts a worker.
        workers: their number.
        watcher: hears what happens.
        soon: calls a function in the next turn of the event loop.
        clock: returns seconds.

    Attributes:
        failure: why the model does not become ready, for people; empty if it may.
        error: why it cannot be loaded at all.
    """

    def __init__(
        self,
        bundle: Bundle,
        digest: Digest,
        start: Start,
        *,
        workers: int,
        watcher: Watcher,
        soon: Callable[[Callable[[], None]], object],
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.bundle = bundle
        self.digest = digest
        self.failure = ""
        self.error: MlshipError | None = None
        self._start = start
        self._watcher = watcher
        self._soon = soon
        self._clock = clock
        self._slots = [Slot(self) for _ in range(workers)]
        self._queue = JobQueue()
        self._memory = Memory()
        self._is_due = False
        self._pace = Pace()
        self._pressure = Pressure()
        self._load_seconds = 0.0
        self._restarts = self._hung = 0
        self._last_restart = ""
        self._was_ready = False
        self._began = self._checked = clock()
        self._is_closing = False

    def start(self) -> None:
        """Start all workers."""
        for slot in self._slots:
            slot.worker = self._start(slot)

    # What the service calls.

    def admit(self, size: int) -> None:
        """Refuse a request of so many bytes if there is no room for it.

        Raises:
            RefusedRequest: requests that are not answered take it.
        """
        if not self._memory.has_room(size):
            raise self._refusal(self._wait(), _NO_ROOM)

    def submit(self, job: Job) -> None:
        """Queue a job.

        Raises:
            RefusedRequest: it could not be answered before its deadline, or there is no room.
        """
        wait = self._wait()
        job.queued = self._clock()
        is_standing = job.rows.size < MANY and self._is_standing(job)
        if wait and job.queued + wait + self._pace.of(job.rows.size) > job.deadline:
            raise self._refusal(wait, "the request would not be answered before its deadline")
        if is_standing:
            raise self._refusal(wait, "more requests arrive than it can answer")
        if not job.take(self._memory):
            raise self._refusal(self._wait(), _NO_ROOM)
        self._queue.append(job)
        self._dispatch_soon()

    def cancel(self, job: Job) -> None:
        """Drop a job that waits; nobody hears of it."""
        if not job.is_done and not job.is_sent:
            self._watcher.refused(refusals.GONE)
            self._queue.drop(job)
            job.drop()

    def health(self) -> Health:
        """Return whether a worker is ready, and what happened to others."""
        is_ready = any(slot.is_ready for slot in self._slots)
        counts = {"restarts": self._restarts, "hung": self._hung}
        return Health(is_ready=is_ready, last_restart=self._last_restart, **counts)

    def queued(self) -> int:
        """Return the number of rows that wait."""
        return self._queue.rows

    def in_flight(self) -> int:
        """Return the number of requests that are being computed."""
        return sum(len(slot.jobs) for slot in self._slots)

    # What workers report.

    def reported(self, slot: Slot, report: Report) -> None:
        """Take a worker's message."""
        match report:
            case Answers():
                self._answered(slot, report.answers)
            case Loaded():
                if not self._was_ready:
                    self._was_ready = True
                    self._load_seconds = self._clock() - self._began
                    self._pace = Pace(report.seconds, report.large)
                slot.is_ready = True
                self._dispatch_soon()
            case Unfit() if self._was_ready:
                slot.is_ready, slot.fault = False, f"failed its check: {report.failure}"
            case Unfit():
                self.failure = report.failure
            case Failed() if self._was_ready:
                slot.fault = f"could not load the model again: {report.message}"
            case Failed():
                kind = getattr(errors, report.error, MlshipError)
                self.error = kind(report.message, hint=report.hint)
            case _:
                assert_never(report)

    def lost(self, slot: Slot, *, is_unread: bool) -> None:
        """Send a worker no more jobs; give those that it has not read to another one.

        Nothing was computed for these, so that they are hardly what ended it. But a worker without
        memory ends while it reads: what two of them have not read is given to no third one.
        """
        slot.is_ready = False
        if is_unread and not slot.is_hung:
            again = [job for job in slot.jobs if not job.is_repeated]
            slot.jobs = [job for job in slot.jobs if job.is_repeated]
            self._queue.put_back(again)
            self._dispatch_soon()

    def ended(self, slot: Slot, reason: str) -> None:
        """Answer what an ended worker leaves, and start another."""
        if self._is_closing:
            return
        held, slot.jobs = slot.jobs, []
        jobs = [job for job in held if not job.is_done]
        slot.is_ready = False
        slot.worker = None
        if not self._was_ready:
            if not self.failure and self.error is None:
                message = f"the process of the model ended {reason} while it was loaded"
                self.error = errors.ProjectError(message, hint="see its output above")
            return
        fault, slot.fault = slot.fault, ""
        for job in jobs:
            job.finish(_crashed(reason))
        if fault:
            self._watcher.note(f"a worker {fault}; another is started")
        else:
            self._tell(held if slot.is_hung else jobs, reason, is_hung=slot.is_hung)
        self._restarts += 1
        self._hung += slot.is_hung
        self._last_restart = fault or ("did not answer" if slot.is_hung else f"ended {reason}")
        self._watcher.restarted(hung=slot.is_hung)
        slot.is_hung = False
        # One that has answered is replaced at once: a request that ends it must not cost others
        # the time of a pause.
        slot.ends += 1
        if slot.ends == 1:
            self._start_in(slot)
        else:
            pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(slot.ends - 2, 10))
            slot.start_at = self._clock() + pause

    def check(self) -> None:
        """Look at deadlines, at workers that hang or have ended, and start those that are due.

        Call it every tenth of a second.
        """
        now = self._clock()
        turn = min(_TURN_SECONDS, now - self._checked)
        self._checked = now
        self._queue.check(now)  # no worker is ended for a request that waits no more
        is_short = bool(self._queue.rows) and not any(slot.is_free for slot in self._slots)
        for slot in self._slots:
            if slot.worker is not None:
                slot.worker.check()
            self._check_jobs(slot, now)
            slot.silent = slot.silent + turn if slot.jobs else 0.0
            if is_short and self._is_silent(slot):
                self._end_silent(slot)
            if slot.start_at is not None and slot.start_at <= now:
                self._start_in(slot)

    def close(self) -> None:
        """Let all workers end."""
        self._is_closing = True
        for slot in self._slots:
            if slot.worker is not None:
                slot.worker.close()

    # The rest.

    def _start_in(self, slot: Slot) -> None:
        """Start a worker, or try again later where the machine has no room for a process now."""
        slot.start_at = None
        try:
            slot.worker = self._start(slot)
        except OSError as error:
            self._watcher.note(f"a worker cannot be started: {error.strerror}; it is tried again")
            slot.start_at = self._clock() + LONGEST_PAUSE

    def _refusal(self, wait: float, why: str) -> RefusedRequest:
        is_ready = any(slot.is_ready for slot in self._slots)
        seconds = max(1, math.ceil(wait))
        return RefusedRequest(
            f"the model is {'busy' if is_ready else 'being started again'}: {why}",
            status=429 if is_ready else 503,
            hint=f"retry after {seconds} seconds, or send fewer requests",
            retry_after=seconds,
            reason="" if is_ready else refusals.RESTARTING,
        )

    def _wait(self) -> float:
        """Return the estimated seconds until a job that comes now is sent to a worker."""
        rows, large, ready = self._queue.rows, self._queue.large, 0
        for slot in self._slots:
            if not self._queue.rows and slot.is_free:
                return 0.0
            ready += slot.is_ready
            if slot.jobs:
                rows += slot.rows
                large += slot.large
        seconds = self._pace.total(rows, large)
        return seconds / ready if ready else self._load_seconds + seconds

    def _is_standing(self, job: Job) -> bool:
        """Return whether small requests wait in too long a queue for too long.

        Large ones are no sign of it: one takes a second, and what comes after it can wait so long.
        """
        ready = max(1, sum(slot.is_ready for slot in self._slots))
        work = self._pace.of(job.rows.size) / ready
        wait = self._pace.of(1) * (self._queue.rows - self._queue.large) / ready
        # Beside what is computed, the next message waits.
        return self._pressure.refuses(work, wait, max(MESSAGE_SECONDS, work), job.queued)

    def _check_jobs(self, slot: Slot, now: float) -> None:
        """Answer what is late in a worker, and end the worker if nothing else is in it."""
        for job in slot.jobs:
            if not job.is_done and now > job.deadline:
                refuse_late(job)
        if slot.jobs and slot.worker is not None and not slot.is_hung:
            # Not by the deadline of a client, who may have sent much work with little time. And not
            # by the clock alone: while this loop stood still, the answer may have come.
            is_late = all(now > job.latest + GRACE_SECONDS for job in slot.jobs)
            slot.is_hung = is_late and slot.silent > GRACE_SECONDS
            if slot.is_hung:
                slot.worker.kill()

    def _is_silent(self, slot: Slot) -> bool:
        """Return whether a worker does not answer for much longer than its rows take."""
        usual = self._pace.total(slot.rows, slot.large)
        return not slot.is_hung and slot.silent > max(SILENT_SECONDS, SILENT_FACTOR * usual)

    def _end_silent(self, slot: Slot) -> None:
        """End a worker that does not answer, before the deadlines of those that wait for it."""
        message = f"the model did not answer within {slot.silent:.0f} s, while others waited"
        for job in slot.jobs:
            job.finish(Refused(Fault(message=message, hint=_SUSPECT), 504))
        slot.is_hung = True
        if slot.worker is not None:
            slot.worker.kill()

    def _dispatch_soon(self) -> None:
        # All that arrives in one turn of the event loop is sent together.
        if not self._is_due:
            self._is_due = True
            self._soon(self._dispatch)

    def _dispatch(self) -> None:
        self._is_due = False
        free = [slot for slot in self._slots if slot.is_free]
        for place, slot in enumerate(free):
            if not self._queue:
                return
            share = math.ceil(len(self._queue) / (len(free) - place))
            slot.jobs = self._queue.take(share, self._pace, self._clock())
            if slot.jobs and slot.worker is not None:
                slot.sent = self._clock()
                slot.silent = 0.0
                sizes = [job.rows.size for job in slot.jobs]
                slot.rows, slot.large = sum(sizes), sum([n for n in sizes if n >= MANY])
                slot.worker.send([job.rows for job in slot.jobs])
                self._watcher.sent(slot.rows)

    def _answered(self, slot: Slot, answers: list[Answer]) -> None:
        jobs, slot.jobs = slot.jobs, []
        slot.ends = 0
        self._pace.learn(slot.rows, slot.large, self._clock() - slot.sent)
        for job, answer in zip(jobs, answers, strict=True):
            job.finish(complete(answer, job))
        if self._queue.rows:
            self._dispatch_soon()

    def _tell(self, jobs: list[Job], reason: str, *, is_hung: bool) -> None:
        names = ", ".join(job.name for job in jobs)
        what = f"while it computed {names}" if names else "while no request waited for it"
        why = "a worker that did not answer was ended" if is_hung else f"a worker ended {reason}"
        self._watcher.note(f"{why} {what}; another is started")


def _crashed(reason: str) -> Refused:
    message = f"the process of the model ended {reason} while it computed this request"
    return Refused(Fault(message=message, hint=_SUSPECT), 500, refusals.CRASHED)
