"""Recorded requests: how they are read, replayed, compared and judged."""

import json
import math
from collections.abc import Callable
from itertools import count
from pathlib import Path

import httpx
import pytest

from mlship.domain import workload
from mlship.domain.bundle import Row, Value
from mlship.domain.workload import Reply, Request
from mlship.errors import ProjectError, UnavailableError
from mlship.steps import replay as driver

Answer = Callable[[httpx.Request], httpx.Response]


def one(name: str = "one", **fields: object) -> Request:
    known = {"name": name, "body": {"x": 1.0}, **fields}
    return Request(**known)  # type: ignore[arg-type]


def replay(requests: list[Request], answer: Answer, rate: float | None = None) -> list[Reply]:
    transport = httpx.MockTransport(answer)
    return driver.replay(requests, "http://staging", rate=rate, transport=transport)


def predicted(many: int) -> httpx.Response:
    answer = {"release": "iris@3f9a0c12be77", "predictions": [{"y": 1}] * many}
    return httpx.Response(200, json=answer)


def written(folder: Path, text: str) -> Path:
    path = folder / "staging.jsonl"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_line_is_a_request_and_empty_lines_are_not(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        '{"name": "a", "request": {"x": 1}, "expect": {"y": "b"}, "tolerance": 0.5}\n\n'
        '{"request": [{"x": 1}, {"x": null}]}\n',
    )
    first, second = workload.read(path)
    assert first == Request(name="a", body={"x": 1}, expect=({"y": "b"},), tolerance=0.5)
    assert (second.name, second.expect, second.tolerance) == ("line 3", (), 1e-4)
    assert workload.rows([first, second]) == [{"x": 1}, {"x": 1}, {"x": None}]


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("{", "truncated"),
        ('{"request": 3}', "request"),
        ('{"expect": {"y": 1}}', "request"),
        ('{"request": {"x": 1}, "expected": {"y": 1}}', "expected"),
        ('{"request": {"x": 1}, "tolerance": -1}', "tolerance"),
        ('{"request": []}', "0 rows"),
        ('{"request": [{"x": 1}, {"x": 2}], "expect": {"y": 1}}', "2 rows"),
        ('{"request": {"x": {"deep": 1}}}', "request"),
    ],
)
def test_a_wrong_line_is_named_by_file_and_line(tmp_path: Path, line: str, what: str) -> None:
    path = written(tmp_path, f'{{"request": {{"x": 1}}}}\n{line}\n')
    with pytest.raises(ProjectError, match=what) as error:
        workload.read(path)
    assert error.value.message.startswith(f"{path}:2: ")
    assert error.value.hint


def test_a_missing_and_an_empty_workload_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match="cannot read workload"):
        workload.read(tmp_path / "none.jsonl")
    with pytest.raises(ProjectError, match="has no requests"):
        workload.read(written(tmp_path, "\n\n"))


@pytest.mark.parametrize(
    ("expected", "got", "agrees"),
    [
        (1.0, 1.00001, True),
        (1.0, 1.001, False),
        (1e6, 1e6 + 50, True),
        (0.0, 5e-5, True),
        (0, 0.0, True),
        (3, 4, False),
        (math.nan, math.nan, False),
        (math.nan, None, False),
        (1.0, math.nan, False),
        ("a", "a", True),
        ("a", "A", False),
        ("1", 1, False),
        (True, True, True),
        (True, 1, False),
        (False, None, False),
        (None, None, True),
    ],
)
def test_numbers_agree_within_tolerance_and_the_rest_exactly(
    expected: Value, got: Value, agrees: bool
) -> None:
    assert (workload.compare({"y": expected}, {"y": got}) == []) is agrees


def test_a_field_that_did_not_come_differs_and_one_that_came_besides_does_not() -> None:
    assert workload.compare({"y": 1, "z": 2}, {"y": 1, "id": "6f1c"}) == ["z"]


