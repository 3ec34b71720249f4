"""Predicts rows from stdin, in a separate process."""

import gc
import os
import sys
from pathlib import Path

import msgspec

from mlship.domain.bundle import Row
from mlship.domain.digests import Digest
from mlship.domain.prediction import Answer
from mlship.errors import ProjectError
from mlship.runtime.faults import Fault
from mlship.runtime.model import Model


def predict(bundle: Path, expected: Digest | None, *, each: bool = False) -> None:
    """Read a JSON array of rows from stdin, write a JSON array of outputs to stdout.

    Output of the user's code goes to stderr.

    Args:
        bundle: the folder of the bundle.
        expected: the digest that it must have.
        each: write an `Answer` for each row, so that no row makes others fail.

    Raises:
        NotFoundError: there is no bundle.
        IntegrityError: the bundle does not match its manifest.
        ProjectError: stdin is not an array of rows, a row does not fit, or a hook raised.
    """
    answer = os.dup(1)
    os.dup2(2, 1)
    try:
        rows = msgspec.json.decode(sys.stdin.buffer.read(), type=list[dict[str, object]])
    except msgspec.MsgspecError as error:
        message = f"stdin is not a JSON array of rows: {error}"
        raise ProjectError(message, hint='send [{"column": value}, ...]') from error
    gc.disable()
    model = Model.load(bundle, expected)
    # What was imported is no garbage: it is not searched while rows are computed.
    gc.freeze()
    gc.enable()
    outputs: list[object] = (
        [answer_of(result) for result in model.answers(rows)] if each else list(model.predict(rows))  # type: ignore[arg-type]  # predict checks each value
    )
    sys.stdout.flush()
    with os.fdopen(answer, "wb") as file:
        file.write(msgspec.json.encode(outputs))


def answer_of(result: Row | Fault) -> Answer:
    """Return the outputs or the refusal of a row as a value of the domain."""
    if isinstance(result, Fault):
        return Answer(refusal=result.message, column=result.field.partition(".")[2])
    return Answer(outputs=result)
