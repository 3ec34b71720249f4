"""Golden examples: what the model gave when it was made, and must still give where it runs."""

import math
from collections.abc import Sequence
from pathlib import Path

import msgspec

from mlship.domain.bundle import GOLDEN, Row, Value
from mlship.errors import IntegrityError, MlshipError
from mlship.runtime.model import Model

TOLERANCE = 1e-4
"""How far a number may be off, absolutely or relatively, whichever is more."""


class Example(msgspec.Struct, frozen=True, kw_only=True):
    """One line of `golden.jsonl`."""

    inputs: Row
    outputs: Row


def read(folder: Path) -> list[Example]:
    """Return the golden examples of a bundle that was read, none where it has none.

    Raises:
        IntegrityError: a line is no example.
    """
    path = folder / GOLDEN
    if not path.is_file():
        return []
    try:
        return msgspec.json.Decoder(Example).decode_lines(path.read_bytes())
    except msgspec.MsgspecError as error:
        message = f"{path}: {error}"
        raise IntegrityError(message, hint="train again") from error


def difference(model: Model, examples: Sequence[Example]) -> str:
    """Predict each example as served; return the first difference for people, or no text."""
    for number, example in enumerate(examples):
        try:
            found = model.predict([example.inputs])[0]
        except MlshipError as error:
            return f"golden example {number}: {error.message}"
        for name in sorted({*example.outputs, *found}):
            if name not in found or name not in example.outputs:
                where = "missing" if name not in found else "new"
                return f"golden example {number}: the output {name} is {where}"
            if not is_close(found[name], example.outputs[name]):
                return (
                    f"golden example {number}: {name} is {found[name]!r}, "
                    f"and was {example.outputs[name]!r} when the model was made"
                )
    return ""


def is_close(one: Value, other: Value) -> bool:
    """Tell whether two outputs are equal, numbers within the tolerance."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, int | float) and isinstance(other, int | float):
        return math.isclose(one, other, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    return one == other
