"""`python -m mlship.training train|score REQUEST.json ANSWER.json`, as `checkout.children` asks.

An error of the tree is an answer and the exit code 0; anything else is a crash. The process stops
when its stdin ends, because then the process that asked is gone.
"""

import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import msgspec

from mlship import files
from mlship.adapters.checkout.children import (
    Answer,
    Fault,
    ScoreRequest,
    TrainRequest,
    full_disk_named,
    request_of,
)
from mlship.adapters.checkout.predictor import ChildPredictor
from mlship.errors import MlshipError

_ORPHANED = 1


def main(arguments: list[str]) -> int:
    """Do the job that a request describes and write the answer; return the exit code."""
    job, question, reply = arguments
    # Ctrl-C reaches the one that asked as well, which says so; here it only ends the process.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    _stop_with_stdin()
    try:
        with full_disk_named("the bundle's folder"):
            answer = Answer(value=msgspec.Raw(msgspec.json.encode(_done(job, Path(question)))))
    except MlshipError as error:
        answer = Answer(fault=Fault.of(error))
    files.write_atomically(Path(reply), msgspec.json.encode(answer))
    return 0


def _done(job: str, question: Path) -> Any:
    data = question.read_bytes()
    if job == "train":
        from mlship.training.train import train  # noqa: PLC0415 (each job loads what it needs)

        return train(request_of(data, TrainRequest), ChildPredictor())
    from mlship.training.score import score  # noqa: PLC0415 (see above)

    return score(request_of(data, ScoreRequest), ChildPredictor())


def _stop_with_stdin() -> None:
    lifeline = os.dup(0)
    with open(os.devnull, "rb") as nothing:  # noqa: PTH123 (a file descriptor is wanted)
        os.dup2(nothing.fileno(), 0)

    def watch() -> None:
        while os.read(lifeline, 1):
            pass
        os._exit(_ORPHANED)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
