"""The predictions of one request on their way to the log, by columns."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import chain
from typing import Protocol

import msgspec

from mlship.domain.columns import Columns
from mlship.domain.digests import Digest
from mlship.domain.prediction import Prediction


class Ids(Sequence[str]):
    """The ids of a request's predictions: its own, and the number of the row.

    Args:
        request_id: the id of the request.
        numbers: of the rows.
    """

    def __init__(self, request_id: str, numbers: range) -> None:
        self._request_id = request_id
        self._numbers = numbers

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._numbers)

    def __getitem__(self, place):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN204
        """Return the id at a place, or those of a slice."""
        if isinstance(place, slice):
            return Ids(self._request_id, self._numbers[place])
        return f"{self._request_id}.{self._numbers[place]}"

    def __iter__(self) -> Iterator[str]:
        """Return each id."""
        start = f"{self._request_id}."
        return (f"{start}{number}" for number in self._numbers)


class Batch(Protocol):
    """Predictions that are logged together: a list, or a value of this module."""

    def __len__(self) -> int:
        """Return their number."""

    def __iter__(self) -> Iterator[Prediction]:
        """Return each of them."""


class Predicted(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """The predictions of a request; the attributes are those of `Prediction`, for all rows.

    Attributes:
        request_id: begins the id of each.
        inputs: the rows as received.
        outputs: as many rows.
    """

    request_id: str
    release: Digest
    slot: str
    time: datetime
    inputs: Columns
    outputs: Columns
    latency_ms: float
    shadow: bool = False

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.inputs)

    def __iter__(self) -> Iterator[Prediction]:
        """Return the prediction of each row."""
        in_names, out_names = self.inputs.names, self.outputs.names
        ids = Ids(self.request_id, range(len(self)))
        for id_, inputs, outputs in zip(ids, self.inputs, self.outputs, strict=True):
            yield Prediction(
                id=id_,
                release=self.release,
                slot=self.slot,
                time=self.time,
                inputs=dict(zip(in_names, inputs, strict=True)),
                outputs=dict(zip(out_names, outputs, strict=True)),
                latency_ms=self.latency_ms,
                shadow=self.shadow,
            )


class Together:
    """The predictions of several requests, one after the other.

    Args:
        parts: those of each request.
    """

    def __init__(self, parts: Sequence[Batch]) -> None:
        self.parts = parts

    def __len__(self) -> int:
        """Return the number of predictions."""
        return sum(map(len, self.parts))

    def __iter__(self) -> Iterator[Prediction]:
        """Return each prediction."""
        return chain.from_iterable(self.parts)
