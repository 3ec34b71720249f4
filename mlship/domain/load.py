"""A load test: what is sent when, what became of it, and what that says of a target.

The generator is an open loop: a request is due at a fixed time, whatever became of earlier ones.
Its latency counts from that time, so that a target that stops responding for a while is not
measured less often while it does ("coordinated omission").
"""

import ipaddress
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, Literal, Protocol, TypeAlias

import msgspec

from mlship.domain.histogram import Histogram
from mlship.errors import ConfigError

SHOWN: Final = (50.0, 90.0, 95.0, 99.0, 99.9, 100.0)
"""The percentiles of a report; the last one is the maximum."""
HEADROOM: Final = 0.7
"""The share of its capacity that a replica should use, so that the loss of one is bearable."""
_LATE_MS: Final = 10.0
_LATE_SHARE: Final = 0.1
Holding: TypeAlias = Literal["held", "missed", "undecided"]
"""Whether a bound was held; undecided if the generator was too late to tell."""
_UNITS: Final = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


class LoadPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What a generator sends.

    Attributes:
        url: that each request is posted to.
        bodies: JSON texts, sent in turn.
        rate: requests a second.
        seconds: how long requests are due.
        users: connections; each has one request at a time, and a name.
        timeout: seconds after which a request is given up, from the time when it was due.
        user_header: a header with the name of the user; empty for none.
        processes: how many processes send.
    """

    url: str
    bodies: tuple[str, ...]
    rate: float
    seconds: float
    users: int
    timeout: float = 10.0
    user_header: str = ""
    processes: int = 1

    @property
    def count(self) -> int:
        """The number of requests."""
        return max(1, round(self.rate * self.seconds))


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """What became of requests that were due in one second of a run.

    Attributes:
        second: since the start of the run.
        errors: how many failed, by kind.
        latencies: of those that succeeded or timed out, by bucket of a histogram.
    """

    second: int
    errors: dict[str, int]
    latencies: dict[int, int]


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """What a generator learned since it last reported.

    Attributes:
        moments: at most one for each second.
        late: how much later than due the generator handled requests, by bucket.
    """

    moments: tuple[Moment, ...] = ()
    late: dict[int, int] = {}


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured in one second of a run, or in all of it; latencies in milliseconds.

    Attributes:
        requests: that ended.
        errors: how many of them failed.
        latency_ms: percentiles by name, such as p99.9; p100 is the maximum.
    """

    second: int | None = None
    requests: int
    errors: int
    mean_ms: float
    latency_ms: dict[str, float]


class LoadResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a run at one rate.

    Attributes:
        rate: requests a second that were due.
        seconds: how long.
        started: when the first request was due, in seconds since the epoch.
        total: of all requests.
        errors: how many failed, by kind.
        series: of each second.
        late_ms: the p99 of the generator's own lateness.
    """

    rate: float
    seconds: float
    started: float
    total: Measured
    errors: dict[str, int]
    series: tuple[Measured, ...]
    late_ms: float

    @property
    def p99_ms(self) -> float:
        """The 99th percentile of the latencies."""
        return self.total.latency_ms["p99"]

    @property
    def answered(self) -> int:
        """How many requests succeeded."""
        return self.total.requests - self.total.errors

    @property
    def is_generator_late(self) -> bool:
        """Whether the latencies are those of the generator as much as of the target."""
        return self.late_ms > max(_LATE_MS, _LATE_SHARE * self.p99_ms)

    def against(self, bound_ms: float) -> Holding:
        """Return whether no request failed, and the p99 is within a bound.

        The lateness of the generator is part of the latencies, of each request and of each
        response. So a bound that is held is held in spite of it. One that is missed is missed by
        the target only if it were without that part, too.
        """
        if self.total.errors:
            return "undecided" if self.is_generator_late else "missed"
        if self.p99_ms <= bound_ms:
            return "held"
        return "missed" if self.p99_ms - 2 * self.late_ms > bound_ms else "undecided"


class Generator(Protocol):
    """Sends the requests of a plan when they are due, and measures their latencies from then."""

    def run(self, plan: LoadPlan, watch: Callable[[LoadResult], None]) -> LoadResult:
        """Return the result; `watch` is called a few times a second with the result so far."""


class Tally:
    """Adds up the progress of generators."""

    def __init__(self, plan: LoadPlan, started: float) -> None:
        self._plan, self._started = plan, started
        self._errors: dict[int, Counter[str]] = {}
        self._latencies: dict[int, Histogram] = {}
        self._series: dict[int, Measured] = {}
        self._all_errors, self._all_latencies, self._late = Counter[str](), Histogram(), Histogram()

    def add(self, progress: Progress) -> None:
        """Add what a generator reports."""
        self._late.add(progress.late)
        for moment in progress.moments:
            second = moment.second
            errors = self._errors.setdefault(second, Counter())
            latencies = self._latencies.setdefault(second, Histogram())
            errors.update(moment.errors)
            latencies.add(moment.latencies)
            self._series[second] = _measured(latencies, errors, second)
            self._all_errors.update(moment.errors)
            self._all_latencies.add(moment.latencies)

    def result(self) -> LoadResult:
        """Return the result of all that was added so far."""
        return LoadResult(
            rate=self._plan.rate,
            seconds=self._plan.seconds,
            started=self._started,
            total=_measured(self._all_latencies, self._all_errors, None),
            errors=dict(sorted(self._all_errors.items())),
            series=tuple(self._series[second] for second in sorted(self._series)),
            late_ms=round(1000 * self._late.percentile(99), 3),
        )


TIMEOUT: Final = "timeout"
"""The kind of error whose latency counts: it would have been longer still."""


def _measured(latencies: Histogram, errors: Counter[str], second: int | None) -> Measured:
    return Measured(
        second=second,
        requests=latencies.total + errors.total() - errors[TIMEOUT],
        errors=errors.total(),
        mean_ms=round(1000 * latencies.mean(), 3),
        latency_ms={
            f"p{percent:g}": round(1000 * latencies.percentile(percent), 3) for percent in SHOWN
        },
    )


class Replicas(msgspec.Struct, frozen=True, kw_only=True):
    """How many replicas a number of users needs.

    Attributes:
        users: who use the model.
        user_rate: requests a second of each of them.
        capacity: requests a second of one replica, as measured.
        headroom: the share of the capacity that a replica should use.
        needed: replicas.
        in_flight: requests that a replica handles at once at that share, for `autoscale`.
    """

    users: int
    user_rate: float
    capacity: float
    headroom: float
    needed: int
    in_flight: int


def replicas(
    users: int, user_rate: float, capacity: float, measured: int, mean_ms: float
) -> Replicas:
    """Return how many replicas so many users need.

    The number of requests in flight is the rate times the mean latency (Little's law).

    Args:
        users: who use the model.
        user_rate: requests a second of each of them.
        capacity: requests a second, as measured.
        measured: how many replicas had that capacity together.
        mean_ms: the mean latency at that rate.
    """
    each = capacity / measured
    return Replicas(
        users=users,
        user_rate=user_rate,
        capacity=round(each, 1),
        headroom=HEADROOM,
        needed=max(1, math.ceil(users * user_rate / (each * HEADROOM) - 1e-9)),
        in_flight=max(1, round(each * HEADROOM * mean_ms / 1000)),
    )


def duration(text: str, option: str) -> float:
    """Return the seconds of a duration such as 50ms.

    Raises:
        ConfigError: it is no duration, or zero.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(us|ms|s)", text.strip())
    if match is None or not float(match[1]):
        message = f"invalid duration for {option}: {text!r}"
        raise ConfigError(message, hint=f"write a number and a unit, such as {option} 50ms")
    return float(match[1]) * _UNITS[match[2]]


def is_loopback(host: str) -> bool:
    """Return whether a host name is this machine for sure."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def shares(total: int, parts: int) -> Sequence[int]:
    """Return how a number is shared among so many parts, each at least one."""
    return [max(1, total // parts + (part < total % parts)) for part in range(parts)]
