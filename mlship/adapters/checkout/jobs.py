"""Jobs of `mlship.training`: training and scoring, each in a process of its own.

Importing pandas and scikit-learn takes longer than most jobs. On Linux one server process imports
them and forks for each job. The server itself never runs the user's code, so no job sees what
another job did. On other systems a fork of a process that has loaded such libraries is not safe,
and each job is started as a new process.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

import msgspec

from mlship.adapters.checkout import children
from mlship.adapters.checkout.children import Answered, Ended, Job, Output

_FORKS: Final = sys.platform == "linux"
_END_SECONDS: Final = 60.0
_KILL_SECONDS: Final = 10.0
_PROCESS_SEED: Final = {"PYTHONHASHSEED": "0"}
"""The hash seed orders sets in the user's code: the same inputs give the same model."""


class Jobs:
    """Runs jobs of `mlship.training` in a project's folder."""

    def __init__(self, root: Path, environment: Mapping[str, str]) -> None:
        """Take the project's folder and the variables that jobs get."""
        self._root = root
        self._environment = {**environment, **_PROCESS_SEED}
        self._server: _Server | None = None

    def start(self) -> None:
        """Start the server, if there is one, which imports while this process goes on."""
        if _FORKS:
            self._started()

    def ask(
        self,
        job: Job,
        request: Any,
        answer: type[Answered],
        meanwhile: Callable[[], None] = children.nothing,
    ) -> Answered:
        """Run a job and return its answer.

        What it writes to stdout and stderr goes to this process's stderr.

        Args:
            job: what to do.
            request: with what, a value with a JSON form.
            answer: the type of what the job returns.
            meanwhile: called once while the job runs.

        Raises:
            MlshipError: as it was raised there.
            ProjectError: the process died without an answer; the message has its last lines.
            UnavailableError: the disk is full.
        """
        full_disk = children.full_disk_named("the temporary folder")
        with full_disk, tempfile.TemporaryDirectory() as folder:
            question, reply = Path(folder, "request.json"), Path(folder, "answer.json")
            question.write_bytes(msgspec.json.encode(request, enc_hook=str))
            ended = self._run([job, str(question), str(reply)], meanwhile)
            return children.answer_of(reply, ended, job, answer)

    def _run(self, arguments: Sequence[str], meanwhile: Callable[[], None]) -> Ended:
        if not _FORKS:
            return children.run(
                _command(*arguments),
                cwd=self._root,
                environment=self._environment,
                meanwhile=meanwhile,
            )
        return self._started().run(arguments, meanwhile)

    def _started(self) -> "_Server":
        if self._server is None or not self._server.is_alive():
            self._server = _Server(self._root, self._environment)
        return self._server


class _Server:
    """A process that has imported what training needs, and forks for each job.

    A request is a list of arguments and the pipe that takes the job's output. The answers are the
    job's pid, and its exit code when it and all that it has started have ended.
    """

    def __init__(self, root: Path, environment: Mapping[str, str]) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                _command("serve", str(theirs.fileno())),
                cwd=root,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=[theirs.fileno()],
            )
        self._output = Output(cast("BinaryIO", self._process.stdout))
        self._socket = ours
        self._answers = ours.makefile("rb")
        weakref.finalize(self, _stop, self._process, self._output, [self._answers, ours])

    def is_alive(self) -> bool:
        """Tell whether it can take a job."""
        return self._process.poll() is None

    def run(self, arguments: Sequence[str], meanwhile: Callable[[], None]) -> Ended:
        """Run a job to its end. A job whose caller is interrupted is killed."""
        reader, writer = os.pipe()
        output = Output(os.fdopen(reader, "rb"))
        pid = code = None
        try:
            self._send(arguments, writer)
            meanwhile()
            pid = self._number()
            code = self._number()
            if code is None:
                # The server ends by itself; its exit code comes after its last answer.
                with suppress(subprocess.TimeoutExpired):
                    self._process.wait(timeout=_END_SECONDS)
        finally:
            if code is None:
                self._kill(pid)
            output.end()
        if code is None:
            return Ended(code=self._process.returncode, tail=output.tail or self._output.tail)
        if code == -signal.SIGINT:
            # Ctrl-C reached the job first; it is no failure of the training.
            raise KeyboardInterrupt
        return Ended(code=code, tail=output.tail)

    def _send(self, arguments: Sequence[str], writer: int) -> None:
        # A server that died while it imported is told by the end of its answers.
        with suppress(BrokenPipeError):
            socket.send_fds(self._socket, [msgspec.json.encode(arguments)], [writer])
        os.close(writer)

    def _number(self) -> int | None:
        """Return the next number that the server sends; `None` when the server is gone."""
        with suppress(ConnectionResetError):
            line = self._answers.readline()
            return int(line) if line else None
        return None

    def _kill(self, pid: int | None) -> None:
        """End the server, which first ends its job and all that the job has started."""
        # Both say so: a job whose server is gone ends with this pipe.
        if self._process.stdin:
            self._process.stdin.close()
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=_KILL_SECONDS)
        if self._process.returncode != 0 and pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.kill()
        self._process.wait()
        self._output.end()


def _stop(process: subprocess.Popen[bytes], output: Output, files: Sequence[Any]) -> None:
    """End a server that has no job."""
    process.kill()
    process.wait()
    for file in files:
        file.close()
    if process.stdin:
        process.stdin.close()
    output.end()


def _command(*arguments: str) -> list[str]:
    # -P: a file of the project must not stand in for a library that mlship itself imports.
    return [sys.executable, "-P", "-m", "mlship.training", *arguments]
