"""The compiled decoder agrees with the check of rows, whatever is sent."""

import json
import random
from typing import Any

import msgspec
import pytest

from mlship.domain.bundle import Field, Schema
from mlship.runtime import column_check, http, rows
from mlship.runtime.decoder import RowDecoder
from mlship.runtime.faults import RefusedRequest
from mlship.runtime.jobs import Table

SCHEMA = Schema(
    inputs=(
        Field(name="number", kind="number"),
        Field(name="limited", kind="number", limit=3.5, nullable=True),
        Field(name="whole", kind="integer", limit=100.0),
        Field(name="text é", kind="text", nullable=True),
        Field(name="closed", kind="text", choices=("a", "b"), is_closed=True),
        Field(name="class", kind="boolean", nullable=True),
    ),
    outputs=(Field(name="y", kind="number"),),
)
GOOD: dict[str, Any] = {
    "number": 1.5,
    "limited": None,
    "whole": 7,
    "text é": "ö",
    "closed": "a",
    "class": True,
}
RAW = [
    *("0", "-0", "1", "-1", "3.5", "3.6", "4", "-3.5", "100", "101", "5.0", "5.5", "1e3", "1e400"),
    *("1e-400", "9223372036854775807", "-9223372036854775807", "-9223372036854775808", "1E2"),
    *("9223372036854775808", "1e19", "123456789012345678901234567890", "0.1", "-0.0", "2.5e0"),
    *("null", "true", "false", '"a"', '"b"', '"c"', '""', '"1"', r'"\u0061"', r'"\ud800"'),
    *("[]", "[1]", "{}", "NaN", "Infinity", "01", "1.", '"', "tru", ""),
]


def by_hand(body: bytes, schema: Schema) -> Any:
    """Return the values by the slow way, or the message that refuses them."""
    try:
        return [tuple(row.values()) for row in rows.check(http.decode_rows(body), schema)]
    except RefusedRequest as refusal:
        return refusal.fault


def compiled(body: bytes, schema: Schema, row_decoder: RowDecoder) -> Any:
    try:
        return list(column_check.check(row_decoder.decode(body), schema))
    except RefusedRequest as refusal:
        return refusal.fault


def same(one: Any, other: Any) -> bool:
    def typed(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [typed(item) for item in value]
        return (type(value).__name__, repr(value))

    return bool(typed(one) == typed(other))


@pytest.mark.slow
def test_both_ways_agree_on_bodies_at_random() -> None:
    row_decoder = RowDecoder(SCHEMA)
    source = random.Random(12)
    taken = 0
    for _ in range(4_000):
        texts = []
        for _ in range(source.choice([1, 1, 1, 2, 3])):
            pairs = [(name, json.dumps(value)) for name, value in GOOD.items()]
            for _ in range(source.choice([0, 0, 1, 2])):
                place = source.randrange(len(pairs))
                pairs[place] = (pairs[place][0], source.choice(RAW))
            action = source.random()
            if action < 0.1:
                pairs.pop(source.randrange(len(pairs)))
            elif action < 0.2:
                pairs.append((source.choice(["number", "other", "rows"]), source.choice(RAW)))
            source.shuffle(pairs)
            inner = ", ".join(f"{json.dumps(name)}: {raw}" for name, raw in pairs)
            texts.append(f"{{{inner}}}")
        body = source.choice(['{{"rows": [{}]}}', "[{}]", " [{}]", "{}"]).format(",".join(texts))
        data = body.encode("utf-8", "surrogatepass")
        slow, quick = by_hand(data, SCHEMA), compiled(data, SCHEMA, row_decoder)
        assert same(slow, quick), body
        taken += isinstance(quick, list)
    assert 1_000 < taken < 3_000, "both outcomes are compared"


@pytest.mark.parametrize("raw", RAW)
@pytest.mark.parametrize("field", SCHEMA.inputs, ids=lambda field: field.kind)
def test_both_ways_agree_on_each_value_of_each_kind(field: Field, raw: str) -> None:
    schema = msgspec.structs.replace(SCHEMA, inputs=(field,))
    body = f"{{{json.dumps(field.name)}: {raw}}}".encode()
    assert same(by_hand(body, schema), compiled(body, schema, RowDecoder(schema)))


def test_a_good_body_takes_one_pass() -> None:
    row_decoder = RowDecoder(SCHEMA)
    for body in (GOOD, [GOOD, GOOD], {"rows": [GOOD]}):
        assert isinstance(row_decoder.decode(json.dumps(body).encode()), Table)
    assert not isinstance(row_decoder.decode(b'[{"number": 1}]'), Table)


@pytest.mark.parametrize(
    "field",
    [
        Field(name='a"b', kind="number"),
        Field(name="a\\b", kind="number"),
        Field(name="category", kind="number", categories=(1.0, 2.0)),
        Field(name="category", kind="integer", categories=(1, 2)),
    ],
)
def test_columns_that_msgspec_has_no_type_for_are_checked_by_hand(field: Field) -> None:
    schema = Schema(inputs=(field,), outputs=SCHEMA.outputs)
    row_decoder = RowDecoder(schema)
    for value in (1, 2.0, 3, "x"):
        body = json.dumps({field.name: value}).encode()
        assert same(by_hand(body, schema), compiled(body, schema, row_decoder))


def test_a_number_that_overflows_is_the_clients_error() -> None:
    row_decoder = RowDecoder(SCHEMA)
    body = json.dumps(GOOD).replace("1.5", "1e400").encode()
    with pytest.raises(RefusedRequest) as refusal:
        column_check.check(row_decoder.decode(body), SCHEMA)
    assert refusal.value.status == 400
