"""What an executor of Spark runs: it answers requests with the bundle that came with the session.

An executor's process answers many requests; the model is loaded with the first one.
"""

import os
from functools import cache
from pathlib import Path

import msgspec

from mlship.domain.batch_work import Request, Score
from mlship.domain.bundle import CODE
from mlship.runtime.batches.work import Worker


@cache
def _worker() -> Worker:
    import pyarrow as pa

    # Each core has a task: threads of one would take the time of another.
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    return Worker()


def answer(line: str, archive: str) -> str:
    """Return the answer to a request, as JSON.

    Args:
        line: the request, as JSON.
        archive: the name under which the session has the bundle.
    """
    from pyspark import SparkFiles

    bundle = Path(SparkFiles.get(archive))
    request: Request = msgspec.json.decode(line, type=Request)
    if isinstance(request, Score):
        request = msgspec.structs.replace(request, bundle=str(bundle))
    started_in = Path.cwd()
    # A relative path is that of a file of the bundle, as wherever a bundle runs.
    os.chdir(bundle / CODE if (bundle / CODE).is_dir() else bundle)
    try:
        return msgspec.json.encode(_worker().answer(request)).decode()
    finally:
        os.chdir(started_in)
