"""The server: the event loop with its connections, the pool of workers, and the log."""

import asyncio
import contextlib
import itertools
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import formatdate
from pathlib import Path

import uvloop

from mlship.domain import bundle as bundles
from mlship.domain import digests
from mlship.errors import TimedOutError, UnavailableError
from mlship.runtime import grpc_server, metrics_page, ports
from mlship.runtime.budget import Budget
from mlship.runtime.cache import Cached
from mlship.runtime.commits import Commits
from mlship.runtime.connection import Connection
from mlship.runtime.http import BODY_BYTES, Request, Response
from mlship.runtime.keys import KeyFile
from mlship.runtime.metrics import Metrics
from mlship.runtime.metrics_page import MetricsPage
from mlship.runtime.observers import Observers, open_access_log
from mlship.runtime.options import Options
from mlship.runtime.pool import Pool
from mlship.runtime.processes import Events, Worker, WorkerProcess
from mlship.runtime.service import Service
from mlship.runtime.sinks import Sink
from mlship.runtime.spawned import Spawned
from mlship.runtime.tracing import open_tracing

QUIET_SECONDS = 0.3
"""Draining ends if no request arrives for this long: a router may notice late."""
CHECK_SECONDS = 0.1
_IDS = 256
_ID_LINE = b"00000000-0000-0000-0000-000000000000\n"
_ID_PLACES = tuple(place for place, digit in enumerate(_ID_LINE) if digit == ord("0"))
_VERSION = bytes(octet & 0x0F | 0x40 for octet in range(256))
_VARIANT = bytes(octet & 0x3F | 0x80 for octet in range(256))
"""What the octets of a random UUID become that have its version and its variant."""
_CHECKS_EVERY = 5
"""Connections and files are checked less often than the workers."""


class Front:
    """What the connections of a server share.

    Args:
        service: answers.
        loop: the event loop.
        refused: hears of what is refused before it is a request: its target and the status.

    Attributes:
        active: number of open requests.
        last: the loop's time of the latest request that was not a probe.
    """

    def __init__(
        self,
        service: ports.Answers,
        loop: asyncio.AbstractEventLoop,
        refused: Callable[[bytes, int], None] = lambda _url, _status: None,
    ) -> None:
        self.active = 0
        self.last = 0.0
        self.budget = Budget(BODY_BYTES)
        self.date = _date()
        self.refused = refused
        self._service = service
        self._loop = loop
        self._connections: set[Connection] = set()

    def connect(self) -> Connection:
        """Return the protocol of a new connection."""
        return Connection(self, self._loop)

    def opened(self, connection: Connection) -> None:
        """Count a connection."""
        self._connections.add(connection)

    def lost(self, connection: Connection) -> None:
        """Forget a connection."""
        self._connections.discard(connection)

    def knows(self, headers: Mapping[str, str]) -> bool:
        """Return whether a client has a valid API key, or needs none."""
        return self._service.knows(headers)

    def begin(self, request: Request, connection: ports.Connection) -> ports.Exchange | None:
        """Answer a request."""
        self.active += 1
        if not request.path.startswith("/v2/health/"):
            self.last = self._loop.time()
        return self._service.begin(request, connection.reply)

    async def answer(self, request: Request) -> Response:
        """Answer a request of another server, such as the one for gRPC."""
        waiting = _Waiting(self._loop)
        exchange = self.begin(request, waiting)
        del request  # its body takes memory that nobody counts
        try:
            return await waiting.response
        except asyncio.CancelledError:
            if exchange is not None:
                exchange.cancel()
            raise
        finally:
            self.end()

    def end(self) -> None:
        """Count a request as answered or abandoned."""
        self.active -= 1

    def check(self) -> None:
        """Close connections whose clients have taken too long."""
        self.date = _date()
        now = self._loop.time()
        for connection in tuple(self._connections):
            connection.check(now)

    def open(self) -> int:
        """Return the number of open requests, with those that are still arriving."""
        arriving = sum(connection.is_receiving for connection in self._connections)
        return self.active + arriving

    def close(self) -> None:
        """Close all connections."""
        for connection in tuple(self._connections):
            connection.abort()


