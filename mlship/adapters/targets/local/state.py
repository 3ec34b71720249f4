"""The files of a local target's folder, and who writes which.

    slots.json            what is wanted             commands, under slots.lock
    processes.json        what the supervisor runs   the supervisor alone, under supervisor.lock
    envoy/routes.json     who gets the traffic       commands, under slots.lock (routing.py)
    envoy/*.json          the rest for Envoy         the supervisor
    logs/                 a file for each process

Every file is replaced whole, so that a reader and whoever comes after a kill sees old or new.
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
from mlship.errors import IntegrityError, UnavailableError

_T = TypeVar("_T")
_PATIENCE = 10.0

Phase = Literal["starting", "ready", "failed", "crashed", "draining", "stopping"]


class Safeguards(msgspec.Struct, frozen=True, kw_only=True):
    """What protects requests while slots change. Only a control run switches one off.

    Attributes:
        readiness: a replica gets traffic when it says that it is ready, not before.
        draining: a replica finishes its requests before it is stopped.
    """

    readiness: bool = True
    draining: bool = True


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """What is wanted in a slot. No replicas are wanted of one that is being removed.

    Attributes:
        bundle: the absolute path of the bundle's folder.
        artifact: the bundle's digest.
        release: the release's id; `name` is its name for people.
    """

    bundle: str
    artifact: Digest
    release: Digest
    name: str
    replicas: int


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What is wanted of the target.

    Attributes:
        port: of the router.
        generation: grows by one with each deploy, which is a reason to try anew what failed.
        stopped: `down` was called, and no `deploy` since.
        log: the folder of the prediction log.
        program: the command that starts a replica, before its options.
        drain_seconds: that requests get to finish in.
    """

    port: int
    generation: int = 0
    stopped: bool
    log: str
    program: tuple[str, ...]
    drain_seconds: float
    safeguards: Safeguards = Safeguards()
    slots: dict[Slot, Placement] = {}


class Replica(msgspec.Struct, frozen=True, kw_only=True):
    """One replica.

    Attributes:
        crashes: its deaths since it last was ready for a while; `code` the last exit code.
        problem: why it will never be ready, where it says so itself.
    """

    slot: Slot
    number: int
    process: Process
    port: int
    phase: Phase
    crashes: int = 0
    code: int = 0
    problem: str = ""


class Router(msgspec.Struct, frozen=True, kw_only=True):
    """Envoy: where it listens, and why it does not run, or not where it is to listen."""

    process: Process | None
    port: int
    admin: int
    problem: str = ""


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """What the supervisor runs.

    Attributes:
        generation: of what was wanted when the supervisor last acted on it. What failed earlier
            says nothing about a later deploy. `None` where a supervisor of an older version wrote.
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
        self.supervisor = folder / "supervisor.lock"
        self.envoy = folder / "envoy"
        self.routes = self.envoy / "routes.json"
        self.clusters = self.envoy / "clusters.json"
        self.bootstrap = self.envoy / "bootstrap.json"
        self.logs = folder / "logs"

    def endpoints(self, slot: Slot) -> Path:
        """Return the file that lists the endpoints of a slot."""
        return self.envoy / f"endpoints-{slot}.json"

    def log(self, name: str) -> Path:
        """Return the log of a process."""
        return self.logs / f"{name}.log"

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Hold the right to change what is wanted and the route, after a short wait.

        Raises:
            ConflictError: another command holds it for long.
        """
        path = self.folder / "slots.lock"
        with locks.hold(path, what=f"target {self.folder.name}", seconds=_PATIENCE):
            yield

    def wanted(self) -> Wanted | None:
        """Return what is wanted; `None` when nothing ever was.

        Raises:
            IntegrityError: the file is not one that mlship wrote.
        """
        return _read(self.slots, Wanted)

    def running(self) -> Running:
        """Return what the supervisor wrote down last. Its processes may have ended since."""
        return _read(self.processes, Running) or Running()

    def want(self, wanted: Wanted) -> None:
        """Write down what is wanted, durably.

        Raises:
            UnavailableError: it cannot be written; what was wanted before stands.
        """
        write(self.slots, msgspec.json.format(msgspec.json.encode(wanted)))


def write(path: Path, data: bytes) -> None:
    """Put a file of the target in place whole or not at all.

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
    """Return the error of a file of the target that is there and cannot be read."""
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
        return msgspec.json.decode(data, type=kind)
    except msgspec.DecodeError as error:
        message = f"{path} is damaged: {error}"
        raise IntegrityError(
            message, hint="run `mlship down`, remove the file, then deploy again"
        ) from error
