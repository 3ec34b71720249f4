"""The path by columns gives what the path by rows gives, whatever is sent."""

import math
import uuid
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlship.domain.bundle import Field, Label, Row, Schema
from mlship.domain.columns import FEW, PIECE_ROWS, Columns, packed
from mlship.domain.digests import Digest
from mlship.domain.lines import lines_of, pieces_of
from mlship.domain.predicted import Ids, Predicted, Together
from mlship.domain.prediction import Prediction
from mlship.domain.private import logged, logged_columns
from mlship.runtime import column_check, frames, outputs, rows
from mlship.runtime.dialects import Predictions, predict
from mlship.runtime.faults import Fault, RefusedRequest
from mlship.runtime.formats import Raw
from mlship.runtime.front import new_id

SCHEMA = Schema(
    inputs=(
        Field(name="number", kind="number"),
        Field(name="limited", kind="number", limit=3.5, nullable=True),
        Field(name="whole", kind="integer", limit=100.0),
        Field(name="text é", kind="text", nullable=True),
        Field(name="closed", kind="text", choices=("a", "b"), is_closed=True),
        Field(name="flag", kind="boolean", nullable=True),
    ),
    outputs=(Field(name="y", kind="number"),),
)
GOOD: Row = {
    "number": 1.5,
    "limited": None,
    "whole": 7,
    "text é": "ö\n",
    "closed": "a",
    "flag": True,
}
NAMES = list(GOOD)
VALUES: st.SearchStrategy[Any] = st.one_of(
    st.floats(),
    st.integers(-101, 101),
    st.integers(),
    st.sampled_from([3.5, -3.5, 3.6, 100, 5.0, 2**63, 2**63 - 1, -(2**63), 10**400, -0.0, 1e300]),
    st.text(max_size=3),
    st.sampled_from(["a", "b", "", None, True, False, [], {}, [1]]),
)
CHANGES = st.lists(
    st.tuples(st.integers(0, 20), st.sampled_from([*NAMES, "other"]), VALUES), max_size=3
)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.text(max_size=5))
FLOATS = st.floats(allow_nan=False, allow_infinity=False)


def typed(received: Any) -> Any:
    """Return rows in a form in which 1, 1.0 and true differ."""
    return [[(type(value), repr(value)) for value in row] for row in received]


def checked(check: Any) -> Any:
    try:
        return check()
    except RefusedRequest as refusal:
        return refusal.fault


@settings(deadline=None)
@given(st.integers(1, 20), CHANGES, st.lists(st.sampled_from(NAMES), max_size=1))
def test_rows_and_columns_are_checked_alike(
    number: int, changes: list[tuple[int, str, Any]], absent: list[str]
) -> None:
    received = [dict(GOOD) for _ in range(number)]
    for place, name, value in changes:
        received[place % number][name] = value
    for name in absent[: number % 2]:
        del received[0][name]
    expected = checked(lambda: [list(row.values()) for row in rows.check(received, SCHEMA)])
    ways: list[Any] = [received]
    if all(row.keys() == received[0].keys() for row in received):
        ways.append(Columns.of_rows(received))
    for way in ways:
        answer = checked(lambda way=way: column_check.check(way, SCHEMA))
        if isinstance(expected, Fault):
            assert answer == expected
        else:
            assert typed(answer) == typed(expected)


@pytest.mark.parametrize("number", [1, FEW - 1, FEW, PIECE_ROWS, PIECE_ROWS + 1])
@pytest.mark.parametrize("names", [("a", 'quoted "b"'), ("a", "é")])
@pytest.mark.parametrize("text", ["r", 'ö","release":"x","latency_ms":1'])
def test_lines_of_a_request_are_those_of_its_predictions(
    number: int, names: tuple[str, ...], text: str
) -> None:
    floats = [place / 7 for place in range(number)]
    mixed = [(1, 1.0, None, "ö\n", True)[place % 5] for place in range(number)]
    predicted = Predicted(
        request_id=text,
        release=Digest("sha256:" + "a" * 64),
        slot=text,
        time=datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
        inputs=Columns(names, [packed(floats), mixed]),
        outputs=Columns(("y",), [mixed]),
        latency_ms=1.25,
        shadow=number % 2 == 0,
    )
    predictions = list(predicted)
    assert predictions[-1].id == f"{text}.{number - 1}"
    assert predictions[-1].inputs == dict(zip(names, (floats[-1], mixed[-1]), strict=True))
    expected = lines_of(predictions)
    assert lines_of(predicted) == expected
    assert lines_of(Together([predicted, predictions])) == 2 * expected
    assert len(list(pieces_of(predicted))) == math.ceil(number / PIECE_ROWS)
    without = msgspec.structs.replace(predicted, inputs=Columns((), (), number))
    assert lines_of(without) == lines_of(list(without))
    assert len(list(without)) == number


