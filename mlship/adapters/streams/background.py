"""A stream that outlives its command: one for each project on a machine, held by a lock."""

import contextlib
import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from mlship import errors, files
from mlship.errors import ConflictError, MlshipError, TimedOutError, UnavailableError

_START_SECONDS: Final = 240.0
_STOP_SECONDS: Final = 90.0
_PAUSE: Final = 0.1


class _State(msgspec.Struct):
    pid: int
    is_ready: bool = False


class Background:
    """The process of a stream.

    Args:
        folder: of its lock and its log.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = folder / "run.lock"
        self.log = folder / "log"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Be the stream of this project, until the end of the block.

        Raises:
            ConflictError: another process is.
        """
        files.make_private(self._folder)
        handle = os.open(self._lock, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                message = f"the stream runs already, in process {self._state().pid}"
                raise ConflictError(message, hint="run `mlship stream stop` first") from error
            self._write(_State(os.getpid()))
            yield
        finally:
            # Closing releases the lock.
            os.close(handle)

    def ready(self) -> None:
        """Tell that all workers answer messages."""
        self._write(_State(os.getpid(), is_ready=True))

    def start(self, command: Sequence[str], environment: Mapping[str, str]) -> int:
        """Start a command that holds the lock, and return its process id when it is ready.

        Raises:
            ConflictError: a stream runs already.
            MlshipError: it ended; the message has the end of its log.
            TimedOutError: it is not ready in time.
        """
        with self.held():
            pass
        with self.log.open("wb") as log:
            process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=dict(environment),
                start_new_session=True,
            )
        deadline = time.monotonic() + _START_SECONDS
        while not (state := self._state()).is_ready or state.pid != process.pid:
            if process.poll() is not None:
                raise self._ended(process.returncode)
            if time.monotonic() > deadline:
                self.stop()
                message = f"the stream was not ready within {_START_SECONDS:g} s"
                raise TimedOutError(message, hint=f"see {self.log}")
            time.sleep(_PAUSE)
        return process.pid

    def stop(self) -> int | None:
        """Stop the process, after its transactions; return its id, `None` if none runs.

        Raises:
            TimedOutError: it does not end.
        """
        if not self._is_held():
            return None
        pid = self._state().pid
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + _STOP_SECONDS
        while self._is_held():
            if time.monotonic() > deadline:
                message = f"the stream in process {pid} does not end"
                raise TimedOutError(message, hint=f"see {self.log}, or end the process")
            time.sleep(_PAUSE)
        return pid

    def _ended(self, code: int) -> MlshipError:
        """Return why a stream does not start, from its exit code and the end of its log."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip()
        last, _, hint = lines.rpartition("error: ")[2][-2000:].partition("\n next: ")
        kinds = (kind for kind in errors.tree().values() if kind.exit_code == code)
        kind = next(kinds, UnavailableError)
        return kind(f"the stream does not start: {last}", hint=hint or f"see {self.log}")

    def _is_held(self) -> bool:
        try:
            handle = os.open(self._lock, os.O_RDONLY)
        except OSError:
            return False
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(handle)
        return False

    def _state(self) -> _State:
        try:
            return msgspec.json.decode((self._folder / "run.json").read_bytes(), type=_State)
        except (FileNotFoundError, msgspec.DecodeError):
            return _State(0)

    def _write(self, state: _State) -> None:
        files.write_atomically(self._folder / "run.json", msgspec.json.encode(state))
