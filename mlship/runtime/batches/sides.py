"""The rows of a part that one release of a split answers, by the function that HTTP uses."""

from collections.abc import Sequence
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from mlship.domain import batch_sides
from mlship.domain.batch_sides import RELEASE, SIDE, Selection
from mlship.runtime.batches.partition import Answered, Partition, Rejected
from mlship.runtime.stream.sides import Choice


class Sided:
    """A partition that answers the rows of one side; use it like the partition.

    Args:
        partition: computes them.
        prefix: how the ids of the rows begin.
        selection: which rows they are.
    """

    def __init__(self, partition: Partition, prefix: str, selection: Selection) -> None:
        self._partition = partition
        self._prefix = prefix
        self._selection = selection
        self._choice = Choice(selection.sides)
        own = next(side for side in selection.sides if side.slot == selection.slot)
        self._added = {RELEASE: own.name, SIDE: selection.role}

    def schema(self, columns: Any) -> Any:
        """Return the schema of the outputs."""
        schema = self._partition.schema(columns)
        for place, name in enumerate(self._added, start=1):
            schema = schema.insert(place, pa.field(name, pa.string()))
        return schema

    def answer(self, batch: Any, first: int) -> tuple[Answered, int]:
        """Return the outputs for the rows of a record batch that are its own, and their number."""
        key = self._selection.key
        keys = batch.column(key).cast(pa.string()).to_pylist() if key else [None] * batch.num_rows
        own = self._own(keys, first)
        answered = self._partition.answer(batch.take(pa.array(own, pa.int64())), 0)
        return self._placed(answered, own, first), len(own)

    def answer_rows(self, received: Sequence[Any], first: int) -> tuple[Answered, int]:
        """Do the same for rows as JSON has them."""
        key = self._selection.key
        own = self._own([_key(row, key) for row in received], first)
        answered = self._partition.answer_rows([received[place] for place in own], 0)
        return self._placed(answered, own, first), len(own)

    def _own(self, keys: Sequence[str | None], first: int) -> list[int]:
        """Return the places of the rows that are on this side."""
        block, slot, choose = self._selection.block, self._selection.slot, self._choice.of
        return [
            place
            for place, key in enumerate(keys)
            if choose(batch_sides.place(block, first + place) if key is None else key.encode()).slot
            == slot
        ]

    def _placed(self, answered: Answered, own: Sequence[int], first: int) -> Answered:
        """Return answers with the places that the rows have in the part."""
        numbers = [own[place] + first for place in answered.places.tolist()]
        texts = pa.array(numbers, pa.int64()).cast(pa.string())
        ids = pc.binary_join_element_wise(f"{self._prefix}.", texts, "")
        outputs = answered.outputs
        added = [pa.repeat(value, len(numbers)) for value in self._added.values()]
        arrays = [ids, *added, *outputs.columns[1:]]
        names = [outputs.schema.names[0], *self._added, *outputs.schema.names[1:]]
        return Answered(
            pa.record_batch(arrays, names=names),
            [_moved(row, own, first) for row in answered.rejected],
            answered.places,
        )


def _moved(row: Rejected, own: Sequence[int], first: int) -> Rejected:
    return row if row.row is None else msgspec.structs.replace(row, row=own[row.row] + first)


def _key(row: Any, name: str) -> str | None:
    """Return the key of a row of JSON as a text; one that is no text is as JSON writes it."""
    value = row.get(name) if name and isinstance(row, dict) else None
    if value is None or isinstance(value, str):
        return value
    return msgspec.json.encode(value).decode()
