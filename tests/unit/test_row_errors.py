"""A row that does not fit is told by its place as a value, through every process on the way."""

import json
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from mlship.adapters.checkout.children import Fault
from mlship.domain.bundle import Field, Row, Schema
from mlship.errors import ProjectError, RowError
from mlship.runtime import rows
from mlship.runtime.faults import RefusedRequest
from mlship.steps.train import train
from mlship.steps.verify import verify
from tests.fakes.ports import world

SCHEMA = Schema(inputs=(Field(name="x", kind="number"),), outputs=())


def refused(received: list[object]) -> RowError:
    with pytest.raises(RefusedRequest) as caught:
        rows.check(received, SCHEMA)
    error = caught.value.as_project_error()
    assert isinstance(error, RowError)
    return error


@pytest.mark.parametrize(
    ("row", "message", "reason"),
    [
        ({"x": "wide"}, "rows[1].x: x must be", "x: x must be"),
        ({"y": 1.0}, "rows[1].y: unknown column y", "y: unknown column y"),
        (3, "rows[1]: a row must be an object", "a row must be an object"),
    ],
)
def test_the_place_comes_apart_from_the_reason(row: object, message: str, reason: str) -> None:
    error = refused([{"x": 1.0}, row])
    assert error.row == 1
    assert error.message.startswith(message)
    assert error.reason.startswith(reason)


def test_the_place_travels_between_processes() -> None:
    error = refused([{"x": 1.0}, {"x": None}])
    data = msgspec.json.encode(Fault.of(error))
    raised = msgspec.json.decode(data, type=Fault).raised()
    assert isinstance(raised, RowError)
    assert (raised.row, raised.reason) == (error.row, error.reason)
    assert (raised.message, raised.hint) == (error.message, error.hint)


def test_a_request_that_does_not_fit_is_named_and_not_its_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = world(tmp_path)
    lines = [{"inputs": {"x": number}, "outputs": {"y": 1.0}} for number in (1.0, 2.0, 3.0)]
    here.trainer.golden = "\n".join(map(json.dumps, lines))
    release = train(here.pipeline).evidence.release

    def refuse(_bundle: Path, _rows: Sequence[Row]) -> list[Row]:
        raise RowError("rows[1].x: x must be a number", hint="send 2", row=1, reason="x: not one")

    monkeypatch.setattr(here.predictor, "predict", refuse)
    with pytest.raises(ProjectError, match="workload: request golden 2: x: not one") as caught:
        verify(here.pipeline, release, endpoint="http://127.0.0.1:9")
    assert caught.value.hint == "send 2"
