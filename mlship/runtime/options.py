"""What a server is told: what to serve, where, and with how many workers."""

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from mlship.domain.digests import Digest
from mlship.domain.private import Rule
from mlship.runtime.spawned import Spawned


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """What is served: the id and the name of the release, and its slot."""

    release: Digest
    name: str
    slot: str


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What to serve and where.

    Attributes:
        expected: the digest that the bundle must have, if the caller knows it.
        log: the folder of the prediction log, or `postgresql://...`.
        spool: the folder for predictions while the database is away; `None` refuses them.
        spool_mb: the size of a spool in MB at which requests are refused.
        grpc_port: the port for gRPC; `None` for no gRPC.
        api_keys: the file of the keys with which requests are answered; `None` answers all.
        metrics_port: the port for `/metrics`; `None` for that of requests.
        columns: those that are not logged, or only as a hash with `hash_key`.
        access_log: whether each request is a line of JSON on stdout.
        shutdown_seconds: how long open requests may take after a signal to stop.
        workers: the number of processes that compute.
        timeout: the seconds until a request must be computed; a client may send a shorter time.
        cache_rows: the number of rows whose outputs are kept in memory.
    """

    bundle: Path
    identity: Identity
    expected: Digest | None
    host: str
    port: int
    log: str
    spool: Path | None = None
    spool_mb: int = 256
    grpc_port: int | None = None
    api_keys: Path | None = None
    metrics_port: int | None = None
    columns: Mapping[str, Rule] = {}
    hash_key: str = ""
    access_log: bool = False
    shutdown_seconds: float
    workers: int = 1
    timeout: float = 30.0
    cache_rows: int = 0

    def spawn(self) -> Spawned:
        """Start the process of a worker."""
        return Spawned(self.bundle, self.expected, os.environ)
