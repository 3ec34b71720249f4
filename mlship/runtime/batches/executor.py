"""What the executors of an engine run: they answer requests with the bundle that they were sent.

A process answers many requests, one at a time; the model is loaded with the first one.
"""

import os
import threading
from functools import cache
from pathlib import Path
from typing import Final

import msgspec

from mlship.domain.batch_work import Request, Score
from mlship.domain.bundle import CODE
from mlship.runtime.batches.work import Worker

_ONE: Final = threading.Lock()
"""A folder that a process works in is that of all its threads."""


@cache
def _worker() -> Worker:
    import pyarrow as pa

    # Each core has a task: threads of one would take the time of another.
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    return Worker()


def answer(line: str, bundle: Path) -> str:
    """Return the answer to a request, as JSON.

    Args:
        line: the request, as JSON.
        bundle: its folder on this machine.
    """
    request: Request = msgspec.json.decode(line, type=Request)
    if isinstance(request, Score):
        request = msgspec.structs.replace(request, bundle=str(bundle))
    with _ONE:
        started_in = Path.cwd()
        # A relative path is that of a file of the bundle, as wherever a bundle runs.
        os.chdir(bundle / CODE if (bundle / CODE).is_dir() else bundle)
        try:
            return msgspec.json.encode(_worker().answer(request)).decode()
        finally:
            os.chdir(started_in)
