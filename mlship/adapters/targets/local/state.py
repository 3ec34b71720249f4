"""The files in a local target's folder, and their writers.

    slots.json            the desired state          commands, under slots.lock
    processes.json        the running processes      only the supervisor, under supervisor.lock
    metrics.json          the ports of metrics       the supervisor, for Prometheus
    envoy/routes.json     the traffic split          commands, under slots.lock (routing.py)
    envoy/*.json          other files for Envoy      the supervisor
    logs/                 a file for each process

Every file is replaced atomically, so that a reader sees the old or the new content, even after a
kill.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from mlship import files
from mlship.adapters.targets.local import locks
from mlship.adapters.targets.local.processes import Process
from mlship.domain.deployment import Slot
from mlship.domain.digests import Digest
from mlship.domain.private import Rule
from mlship.domain.untrusted import decoded
from mlship.errors import IntegrityError, UnavailableError

_T = TypeVar("_T")
_PATIENCE = 10.0

Phase = Literal["starting", "ready", "failed", "crashed", "draining", "stopping"]


class Safeguards(msgspec.Struct, frozen=True, kw_only=True):
    """Protection of requests while slots change. Only control runs disable it.

    Attributes:
        readiness: a replica gets traffic only when it is ready.
        draining: a replica finishes its requests before it is stopped.
        fallback: the requests of a slot without a replica go to the other slots of the split.
    """

    readiness: bool = True
    draining: bool = True
    fallback: bool = True


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """The desired state of a slot; 0 replicas while it is being removed.

    Attributes:
        bundle: the absolute path of the bundle's folder.
        artifact: the bundle's digest.
        release: the release's id; `name` is its name for people.
        workers: of each replica; `timeout` is the seconds until a request must be computed, and
            `cache_rows` the rows whose outputs are kept.
    """

    bundle: str
    artifact: Digest
    release: Digest
    name: str
    replicas: int
    workers: int = 1
    timeout: float = 30.0
    cache_rows: int = 0


class Spooling(msgspec.Struct, frozen=True, kw_only=True):
    """The folder of spools, and the size in MB of a replica's spool at which it refuses."""

    folder: str
    max_mb: int


class Logging(msgspec.Struct, frozen=True, kw_only=True):
    """How replicas log predictions.

    Attributes:
        place: the absolute path of a folder, or `postgresql://...`.
        spool: for predictions while the database is away; `None` refuses requests.
        columns: those that are not logged, or only as a hash.
    """

    place: str
    spool: Spooling | None = None
    columns: dict[str, Rule] = {}


class Tls(msgspec.Struct, frozen=True, kw_only=True):
    """The absolute paths of the router's certificate and of its key, in PEM."""

    certificate: str
    key: str


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """The desired state of the target.

    Attributes:
        port: of the router.
        generation: increases with each deploy; a new generation restarts failed processes.
        stopped: whether `down` was called, and no `deploy` since.
        log: the folder of the prediction log, or `postgresql://...`.
        spool: for predictions while the database is away; `None` if they are refused.
        columns: those that are not logged, or only as a hash.
        program: the command that starts a replica, before its options.
        drain_seconds: the time limit for open requests when a replica stops.
        memory: the limit for each process of a replica in bytes; `None` is no limit.
        api_keys: the absolute path of the file of API keys; `None` answers all requests.
        access_log: whether replicas write a line of JSON for each request to their logs.
        tls: the certificate of the router; `None` is for HTTP.
    """

    port: int
    generation: int = 0
    stopped: bool
    log: str
    spool: Spooling | None = None
    columns: dict[str, Rule] = {}
    program: tuple[str, ...]
    drain_seconds: float
    memory: int | None = None
    api_keys: str | None = None
    access_log: bool = False
    tls: Tls | None = None
    safeguards: Safeguards = Safeguards()
    slots: dict[Slot, Placement] = {}


