"""Predictions from a bundle, offline, by the runtime in a process of its own."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO, NamedTuple, TypeVar

import msgspec

from mlship.adapters.checkout.children import Ended, Fault, describe_end
from mlship.domain import environment
from mlship.domain.bundle import Row
from mlship.domain.prediction import Answer
from mlship.errors import MlshipError, ProjectError

Answered = TypeVar("Answered")


class ChildPredictor:
    """Runs `mlship.runtime predict`, the path that serving takes: `ports.Predictor`."""

    def __init__(self, apart: Path | None = None) -> None:
        """Take a project of whose files a bundle may only read its own copies."""
        self._apart = apart

    def predict(self, bundle: Path, rows: Sequence[Row]) -> list[Row]:
        """Return the outputs for rows, in their order.

        Raises:
            IntegrityError: the bundle is not what its manifest says.
            ProjectError: a row does not fit the schema, a hook raised, or the process died.
        """
        if not rows:
            return []
        with self._started(bundle, rows) as process:
            return process.outputs(Row)

    @contextmanager
    def answers(self, bundle: Path, rows: Sequence[Row]) -> Iterator[Callable[[], list[Answer]]]:
        """Start to predict; give what waits for the outputs or the refusal of each row, in order.

        Raises:
            IntegrityError: the bundle is not what its manifest says.
            ProjectError: the model or a hook fails on any row, or the process died.
        """
        with self._started(bundle, rows, "--each") as process:
            yield lambda: process.outputs(Answer)

    @contextmanager
    def _started(self, bundle: Path, rows: Sequence[Row], *options: str) -> Iterator["_Process"]:
        # -P: only the bundle's own code may be found, not what lies in the current folder.
        command = [sys.executable, "-P", "-m", "mlship.runtime", "predict", str(bundle.absolute())]
        if self._apart is not None:
            command += ["--apart", str(self._apart)]
        # Files, not pipes: nobody reads while the caller does something else.
        with TemporaryFile() as asked, TemporaryFile() as answered, TemporaryFile() as errors:
            asked.write(msgspec.json.encode(rows))
            asked.seek(0)
            process = subprocess.Popen(
                [*command, *options],
                stdin=asked,
                stdout=answered,
                stderr=errors,
                # A replica's hash seed is any; training's is 0.
                env=environment.of_serving(os.environ) | {"PYTHONHASHSEED": "1"},
            )
            try:
                yield _Process(bundle, len(rows), process, answered, errors)
            finally:
                process.kill()
                process.wait()


class _Process(NamedTuple):
    """A process that predicts rows of a bundle, and the files that it writes."""

    bundle: Path
    rows: int
    process: "subprocess.Popen[bytes]"
    answered: BinaryIO
    errors: BinaryIO

    def outputs(self, kind: type[Answered]) -> list[Answered]:
        """Wait for its end, and return what it answers to each row."""
        code = self.process.wait()
        if code != 0:
            lines = _read(self.errors).decode("utf-8", "replace").strip().splitlines()
            raise _fault(self.bundle, Ended(code=code, tail=tuple(lines[-15:])))
        try:
            outputs = msgspec.json.decode(_read(self.answered), type=list[kind])  # type: ignore[valid-type]
        except msgspec.DecodeError as error:
            message = f"bundle {self.bundle}: its code writes to stdout instead of predictions"
            raise ProjectError(message, hint="remove print() from the hooks") from error
        if len(outputs) != self.rows:
            message = f"bundle {self.bundle} returned {len(outputs)} outputs for {self.rows} rows"
            raise ProjectError(message, hint="the hooks must return one row for each input row")
        return outputs


def _read(file: BinaryIO) -> bytes:
    file.seek(0)
    return file.read()


def _fault(bundle: Path, ended: Ended) -> MlshipError:
    try:
        return msgspec.json.decode(ended.tail[-1] if ended.tail else "", type=Fault).raised()
    except msgspec.DecodeError:
        said = "\n".join(["; its last lines:", *ended.tail]) if ended.tail else ""
        message = f"predicting from bundle {bundle} {describe_end(ended)}{said}"
        return ProjectError(message, hint="check the model and the hooks: the process crashed")
