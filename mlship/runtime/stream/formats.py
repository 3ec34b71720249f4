"""The values of messages: from bytes to rows, and from outputs to bytes."""

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from mlship.domain.columns import Columns
from mlship.runtime.faults import Fault

ID = "prediction_id"
RELEASE = "release"
"""What the value of an output has beside the outputs of the model."""


class Codec(Protocol):
    """Reads and writes the values of one format."""

    def decode(self, value: bytes) -> dict[str, Any] | Fault:
        """Return the row of a value, or why it is none. The schema is checked later."""

    def encode(self, outputs: Columns, ids: Sequence[str]) -> list[bytes]:
        """Return the value for each row of outputs."""


class Json:
    """An object of JSON; the output has the fields of `/predict`.

    Args:
        release: the name of the release.
    """

    def __init__(self, release: str) -> None:
        self._release = release
        self._decode = msgspec.json.Decoder().decode
        self._encode = msgspec.json.Encoder().encode

    def decode(self, value: bytes) -> dict[str, Any] | Fault:
        """Return the row of a value, or why it is none."""
        try:
            row = self._decode(value)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            return Fault(message=f"the value is not JSON: {error}")
        if not isinstance(row, dict):
            return Fault(message=f"the value is JSON, but not an object: {type(row).__name__}")
        return row

    def encode(self, outputs: Columns, ids: Sequence[str]) -> list[bytes]:
        """Return the value for each row of outputs."""
        return [self._encode(item) for item in named(outputs, ids, self._release).objects()]


def named(outputs: Columns, ids: Sequence[str], release: str) -> Columns:
    """Return outputs with the id and the release beside them; an output of that name wins."""
    own = {ID: list(ids), RELEASE: [release] * len(ids)}
    kept = {name: values for name, values in own.items() if name not in outputs.names}
    return Columns((*kept, *outputs.names), (*kept.values(), *outputs.values))