@settings(deadline=None)
@given(st.lists(st.tuples(FLOATS, SCALARS | FLOATS), min_size=1, max_size=20))
def test_responses_and_hidden_columns_are_those_of_rows(values: list[tuple[Any, Any]]) -> None:
    for names in (("y", "p"), ("y", 'quoted "p"')):
        table = Columns(names, [packed(column) for column in zip(*values, strict=True)])
        ids = Ids("r", range(len(values)))
        written = predict.response(Predictions(table, ids, "r"), b"", b"").body
        expected = [{"id": id_, **row} for id_, row in zip(ids, table.rows(), strict=True)]
        assert written == msgspec.json.encode(expected)
        key = "k" * 16
        for rule in ("never", "hash"):
            rules: Any = {"y": rule}
            hidden = logged_columns(table, rules, key).rows()
            assert hidden == [logged(row, rules, key) for row in table.rows()]


@pytest.mark.parametrize("number", [1, PIECE_ROWS - 1, PIECE_ROWS, PIECE_ROWS + 1, 2_500])
def test_a_response_in_pieces_is_one_array_with_all_ids(number: int) -> None:
    values = [place / 7 for place in range(number)]
    table = Columns(("y", "p"), [packed(values), list(map(str, values))])
    ids = Ids("r", range(number))
    body = predict.response(Predictions(table, ids, "r"), b'{"a":', b',"b":1}').body
    expected = [{"id": f"r.{n}", "y": y, "p": str(y)} for n, y in enumerate(values)]
    assert body == msgspec.json.encode({"a": expected, "b": 1})


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(FLOATS, FLOATS | st.integers(-(2**53), 2**53) | st.none()),
        min_size=1,
        max_size=20,
    ),
    st.sampled_from(["float64", "float32"]),
)
def test_a_matrix_of_columns_is_that_of_rows(values: list[tuple[Any, Any]], dtype: str) -> None:
    received = [{"a": a, "b": b} for a, b in values]
    columns = Columns(("a", "b"), [packed(column) for column in zip(*values, strict=True)])
    with np.errstate(over="ignore"):
        matrix = frames.to_matrix(columns, ("b", "a"), dtype)
        nested = [[math.nan if v is None else v for v in (r["b"], r["a"])] for r in received]
        expected = np.array(nested, dtype=dtype)
    assert matrix.flags.c_contiguous
    assert (matrix.dtype, matrix.tobytes()) == (expected.dtype, expected.tobytes())
    fields = [Field(name="a", kind="number"), Field(name="b", kind="number", nullable=True)]
    assert frames.to_frame(columns, fields).equals(frames.to_frame(received, fields))


@pytest.mark.parametrize(
    ("labels", "shares"),
    [
        (["p", "other"], [[0.5, 0.5], [0.5, 0.5]]),
        (["p", "q"], [[0.5, math.nan], [0.5, 0.5]]),
        (["p", "q"], [[0.5], [0.5]]),
        (["p"], [[0.5, 0.5], [0.5, 0.5]]),
        ([0.5, math.inf], None),
        ([0.5, b"x"], None),
    ],
)
def test_what_a_model_may_not_answer_is_left_to_the_check_of_rows(labels: Any, shares: Any) -> None:
    known: dict[Label, Label] = {"p": "p", "q": "q"} if shares is not None else {}
    table = None if shares is None else np.array(shares)
    raw = Raw(np.array(labels, dtype=object), table)
    columns = outputs.shares_of(table, 2)
    assert columns is None or outputs.labels_of(raw, tuple(known), known) is None


def test_ids_are_a_sequence_of_texts() -> None:
    ids = Ids("r", range(5))
    assert list(ids) == [f"r.{number}" for number in range(5)]
    assert list(ids[1:3]) == ["r.1", "r.2"]
    assert (ids[-1], len(ids)) == ("r.4", 5)


def test_predictions_by_rows_have_no_form_of_their_own() -> None:
    prediction = Prediction(
        id="a",
        release=Digest("sha256:" + "b" * 64),
        slot="s",
        time=datetime(2026, 1, 2, tzinfo=UTC),
        inputs={"a": 1},
        outputs={"y": 2},
        latency_ms=0.5,
    )
    assert len(Together([[prediction], [prediction, prediction]])) == 3
    assert list(Together([[prediction]])) == [prediction]


def test_ids_of_requests_are_random_uuids() -> None:
    ids = [new_id() for _ in range(1_000)]
    assert len(set(ids)) == len(ids)
    for text in ids:
        id_ = uuid.UUID(text)
        assert (str(id_), id_.version, id_.variant) == (text, 4, uuid.RFC_4122)
    assert {text[19] for text in ids} == set("89ab")
