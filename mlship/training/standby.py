"""A process that waits to prove a bundle, forked before any of the user's code has run.

It has imported what a runtime imports, which takes longer than to answer 4,000 rows. It has seen
nothing of the training, and works in the bundle's folder with the variables of a replica. Only a
bundle without code of the project is proven there: other code is run with another hash seed than
training, in a new process. So is any bundle that is not proven in the first attempt, so that what
is told of a failure never depends on the fork.
"""

import importlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple, NoReturn

import msgspec
from threadpoolctl import threadpool_limits

from mlship.adapters.checkout.predictor import ChildPredictor
from mlship.domain import bundle as bundles
from mlship.domain import environment
from mlship.domain.bundle import ModelFormat, Row
from mlship.domain.prediction import Answer
from mlship.runtime import __main__ as runtime
from mlship.runtime import trust
from mlship.training.libraries import compiled

_PROVEN = b"0"


_LIBRARIES: Final[Mapping[ModelFormat, str]] = {
    "onnx": "onnxruntime",
    "xgboost": "xgboost",
    "lightgbm": "lightgbm",
    "catboost": "catboost",
}


class _Request(msgspec.Struct, frozen=True):
    """What the process is told: a bundle to prove, or the format that one will probably have.

    Attributes:
        bundle: its folder; empty if only the format is known.
        asked: the file that has the rows.
        answered: the file that takes the answers.
    """

    bundle: str = ""
    asked: str = ""
    answered: str = ""
    form: ModelFormat | None = None


class _Waiting(NamedTuple):
    """Descriptors of pipes: to ask the process, and to hear of its end."""

    request: int
    end: int


class StandbyPredictor:
    """Predicts from a bundle in the waiting process, or in a new one: `ports.Predictor`."""

    def __init__(self, root: Path) -> None:
        """Fork the process that waits; take the project, of which it may read no file."""
        self._anew = ChildPredictor(root)
        # A fork of a process that has loaded such libraries is not safe on other systems.
        self._waiting = _forked(root) if sys.platform == "linux" else None

    def expect(self, form: ModelFormat) -> None:
        """Let the waiting process import what loads a model of a format."""
        if self._waiting is not None:
            _tell(self._waiting, _Request(form=form))

    def predict(self, bundle: Path, rows: Sequence[Row]) -> list[Row]:
        """Return the outputs for rows, in their order, from a new process.

        Raises:
            IntegrityError, ProjectError: as `ChildPredictor`.
        """
        return self._anew.predict(bundle, rows)

    @contextmanager
    def answers(self, bundle: Path, rows: Sequence[Row]) -> Iterator[Callable[[], list[Answer]]]:
        """Start to predict; give what waits for the outputs or the refusal of each row, in order.

        Raises:
            IntegrityError, ProjectError: as `ChildPredictor`.
        """
        waiting, self._waiting = self._waiting, None
        if waiting is None or has_code(bundle):
            if waiting is not None:
                _close(waiting)
            with self._anew.answers(bundle, rows) as answers:
                yield answers
            return
        with tempfile.TemporaryDirectory() as folder:
            asked, answered = Path(folder, "asked.json"), Path(folder, "answered.json")
            asked.write_bytes(msgspec.json.encode(rows))
            try:
                _tell(waiting, _Request(str(bundle.absolute()), str(asked), str(answered)))
                yield lambda: self._answered(waiting, answered, bundle, rows)
            finally:
                _close(waiting)

    def _answered(
        self, waiting: _Waiting, answered: Path, bundle: Path, rows: Sequence[Row]
    ) -> list[Answer]:
        if os.read(waiting.end, 1) == _PROVEN:
            with suppress(msgspec.DecodeError):
                answers = msgspec.json.decode(answered.read_bytes(), type=list[Answer])
                if len(answers) == len(rows):
                    return answers
        with self._anew.answers(bundle, rows) as again:
            return again()


def has_code(bundle: Path) -> bool:
    """Tell whether a bundle runs code of the project, or types that are not on the exact list."""
    manifest = bundles.read(bundle)
    model, hooks = manifest.model, manifest.hooks
    own = (hooks.preprocess, hooks.postprocess, *model.types, *model.trusted)
    return any(own) or (bundle / bundles.CODE).exists() or model.format == "pickle"


def _tell(waiting: _Waiting, request: _Request) -> None:
    # A process that is gone is found by its end.
    with suppress(BrokenPipeError):
        os.write(waiting.request, msgspec.json.encode(request) + b"\n")


def _close(waiting: _Waiting) -> None:
    """Let go of the process: it ends when nobody can ask it, or hear of it."""
    os.close(waiting.request)
    os.close(waiting.end)


def _forked(root: Path) -> _Waiting:
    """Return the pipes of a process that waits.

    It is no child of this process, so that the user's code may wait for all of its own. The server
    of jobs ends it if it is still there after the job.
    """
    asked, request = os.pipe()
    end, ended = os.pipe()
    between = os.fork()
    if between == 0:
        if os.fork() == 0:
            os.close(request)
            os.close(end)
            _wait(root, asked, ended)
        os._exit(0)
    os.waitpid(between, 0)
    os.close(asked)
    os.close(ended)
    return _Waiting(request=request, end=end)


def _wait(root: Path, asked: int, ended: int) -> NoReturn:
    """Wait for a request, prove a bundle, and end."""
    code = 1
    try:
        with os.fdopen(asked, "rb") as pipe:
            for line in pipe:
                request = msgspec.json.decode(line, type=_Request)
                if request.bundle:
                    code = _proven(root, request)
                    sys.stdout.flush()
                    break
                if request.form is not None:
                    with suppress(ImportError), compiled():
                        _import(request.form)
    finally:
        with suppress(OSError):
            os.write(ended, b"%d" % (code != 0))
        os._exit(0)


def _import(form: ModelFormat) -> None:
    """Import what loads a model of a format, and takes a while to import."""
    if form == "skops":
        trust.skops_io()
    elif form in _LIBRARIES:
        importlib.import_module(_LIBRARIES[form])


def _proven(root: Path, request: _Request) -> int:
    """Do as a new process of the runtime does; return its exit code."""
    variables = environment.of_serving(os.environ)
    os.environ.clear()
    os.environ.update(variables)
    nothing = os.open(os.devnull, os.O_WRONLY)
    answered = os.open(request.answered, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    for descriptor, place in (
        (os.open(request.asked, os.O_RDONLY), 0),
        (answered, 1),
        (nothing, 2),
    ):
        os.dup2(descriptor, place)
    sys.stdin, sys.stdout, sys.stderr = (
        os.fdopen(place, mode, closefd=False) for place, mode in enumerate("rww")
    )
    arguments = ["predict", request.bundle, "--apart", str(root), "--each"]
    # The training process computes beside it: threads that wait for each other take both longer.
    with threadpool_limits(1):
        return runtime.main(arguments, os.environ)
