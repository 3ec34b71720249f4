"""What a load test measures: histograms, the open loop on a virtual clock, and the search."""

import asyncio
import contextlib
import errno
import math
import random
import selectors
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey

from mlship.adapters.load.share import Share
from mlship.adapters.load.worker import Sender
from mlship.domain import tls
from mlship.domain.histogram import Histogram, bucket, highest
from mlship.domain.load import (
    LoadPlan,
    LoadResult,
    Measured,
    Moment,
    Progress,
    Tally,
    duration,
    is_loopback,
    replicas,
    shares,
)
from mlship.domain.rate_search import find_rate
from mlship.errors import ConfigError, RefusedError, TimedOutError
from tests.fakes.load import FakeGenerator
from tests.harness import certificates

PLAN = LoadPlan(
    url="http://127.0.0.1:1/predict",
    bodies=('{"x":1}', '{"x":2}'),
    rate=50.0,
    seconds=30.0,
    users=20,
)


class Timeless(selectors.SelectSelector):
    """Waits for nothing: the time of its loop moves on instead."""

    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        self.now += timeout or 0.0
        return super().select(0)


class Loop(asyncio.SelectorEventLoop):
    """An event loop on a virtual clock."""

    def __init__(self) -> None:
        self._virtual = Timeless()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now


class Place:
    """A session whose server has one place, is frozen for a while, and keeps what it was sent."""

    def __init__(
        self, service: float, frozen: tuple[float, float] = (0, 0), status: int = 200
    ) -> None:
        self._service, self._frozen, self.status, self._free = service, frozen, status, 0.0
        self.sent: list[tuple[bytes, dict[str, str]]] = []

    def post(
        self, url: str, *, data: bytes, headers: dict[str, str], timeout: aiohttp.ClientTimeout
    ) -> "Response":
        self.sent.append((data, headers))
        begun = max(self._free, asyncio.get_running_loop().time())
        begun = self._frozen[1] if self._frozen[0] <= begun < self._frozen[1] else begun
        self._free = begun + self._service
        if self._frozen[0] <= self._free < self._frozen[1]:
            self._free = self._frozen[1]
        assert timeout.total is not None
        return Response(self._free, timeout.total, self.status)


class Response:
    def __init__(self, ends: float, timeout: float, status: int) -> None:
        self._ends, self._timeout, self.status = ends, timeout, status
        self.ok = status < 400

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def read(self) -> bytes:
        left = self._ends - asyncio.get_running_loop().time()
        await asyncio.sleep(min(left, self._timeout))
        if left > self._timeout:
            raise TimeoutError
        return b""


def measured(
    place: Place,
    plan: LoadPlan,
    clock: Callable[[Loop], Callable[[], float]] = lambda loop: loop.time,
) -> LoadResult:
    """Send a plan on a virtual clock, and return the result."""
    tally, loop = Tally(plan, started=0.0), Loop()

    async def send() -> None:
        share = Share(plan=plan, first=0, step=1, users=plan.users, start=loop.time())
        sender = Sender(share, place, clock(loop))  # type: ignore[arg-type]
        await sender.run()
        tally.add(sender.meter.taken())

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(send())
    return tally.result()


def ranked(values: list[float], percent: float) -> float:
    return sorted(values)[math.ceil(len(values) * percent / 100 - 1e-9) - 1]


def test_a_histogram_is_within_one_percent_of_each_percentile() -> None:
    numbers = random.Random(7)
    values = [10 ** numbers.uniform(-5, 2) for _ in range(20_000)]
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    for percent in (1, 50, 90, 99, 99.9, 100):
        truth = ranked(values, percent)
        assert histogram.percentile(percent) == pytest.approx(truth, rel=0.01, abs=1e-6)
    assert histogram.mean() == pytest.approx(sum(values) / len(values), rel=0.01)


def test_buckets_follow_one_another_without_a_gap() -> None:
    numbers = [bucket(micros / 1e6) for micros in range(100_000)]
    assert sorted(set(numbers)) == list(range(numbers[-1] + 1))
    assert all(highest(bucket(micros / 1e6)) >= micros / 1e6 for micros in range(0, 100_000, 7))
    assert Histogram().percentile(99) == 0
    assert bucket(-1) == 0


def test_histograms_of_two_processes_add_up() -> None:
    one, other = Histogram(), Histogram()
    for latencies, values in ((one, (0.1, 0.2)), (other, (0.3, 0.4))):
        for value in values:
            latencies.record(value)
    one.add(other.counts)
    assert one.total == 4
    assert one.percentile(100) == pytest.approx(0.4, rel=0.01)


