"""Processes that run the user's code, so that what it imports, prints or breaks stays there.

A request goes in as a JSON file, an answer comes back as one: a value, or a fault that names an
error of `mlship.errors`, which is raised here as what it was there. The child's stdin is a pipe
that ends when this process does; the child stops then, and so never outlives a kill.
"""

import errno
import io
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Literal, TypeVar, cast

import msgspec

from mlship import errors
from mlship.config.project import Config
from mlship.domain.bundle import Row, Value
from mlship.domain.job import inert
from mlship.errors import MlshipError, ProjectError, RowError, UnavailableError

Answered = TypeVar("Answered")
Job = Literal["train", "score", "rate"]

_TAIL = 15
_CRASHES = ("SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGSEGV", "SIGSYS")
_FULL = (errno.ENOSPC, errno.EDQUOT)


class TrainRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Train what a project's configuration says, into a folder that does not exist yet."""

    root: Path
    config: Config
    into: Path


class ScoreRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Score a bundle, and a champion's, on a project's held-out rows."""

    root: Path
    config: Config
    bundle: Path
    champion: Path | None
    plots: Path


class RateRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Score predictions against their outcomes by a function of the project.

    Attributes:
        function: `module:function`.
        target: the name of the outcome.
        predictions: the ids of the predictions, for messages.
        outputs: their outputs; `truth` holds the outcomes, in the same order.
    """

    root: Path
    function: str
    target: str
    predictions: tuple[str, ...]
    outputs: tuple[Row, ...]
    truth: tuple[Value, ...]


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """An error on its way between processes: the name of its class, and what it says."""

    error: str
    message: str
    hint: str = ""
    row: int | None = None
    reason: str = ""

    @classmethod
    def of(cls, error: MlshipError) -> "Fault":
        """Return an error as a value; what UTF-8 has no form for is escaped."""
        name, message, hint = type(error).__name__, _utf8(error.message), _utf8(error.hint)
        if isinstance(error, RowError):
            reason = _utf8(error.reason)
            return cls(error=name, message=message, hint=hint, row=error.row, reason=reason)
        return cls(error=name, message=message, hint=hint)

    def raised(self) -> MlshipError:
        """Return the error that it names; an unknown name becomes the root of the tree."""
        if self.row is not None:
            return RowError(self.message, hint=self.hint, row=self.row, reason=self.reason)
        kind = errors.tree().get(self.error, MlshipError)
        return kind(self.message, hint=self.hint)


def _utf8(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a child says in the end: a value or a fault."""

    value: msgspec.Raw = msgspec.Raw(b"null")
    fault: Fault | None = None


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """How a process ended, and the last lines that it wrote."""

    code: int
    tail: tuple[str, ...]


def nothing() -> None:
    """Do nothing while a process runs."""


def run(
    argv: Sequence[str],
    *,
    cwd: Path,
    environment: Mapping[str, str],
    meanwhile: Callable[[], None] = nothing,
) -> Ended:
    """Run a program to its end, with what it writes shown on stderr line by line.

    Args:
        argv: the program and its arguments.
        cwd: the folder that it runs in.
        environment: all of its variables.
        meanwhile: called once while the program runs.
    """
    # Compiled files would lie among the user's own and make a clean tree dirty.
    process = subprocess.Popen(
        argv,
        cwd=cwd,
        env={**environment, "PYTHONDONTWRITEBYTECODE": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    output = Output(cast("BinaryIO", process.stdout))
    try:
        meanwhile()
        code = process.wait()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        if process.stdin:
            process.stdin.close()
        output.end()
    return Ended(code=code, tail=output.tail)


class Output:
    """What a process writes, shown on stderr line by line; the last lines are kept."""

    def __init__(self, stream: BinaryIO) -> None:
        """Read a pipe until its last writer has closed it."""
        self._stream = io.TextIOWrapper(stream, encoding="utf-8", errors="replace")
        self._lines: deque[str] = deque(maxlen=_TAIL)
        # A thread, because a grandchild may hold the pipe open long after the child has ended.
        self._reader = threading.Thread(target=self._show, daemon=True)
        self._reader.start()

    @property
    def tail(self) -> tuple[str, ...]:
        """The last lines."""
        return tuple(self._lines)

    def end(self) -> None:
        """Read what is left, for two seconds at most."""
        self._reader.join(timeout=2)
        if not self._reader.is_alive():
            self._stream.close()

    def _show(self) -> None:
        for line in self._stream:
            self._lines.append(line.rstrip("\n"))
            # The project's code may print what its data holds; it gives no orders to a CI runner.
            sys.stderr.write(inert(line))


def answer_of(reply: Path, ended: Ended, job: Job, kind: type[Answered]) -> Answered:
    """Return the answer that a job of `mlship.training` has written.

    Raises:
        MlshipError: as it was raised there.
        ProjectError: the process died without an answer; the message has its last lines.
    """
    if ended.code != 0 or not reply.is_file():
        raise _death(ended, job)
    answer = msgspec.json.decode(reply.read_bytes(), type=Answer)
    if answer.fault is not None:
        raise answer.fault.raised()
    return msgspec.json.decode(answer.value, type=kind)


def request_of(data: bytes, kind: type[Answered]) -> Answered:
    """Return a request as it was asked; paths travel as text."""
    return msgspec.json.decode(data, type=kind, dec_hook=lambda to, text: to(text))


@contextmanager
def full_disk_named(place: str) -> Iterator[None]:
    """Turn the system's "no space left" into an error of the tree.

    Raises:
        UnavailableError: the disk is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        full = error.filename2 or error.filename or place
        message = f"no space left on the disk that holds {full}"
        raise UnavailableError(message, hint="free some space and run it again") from error


def describe_end(ended: Ended) -> str:
    """Say how a process ended: its exit code, or the signal that killed it."""
    if ended.code >= 0:
        return f"ended with exit code {ended.code}"
    try:
        return f"was killed by {signal.Signals(-ended.code).name}"
    except ValueError:
        return f"was killed by signal {-ended.code}"


def _death(ended: Ended, job: Job) -> ProjectError:
    work = {"train": "training", "score": "scoring", "rate": "evaluating"}[job]
    said = "\n".join(["; its last lines:", *ended.tail]) if ended.tail else ""
    message = f"the {work} process {describe_end(ended)} without an answer{said}"
    if ended.code == -signal.SIGKILL:
        hint = "it may have run out of memory: train on fewer rows, or on a larger machine"
    elif -ended.code in [getattr(signal, name, None) for name in _CRASHES]:
        hint = "a compiled library crashed: check its version, and the data that it was given"
    elif ended.code < 0:
        hint = "find out what sends the signal: the training code or another program"
    else:
        hint = "remove calls of exit() from the project's code, or fix the error above"
    return ProjectError(message, hint=hint)
