import difflib
import math
from typing import Any
from unittest import mock

import pytest

from mlship.domain.bundle import Field, Schema
from mlship.runtime.faults import RefusedRequest
from mlship.runtime.rows import check

SCHEMA = Schema(
    inputs=(
        Field(name="length", kind="number", example=5.1),
        Field(name="count", kind="integer"),
        Field(name="colour", kind="text", nullable=True),
        Field(name="open", kind="boolean"),
    ),
    outputs=(),
)
ROW: dict[str, Any] = {"length": 1.5, "count": 2, "colour": "red", "open": True}


def test_a_fitting_row_comes_back_in_the_schemas_order() -> None:
    assert list(check([dict(reversed(ROW.items()))], SCHEMA)[0].items()) == list(ROW.items())


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"length": 3}, 3),
        ({"length": -0.0}, 0.0),
        ({"length": 10**30}, 1e30),
        ({"length": 2**63}, 2.0**63),
        ({"count": 4.0}, 4),
        ({"colour": None}, None),
        ({"colour": ""}, ""),
        ({"open": False}, False),
    ],
)
def test_values_that_fit(change: dict[str, Any], expected: Any) -> None:
    name = next(iter(change))
    found = check([ROW | change], SCHEMA)[0][name]
    assert found == expected
    assert type(found) is type(expected) or name == "length"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"length": "1.5"}, 'length must be a number, not "1.5"'),
        ({"length": True}, "length must be a number, not true"),
        ({"length": None}, "length must be a number, not null"),
        ({"length": math.nan}, "length must be a number, not nan"),
        ({"length": -math.inf}, "length must be a number, not -inf"),
        ({"length": 10**400}, "length must be a number"),
        ({"length": [1.5]}, "length must be a number, not a list"),
        ({"count": 1.5}, "count must be a whole number, not 1.5"),
        ({"count": 1e300}, "count must be a whole number"),
        ({"count": False}, "count must be a whole number, not false"),
        ({"colour": 3}, "colour must be a string, not 3"),
        ({"open": 1}, "open must be true or false, not 1"),
        ({"open": {}}, "open must be true or false, not an object"),
    ],
)
def test_a_value_that_does_not_fit_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(RefusedRequest) as caught:
        check([ROW, ROW | change], SCHEMA)
    assert caught.value.fault.message.startswith(message)
    assert caught.value.fault.field == f"rows[1].{next(iter(change))}"
    assert caught.value.status == 400


def test_a_missing_column_is_named() -> None:
    with pytest.raises(RefusedRequest, match="missing column count") as caught:
        check([{name: value for name, value in ROW.items() if name != "count"}], SCHEMA)
    assert caught.value.fault.field == "rows[0].count"


def test_an_unknown_column_names_the_nearest() -> None:
    with pytest.raises(RefusedRequest, match="unknown column lenght") as caught:
        check([{"lenght": 1.5, "count": 2, "colour": "red", "open": True}], SCHEMA)
    assert caught.value.fault.hint == "did you mean length?"


def test_a_row_that_is_no_object_is_refused() -> None:
    with pytest.raises(RefusedRequest, match="a row must be an object, not 3"):
        check([3], SCHEMA)


@pytest.mark.parametrize(
    "row",
    [
        {"colour" * 1_000_000: 1},
        {"length": 1.5, "count": 2, "colour": "red" * 1_000_000, "open": True},
    ],
    ids=["a name", "a value"],
)
def test_what_a_client_made_up_is_cut_before_it_is_compared(row: dict[str, Any]) -> None:
    """Comparing a text of megabytes with known ones takes seconds, in which nobody is answered."""
    colour = Field(name="colour", kind="text", categories=("red", "green"))
    schema = Schema(inputs=(*SCHEMA.inputs[:2], colour, SCHEMA.inputs[3]), outputs=())
    nearest = difflib.get_close_matches
    with (
        mock.patch("difflib.get_close_matches", side_effect=nearest) as compared,
        pytest.raises(RefusedRequest),
    ):
        check([row], schema)
    assert [len(call.args[0]) <= 100 for call in compared.call_args_list] == [True]
