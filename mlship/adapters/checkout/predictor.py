"""Predictions from a bundle, offline, by the runtime in a process of its own."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

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
        return self._ask(bundle, rows, Row)

    def answers(self, bundle: Path, rows: Sequence[Row]) -> list[Answer]:
        """Return the outputs or the refusal of each row, in their order.

        Raises:
            IntegrityError: the bundle is not what its manifest says.
            ProjectError: the model or a hook fails on any row, or the process died.
        """
        return self._ask(bundle, rows, Answer, "--each")

    def _ask(
        self, bundle: Path, rows: Sequence[Row], kind: type[Answered], *options: str
    ) -> list[Answered]:
        if not rows:
            return []
        # -P: only the bundle's own code may be found, not what lies in the current folder.
        command = [sys.executable, "-P", "-m", "mlship.runtime", "predict", str(bundle.absolute())]
        if self._apart is not None:
            command += ["--apart", str(self._apart)]
        done = subprocess.run(
            [*command, *options],
            input=msgspec.json.encode(rows),
            capture_output=True,
            # A replica's hash seed is any; training's is 0.
            env=environment.of_serving(os.environ) | {"PYTHONHASHSEED": "1"},
            check=False,
        )
        if done.returncode != 0:
            lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
            raise _fault(bundle, Ended(code=done.returncode, tail=tuple(lines[-15:])))
        try:
            outputs = msgspec.json.decode(done.stdout, type=list[kind])  # type: ignore[valid-type]
        except msgspec.DecodeError as error:
            message = f"bundle {bundle}: its code writes to stdout instead of predictions"
            raise ProjectError(message, hint="remove print() from the hooks") from error
        if len(outputs) != len(rows):
            message = f"bundle {bundle} returned {len(outputs)} outputs for {len(rows)} rows"
            raise ProjectError(message, hint="the hooks must return one row for each input row")
        return outputs


def _fault(bundle: Path, ended: Ended) -> MlshipError:
    try:
        return msgspec.json.decode(ended.tail[-1] if ended.tail else "", type=Fault).raised()
    except msgspec.DecodeError:
        said = "\n".join(["; its last lines:", *ended.tail]) if ended.tail else ""
        message = f"predicting from bundle {bundle} {describe_end(ended)}{said}"
        return ProjectError(message, hint="check the model and the hooks: the process crashed")
