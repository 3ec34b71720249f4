"""Predicts rows from stdin, in a separate process."""

import os
import sys
from pathlib import Path

import msgspec

from mlship.domain.digests import Digest
from mlship.errors import ProjectError
from mlship.runtime.model import Model


def predict(bundle: Path, expected: Digest | None) -> None:
    """Read a JSON array of rows from stdin, write a JSON array of outputs to stdout.

    Output of the user's code goes to stderr.

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
    outputs = Model.load(bundle, expected).predict(rows)  # type: ignore[arg-type]  # predict checks each value
    sys.stdout.flush()
    with os.fdopen(answer, "wb") as file:
        file.write(msgspec.json.encode(outputs))
