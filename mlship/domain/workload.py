"""Recorded requests with expected outputs, and the result of a replay.

A workload is a file with one JSON object per line:

    {"name": "setosa 1", "request": {"sepal_length": 5.1, ...}, "expect": {"species": "setosa"}}

`request` is a row or a list of rows, which is posted to /predict unchanged. Optional are: `name`;
`expect`, the expected output columns, in the shape of the request; `tolerance` for numbers, both
absolute and relative.
"""

import math
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated, Final

import msgspec

from mlship.domain.bundle import Row, Value
from mlship.domain.notation import literal
from mlship.domain.untrusted import decoded
from mlship.errors import ProjectError

TOLERANCE = 1e-4
SHOWN = 20  # differences that a result lists; the counts include all


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """A recorded request, and the expected outputs: none, or a row for each row of the request."""

    name: str
    body: Row | list[Row]
    expect: tuple[Row, ...] = ()
    tolerance: float = TOLERANCE

    @property
    def rows(self) -> tuple[Row, ...]:
        """The rows of the body."""
        return tuple(self.body) if isinstance(self.body, list) else (self.body,)


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """The response to a request.

    Attributes:
        status: the HTTP status; 0 without a response.
        latency_ms: since the time when the request was due, so that queueing counts.
        release: the release that responded; empty if the response names none.
        error: why there are no outputs, for people.
    """

    status: int
    latency_ms: float
    outputs: tuple[Row, ...] = ()
    release: str = ""
    error: str = ""


class Difference(msgspec.Struct, frozen=True):
    """A field with another value than expected, and what expected it: workload or bundle."""

    request: str
    field: str
    expected: Value
    got: Value
    source: str

    def __str__(self) -> str:
        """Return one line for people."""
        expected = f"{literal(self.expected)} ({self.source})"
        return f"{self.request}: {self.field} is {literal(self.got)}, expected {expected}"


class WorkloadResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a replay: failed requests (`errors`) and unexpected outputs (`mismatches`).

    Attributes:
        p50_ms: median latency, by nearest rank; NaN without requests. `p99_ms` likewise.
        differences: the first 20, including errors.
        releases: the releases that responded, sorted.
    """

    requests: int
    errors: int
    mismatches: int
    p50_ms: float
    p99_ms: float
    differences: tuple[Difference, ...] = ()
    releases: tuple[str, ...] = ()


class _Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    request: Row | list[Row]
    name: str = ""
    expect: Row | list[Row] | None = None
    tolerance: Annotated[float, msgspec.Meta(ge=0)] = TOLERANCE


_LINE: Final = msgspec.json.Decoder(_Line)


def read(path: Path) -> list[Request]:
    """Return the requests of a workload file.

    Raises:
        ProjectError: the file is missing or empty, or a line is invalid; the message names it.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        message = f"cannot read workload {path}: {error.strerror}"
        raise ProjectError(message, hint="correct `workload` in mlship.yaml") from error
    requests = [
        _request(line, f"{path}:{number}", number)
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]
    if not requests:
        message = f"workload {path} has no requests"
        hint = 'add one request per line: {"request": {...}, "expect": {...}}'
        raise ProjectError(message, hint=hint)
    return requests


def rows(requests: Iterable[Request]) -> list[Row]:
    """Return the rows of all requests; `judge` takes their offline outputs in this order."""
    return [row for request in requests for row in request.rows]


def compare(expected: Row, got: Row, tolerance: float = TOLERANCE) -> list[str]:
    """Return the expected fields that differ; other fields are ignored.

    Numbers are equal within the tolerance, absolute or relative. NaN is equal to nothing. Other
    values must be equal exactly.
    """
    return [
        name
        for name, value in expected.items()
        if name not in got or not _agree(value, got[name], tolerance)
    ]


def judge(
    requests: Sequence[Request], replies: Sequence[Reply], offline: Sequence[Row] = ()
) -> WorkloadResult:
    """Count and list errors and differences.

    `offline` are the outputs of the bundle for `rows(requests)`. Unless it is empty, replies are
    compared with it too.
    """
    if offline and len(offline) != (needed := len(rows(requests))):
        raise ValueError(f"{len(offline)} offline outputs for {needed} rows")
    mismatches, outputs = 0, iter(offline)
    differences: list[Difference] = []
    for request, reply in zip(requests, replies, strict=True):
        known = list(islice(outputs, len(request.rows)))
        if reply.error:
            failure = Difference(request.name, "answer", "predictions", reply.error, "HTTP 200")
            differences.append(failure)
        else:
            mismatched = _differences(request, reply, known)
            mismatches += bool(mismatched)
            differences += mismatched
    latencies = sorted(reply.latency_ms for reply in replies)
    return WorkloadResult(
        requests=len(requests),
        errors=sum(1 for reply in replies if reply.error),
        mismatches=mismatches,
        p50_ms=_percentile(latencies, 50),
        p99_ms=_percentile(latencies, 99),
        differences=tuple(differences[:SHOWN]),
        releases=tuple(sorted({reply.release for reply in replies if reply.release})),
    )


def _request(line: bytes, place: str, number: int) -> Request:
    try:
        parsed = decoded(_LINE.decode, line)
    except msgspec.DecodeError as error:
        raise ProjectError(f"{place}: {error}", hint="correct this line of the workload") from error
    expect = parsed.expect if isinstance(parsed.expect, list) else [parsed.expect or {}]
    count = len(parsed.request) if isinstance(parsed.request, list) else 1
    if not count or (parsed.expect is not None and len(expect) != count):
        message = f"{place}: `request` has {count} rows, but `expect` has {len(expect)}"
        raise ProjectError(message, hint="give `expect` one row for each row of `request`")
    return Request(
        name=parsed.name or f"line {number}",
        body=parsed.request,
        expect=tuple(expect) if parsed.expect is not None else (),
        tolerance=parsed.tolerance,
    )


def _differences(request: Request, reply: Reply, offline: Sequence[Row]) -> list[Difference]:
    differences = []
    for source, expected in (("the workload", request.expect), ("the bundle offline", offline)):
        pairs = zip(expected, reply.outputs, strict=True) if expected else ()
        for number, (want, got) in enumerate(pairs):
            place = request.name if len(reply.outputs) == 1 else f"{request.name}, row {number}"
            differences += [
                Difference(place, key, want[key], got.get(key), source)
                for key in compare(want, got, request.tolerance)
            ]
    return differences


def _agree(expected: Value, got: Value, tolerance: float) -> bool:
    if isinstance(expected, bool) or isinstance(got, bool):
        return expected is got
    if isinstance(expected, int | float) and isinstance(got, int | float):
        return math.isclose(expected, got, rel_tol=tolerance, abs_tol=tolerance)
    return expected == got


def _percentile(ordered: Sequence[float], percent: int) -> float:
    return ordered[math.ceil(len(ordered) * percent / 100) - 1] if ordered else math.nan
