"""The runtime without its protection: it responds first and logs a second later.

The controls of benchmarks/durability.py and benchmarks/pods.py start it instead of
`python -m mlship.runtime`.
"""

import os
import sys
import threading
from concurrent.futures import Future
from typing import Any

from mlship.domain.predicted import Batch
from mlship.runtime import postgres, record
from mlship.runtime.__main__ import main

DELAY = 1.0


def delay(recorder: type[record.Recorder] | type[postgres.PostgresRecorder]) -> None:
    """Make a recorder report predictions as stored, and store them later."""
    append = recorder.append

    def append_late(self: Any, predictions: Batch) -> "Future[None]":
        timer = threading.Timer(DELAY, append, (self, predictions))
        timer.daemon = True
        timer.start()
        written: Future[None] = Future()
        written.set_result(None)
        return written

    recorder.append = append_late  # type: ignore[method-assign]


if __name__ == "__main__":
    delay(record.Recorder)
    delay(postgres.PostgresRecorder)
    sys.exit(main(sys.argv[1:], os.environ))
