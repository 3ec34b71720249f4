"""Golden examples: outputs of the model at training time, which serving must reproduce."""

import math
from collections.abc import Sequence
from pathlib import Path

import msgspec

from mlship.domain.bundle import GOLDEN, Row, Value
from mlship.errors import IntegrityError, MlshipError
from mlship.runtime.model import Model

TOLERANCE = 1e-4
"""Allowed difference of a number, absolute or relative, whichever is larger."""


class Example(msgspec.Struct, frozen=True, kw_only=True):
    """One line of `golden.jsonl`."""

    inputs: Row
    outputs: Row


def read(folder: Path) -> list[Example]:
    """Return the golden examples of a verified bundle, which may have none.

    Raises:
        IntegrityError: a line is not an example.
    """
    path = folder / GOLDEN
    if not path.is_file():
        return []
    try:
        return msgspec.json.Decoder(Example).decode_lines(path.read_bytes())
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        message = f"{path}: {error}"
        raise IntegrityError(message, hint="train again") from error


def difference(model: Model, examples: Sequence[Example]) -> str:
    """Predict each example; return the first difference for people, empty if there is none."""
    for number, example in enumerate(examples):
        try:
            outputs = model.predict([example.inputs])[0]
        except MlshipError as error:
            return f"golden example {number}: {error.message}"
        for name in sorted({*example.outputs, *outputs}):
            if name not in outputs or name not in example.outputs:
                state = "missing" if name not in outputs else "new"
                return f"golden example {number}: output {name} is {state}"
            if not is_close(outputs[name], example.outputs[name]):
                return (
                    f"golden example {number}: {name} is {outputs[name]!r}, "
                    f"but was {example.outputs[name]!r} at training time"
                )
    return ""


def is_close(a: Value, b: Value) -> bool:
    """Return whether two outputs are equal; numbers within the tolerance."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, int | float) and isinstance(b, int | float):
        return math.isclose(a, b, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    return a == b