class _Waiting:
    """Gets the response to one request."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.response: asyncio.Future[Response] = loop.create_future()

    def reply(self, response: Response) -> None:
        """Take the response, unless its client has gone."""
        if not self.response.done():
            self.response.set_result(response)


class Watching:
    """Counts and tells what the pool does."""

    def __init__(self, metrics: Metrics, note: Callable[[str], None]) -> None:
        self.note = note
        self.sent = metrics.sent
        self.refused = metrics.refused
        self._metrics = metrics

    def restarted(self, *, hung: bool) -> None:
        """Count a worker that is started again."""
        self._metrics.restarted(hung=hung)


def run(options: Options, spawned: Sequence[Spawned], sink: Sink) -> float:
    """Serve until a signal; return the monotonic time at which the replica should have ended.

    Args:
        options: what to serve and where.
        spawned: the first workers, which are loading the bundle already.
        sink: the prediction log.

    Raises:
        MlshipError: the model cannot be loaded.
        UnavailableError: the port is in use.
        TimedOutError: some requests did not finish before the time limit.
    """
    return uvloop.run(_run(options, list(spawned), sink))


async def _run(options: Options, spawned: list[Spawned], sink: Sink) -> float:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    workers = _Workers(options, spawned)
    commits: Commits = Commits(sink, loop)
    bundle = bundles.manifest(options.bundle, expected=options.expected)
    metrics = Metrics(bundle, release=options.identity.name, slot=options.identity.slot)
    pool = Pool(
        bundle,
        digests.of_file(options.bundle / bundles.MANIFEST),
        workers.start,
        workers=options.workers,
        watcher=Watching(metrics, log),
        soon=loop.call_soon,
    )
    cache = Cached(pool, options.cache_rows, metrics.cached) if options.cache_rows else None
    service = Service(
        cache or pool,
        options.identity,
        commits,
        clock=_now,
        new_id=new_id,
        timeout=options.timeout,
        metrics=metrics,
        note=log,
    )
    metrics.watch(sink.backlog, _now)
    metrics.watch_pool(pool.queued, pool.in_flight)
    observers = _observers(options, bundle.name, metrics, service)
    front = Front(service, loop, observers.refused)
    apart = Front(MetricsPage(metrics), loop)
    metrics.watch_requests(lambda: front.active)
    checks = [front.check, apart.check, *_guarded(service, options.api_keys)]
    ticking = loop.create_task(_tick(pool, commits, checks, stop))
    pool.start()
    try:
        await _loaded(pool, service, stop)
        if stop.is_set():
            return time.monotonic()
        return await _serve(options, service, (front, apart), stop)
    finally:
        is_failed = sys.exc_info()[0] is not None
        ticking.cancel()
        pool.close()
        await workers.end(0.0 if is_failed else options.shutdown_seconds)
        front.close()
        apart.close()
        observers.close()


def _observers(options: Options, name: str, metrics: Metrics, service: Service) -> Observers:
    """Return what hears of each response, if anything is to hear of it."""
    later = asyncio.get_running_loop().call_later
    access_log = open_access_log(later) if options.access_log else None
    tracing = open_tracing(os.environ, name, options.identity, log)
    observers = Observers(options.identity, metrics, access_log, tracing, service.key_of)
    if observers.are_any:
        service.observe(observers.answered)
    return observers


def _guarded(service: Service, path: Path | None) -> list[Callable[[], None]]:
    """Require the API keys of a file, if there is one; return what looks for changes of it."""
    if path is None:
        return []
    keys = KeyFile(path, log)
    service.require_keys(keys)
    return [keys.check]


class _Workers:
    """Starts worker processes, the first of which were started before this one was ready."""

    def __init__(self, options: Options, spawned: list[Spawned]) -> None:
        self._options = options
        self._spawned = spawned
        self._workers: list[WorkerProcess] = []
        self._connecting: set[asyncio.Task[None]] = set()

    def start(self, events: Events) -> Worker:
        """Return a worker that reports to these events."""
        spawned = self._spawned.pop() if self._spawned else self._options.spawn()
        worker = WorkerProcess(spawned, events)
        self._workers = [other for other in self._workers if not other.is_over]
        self._workers.append(worker)
        task = asyncio.get_running_loop().create_task(worker.connect())
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)
        return worker

    async def end(self, seconds: float) -> None:
        """Wait until all have ended, at most so long."""
        until = time.monotonic() + seconds
        for worker in self._workers:
            await asyncio.to_thread(worker.wait, until - time.monotonic())


async def _tick(
    pool: Pool,
    commits: Commits,
    checks: Sequence[Callable[[], None]],
    stop: asyncio.Event,
) -> None:
    loop = asyncio.get_running_loop()
    for count in itertools.count(1):
        await asyncio.sleep(CHECK_SECONDS)
        try:
            pool.check()
            commits.check(loop.time())
            if count % _CHECKS_EVERY == 0:
                for check in checks:
                    check()
        except Exception:
            stop.set()
            raise


async def _loaded(pool: Pool, service: Service, stop: asyncio.Event) -> None:
    """Wait until a worker has loaded the model, or has told why it cannot."""
    while not stop.is_set():
        if pool.error is not None:
            raise pool.error
        if pool.failure or pool.health().is_ready:
            service.settle(pool.failure)
            if pool.failure:
                log(f"the model failed its check and will not become ready: {pool.failure}")
            return
        await asyncio.sleep(0.002)


async def _listening(front: Front, host: str, port: int) -> asyncio.Server:
    """Accept connections on a port."""
    loop = asyncio.get_running_loop()
    try:
        return await loop.create_server(front.connect, host, port, backlog=1024, reuse_port=False)
    except OSError as error:
        message = f"cannot listen on {host}:{port}: {error.strerror}"
        raise UnavailableError(message, hint="use another port") from error


async def _serve(
    options: Options, service: Service, fronts: tuple[Front, Front], stop: asyncio.Event
) -> float:
    """Serve until told to stop; the fronts are those of requests and of metrics."""
    front, apart = fronts
    servers = []
    if options.metrics_port is not None:
        service.move_metrics()
        servers.append(await _listening(apart, options.host, options.metrics_port))
        log(f"metrics at http://{options.host}:{options.metrics_port}{metrics_page.PATH}")
    listening = await _listening(front, options.host, options.port)
    servers.append(listening)
    grpc = None
    if options.grpc_port is not None:
        service.enable_grpc()
        grpc = await grpc_server.start(
            front.answer, service.admits, options.host, options.grpc_port
        )
        log(f"{options.identity.name} at {options.host}:{options.grpc_port} by gRPC")
    # Port 0 has become a free one.
    port = listening.sockets[0].getsockname()[1]
    log(f"{options.identity.name} at http://{options.host}:{port}/docs")
    await stop.wait()
    deadline = time.monotonic() + options.shutdown_seconds
    service.drain()
    is_done = await _drained(front, options.shutdown_seconds)
    for server in servers:
        server.close()
    if grpc is not None:
        await grpc.stop(0)
    if not is_done:
        message = (
            f"{front.open()} requests did not finish within {options.shutdown_seconds:g} seconds"
        )
        raise TimedOutError(message, hint="increase --shutdown-seconds")
    return deadline


async def _drained(front: Front, seconds: float) -> bool:
    """Wait until there are no open requests and none arrive; return whether that was reached."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    while loop.time() - started < seconds:
        if not front.open() and loop.time() - max(front.last, started) >= QUIET_SECONDS:
            return True
        await asyncio.sleep(0.02)
    return not front.open()


def log(text: str) -> None:
    """Show a line to the operator, if there is room for it: requests matter more."""
    with contextlib.suppress(OSError):
        sys.stderr.write(f"mlship: {text}\n")
        sys.stderr.flush()


def _ids() -> Iterator[str]:
    """Yield random UUIDs, as `uuid.uuid4` makes them; many at once are written digit by digit."""
    while True:
        octets = bytearray(os.urandom(16 * _IDS))
        for place, fixed in ((6, _VERSION), (8, _VARIANT)):
            octets[place::16] = octets[place::16].translate(fixed)
        digits = octets.hex().encode()
        lines = bytearray(_ID_LINE * _IDS)
        for number, place in enumerate(_ID_PLACES):
            lines[place :: len(_ID_LINE)] = digits[number :: len(_ID_PLACES)]
        yield from lines.decode().splitlines()


new_id: Callable[[], str] = _ids().__next__
"""Returns a random UUID."""


def _date() -> bytes:
    return formatdate(usegmt=True).encode()


def _now() -> datetime:
    return datetime.now(UTC)
