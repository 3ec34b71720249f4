"""Processes that score the parts of a batch: one for each processor, with one thread."""

import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, Final, Self

import msgspec

from mlship import errors
from mlship.adapters.rows.answered import AnsweredWorkers, Requests
from mlship.domain import environment as environments
from mlship.domain.batch_work import (
    Answer,
    Fault,
    Find,
    Found,
    Request,
    place_of,
)
from mlship.errors import MlshipError, ProjectError

_TAIL: Final = 15
_ALONE: Final = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
"""Each processor has a worker: threads of one would take the time of another."""


def processors() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class ChildWorkers(AnsweredWorkers):
    """The port Workers, as processes of `mlship.runtime batch`.

    Args:
        bundle: the folder of the bundle that they work in.
        count: of the processes.
        environment: of the command.
        named: variables that the project lets its own code have.
    """

    def __init__(
        self,
        bundle: Path,
        count: int,
        environment: Mapping[str, str],
        named: Iterable[str] = (),
    ) -> None:
        self._bundle = bundle
        self._count = max(1, count)
        variables = environments.of_user_code(environment, named)
        self._environment = {**variables, **_ALONE, "PYTHONHASHSEED": "1"}

    def find(self, request: Find) -> Found:
        """Return one row with its outputs. Errors as of `score`."""
        with Child(self._bundle, self._environment) as child:
            answer = child.ask(request)
        if not isinstance(answer, Found):
            raise TypeError(answer)
        return answer

    def _each(self, requests: Requests) -> Iterator[Answer]:
        if not requests:
            return
        waiting = _Waiting(list(requests))
        answers: queue.SimpleQueue[Answer | Exception] = queue.SimpleQueue()
        children = [
            Child(self._bundle, self._environment) for _ in range(min(self._count, len(requests)))
        ]
        threads = [
            threading.Thread(target=_serve, args=(child, waiting, answers), daemon=True)
            for child in children
        ]
        try:
            for thread in threads:
                thread.start()
            for _ in requests:
                answer = answers.get()
                if isinstance(answer, Exception):
                    raise answer
                yield answer
        finally:
            waiting.stop()
            for child in children:
                child.close()


class _Waiting:
    """Requests that no worker has taken yet."""

    def __init__(self, requests: list[Any]) -> None:
        self._requests = requests[::-1]
        self._lock = threading.Lock()

    def take(self) -> Request | None:
        with self._lock:
            return self._requests.pop() if self._requests else None

    def stop(self) -> None:
        with self._lock:
            self._requests.clear()


def _serve(
    child: "Child", waiting: _Waiting, answers: "queue.SimpleQueue[Answer | Exception]"
) -> None:
    while (request := waiting.take()) is not None:
        try:
            answers.put(child.ask(request))
        except Exception as error:  # noqa: BLE001 (raised where answers are awaited)
            answers.put(error)
            return


class Child:
    """A process that answers requests.

    Args:
        bundle: the folder of the bundle that it works in.
        environment: of the process.
        options: of `mlship.runtime batch`, beside the bundle.
    """

    def __init__(
        self, bundle: Path, environment: Mapping[str, str], options: Sequence[str] = ()
    ) -> None:
        self._errors: IO[bytes] = TemporaryFile()  # noqa: SIM115 (closed with the process)
        # -P: only the bundle's own code may be found, not what lies in the current folder.
        command = [sys.executable, "-P", "-m", "mlship.runtime", "batch", "--bundle", str(bundle)]
        self._process = subprocess.Popen(
            [*command, *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=dict(environment),
        )

    def __enter__(self) -> Self:
        """Return it."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the process."""
        self.close()

    def ask(self, request: Request) -> Answer:
        """Return the answer to a request; raise the error that it is."""
        self.send([request])
        return self.receive(f"a worker ended {{how}} at {place_of(request)}")

    def send(self, requests: Iterable[Request]) -> None:
        """Send requests; if the process is gone, `receive` says so."""
        if self._process.stdin is None:
            raise TypeError(self._process)
        with suppress(OSError):
            for request in requests:
                self._process.stdin.write(msgspec.json.encode(request) + b"\n")
            self._process.stdin.flush()

    def send_all(self, requests: Iterable[Request]) -> None:
        """Send requests that belong together, which an empty line says."""
        self.send(requests)
        with suppress(OSError, ValueError):  # it is gone, or closed
            if self._process.stdin is not None:
                self._process.stdin.write(b"\n")
                self._process.stdin.flush()

    def receive(self, death: str) -> Answer:
        """Return the next answer; raise the error that it is.

        Args:
            death: what to say if the process is gone; `{how}` is replaced.
        """
        if self._process.stdout is None:
            raise TypeError(self._process)
        try:
            line = self._process.stdout.readline()
        except OSError:
            line = b""
        if not line.endswith(b"\n"):
            raise self._death(death)
        answer: Answer = msgspec.json.decode(line, type=Answer)
        if isinstance(answer, Fault):
            kind = errors.tree().get(answer.error, MlshipError)
            raise kind(answer.message, hint=answer.hint)
        return answer

    def close(self, seconds: float = 0.0) -> None:
        """End the process; what it has not renamed was not written.

        Args:
            seconds: it gets, once nobody asks any more, to end by itself.
        """
        if seconds and self._process.stdin is not None:
            with suppress(OSError, subprocess.TimeoutExpired):
                self._process.stdin.close()
                self._process.wait(seconds)
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with suppress(OSError):  # what was not read by a process that is gone
                    stream.close()
        self._errors.close()

    def _death(self, text: str) -> ProjectError:
        code = self._process.wait()
        how = f"by signal {-code}" if code < 0 else f"with code {code}"
        self._errors.seek(0)
        lines = self._errors.read().decode("utf-8", "replace").strip().splitlines()[-_TAIL:]
        said = "\n".join(["; its last lines:", *lines]) if lines else ""
        hint = "check the memory and the hooks, then run `mlship batch` again: finished parts "
        return ProjectError(f"{text.replace('{how}', how)}{said}", hint=f"{hint}are kept")
