"""Rows and predictions as tables: the forms of JSON that MLflow and TensorFlow have, and CSV."""

import csv
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any, Final

import msgspec

from mlship.domain.bundle import ID, Field, Schema, Value
from mlship.domain.columns import Columns
from mlship.runtime import elements, http
from mlship.runtime.dialects import Predictions
from mlship.runtime.faults import RefusedRequest
from mlship.runtime.http import Response

CSV: Final = "text/csv"
_NUMBER: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_WHOLE: Final = re.compile(r"[+-]?\d{1,19}", re.ASCII)
_BOOLEANS: Final = {"true": True, "false": False}
_CONSTANTS: Final = {"NaN": None, "Infinity": math.inf, "-Infinity": -math.inf}
_decode: Final = partial(json.loads, parse_constant=_CONSTANTS.__getitem__)


def of_split(split: Any, place: str) -> list[Any] | Columns:
    """Return the rows of `{"columns": [...], "data": [[...], ...]}`.

    Raises:
        RefusedRequest: it has another form.
    """
    is_split = (
        isinstance(split, dict)
        and split.keys() <= {"columns", "data", "index"}
        and all(isinstance(split.get(name), list) for name in ("columns", "data"))
    )
    if not is_split:
        message = "it is not an object with `columns`, `data` and perhaps `index`"
        hint = 'send {"columns": ["name"], "data": [[value]]}'
        raise RefusedRequest(message, field=place, hint=hint)
    columns = split["columns"]
    http.check_rows(len(split["data"]), f"{place}.data")
    if not all(isinstance(name, str) for name in columns) or len(set(columns)) != len(columns):
        message = "the columns are not different names"
        raise RefusedRequest(message, field=f"{place}.columns", hint="name each column once")
    return _by_columns(split["data"], columns, f"{place}.data")


def of_columns(columns: Mapping[str, Any], place: str) -> Columns:
    """Return the rows of `{"column": [value, ...], ...}`.

    Raises:
        RefusedRequest: a column is not a list, or the lists have different lengths.
    """
    for name, values in columns.items():
        if not isinstance(values, list):
            message = f"column {name[:80]} is not a list"
            raise RefusedRequest(
                message, field=f"{place}.{name[:80]}", hint="send a list of values"
            )
    lengths = {len(values) for values in columns.values()}
    http.check_rows(max(lengths, default=0), place)
    if len(lengths) > 1:
        message = "the columns have different numbers of values"
        raise RefusedRequest(message, field=place, hint="send a value of each column for each row")
    return Columns(tuple(columns), tuple(columns.values()))


def of_list(rows: Any, schema: Schema, place: str) -> list[Any] | Columns:
    """Return rows that are objects, or lists of values in the order of the columns.

    Raises:
        RefusedRequest: it is not a list, or a row has another number of values.
    """
    if not isinstance(rows, list):
        raise RefusedRequest("it is not a list", field=place, hint="send a list of rows")
    http.check_rows(len(rows), place)
    names = [field.name for field in schema.inputs]
    if all(isinstance(row, list) for row in rows):
        return _by_columns(rows, names, place)
    return [
        _named(row, names, f"{place}[{number}]") if isinstance(row, list) else row
        for number, row in enumerate(rows)
    ]


def of_csv(body: bytes, schema: Schema) -> Columns:
    """Return the rows of a CSV file whose header names the columns; an empty cell is a null.

    Raises:
        RefusedRequest: it is not CSV in UTF-8, has no header, or a line has another number of
            cells.
    """
    fields = {field.name: field for field in schema.inputs}
    hint = f"send CSV in UTF-8 with the header {','.join(fields)}"
    try:
        elements.check_csv(body, len(fields))
        body.decode("utf-8-sig")  # the error says where in the body; below, it is decoded in pieces
        file = io.TextIOWrapper(io.BytesIO(body), "utf-8-sig", newline="")
        lines = list(islice(csv.reader(file, strict=True), http.MAX_ROWS + 2))
    except (csv.Error, UnicodeDecodeError) as error:
        raise RefusedRequest(f"the body is not CSV: {error}", hint=hint) from None
    # A blank line is a missing value if there is one column, and nothing otherwise.
    header, *lines = [line for line in lines if line] or [[]]
    if not fields.keys() & set(header) or len(set(header)) != len(header):
        message = "the first line is not a header with the names of the columns"
        raise RefusedRequest(message, field="rows", hint=hint)
    http.check_rows(len(lines))
    for number, line in enumerate(lines):
        if len(line) != len(header):
            message = f"the line has {len(line)} cells, and the header {len(header)}"
            raise RefusedRequest(message, row=number, hint=hint)
    columns = [
        [_cell(line[place], fields.get(name)) for line in lines]
        for place, name in enumerate(header)
    ]
    return Columns(header, columns)


def to_csv(predictions: Predictions) -> Response:
    """Return the predictions as CSV: a header, then for each row its id and the outputs."""
    outputs = predictions.outputs
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow([ID, *outputs.names])
    texts = [map(_text, column) for column in outputs.values]
    writer.writerows(zip(predictions.ids, *texts, strict=True))
    headers = {"content-type": f"{CSV}; charset=utf-8"}
    return Response(status=200, headers=headers, body=file.getvalue().encode())


def _by_columns(rows: list[Any], names: Sequence[str], place: str) -> list[Any] | Columns:
    """Return rows that are lists of values in the order of the names.

    Raises:
        RefusedRequest: a row is no list, or has another number of values.
    """
    if names and all(isinstance(row, list) and len(row) == len(names) for row in rows):
        return Columns(names, [[row[number] for row in rows] for number in range(len(names))])
    return [_named(row, names, f"{place}[{number}]") for number, row in enumerate(rows)]


def _named(row: Any, names: Sequence[str], place: str) -> dict[str, Any]:
    if not isinstance(row, list) or len(row) != len(names):
        message = f"it is not a list of {len(names)} values"
        hint = f"send values in the order {', '.join(name[:80] for name in names[:50])}"
        raise RefusedRequest(message, field=place, hint=hint)
    return dict(zip(names, row, strict=True))


def _cell(text: str, field: Field | None) -> Any:
    """Return a cell as the value of its column; what is none stays a text, which is refused."""
    if field is None or field.kind == "text":
        return None if field and field.nullable and not text else text
    if not text:
        return None
    if field.kind == "boolean":
        return _BOOLEANS.get(text.strip().lower(), text)
    if _WHOLE.fullmatch(text.strip()):
        return int(text)
    return float(text) if _NUMBER.fullmatch(text.strip()) else text


def _text(value: Value) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def decode(body: bytes) -> dict[str, Any]:
    """Return a JSON object; `NaN`, which Python's clients send for a missing value, is a null.

    Raises:
        RefusedRequest: it is not one.
    """
    try:
        value = http.decoded(msgspec.json.decode, body)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        value = _beyond_json(body)
        if value is None:
            hint = "send a JSON object"
            raise RefusedRequest(f"the body is not JSON: {error}", hint=hint) from None
    if not isinstance(value, dict):
        raise RefusedRequest("the body is not an object", hint="send a JSON object")
    return value


def _beyond_json(body: bytes) -> Any:
    """Return what Python's `json` reads where a body has the constants that only it writes."""
    if not any(word in body for word in (b"NaN", b"Infinity")):
        return None
    try:
        value = http.decoded(_decode, body)
        # It reads halves of surrogate pairs, too, which are no text that can be written.
        msgspec.json.encode(value)
    except (ValueError, RecursionError):
        return None
    return value
