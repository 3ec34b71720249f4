"""The workers of a stream as processes on this machine, started again when they end."""

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from mlship import errors, files
from mlship.domain.ports import Progress
from mlship.domain.stream import Plan, Settings
from mlship.errors import ConflictError, MlshipError, TimedOutError, UnavailableError

RUNTIME: Final = (sys.executable, "-P", "-m", "mlship.runtime.stream")
_READY_SECONDS: Final = 180.0
_STOP_SECONDS: Final = 60.0
_LONGEST_PAUSE: Final = 10.0
_STEADY_SECONDS: Final = 30.0
_MOST_CONFLICTS: Final = 3
_PAUSE: Final = 0.05


class _Report(msgspec.Struct):
    error: str
    message: str
    hint: str


_report = msgspec.json.Decoder(_Report)


class _Process:
    """One process of a worker, whose lines on stderr are read."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], progress: Progress
    ) -> None:
        self.started = time.monotonic()
        self.is_ready = False
        self._progress = progress
        self._report: _Report | None = None
        self._last = ""
        self._popen = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=dict(environment),
            # Ctrl-C is for the command, which stops its workers.
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._popen.stderr is not None  # noqa: S101 (it is a pipe)
        with self._popen.stderr as lines:
            for data in lines:
                line = data.decode(errors="replace").rstrip()
                if line.endswith(": ready"):
                    self.is_ready = True
                if line.startswith("{"):
                    try:
                        self._report = _report.decode(line)
                        continue
                    except msgspec.DecodeError:
                        pass
                if line:
                    self._last = line
                    self._progress.note(line)

    @property
    def is_alive(self) -> bool:
        return self._popen.poll() is None

    def error(self, name: str) -> MlshipError:
        """Return why it ended."""
        self._reader.join(2.0)
        if self._report is not None:
            kind = errors.tree().get(self._report.error, MlshipError)
            return kind(self._report.message, hint=self._report.hint)
        code = self._popen.returncode
        how = f"by signal {-code}" if code < 0 else f"with code {code}"
        text = f": {self._last}" if self._last else ""
        return UnavailableError(f"worker {name} ended {how}{text}", hint="see its lines above")

    def terminate(self) -> None:
        self._popen.terminate()

    def wait(self, seconds: float) -> None:
        """Wait until it has ended; kill it after some seconds."""
        try:
            self._popen.wait(max(0.0, seconds))
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()


class _Worker:
    """A worker by name: its process, and when it may be started again."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.process: _Process | None = None
        self.failures = 0
        self.conflicts = 0
        self.next_start = 0.0


class LocalWorkers:
    """Workers as processes: the port `Workers`.

    Args:
        folder: for the settings and the plan, which the processes read.
        settings: of the stream.
        environment: the variables of the processes.
        progress: receives their lines.
        runtime: the command of a worker, before its arguments.
        host: the first part of their names, which differs between machines.
    """

    def __init__(
        self,
        folder: Path,
        settings: Settings,
        environment: Mapping[str, str],
        progress: Progress,
        *,
        runtime: Sequence[str] = RUNTIME,
        host: str = "",
    ) -> None:
        self._folder = folder
        self._settings = settings
        self._environment = environment
        self._progress = progress
        self._runtime = tuple(runtime)
        self._host = host or socket.gethostname()
        self._workers: list[_Worker] = []

    def start(self, plan: Plan, count: int) -> None:
        """Start workers and return when all are ready.

        Raises:
            MlshipError: one ended before it was ready; the others are stopped.
            TimedOutError: they are not ready in time.
        """
        files.make_private(self._folder)
        settings = msgspec.json.format(msgspec.json.encode(self._settings))
        files.write_atomically(self._folder / "settings.json", settings)
        self.follow(plan)
        self._workers = [_Worker(f"{self._host}-{number}") for number in range(1, count + 1)]
        deadline = time.monotonic() + _READY_SECONDS
        try:
            for worker in self._workers:
                worker.process = self._launch(worker)
            for worker in self._workers:
                self._await(worker, deadline)
        except MlshipError:
            self.stop()
            raise

    def follow(self, plan: Plan) -> None:
        """Have them answer by another plan, from a transaction on.

        Raises:
            UnavailableError: it cannot be written, such as on a full disk.
        """
        text = msgspec.json.format(msgspec.json.encode(plan))
        path = self._folder / "plan.json"
        try:
            files.write_atomically(path, text)
        except OSError as error:
            message = f"cannot write {path}: {error.strerror}"
            raise UnavailableError(message, hint="free disk space") from error

    def look(self) -> None:
        """Start those again that have ended, after a pause that grows with each failure.

        Raises:
            ConflictError: others with their names take over from them again and again.
        """
        now = time.monotonic()
        for worker in self._workers:
            process = worker.process
            if process is not None and process.is_alive:
                if now - process.started > _STEADY_SECONDS:
                    worker.failures = worker.conflicts = 0
                continue
            if process is not None:
                self._count(worker, process, now)
            elif now >= worker.next_start:
                worker.process = self._launch(worker)

    def stop(self) -> None:
        """Stop them, each after its transaction."""
        processes = [each.process for each in self._workers if each.process is not None]
        self._workers = []
        deadline = time.monotonic() + _STOP_SECONDS
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(deadline - time.monotonic())

    def _count(self, worker: _Worker, process: _Process, now: float) -> None:
        """Note why a process has ended, and when the next one is started."""
        error = process.error(worker.name)
        worker.process = None
        worker.failures += 1
        worker.conflicts += isinstance(error, ConflictError)
        if worker.conflicts >= _MOST_CONFLICTS:
            raise error
        pause = min(_LONGEST_PAUSE, 0.25 * 2 ** (worker.failures - 1))
        worker.next_start = now + pause
        self._progress.note(f"{error.message}; worker {worker.name} starts again in {pause:g} s")

    def _launch(self, worker: _Worker) -> _Process:
        command = [*self._runtime, "work", str(self._folder.absolute()), worker.name]
        return _Process(command, self._environment, self._progress)

    def _await(self, worker: _Worker, deadline: float) -> None:
        process = worker.process
        assert process is not None  # noqa: S101 (it was just started)
        while not process.is_ready:
            if not process.is_alive:
                raise process.error(worker.name)
            if time.monotonic() > deadline:
                message = f"worker {worker.name} was not ready within {_READY_SECONDS:g} s"
                raise TimedOutError(message, hint="see its lines above")
            time.sleep(_PAUSE)
