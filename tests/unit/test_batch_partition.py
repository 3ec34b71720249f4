"""A batch answers to each row what HTTP answers, and refuses what HTTP refuses."""

import math
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from mlship.domain.batch import Reading
from mlship.domain.bundle import Row
from mlship.errors import ProjectError
from mlship.runtime.batches.partition import Answered, Partition
from mlship.runtime.faults import Fault
from mlship.runtime.model import Model
from tests.harness.bundles import COLUMNS, SETOSA, VIRGINICA, iris_bundle
from tests.harness.mixed import mixed_bundle

ODD: dict[str, list[Any]] = {
    "city": ["Linz", "Graz", "Wörgl", "", "no such city", "ß\u0000'\"", None],
    "age": [41.5, 0.0, -0.0, 1e6, 1e7, -2e6, math.inf, -math.inf, 5e-324, None],
    "visits": [0, 3, -7, 2**53 + 1, 2**62, 1_000_000, 1_000_001, None],
    "member": [True, False, None],
}
SHAPE = pa.schema(
    [("city", pa.string()), ("age", pa.float64()), ("visits", pa.int64()), ("member", pa.bool_())]
)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("mixed") / "bundle"
    return Model.load(folder, mixed_bundle(folder))


def rows(count: int, seed: int) -> list[Row]:
    """Return rows of which about half have a value that is not accepted."""
    chance = random.Random(seed)
    usual: dict[str, list[Any]] = {
        "city": ["Linz", "Graz"],
        "age": [20.5, None, 60.0],
        "visits": [1, 9],
        "member": [True, False],
    }
    return [
        {name: chance.choice(usual[name] if chance.random() < 0.8 else ODD[name]) for name in ODD}
        for _ in range(count)
    ]


def outcome(answered: Answered, size: int) -> list[Any]:
    """Return the outputs of each row, or the message of its refusal."""
    result: list[Any] = [None] * size
    for place, row in zip(answered.places.tolist(), answered.outputs.to_pylist(), strict=True):
        assert row.pop("id") == f"part.{place}"
        result[place] = row
    for refused in answered.rejected:
        assert refused.row is not None
        assert result[refused.row] is None
        result[refused.row] = refused.reason
    return result


def over_http(model: Model, received: list[Row]) -> list[Any]:
    return [
        answer.message if isinstance(answer, Fault) else answer
        for answer in model.answers(received)
    ]


@pytest.mark.parametrize("seed", range(5))
def test_rows_of_all_kinds_are_answered_and_refused_as_over_http(mixed: Model, seed: int) -> None:
    received = rows(300, seed)
    batch = pa.RecordBatch.from_pylist(received, SHAPE)
    found = outcome(Partition(mixed, "part").answer(batch, 0), len(received))
    wanted = over_http(mixed, received)
    assert found == wanted
    assert {str, dict} <= set(map(type, wanted)), "some are refused, and some are not"


def test_other_types_of_arrow_have_the_same_values(mixed: Model) -> None:
    received = [
        {"city": "Linz", "age": float(number), "visits": number, "member": number % 2 == 0}
        for number in range(20)
    ]
    plain = Partition(mixed, "part").answer(pa.RecordBatch.from_pylist(received, SHAPE), 0)
    other = pa.schema(
        [
            ("city", pa.dictionary(pa.int8(), pa.string())),
            ("age", pa.int16()),
            ("visits", pa.float32()),
            ("member", pa.bool_()),
        ]
    )
    table = pa.RecordBatch.from_pylist(received, SHAPE)
    columns = [
        table.column(field.name).dictionary_encode()
        if field.name == "city"
        else table.column(field.name).cast(field.type)
        for field in other
    ]
    batch = pa.record_batch(columns, names=other.names)
    assert Partition(mixed, "part").answer(batch, 0).outputs == plain.outputs


def test_a_number_beyond_64_bits_and_a_part_of_a_whole_number_are_looked_at(mixed: Model) -> None:
    usual: Row = {"city": "Linz", "age": 1.0, "member": True}
    shape = pa.schema([*(each for each in SHAPE if each.name != "visits"), ("visits", pa.uint64())])
    received: list[Row] = [{**usual, "visits": 3}, {**usual, "visits": 2**63 + 1}]
    batch = pa.RecordBatch.from_pylist(received, shape)
    assert outcome(Partition(mixed, "part").answer(batch, 0), 2) == over_http(mixed, received)
    shape = pa.schema(
        [*(each for each in SHAPE if each.name != "visits"), ("visits", pa.float64())]
    )
    received = [{**usual, "visits": 3.5}, {**usual, "visits": 4.0}]
    batch = pa.RecordBatch.from_pylist(received, shape)
    found = outcome(Partition(mixed, "part").answer(batch, 0), 2)
    assert found == over_http(mixed, received)
    assert found[0] == "visits must be a whole number, not 3.5"


def test_nan_in_a_file_is_a_missing_value(mixed: Model) -> None:
    received: list[Row] = [{"city": "Linz", "age": math.nan, "visits": 1, "member": True}]
    batch = pa.RecordBatch.from_pylist(received, SHAPE)
    assert outcome(Partition(mixed, "part").answer(batch, 0), 1) == over_http(
        mixed, [{**received[0], "age": None}]
    )


