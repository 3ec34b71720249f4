"""Runs a load plan in processes of its own, so that a view or a report delays no request."""

import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Final, cast

import msgspec

from mlship.adapters.load.share import Share
from mlship.domain.load import LoadPlan, LoadResult, Progress, Tally, shares
from mlship.errors import MlshipError

_COMMAND: Final = (sys.executable, "-m", "mlship.adapters.load.worker")
_LEAD: Final = 0.05
"""Seconds from the command to start until the first request is due."""
_END_SECONDS: Final = 5.0


class ProcessGenerator:
    """The port Generator, by processes on this machine.

    Args:
        api_key: sent with each request unless it is empty.
        certificate: the only one that is trusted, if there is one.
    """

    def __init__(self, api_key: str = "", certificate: Path | None = None) -> None:
        self._api_key = api_key
        self._certificate = str(certificate) if certificate else ""

    def run(self, plan: LoadPlan, watch: Callable[[LoadResult], None]) -> LoadResult:
        """Send the requests of a plan; see the port."""
        users = shares(plan.users, plan.processes)
        reports: queue.Queue[Progress | None] = queue.Queue()
        with ExitStack() as stack:
            workers = [stack.enter_context(_worker(share)) for share in self._shares(plan, users)]
            for worker in workers:
                _stream(worker.stdout).readline()
            start = time.monotonic() + _LEAD
            tally = Tally(plan, time.time() + _LEAD)
            for worker in workers:
                _write(worker, f"{start!r}\n".encode())
                threading.Thread(target=_read, args=(worker, reports), daemon=True).start()
            running = len(workers)
            while running:
                progress = reports.get()
                if progress is None:
                    running -= 1
                    continue
                tally.add(progress)
                watch(tally.result())
        if any(worker.returncode for worker in workers):
            codes = ", ".join(str(worker.returncode) for worker in workers)
            message = f"a process of the load generator ended with an error (exit codes {codes})"
            raise MlshipError(message, hint="see its output above")
        return tally.result()

    def _shares(self, plan: LoadPlan, users: Sequence[int]) -> list[Share]:
        return [
            Share(
                plan=plan,
                first=place,
                step=len(users),
                users=number,
                api_key=self._api_key,
                certificate=self._certificate,
            )
            for place, number in enumerate(users)
        ]


@contextmanager
def _worker(share: Share) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a process that has a share of a plan; stop it at the end."""
    with subprocess.Popen(_COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:
        try:
            _write(worker, msgspec.json.encode(share) + b"\n")
            yield worker
            worker.wait(_END_SECONDS)
        finally:
            if worker.poll() is None:
                worker.kill()


def _write(worker: "subprocess.Popen[bytes]", data: bytes) -> None:
    stdin = _stream(worker.stdin)
    stdin.write(data)
    stdin.flush()


def _read(worker: "subprocess.Popen[bytes]", reports: "queue.Queue[Progress | None]") -> None:
    """Put each report of a process into the queue, and `None` at its end."""
    for line in _stream(worker.stdout):
        reports.put(msgspec.json.decode(line, type=Progress))
    reports.put(None)


def _stream(stream: IO[bytes] | None) -> IO[bytes]:
    return cast("IO[bytes]", stream)
