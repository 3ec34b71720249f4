"""Recorded requests with expected outputs, and the verdict on a replay of them.

A workload is a file with one JSON object a line:

    {"name": "setosa 1", "request": {"sepal_length": 5.1, ...}, "expect": {"species": "setosa"}}

`request` is a row or a list of rows, posted to /predict as it is. Optional are `name`, `expect`,
the output columns that must come back, in the shape of the request, and `tolerance`, absolute and
relative, for numbers.
"""

import math
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated

import msgspec

from mlship.domain.bundle import Row, Value
from mlship.errors import ProjectError

TOLERANCE = 1e-4
SHOWN = 20  # differences that a result names; the counts count all of them


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One recorded request: what is posted, and a row for each of its rows, or none, to expect."""

    name: str
    body: Row | list[Row]
    expect: tuple[Row, ...] = ()
    tolerance: float = TOLERANCE

    @property
    def rows(self) -> tuple[Row, ...]:
        """The rows of the body."""
        return tuple(self.body) if isinstance(self.body, list) else (self.body,)


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """What came back for a request.

    Attributes:
        status: of HTTP; 0 where no answer came.
        latency_ms: from the time that the request was due, so that waiting in line counts.
        release: the release that says it answered, empty where none does.
        error: why there are no outputs, for people.
    """

    status: int
    latency_ms: float
    outputs: tuple[Row, ...] = ()
    release: str = ""
    error: str = ""


class Difference(msgspec.Struct, frozen=True):
    """A field that came back otherwise, and who expected it: the workload or the bundle."""

    request: str
    field: str
    expected: Value
    got: Value
    source: str

    def __str__(self) -> str:
        """Return the line for people."""
        expected = f"{self.expected!r} ({self.source})"
        return f"{self.request}: {self.field} is {self.got!r}, not {expected}"


class WorkloadResult(msgspec.Struct, frozen=True, kw_only=True):
    """How a replay went: requests without an answer, and with another than the expected one.

    Attributes:
        p50_ms: of all latencies, by nearest rank; NaN without requests. `p99_ms` too.
        differences: the first 20, errors included.
        releases: the releases that answered, sorted.
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


def read(path: Path) -> list[Request]:
    """Return the requests of a workload file.

    Raises:
        ProjectError: there is no such file, or no request in it, or a line is none: it is named.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        message = f"workload {path} cannot be read: {error.strerror}"
        raise ProjectError(message, hint="correct `workload` in mlship.yaml") from error
    requests = [
        _request(line, f"{path}:{number}", number)
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]
    if not requests:
        message = f"workload {path} holds no request"
        raise ProjectError(message, hint='write one a line: {"request": {...}, "expect": {...}}')
    return requests


def rows(requests: Iterable[Request]) -> list[Row]:
    """Return the rows of all requests in order, as `judge` wants the offline outputs of them."""
    return [row for request in requests for row in request.rows]


def compare(expected: Row, got: Row, tolerance: float = TOLERANCE) -> list[str]:
    """Return the expected fields that differ; what else came back is not looked at.

    Numbers agree within the tolerance, absolute or relative, NaN with nothing; the rest exactly.
    """
    return [
        name
        for name, value in expected.items()
        if name not in got or not _agree(value, got[name], tolerance)
    ]


def judge(
    requests: Sequence[Request], replies: Sequence[Reply], offline: Sequence[Row] = ()
) -> WorkloadResult:
    """Count what went wrong and say where.

    `offline` is what the bundle gives for `rows(requests)`; it is checked beside what the requests
    expect. Empty, it is not.
    """
    if offline and len(offline) != (wanted := len(rows(requests))):
        raise ValueError(f"{len(offline)} offline outputs for {wanted} rows")
    mismatches, outputs = 0, iter(offline)
    found: list[Difference] = []
    for request, reply in zip(requests, replies, strict=True):
        known = list(islice(outputs, len(request.rows)))
        if reply.error:
            found.append(Difference(request.name, "answer", "predictions", reply.error, "HTTP 200"))
        else:
            wrong = _differences(request, reply, known)
            mismatches += bool(wrong)
            found += wrong
    latencies = sorted(reply.latency_ms for reply in replies)
    return WorkloadResult(
        requests=len(requests),
        errors=sum(1 for reply in replies if reply.error),
        mismatches=mismatches,
        p50_ms=_percentile(latencies, 50),
        p99_ms=_percentile(latencies, 99),
        differences=tuple(found[:SHOWN]),
        releases=tuple(sorted({reply.release for reply in replies if reply.release})),
    )


def _request(line: bytes, where: str, number: int) -> Request:
    try:
        parsed = msgspec.json.decode(line, type=_Line)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise ProjectError(f"{where}: {error}", hint="correct that line of the workload") from error
    expect = parsed.expect if isinstance(parsed.expect, list) else [parsed.expect or {}]
    many = len(parsed.request) if isinstance(parsed.request, list) else 1
    if not many or (parsed.expect is not None and len(expect) != many):
        message = f"{where}: {many} rows are requested and {len(expect)} expected"
        raise ProjectError(message, hint="give `expect` a row for each row of `request`")
    return Request(
        name=parsed.name or f"line {number}",
        body=parsed.request,
        expect=tuple(expect) if parsed.expect is not None else (),
        tolerance=parsed.tolerance,
    )


def _differences(request: Request, reply: Reply, offline: Sequence[Row]) -> list[Difference]:
    found = []
    for source, expected in (("the workload", request.expect), ("the bundle offline", offline)):
        pairs = zip(expected, reply.outputs, strict=True) if expected else ()
        for number, (want, got) in enumerate(pairs):
            where = request.name if len(reply.outputs) == 1 else f"{request.name}, row {number}"
            found += [
                Difference(where, key, want[key], got.get(key), source)
                for key in compare(want, got, request.tolerance)
            ]
    return found


def _agree(expected: Value, got: Value, tolerance: float) -> bool:
    if isinstance(expected, bool) or isinstance(got, bool):
        return expected is got
    if isinstance(expected, int | float) and isinstance(got, int | float):
        return math.isclose(expected, got, rel_tol=tolerance, abs_tol=tolerance)
    return expected == got


def _percentile(ordered: Sequence[float], percent: int) -> float:
    return ordered[math.ceil(len(ordered) * percent / 100) - 1] if ordered else math.nan
