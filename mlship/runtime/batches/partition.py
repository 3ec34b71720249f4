"""Scores record batches: the function that every engine runs on its part of the rows.

It needs a bundle, what serves it, and pyarrow. It answers to a row what HTTP answers, and refuses
what HTTP refuses, with the same words.
"""

from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import msgspec
import numpy as np
import pyarrow as pa

from mlship.domain.batch import Reading
from mlship.domain.bundle import ID, Field, Row, Value
from mlship.domain.columns import Columns
from mlship.errors import ProjectError
from mlship.runtime import rows
from mlship.runtime.batches import values
from mlship.runtime.batches.ids import ids_of
from mlship.runtime.batches.values import Checked
from mlship.runtime.faults import Fault, RefusedRequest
from mlship.runtime.golden import is_close
from mlship.runtime.jobs import Computed
from mlship.runtime.model import Model

_ALONE: Final = 16
"""So many rows of each part are asked for alone, too."""

_Pieces: TypeAlias = list[tuple[Computed | Fault, int]]
"""What the model answers to rows that follow one another, and the place of the first one."""


class Rejected(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A row that the model does not accept.

    Attributes:
        row: its place in the part, from 0; `None` for a line that is no row.
        column: that is to blame; empty if it is none in particular.
    """

    row: int | None
    column: str
    reason: str
    hint: str = ""
    values: dict[str, Any] = {}


class Answered(msgspec.Struct, frozen=True):
    """The outputs of the rows of a batch that were accepted, and the others.

    Attributes:
        outputs: a record batch with the id of each row, what is kept of it, and the outputs.
        places: of the accepted rows in the batch.
    """

    outputs: Any
    rejected: list[Rejected]
    places: Any


class Partition:
    """A model and how its rows are written; use `answer` for one record batch after another.

    Args:
        model: computes the rows.
        prefix: how the ids of the rows begin.
        keep: columns of the input that are copied to the output.
        reading: how text is read.
        is_text: whether all columns are text that is still to be parsed.
    """

    def __init__(
        self,
        model: Model,
        prefix: str,
        keep: Sequence[str] = (),
        reading: Reading | None = None,
        *,
        is_text: bool = False,
    ) -> None:
        self._model = model
        self._prefix = prefix
        self._keep = tuple(keep)
        self._reading = reading or Reading()
        self._is_text = is_text
        self._fields = model.bundle.schema.inputs
        hooks = model.bundle.hooks
        self._plain = hooks.preprocess is None
        own = (hooks.preprocess, hooks.postprocess, *model.bundle.model.types)
        self._to_ask_alone = _ALONE if any(own) else 0

    def answer(self, batch: Any, first: int) -> Answered:
        """Return the outputs for a record batch.

        Args:
            batch: has the columns of the schema; others are ignored.
            first: the place of its first row in the part.

        Raises:
            ProjectError: the model or a hook fails on any row.
        """
        columns, places, rejected = self._checked(batch, first)
        pieces = self._computed(columns, 0)
        self._check_alone(columns, pieces)
        failed = {place: fault for piece, place in pieces if isinstance(fault := piece, Fault)}
        rejected += [
            self._rejected(batch, int(places[place]), fault, first)
            for place, fault in failed.items()
        ]
        if failed:
            places = np.delete(places, list(failed))
        computed = [piece for piece, _ in pieces if isinstance(piece, Computed)]
        return Answered(self._outputs(batch, places, first, computed), rejected, places)

    def answer_rows(self, received: Sequence[Any], first: int) -> Answered:
        """Return the outputs for rows as JSON has them; kept columns become text."""
        names = [field.name for field in self._fields]
        accepted: list[dict[str, Value]] = []
        places: list[int] = []
        rejected: list[Rejected] = []
        for place, row in enumerate(received):
            own = (
                {name: row[name] for name in names if name in row} if isinstance(row, dict) else row
            )
            try:
                accepted += rows.check([own], self._model.bundle.schema)
                places.append(place)
            except RefusedRequest as refusal:
                values_ = own if isinstance(own, dict) else {}
                rejected.append(_of_fault(refusal.fault, first + place, values_))
        columns = Columns.of_rows(accepted) if accepted else Columns()
        pieces = self._computed(columns, 0)
        self._check_alone(columns, pieces)
        failed = {place: piece for piece, place in pieces if isinstance(piece, Fault)}
        for place, fault in failed.items():
            rejected.append(_of_fault(fault, first + places[place], accepted[place]))
        kept = [place for number, place in enumerate(places) if number not in failed]
        texts = {
            name: pa.array(
                [_text(row.get(name)) if isinstance(row, dict) else None for row in received],
                pa.string(),
            )
            for name in self._keep
        }
        table = (
            pa.RecordBatch.from_pydict(texts)
            if texts
            else pa.record_batch([pa.nulls(len(received))], names=["row"])
        )
        computed = [piece for piece, _ in pieces if isinstance(piece, Computed)]
        outputs = self._outputs(table, np.array(kept, dtype="int64"), first, computed)
        return Answered(outputs, rejected, np.array(kept, dtype="int64"))

    def schema(self, columns: Any) -> Any:
        """Return the schema of the outputs, as their readers see it.

        Args:
            columns: the schema of the input, `None` if each row has its own.
        """
        kept = [
            pa.field(name, pa.string() if columns is None else _kept(columns.field(name).type))
            for name in self._keep
        ]
        outputs = [
            pa.field(field.name, values.arrow_of(field.kind))
            for field in self._model.bundle.schema.outputs
        ]
        return pa.schema([pa.field(ID, pa.string()), *kept, *outputs])

    def _checked(self, batch: Any, first: int) -> tuple[Columns, Any, list[Rejected]]:
        """Return the columns of the rows that fit the schema, their places, and the others."""
        made = [
            values.checked(
                batch.column(field.name),
                field,
                self._reading,
                is_text=self._is_text,
                plain=self._plain,
            )
            for field in self._fields
        ]
        names = [field.name for field in self._fields]
        marks = [each.bad for each in made if each.bad is not None]
        if not marks:
            columns = [each.column() for each in made]
            return Columns(names, columns, batch.num_rows), np.arange(batch.num_rows), []
        doubted = np.flatnonzero(np.logical_or.reduce(marks)).tolist()
        accepted: dict[int, dict[str, Value]] = {}
        rejected = []
        for place in doubted:
            try:
                [accepted[place]] = rows.check([self._row(batch, place)], self._model.bundle.schema)
            except RefusedRequest as refusal:
                rejected.append(self._rejected(batch, place, refusal.fault, first))
        refused = [place for place in doubted if place not in accepted]
        places = np.delete(np.arange(batch.num_rows), refused)
        columns = [
            _column(each, field, places, accepted)
            for each, field in zip(made, self._fields, strict=True)
        ]
        return Columns(names, columns, len(places)), places, rejected

    def _row(self, batch: Any, place: int) -> dict[str, Any]:
        return row_of(batch, place, self._fields, self._reading, is_text=self._is_text)

    def _rejected(self, batch: Any, place: int, fault: Fault, first: int) -> Rejected:
        return _of_fault(fault, first + place, self._row(batch, place))

    def _computed(self, checked: Columns, start: int) -> _Pieces:
        """Return what the model answers, in pieces; a row that makes it fail is a piece alone."""
        if not len(checked):
            return []
        try:
            if len(checked) == 1:
                return [(self._alone(checked), start)]
            computed = self._model.table(checked)
            _check_size(computed, checked)
        except (ProjectError, RefusedRequest):
            if len(checked) == 1:
                raise
            half = len(checked) // 2
            return [
                *self._computed(_part(checked, 0, half), start),
                *self._computed(_part(checked, half, len(checked)), start + half),
            ]
        return [(computed, start)]

    def _check_alone(self, checked: Columns, pieces: _Pieces) -> None:
        """Ask for some rows alone, once, where code of the project computes.

        Code that takes a mean or guesses a format from the rows beside a row answers it otherwise
        than HTTP does.

        Raises:
            ProjectError: a row gets another answer alone.
        """
        for piece, start in pieces:
            if not self._to_ask_alone or not isinstance(piece, Computed) or len(piece) < 2:
                continue
            spread = np.linspace(0, len(piece) - 1, self._to_ask_alone).astype(int)
            self._to_ask_alone = 0
            outputs = piece.outputs()
            for place in np.unique(spread).tolist():
                row = start + place
                alone = self._computed(_part(checked, row, row + 1), row)[0][0]
                answers = (column[place] for column in outputs.values)
                among = dict(zip(outputs.names, answers, strict=True))
                if difference := _difference(among, alone):
                    message = f"an answer depends on the rows beside it: {difference}"
                    hint = "have the hooks and the model treat each row by itself, and train again"
                    raise ProjectError(message, hint=hint)

    def _alone(self, checked: Columns) -> Computed | Fault:
        """Return what the model answers to one row, or why it does not accept it.

        Raises:
            ProjectError: it fails on any row.
        """
        try:
            return self._model.table(checked)
        except (ProjectError, RefusedRequest):
            pass
        try:
            [row] = self._model.compute(checked.rows())
        except RefusedRequest as refusal:
            return refusal.fault
        return Computed(tuple(row), [[value] for value in row.values()])

    def _outputs(self, batch: Any, places: Any, first: int, computed: list[Computed]) -> Any:
        fields = self._model.bundle.schema.outputs
        is_whole = len(places) == batch.num_rows
        ids = ids_of(self._prefix, first, batch.num_rows)
        arrays = [ids if is_whole else ids.take(pa.array(places))]
        for name in self._keep:
            column = batch.column(name)
            column = column.cast(_kept(column.type))
            arrays.append(column if is_whole else column.take(pa.array(places)))
        for field in fields:
            try:
                parts = [
                    values.to_arrow(each.columns[each.names.index(field.name)], field)
                    for each in computed
                ]
            except (ValueError, pa.ArrowInvalid, pa.ArrowTypeError) as error:
                message = f"the output {field.name} is not what the bundle's schema says: {error}"
                raise ProjectError(message, hint="correct the hook, and train again") from error
            arrays.append(pa.concat_arrays(parts) if parts else values.to_arrow([], field))
        names = [ID, *self._keep, *(field.name for field in fields)]
        return pa.record_batch(arrays, names=names)


def _kept(kind: Any) -> Any:
    """Return the type of a copied column: missing values are texts, as those of other files."""
    return pa.string() if pa.types.is_null(kind) else kind


def row_of(
    batch: Any, place: int, fields: Sequence[Field], reading: Reading, *, is_text: bool
) -> dict[str, Any]:
    """Return a row of a record batch as a request would have it."""
    row = {}
    for field in fields:
        value = values.value_of(batch.column(field.name), place, field, reading, is_text=is_text)
        if is_text and isinstance(value, str) and field.kind in ("number", "integer"):
            value = values.number_of(value, field, reading)
        row[field.name] = value
    return row


def _difference(among: Row, alone: Computed | Fault) -> str:
    """Return how the answer to a row alone differs from that among others; empty if it does not."""
    if isinstance(alone, Fault):
        return f"alone, the row is refused: {alone.message}"
    [outputs] = alone.outputs().rows()
    for name in sorted({*among, *outputs}):
        if name not in among or name not in outputs:
            return f"output {name} is not in both"
        if not is_close(among[name], outputs[name]):
            return f"{name} is {outputs[name]!r} alone, and {among[name]!r} among others"
    return ""


def _column(each: Checked, field: Field, places: Any, accepted: dict[int, dict[str, Value]]) -> Any:
    replaced = {place: row[field.name] for place, row in accepted.items()}
    return each.column(places, replaced)


def _check_size(computed: Computed, checked: Columns) -> None:
    if len(computed) != len(checked):
        message = f"the model returned {len(computed)} outputs for {len(checked)} rows"
        raise ProjectError(message, hint="correct the hook, and train again")


def _part(columns: Columns, start: int, end: int) -> Columns:
    return Columns(columns.names, [each[start:end] for each in columns.values], end - start)


def _of_fault(fault: Fault, row: int, own: dict[str, Any]) -> Rejected:
    """Return a rejected row; the place in the field of a fault is that in a request of one row."""
    column = fault.field.partition(".")[2]
    return Rejected(row=row, column=column, reason=fault.message, hint=fault.hint, values=own)


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return msgspec.json.encode(value).decode()