class Replica(msgspec.Struct, frozen=True, kw_only=True):
    """One replica.

    Attributes:
        crashes: the number of crashes since it was last steadily ready; `code` is the last exit
            code.
        problem: why it will never be ready, if it reports that.
        metrics: the port of its metrics; 0 if an older version started it.
        api_keys: the file of API keys with which it was started; likewise `workers`, `timeout`
            and `cache_rows`.
    """

    slot: Slot
    number: int
    process: Process
    port: int
    phase: Phase
    crashes: int = 0
    code: int = 0
    problem: str = ""
    metrics: int = 0
    api_keys: str | None = None
    workers: int = 1
    timeout: float = 30.0
    cache_rows: int = 0

    def is_current(self, wanted: Wanted) -> bool:
        """Return whether it was started with the settings that its slot has now."""
        placement = wanted.slots.get(self.slot)
        if placement is not None:
            own = (self.workers, self.timeout, self.cache_rows)
            if (placement.workers, placement.timeout, placement.cache_rows) != own:
                return False
        return self.api_keys == wanted.api_keys


class Router(msgspec.Struct, frozen=True, kw_only=True):
    """Envoy: its port, and why it does not run or does not listen on the desired port.

    Attributes:
        admin: the path of its admin socket; an Envoy that an older version started has a port.
        draining: it finishes its requests and accepts no new connections, before it is stopped.
        is_encrypted: whether it takes HTTPS, and no HTTP.
    """

    process: Process | None
    port: int
    admin: int | str
    problem: str = ""
    draining: bool = False
    is_encrypted: bool = False


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """The processes of the supervisor.

    Attributes:
        generation: of the desired state on which the supervisor last acted. Failures of an earlier
            generation do not count for a later deploy. `None` if an older version wrote the file.
    """

    generation: int | None = None
    router: Router | None = None
    replicas: tuple[Replica, ...] = ()


class State:
    """The folder of one target."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.slots = folder / "slots.json"
        self.processes = folder / "processes.json"
        self.metrics = folder / "metrics.json"
        self.supervisor = folder / "supervisor.lock"
        self.envoy = folder / "envoy"
        self.routes = self.envoy / "routes.json"
        self.clusters = self.envoy / "clusters.json"
        self.bootstrap = self.envoy / "bootstrap.json"
        self.certificate = self.envoy / "certificate.json"
        self.logs = folder / "logs"

    def endpoints(self, cluster: str) -> Path:
        """Return the file that lists the endpoints of one of Envoy's clusters."""
        return self.envoy / f"endpoints-{cluster}.json"

    def log(self, name: str) -> Path:
        """Return the log of a process."""
        return self.logs / f"{name}.log"

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Hold the lock for changes of the desired state and the route; wait for it briefly.

        Raises:
            ConflictError: another command holds it for longer.
        """
        path = self.folder / "slots.lock"
        with locks.hold(path, what=f"target {self.folder.name}", seconds=_PATIENCE):
            yield

    def wanted(self) -> Wanted | None:
        """Return the desired state; `None` if nothing was ever deployed.

        Raises:
            IntegrityError: the file is damaged.
        """
        return _read(self.slots, Wanted)

    def running(self) -> Running:
        """Return the last state that the supervisor wrote. Its processes may have exited since."""
        return _read(self.processes, Running) or Running()

    def want(self, wanted: Wanted) -> None:
        """Write the desired state durably.

        Raises:
            UnavailableError: it cannot be written; the desired state is unchanged.
        """
        write(self.slots, msgspec.json.format(msgspec.json.encode(wanted)))


def write(path: Path, data: bytes) -> None:
    """Write a file of the target atomically.

    Raises:
        UnavailableError: the disk is full or the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_atomically(path, data)
    except OSError as error:
        message = f"cannot write {path}: {error.strerror}"
        raise UnavailableError(
            message, hint="free disk space, or make the folder writable"
        ) from error


def unreadable(path: Path, error: OSError) -> UnavailableError:
    """Return the error for a file of the target that exists but cannot be read."""
    message = f"cannot read {path}: {error.strerror}"
    return UnavailableError(message, hint="make the file readable")


def _read(path: Path, kind: type[_T]) -> _T | None:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise unreadable(path, error) from error
    try:
        return decoded(msgspec.json.Decoder(kind).decode, data)
    except msgspec.DecodeError as error:
        message = f"{path} is damaged: {error}"
        raise IntegrityError(
            message, hint="run `mlship down`, remove the file, then deploy again"
        ) from error
