"""The runtime with its protection off: it answers first and logs a second later.

The control of benchmarks/durability.py starts it in place of `python -m mlship.runtime`.
"""

import os
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import Future

from mlship.prediction import Prediction
from mlship.runtime import record
from mlship.runtime.__main__ import main

DELAY = 1.0
append = record.Recorder.append


def append_late(self: record.Recorder, predictions: Sequence[Prediction]) -> "Future[None]":
    """Say that predictions are on the disk, and write them later."""
    timer = threading.Timer(DELAY, append, (self, predictions))
    timer.daemon = True
    timer.start()
    written: Future[None] = Future()
    written.set_result(None)
    return written


if __name__ == "__main__":
    record.Recorder.append = append_late  # type: ignore[method-assign]
    sys.exit(main(sys.argv[1:], os.environ))
