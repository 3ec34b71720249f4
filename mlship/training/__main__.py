"""`python -m mlship.training train|score|rate REQUEST.json ANSWER.json`, as `checkout.jobs` asks.

An error of the tree is an answer and the exit code 0; anything else is a crash. The process stops
when its stdin ends, because then the process that asked is gone.

`serve FD` imports what the jobs need, then forks for each request that comes in by the socket.
"""

import gc
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from threadpoolctl import threadpool_info

from mlship import files
from mlship.adapters.checkout import datafiles, lock, repository
from mlship.adapters.checkout.children import (
    Answer,
    Fault,
    RateRequest,
    ScoreRequest,
    TrainRequest,
    full_disk_named,
    request_of,
)
from mlship.adapters.checkout.predictor import ChildPredictor
from mlship.config import packages
from mlship.domain import checks, gates
from mlship.domain.bundle import ModelFormat
from mlship.domain.ports import Predictor
from mlship.domain.scores import Trained
from mlship.errors import MlshipError, ProjectError
from mlship.training import heldout
from mlship.training.audit import Audit
from mlship.training.leaving import leave
from mlship.training.standby import StandbyPredictor

if TYPE_CHECKING:
    import pandas as pd

Loaded = Callable[[], "Mapping[str, pd.DataFrame]"]

_ORPHANED = 1


def main(arguments: list[str]) -> int:
    """Do the job that a request describes and write the answer; return the exit code."""
    # Ctrl-C reaches the one that asked as well, which says so; here it only ends the process.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    loaded: Loaded = dict
    if arguments[0] == "serve":
        arguments, loaded = _forked(int(arguments[1]))
    job, question, reply = arguments
    _stop_with_stdin()
    try:
        with full_disk_named("the bundle's folder"):
            value = _done(job, Path(question), loaded)
            answer = Answer(value=msgspec.Raw(msgspec.json.encode(value)))
    except MlshipError as error:
        answer = Answer(fault=Fault.of(error))
    files.write_atomically(Path(reply), msgspec.json.encode(answer))
    return 0


def _done(job: str, question: Path, loaded: Loaded) -> Any:
    data = question.read_bytes()
    if job == "train":
        from mlship.training.train import train

        to_train = request_of(data, TrainRequest)
        predictor = StandbyPredictor(to_train.root)
        _only_from_source(to_train.root)
        return _trained(to_train, predictor, partial(train, loaded=loaded))
    if job == "rate":
        from mlship.training.scoring.rate import rate

        to_rate = request_of(data, RateRequest)
        _only_from_source(to_rate.root)
        return rate(to_rate)
    from mlship.training.scoring.score import score

    to_score = request_of(data, ScoreRequest)
    _only_from_source(to_score.root)
    return score(to_score, ChildPredictor(to_score.root))


def _only_from_source(root: Path) -> None:
    """Import the project's modules from their sources, which are what the release names."""
    from mlship.runtime.sources import compile_anew

    _compile_no_more()
    compile_anew(root, is_project=True)


def _trained(
    request: TrainRequest,
    predictor: StandbyPredictor,
    train: Callable[[TrainRequest, Predictor, Callable[[ModelFormat], None]], Trained],
) -> Trained:
    """Train, and tell which files of the project were opened."""
    root, config = request.root, request.config
    whole = [] if config.data.test else datafiles.places(root, config.data)
    rows = heldout.place_of(root, config, request.into)
    packages.folders(root)  # reads pyproject.toml, which is none of what the training reads
    audit = Audit(root, request.into, watched=[*whole, rows], top=repository.top_of(root))
    try:
        made = train(request, predictor, predictor.expect)
    except ProjectError:
        audit.check_pointers()
        raise
    audit.check_pointers()
    exposed = heldout.exposed(
        config, has_read_all=audit.has_read(whole), has_read_rows=audit.has_read([rows])
    )
    warnings = map(checks.line, gates.on_exposure(exposed))
    notes = (*warnings, *made.notes, *audit.notes())
    opened = audit.opened()
    return msgspec.structs.replace(made, notes=notes, opened=opened, exposed=exposed)


def _forked(descriptor: int) -> tuple[list[str], Loaded]:
    """Import what the jobs need and serve.

    In each fork, return the arguments of its job and what gives the data that were read before.
    """
    gc.disable()
    from mlship.training import server
    from mlship.training.readahead import ReadAhead

    asked = socket.socket(fileno=descriptor)
    first = server.waiting(asked)
    ahead = ReadAhead(first)
    import sklearn.model_selection  # noqa: F401 (the forks find it imported)

    import mlship.training.train  # noqa: F401 (the same)

    # threadpoolctl resolves the path of each library and remembers it; the forks find it done.
    threadpool_info()
    lock.read_ahead()
    # None of it is garbage: neither an import nor a fork searches it.
    gc.freeze()
    gc.enable()
    _compile_no_more()
    return server.serve(asked, first, ahead.close), ahead.take


def _compile_no_more() -> None:
    """Write no compiled file of what is imported from now on.

    It would lie among the user's own files and make a clean tree dirty.
    """
    sys.dont_write_bytecode = True
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"


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
    leave(main(sys.argv[1:]))