def test_the_body_is_posted_as_it_is_and_the_release_that_answers_is_kept() -> None:
    seen: list[tuple[str, object]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        seen.append((request.url.path, body))
        return predicted(len(body) if isinstance(body, list) else 1)

    many = one(body=[{"x": 1.0}, {"x": 2.0}])
    replies = replay([one(), many], answer)
    assert seen == [("/predict", {"x": 1.0}), ("/predict", [{"x": 1.0}, {"x": 2.0}])]
    assert [len(reply.outputs) for reply in replies] == [1, 2]
    assert workload.judge([one(), many], replies).releases == ("iris@3f9a0c12be77",)


@pytest.mark.parametrize(
    ("response", "error"),
    [
        (httpx.Response(503, text="no replica is ready"), "HTTP 503: no replica is ready"),
        (httpx.Response(422, json={"error": "x"}), "HTTP 422"),
        (httpx.Response(200, text="<html>"), "has no predictions"),
        (httpx.Response(200, content=b'{"release": "\xff"}'), "has no predictions"),
        (httpx.Response(200, json={"y": 1}), "has no predictions"),
        (predicted(0), "0 predictions for 1 rows"),
        (predicted(2), "2 predictions for 1 rows"),
    ],
)
def test_what_is_no_answer_counts_as_an_error_and_says_why(
    response: httpx.Response, error: str
) -> None:
    requests = [one(expect=({"y": 1},))]
    replies = replay(requests, lambda _: response)
    result = workload.judge(requests, replies)
    assert (result.errors, result.mismatches) == (1, 0)
    assert error in str(result.differences[0])


def test_one_refused_connection_is_an_error_and_none_but_refused_is_unavailable() -> None:
    turns = count()

    def sometimes(request: httpx.Request) -> httpx.Response:
        if next(turns) == 0:
            raise httpx.ConnectError("refused", request=request)
        return predicted(1)

    def never(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("too late", request=request)

    requests = [one(), one("two")]
    replies = replay(requests, sometimes)
    assert [reply.status for reply in replies] == [0, 200]
    assert workload.judge(requests, replies, [{"y": 1}] * 2).errors == 1
    with pytest.raises(UnavailableError, match="http://staging: ReadTimeout: too late"):
        replay(requests, never)


def answered(*outputs: Row, latency_ms: float = 1.0) -> Reply:
    return Reply(status=200, latency_ms=latency_ms, outputs=outputs)


def test_both_the_workload_and_the_bundle_are_asked_and_the_difference_says_who() -> None:
    requests = [one("first", expect=({"y": "a"},)), one("second", body=[{"x": 1.0}, {"x": 2.0}])]
    replies = [answered({"y": "b", "p": 0.5}), answered({"y": "a", "p": 0.5}, {"y": "a", "p": 0.1})]
    offline: list[Row] = [{"y": "b", "p": 0.5}, {"y": "a", "p": 0.5}, {"y": "a", "p": 0.9}]
    result = workload.judge(requests, replies, offline)
    assert [str(difference) for difference in result.differences] == [
        'first: y is "b", expected "a" (the workload)',
        "second, row 1: p is 0.1, expected 0.9 (the bundle offline)",
    ]
    assert (result.requests, result.errors, result.mismatches) == (2, 0, 2)
    assert workload.judge(requests, replies).mismatches == 1


@pytest.mark.parametrize("many", [1, 3])
def test_offline_outputs_that_are_not_one_a_row_are_refused(many: int) -> None:
    requests, replies = [one(), one("two")], [answered({"y": 1}), answered({"y": 2})]
    with pytest.raises(ValueError, match=f"{many} offline outputs for 2 rows"):
        workload.judge(requests, replies, [{"y": 1}] * many)


def test_a_tolerance_is_the_requests_own() -> None:
    wide, narrow = one(expect=({"y": 1.0},), tolerance=0.2), one(expect=({"y": 1.0},))
    replies = [answered({"y": 1.1}), answered({"y": 1.1})]
    assert workload.judge([wide, narrow], replies).mismatches == 1


def test_twenty_differences_are_shown_and_all_are_counted() -> None:
    requests = [one(f"{number}", expect=({"y": 1},)) for number in range(30)]
    result = workload.judge(requests, [answered({"y": 2}) for _ in requests])
    assert (result.mismatches, len(result.differences)) == (30, 20)


def test_percentiles_are_latencies_that_happened() -> None:
    requests = [one(f"{number}", expect=({"y": 1},)) for number in range(200)]
    replies = [answered({"y": 1}, latency_ms=float(200 - number)) for number in range(200)]
    result = workload.judge(requests, replies)
    assert (result.p50_ms, result.p99_ms) == (100.0, 198.0)
    assert math.isnan(workload.judge([], []).p99_ms)


def test_at_a_constant_rate_waiting_in_line_counts_as_latency() -> None:
    # The start and the first look at the clock are on time; then the world stood still.
    turns = count()
    replies = driver.replay(
        [one(), one("two")],
        "http://staging",
        rate=10.0,
        clock=lambda: 0.0 if next(turns) < 2 else 5.0,
        transport=httpx.MockTransport(lambda _: predicted(1)),
    )
    assert replies[1].latency_ms == pytest.approx(4900.0)
