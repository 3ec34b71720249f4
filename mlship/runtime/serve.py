"""Serves a bundle over HTTP with granian, until SIGTERM or SIGINT."""

import asyncio
import contextlib
import errno
import gc
import signal
import socket
import sys
import time
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from mlship.domain import private
from mlship.domain.digests import Digest
from mlship.domain.private import Rule
from mlship.errors import ConfigError, TimedOutError, UnavailableError
from mlship.runtime.app import App
from mlship.runtime.model import Model
from mlship.runtime.service import Identity, Service
from mlship.runtime.sinks import PrivateSink, Sink, Spooling, open_sink

QUIET_SECONDS = 0.3
"""Draining ends if no request arrives for this long: a router may notice late."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What to serve and where.

    Attributes:
        expected: the digest that the bundle must have, if the caller knows it.
        log: the folder of the prediction log, or `postgresql://...`.
        spool: the folder for predictions while the database is away; `None` refuses them.
        spool_mb: the size of a spool in MB at which requests are refused.
        columns: those that are not logged, or only as a hash with `hash_key`.
        shutdown_seconds: how long open requests may take after a signal to stop.
    """

    bundle: Path
    identity: Identity
    expected: Digest | None
    host: str
    port: int
    log: str
    spool: Path | None = None
    spool_mb: int = 256
    shutdown_seconds: float
    columns: Mapping[str, Rule] = {}
    hash_key: str = ""


def serve(options: Options) -> None:
    """Verify and load the bundle, warm up, serve until SIGTERM or SIGINT, then drain.

    Raises:
        NotFoundError: there is no bundle.
        IntegrityError: the bundle does not match its digest.
        ProjectError: a hook cannot be imported.
        UnavailableError: the port is in use, or the log cannot be written; or predictions are
            left in the spool at the end.
        ConfigError: the log's address is invalid, or a column's hash has no key.
        TimedOutError: some requests did not finish before the time limit.
    """
    private.check_key(options.columns, options.hash_key)
    check_port(options.host, options.port)
    gc.disable()
    model = Model.load(options.bundle, options.expected)
    sink = _sink(options)
    service = Service(model, options.identity, sink, clock=_now, new_id=lambda: str(uuid.uuid4()))
    service.metrics.watch(sink.backlog, _now)
    service.warm_up(options.bundle)
    if service.failure:
        _log(f"the model failed its check and will not become ready: {service.failure}")
    # All that is here lives as long as the process: no request pays for a search for garbage in it.
    gc.freeze()
    gc.enable()
    # Let the log's thread run as soon as a write is done, not only when the event loop pauses.
    sys.setswitchinterval(0.0005)
    deadline = 0.0
    try:
        deadline = asyncio.run(_run(service, options))
    finally:
        sink.close(deadline)


def _sink(options: Options) -> Sink:
    sink = open_sink(options.log, options.identity.slot, _now, _spooling(options))
    return PrivateSink(sink, options.columns, options.hash_key) if options.columns else sink


def _spooling(options: Options) -> Spooling | None:
    if options.spool is None:
        return None
    return Spooling(
        folder=options.spool,
        release=options.identity.release,
        max_bytes=options.spool_mb * 1_000_000,
        note=_log,
    )


def check_port(host: str, port: int) -> None:
    """Refuse a port on which another process listens; granian would share it.

    Raises:
        UnavailableError: the port is in use, or needs more permissions.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            is_taken = error.errno == errno.EADDRINUSE
            why = "the port is in use by another process" if is_taken else error.strerror
            message = f"cannot listen on {host}:{port}: {why}"
            hint = "stop that process, or use another port" if is_taken else "use another port"
            raise UnavailableError(message, hint=hint) from error
        except OverflowError as error:
            raise ConfigError(f"invalid port: {port}", hint="use 1 to 65535") from error


async def _run(service: Service, options: Options) -> float:
    """Serve until a signal; return the monotonic time at which the replica should have ended."""
    from granian.constants import HTTPModes, Interfaces
    from granian.server.embed import Server

    app = App(service)
    server = Server(
        app,
        address=options.host,
        port=options.port,
        interface=Interfaces.ASGINL,
        http=HTTPModes.http1,
        websockets=False,
        backlog=1024,
        log_enabled=False,
    )
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    serving = loop.create_task(server.serve())
    stopping = loop.create_task(stop.wait())
    _log(f"{options.identity.name} at http://{options.host}:{options.port}/docs")
    await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if serving.done():
        stopping.cancel()
        error = serving.exception()
        cause = error or "unknown reason"
        message = f"the server on {options.host}:{options.port} stopped: {cause}"
        raise UnavailableError(message, hint="start it again")
    deadline = time.monotonic() + options.shutdown_seconds
    service.drain()
    is_done = await _drained(app, options.shutdown_seconds)
    server.signal_handler_interrupt()  # type: ignore[no-untyped-call]
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(serving, timeout=1 if is_done else 0.2)
    if not is_done:
        message = (
            f"{app.active} requests did not finish within {options.shutdown_seconds:g} seconds"
        )
        raise TimedOutError(message, hint="increase --shutdown-seconds")
    return deadline


async def _drained(app: App, seconds: float) -> bool:
    """Wait until there are no open requests and none arrive; return whether that was reached."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    while loop.time() - started < seconds:
        if app.active == 0 and loop.time() - max(app.last, started) >= QUIET_SECONDS:
            return True
        await asyncio.sleep(0.02)
    return app.active == 0


def _now() -> datetime:
    return datetime.now(UTC)


def _log(text: str) -> None:
    sys.stderr.write(f"mlship: {text}\n")
    sys.stderr.flush()