def test_a_freeze_counts_for_all_requests_that_were_due_in_it() -> None:
    """A closed loop would measure one slow request a user: 20 of 1,500, and a p90 of 10 ms."""
    service, frozen = 0.01, (10.0, 16.0)
    free, truth = 0.0, []
    for number in range(PLAN.count):
        due = number / PLAN.rate
        begun = max(free, due)
        begun = frozen[1] if frozen[0] <= begun < frozen[1] else begun
        free = begun + service
        truth.append(free - due)
    result = measured(Place(service, frozen), PLAN)
    assert result.total.requests == PLAN.count
    for percent in (50, 75, 90, 99, 99.9, 100):
        name = f"p{percent:g}"
        if name in result.total.latency_ms:
            expected = 1000 * ranked(truth, percent)
            assert result.total.latency_ms[name] == pytest.approx(expected, rel=0.05)
    assert result.total.latency_ms["p90"] > 2000
    assert result.late_ms < 1
    assert not result.is_generator_late


def test_requests_are_sent_in_turn_and_name_their_user() -> None:
    place = Place(0.001)
    plan = LoadPlan(
        url="u", bodies=("1", "2", "3"), rate=10, seconds=1, users=2, user_header="x-user"
    )
    measured(place, plan)
    assert [body for body, _ in place.sent] == [b"1", b"2", b"3"] * 3 + [b"1"]
    assert {headers["x-user"] for _, headers in place.sent} == {"0", "1"}


def test_errors_count_by_kind_and_a_timeout_has_its_latency() -> None:
    failed = measured(Place(0.001, status=503), PLAN)
    assert failed.errors == {"HTTP 503": PLAN.count}
    assert (failed.answered, failed.total.latency_ms["p100"]) == (0, 0)
    plan = LoadPlan(url="u", bodies=("1",), rate=10, seconds=2, users=5, timeout=0.5)
    late = measured(Place(0.001, frozen=(0.0, 1.55)), plan)
    assert set(late.errors) == {"timeout"}
    assert late.total.requests == plan.count
    assert late.total.errors + late.answered == plan.count
    assert late.total.latency_ms["p100"] >= 500


