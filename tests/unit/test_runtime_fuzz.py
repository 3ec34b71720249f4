"""Hostile bodies: whatever is sent, the answer is never the server's own failure."""

import json
import random
from collections.abc import Iterator
from typing import Any

import pytest

from mlship.runtime.dialects.v2_grpc import MEDIA, ROUTE
from tests.harness import mixed
from tests.harness.served import Call, Memory, caller, service_of
from tests.unit.test_runtime_grpc import TRITON as MESSAGE
from tests.unit.test_runtime_v2 import TRITON

PATHS = ("/predict", "/invocations", "/v1/models/customers:predict", "/v2/models/customers/infer")
NAMES = [field.name for field in mixed.FIELDS]
ODD: list[Any] = [
    *(None, True, False, 0, -1, 1.5, 2**31, 2**63, -(2**63), 2**64, 10**30, 1e308, -1e308, 5e-324),
    *("", "Linz", "nan", "\0", "\ud800", "x" * 300, [], {}, [[]], [{}], {"": []}, [None]),
]
TEXTS = ("NaN", "Infinity", "-0", "1e999", "1" + "0" * 5000, '"\\ud800"', "[" * 2000, "\x00", "")


@pytest.fixture(scope="module")
def call(tmp_path_factory: pytest.TempPathFactory) -> Call:
    folder = tmp_path_factory.mktemp("bundles") / "customers"
    mixed.mixed_bundle(folder)
    service = service_of(folder, Memory())
    service.enable_grpc()
    service.warm_up(folder)
    return caller(service)


def bodies() -> list[tuple[str, Any]]:
    """Return a valid body of each form, with its path."""
    rows = [dict(row) for row in mixed.ROWS]
    columns = {name: [row[name] for row in rows] for name in NAMES}
    datatypes = ("BYTES", "FP64", "INT64", "BOOL")
    tensors = [
        {"name": name, "shape": [3], "datatype": datatype, "data": columns[name]}
        for name, datatype in zip(NAMES, datatypes, strict=True)
    ]
    values = [list(row.values()) for row in rows]
    selected = [{"name": "future", "parameters": {"classification": 1}}]
    predict, invocations, v1, v2 = PATHS
    return [
        (predict, rows),
        (predict, rows[0]),
        (predict, {"rows": rows}),
        (invocations, {"dataframe_split": {"columns": NAMES, "data": values}}),
        (invocations, {"dataframe_records": rows}),
        (invocations, {"inputs": columns}),
        (v1, {"instances": values}),
        (v2, {"inputs": tensors, "outputs": selected}),
        (v2, {"inputs": tensors, "id": "x", "parameters": {"binary_data_output": True}}),
    ]


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Return each container in a value with each of its keys."""
    if isinstance(value, dict):
        for key in list(value):
            yield value, key
            yield from places(value[key])
    if isinstance(value, list):
        for number in range(len(value)):
            yield value, number
            yield from places(value[number])


def mutated(chance: random.Random, body: Any) -> bytes:
    """Return a body with one to three changes, some of which are not JSON any more."""
    body = json.loads(json.dumps(body))
    for _ in range(chance.randint(1, 3)):
        found = [*places(body)] or [([body], 0)]
        (holder, key), (other, place) = chance.choice(found), chance.choice(found)
        change = chance.randrange(5)
        if change == 0:
            holder[key] = chance.choice(ODD)
        elif change == 1 and isinstance(holder, dict):
            holder[chance.choice(["", "x", "name", "shape", "id", *NAMES])] = holder.pop(key)
        elif change == 2:
            holder[key] = json.loads(json.dumps(other[place]))
        elif change == 3:
            del holder[key]
        else:
            holder[key] = "@@"
    text = json.dumps(body).replace('"@@"', chance.choice(TEXTS))
    data = bytearray(text.encode("utf-8", "surrogatepass"))
    if chance.random() < 0.2 and data:
        for _ in range(chance.randint(1, 4)):
            data[chance.randrange(len(data))] = chance.randrange(256)
    return bytes(data[: chance.randint(0, len(data))] if chance.random() < 0.1 else data)


def damaged(chance: random.Random, data: bytes) -> bytes:
    """Return bytes with some changed, removed or added."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, 5)):
        place = chance.randrange(len(changed)) if changed else 0
        match chance.randrange(4):
            case 0 if changed:
                changed[place] = chance.randrange(256)
            case 1:
                changed[place:place] = chance.randbytes(chance.randint(1, 9))
            case 2:
                del changed[place : place + chance.randint(1, 9)]
            case _ if changed:
                changed[place] ^= 1 << chance.randrange(8)
    return bytes(changed)


def check_json(call: Call, number: int, seed: int) -> set[int]:
    chance = random.Random(seed)
    known = bodies()
    statuses = set()
    for _ in range(number):
        path, valid = chance.choice(known)
        body = mutated(chance, valid)
        if chance.random() < 0.1:
            path = chance.choice(PATHS)
        kind = "text/csv" if chance.random() < 0.1 else "application/json"
        response = call("POST", path, body, content_type=kind)
        assert response.status < 500, (path, kind, body, response.body)
        statuses.add(int(response.status))
    return statuses


def check_binary(call: Call, number: int, seed: int) -> set[int]:
    chance = random.Random(seed)
    statuses = set()
    for _ in range(number):
        if chance.random() < 0.4:
            body, path, headers = damaged(chance, MESSAGE), ROUTE, {"content_type": MEDIA}
        else:
            is_payload = chance.random() < 0.5
            body = (
                TRITON[:508] + damaged(chance, TRITON[508:])
                if is_payload
                else damaged(chance, TRITON)
            )
            length = 508 if is_payload else chance.choice([508, len(body), chance.randint(0, 600)])
            path = PATHS[-1]
            headers = {"inference_header_content_length": str(length)}
        response = call("POST", path, body, **headers)
        assert response.status < 500, (path, headers, body, response.body)
        statuses.add(int(response.status))
    return statuses


def test_hostile_json_is_no_failure_of_the_server(call: Call) -> None:
    assert {200, 400} <= check_json(call, 300, seed=12)


def test_hostile_bytes_are_no_failure_of_the_server(call: Call) -> None:
    assert {200, 400} <= check_binary(call, 300, seed=12)


@pytest.mark.slow
def test_many_hostile_bodies_are_no_failure_of_the_server(call: Call) -> None:
    assert {200, 400} <= check_json(call, 10_000, seed=2026)
    assert {200, 400} <= check_binary(call, 5_000, seed=2026)