def test_texts_of_a_csv_file_are_parsed_or_refused(mixed: Model) -> None:
    texts = pa.schema([(name, pa.string()) for name in SHAPE.names])
    received = [
        {"city": "Linz", "age": "41.5", "visits": "3", "member": "true"},
        {"city": "Linz", "age": None, "visits": " 4 ", "member": "False"},
        {"city": "Linz", "age": "abc", "visits": "3", "member": "true"},
        {"city": "Linz", "age": "inf", "visits": "3", "member": "true"},
        {"city": "Linz", "age": "1", "visits": "3.0", "member": "yes"},
        {"city": "7", "age": "1e2", "visits": "3.0", "member": "TRUE"},
        {"city": "Linz", "age": "1_0", "visits": None, "member": "TRUE"},
    ]
    meant: list[Row] = [
        {"city": "Linz", "age": 41.5, "visits": 3, "member": True},
        {"city": "Linz", "age": None, "visits": 4, "member": False},
        {"city": "Linz", "age": "abc", "visits": 3, "member": True},
        {"city": "Linz", "age": "inf", "visits": 3, "member": True},
        {"city": "Linz", "age": 1.0, "visits": 3, "member": "yes"},
        {"city": "7", "age": 100.0, "visits": 3, "member": True},
        {"city": "Linz", "age": "1_0", "visits": None, "member": True},
    ]
    batch = pa.RecordBatch.from_pylist(received, texts)
    partition = Partition(mixed, "part", is_text=True)
    found = outcome(partition.answer(batch, 0), len(received))
    assert found == over_http(mixed, meant)
    assert found[2] == 'age must be a number, not "abc"'


def test_decimal_signs_are_those_of_the_training_data(mixed: Model) -> None:
    texts = pa.schema([(name, pa.string()) for name in SHAPE.names])
    row = {"city": "Linz", "age": "1.041,5", "visits": "1.000", "member": "true"}
    batch = pa.RecordBatch.from_pylist([row], texts)
    reading = Reading(decimal=",", thousands=".")
    partition = Partition(mixed, "part", reading=reading, is_text=True)
    meant: list[Row] = [{"city": "Linz", "age": 1041.5, "visits": 1000, "member": True}]
    assert outcome(partition.answer(batch, 0), 1) == over_http(mixed, meant)


def test_rows_of_json_are_checked_as_those_of_a_request(mixed: Model) -> None:
    usual: Row = {"city": "Linz", "age": 1.0, "visits": 3, "member": True}
    received: list[Any] = [
        {**usual, "key": 7},
        {**usual, "visits": "3"},
        {"city": "Linz"},
        "no object",
        {**usual, "age": None, "key": "x"},
    ]
    answered = Partition(mixed, "part", ("key",)).answer_rows(received, 10)
    assert answered.outputs.column("id").to_pylist() == ["part.10", "part.14"]
    assert answered.outputs.column("key").to_pylist() == ["7", "x"]
    assert {row.row: row.reason for row in answered.rejected} == {
        11: 'visits must be a whole number, not "3"',
        12: "missing column age",
        13: 'a row must be an object, not "no object"',
    }


FRAGILE = """def postprocess(outputs):
    if (outputs["probability_virginica"] > 0.9).any():
        raise ValueError("too sure")
    return outputs
"""


def iris(batch: list[Row]) -> Any:
    return pa.RecordBatch.from_pylist(batch, pa.schema([(name, pa.float64()) for name in COLUMNS]))


def test_a_row_that_a_hook_fails_on_is_rejected_and_not_its_neighbours(tmp_path: Path) -> None:
    model = Model.load(tmp_path / "b", iris_bundle(tmp_path / "b", postprocess=FRAGILE))
    received = [SETOSA] * 9 + [VIRGINICA] + [SETOSA] * 23
    answered = Partition(model, "part").answer(iris(received), 0)
    assert answered.outputs.num_rows == 32
    assert [row.row for row in answered.rejected] == [9]
    assert "too sure" in answered.rejected[0].reason
    assert answered.rejected[0].values == VIRGINICA


def test_a_hook_that_fails_on_every_row_is_the_projects_error(tmp_path: Path) -> None:
    broken = 'def postprocess(outputs):\n    raise ValueError("broken")\n'
    model = Model.load(tmp_path / "b", iris_bundle(tmp_path / "b", postprocess=broken))
    with pytest.raises(ProjectError, match="broken"):
        Partition(model, "part").answer(iris([SETOSA] * 4), 0)


def test_kept_columns_stay_with_their_rows(tmp_path: Path) -> None:
    model = Model.load(tmp_path / "b", iris_bundle(tmp_path / "b", limit=10.0))
    received = [{**SETOSA, "sepal_length": 1.0 + 3 * number} for number in range(5)]
    batch = iris(received).append_column("customer", pa.array(["a", "b", "c", "d", "e"]))
    answered = Partition(model, "part", ("customer",)).answer(batch, 100)
    assert answered.outputs.column("customer").to_pylist() == ["a", "b", "c", "d"]
    assert answered.outputs.column("id").to_pylist()[-1] == "part.103"
    assert answered.outputs.schema.names[:2] == ["id", "customer"]


def test_no_rows_have_no_outputs(mixed: Model) -> None:
    answered = Partition(mixed, "part").answer(pa.RecordBatch.from_pylist([], SHAPE), 0)
    assert answered.outputs.num_rows == 0
    some = Partition(mixed, "part").answer(pa.RecordBatch.from_pylist(rows(9, 0), SHAPE), 0)
    assert answered.outputs.schema == some.outputs.schema
    assert answered.outputs.schema.names == Partition(mixed, "part").schema(SHAPE).names
