"""Serves a bundle over HTTP until SIGTERM or SIGINT: a server and its workers.

The workers are started first: they load the model while the server loads its own libraries.
"""

import errno
import gc
import socket
import sys
from datetime import UTC, datetime

from mlship.domain import api_keys, private
from mlship.domain import bundle as bundles
from mlship.errors import ConfigError, UnavailableError
from mlship.runtime.options import Options


def serve(options: Options) -> None:
    """Have the bundle verified, loaded and warmed up, serve until a signal, then drain.

    Raises:
        NotFoundError: there is no bundle.
        IntegrityError: the bundle does not match its digest.
        ProjectError: a hook cannot be imported.
        UnavailableError: a port is in use, a package for gRPC is missing, or the log cannot be
            written; or predictions are left in the spool at the end.
        ConfigError: the log's address or the port is invalid, a column's hash has no key, or the
            file of API keys cannot be read.
        TimedOutError: some requests did not finish before the time limit.
    """
    private.check_key(options.columns, options.hash_key)
    if options.api_keys is not None:
        api_keys.read(options.api_keys)
    check_port(options.host, options.port)
    if options.metrics_port is not None:
        check_port(options.host, options.metrics_port)
    if options.grpc_port is not None:
        check_port(options.host, options.grpc_port)
        from mlship.runtime import grpc_server

        grpc_server.check_installed()
    bundles.manifest(options.bundle, expected=options.expected)
    spawned = [options.spawn() for _ in range(options.workers)]
    from mlship.runtime import front
    from mlship.runtime.sinks import PrivateSink, Sink, Spooling, open_sink

    spooling = None
    if options.spool is not None:
        spooling = Spooling(
            folder=options.spool,
            release=options.identity.release,
            max_bytes=options.spool_mb * 1_000_000,
            note=front.log,
        )
    sink: Sink = open_sink(options.log, options.identity.slot, _now, spooling)
    if options.columns:
        sink = PrivateSink(sink, options.columns, options.hash_key)
    # All that is here lives as long as the process: no request pays for a search for garbage in it.
    gc.collect()
    gc.freeze()
    # Let the log's thread run as soon as a write is done, not only when the event loop pauses.
    sys.setswitchinterval(0.0005)
    deadline = 0.0
    try:
        deadline = front.run(options, spawned, sink)
    finally:
        sink.close(deadline)


def check_port(host: str, port: int) -> None:
    """Refuse a port on which another process listens, before the model is loaded.

    Raises:
        UnavailableError: the port is in use, or needs more permissions.
        ConfigError: it is no port.
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


def _now() -> datetime:
    return datetime.now(UTC)