def refused(trusted: Path, served: Path, host: str = "") -> ssl.SSLError:
    """Return why a client refuses a server's certificate."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(served / "certificate.pem", served / "key.pem")
    client = tls.client_context(trusted / "certificate.pem")
    client.check_hostname = bool(host)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(incoming, outgoing, server_hostname=host or None)
    theirs = server.wrap_bio(outgoing, incoming, server_side=True)
    with contextlib.suppress(ssl.SSLWantReadError):
        ours.do_handshake()
    with contextlib.suppress(ssl.SSLWantReadError):
        theirs.do_handshake()
    with pytest.raises(ssl.SSLError) as refusal:
        ours.do_handshake()
    return refusal.value


def answered_without_tls() -> ssl.SSLError:
    """Return why a client refuses the answer of a server that takes http."""
    incoming = ssl.MemoryBIO()
    client = ssl.create_default_context()
    ours = client.wrap_bio(incoming, ssl.MemoryBIO(), server_hostname="a.example.org")
    incoming.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    with pytest.raises(ssl.SSLError) as refusal:
        ours.do_handshake()
    return refusal.value


class Unreachable(Place):
    """A session that gets no connection."""

    def __init__(self, error: OSError) -> None:
        super().__init__(0.001)
        self._error = error

    def post(self, url: str, **_: Any) -> Any:
        key = ConnectionKey("127.0.0.1", 8443, True, True, None, None, None)
        kind: type[aiohttp.ClientConnectorError]
        kind = aiohttp.ClientConnectorSSLError
        if isinstance(self._error, ssl.SSLCertVerificationError):
            kind = aiohttp.ClientConnectorCertificateError
        elif not isinstance(self._error, ssl.SSLError):
            kind = aiohttp.ClientConnectorError
        raise kind(key, self._error)


def test_a_failure_of_tls_is_told_as_tls_says_it_without_an_address(tmp_path: Path) -> None:
    own, other, old = (tmp_path / name for name in ("own", "other", "old"))
    for folder in (own, other, old):
        folder.mkdir()
        certificates.write(folder)
    certificates.write(old, since=-2 * certificates.DAY, until=-certificates.DAY)
    for error, says in (
        (refused(own, other), "self-signed certificate"),
        (refused(old, old), "certificate has expired"),
        (refused(own, own, "127.0.0.1"), "IP address mismatch"),
        (refused(own, own, "a.example.org"), "Hostname mismatch"),
        (answered_without_tls(), "wrong version number"),
    ):
        errors = measured(Unreachable(error), PLAN).errors
        assert errors == {f"no connection: TLS: {says}": PLAN.count}, repr(error)


def test_no_connection_has_the_text_of_the_system_or_the_name_of_the_error() -> None:
    text = "Connect call failed ('127.0.0.1', 8443)"
    for error, says in (
        (ConnectionRefusedError(errno.ECONNREFUSED, text), "Connection refused"),
        (ConnectionResetError(), "ConnectionResetError"),
        (OSError(-2, "Name or service not known"), "Name or service not known"),
    ):
        assert measured(Unreachable(error), PLAN).errors == {f"no connection: {says}": PLAN.count}


def test_a_generator_that_is_too_slow_is_late_itself() -> None:
    """Each look at the clock takes 15 ms here, so that 50 requests a second are too many."""

    def slow(loop: Loop) -> Callable[[], float]:
        def clock() -> float:
            loop._virtual.now += 0.015
            return loop.time()

        return clock

    result = measured(Place(0.0), PLAN, slow)
    assert result.is_generator_late
    assert result.total.requests < PLAN.count


def against(p99_ms: float, late_ms: float, errors: int = 0) -> str:
    total = Measured(requests=100, errors=errors, mean_ms=1, latency_ms={"p99": p99_ms})
    result = LoadResult(
        rate=1, seconds=1, started=0, total=total, errors={}, series=(), late_ms=late_ms
    )
    return result.against(50)


def test_a_bound_is_missed_by_the_target_only_if_it_were_without_the_generator() -> None:
    assert against(49, late_ms=40) == "held"
    assert against(60, late_ms=1) == "missed"
    assert against(60, late_ms=6) == "undecided"
    assert against(5_000, late_ms=6) == "missed"
    assert against(10, late_ms=1, errors=1) == "missed"
    assert against(10, late_ms=30, errors=1) == "undecided"


def search(generator: FakeGenerator, start: float = 10, bound_ms: float = 50) -> Any:
    def run(rate: float, length: int) -> LoadResult:
        plan = LoadPlan(url="u", bodies=("1",), rate=rate, seconds=3 * length, users=10)
        return generator.run(plan, lambda _: None)

    return find_rate(run, start, bound_ms)


@pytest.mark.parametrize("capacity", [3, 47, 200, 3333])
@pytest.mark.parametrize("start", [1, 50, 4000])
def test_the_search_finds_the_capacity(capacity: float, start: float) -> None:
    found = search(FakeGenerator(capacity), start, bound_ms=1000 / capacity + 40)
    assert found.rate == pytest.approx(capacity, rel=0.05)
    assert found.result.rate == found.rate
    assert len(found.trials) < 40


def test_a_pause_of_the_machine_in_one_run_changes_no_capacity() -> None:
    found = search(FakeGenerator(200, slow_runs=frozenset({0, 3, 6})))
    assert found.rate == pytest.approx(200, rel=0.05)
    assert "missed" in {trial.holding for trial in found.trials[:1]}


def test_a_generator_at_its_own_limit_gives_no_capacity() -> None:
    with pytest.raises(TimedOutError, match="the load generator itself was late") as caught:
        search(FakeGenerator(5000, fastest=300))
    assert caught.value.facts["held_rate"] == 160  # doubled from 10; 320 is too many
    assert "--processes" in caught.value.hint


def test_a_target_that_never_holds_the_bound_is_named_with_what_it_reached() -> None:
    with pytest.raises(RefusedError, match="no rate from"):
        search(FakeGenerator(2), bound_ms=50)


def test_replicas_for_users_leave_headroom() -> None:
    found = replicas(10_000, 0.1, 400.0, measured=2, mean_ms=20)
    assert (found.capacity, found.needed) == (200, 8)  # 1,000 / (200 x 0.7) is 7.1
    assert found.in_flight == 3  # 140 a second for 20 ms
    assert replicas(1, 0.01, 400.0, 1, 1).needed == 1


def test_the_tally_adds_processes_and_keeps_seconds_apart() -> None:
    tally = Tally(PLAN, started=5.0)
    for _ in range(2):
        first = Moment(second=0, errors={}, latencies={bucket(0.01): 3})
        second = Moment(second=1, errors={"HTTP 500": 1}, latencies={bucket(0.02): 1})
        tally.add(Progress(moments=(first, second), late={bucket(0.001): 8}))
    result = tally.result()
    assert [(each.second, each.requests, each.errors) for each in result.series] == [
        (0, 6, 0),
        (1, 4, 2),
    ]
    assert (result.total.requests, result.answered) == (10, 8)
    assert result.errors == {"HTTP 500": 2}
    assert result.late_ms == pytest.approx(1, rel=0.01)


def test_durations_have_a_unit() -> None:
    assert [duration(text, "--p99") for text in ("50ms", "0.2s", "500us")] == [0.05, 0.2, 0.0005]
    for text in ("50", "ms", "-5ms", "0ms", "1 hour"):
        with pytest.raises(ConfigError, match="--p99"):
            duration(text, "--p99")


def test_only_this_machine_is_loopback() -> None:
    assert all(map(is_loopback, ("localhost", "127.0.0.1", "127.8.0.1", "::1", "[::1]")))
    assert not any(map(is_loopback, ("10.0.0.1", "example.org", "127.0.0.1.example.org", "")))
    assert list(shares(7, 3)) == [3, 2, 2]
