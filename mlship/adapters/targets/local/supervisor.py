"""The supervisor of one local target: a process that outlives the commands that change slots.

    python -m mlship.adapters.targets.local.supervisor FOLDER

It brings the target to the desired state, and only it starts and stops replicas and Envoy. If it is
killed, the next one takes over the running processes. SIGTERM, or the removal of its folder, drains
and stops everything.
"""

import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import FrameType

import msgspec

from mlship.adapters.targets.local import admin, locks, processes, routing, shutdown
from mlship.adapters.targets.local.certificates import Certificates
from mlship.adapters.targets.local.replicas import Replicas, discovery, serving
from mlship.adapters.targets.local.router import EnvoyProcess, Published
from mlship.adapters.targets.local.state import Running, State, Wanted, write
from mlship.domain.deployment import Split
from mlship.errors import ConflictError, MlshipError

_PAUSE = 0.05
_LOCK_SECONDS = 1.0
_DRAIN_SECONDS = 10.0


class Supervisor:
    """Compares desired and observed state several times per second, and acts on differences."""

    def __init__(self, state: State, environment: Mapping[str, str]) -> None:
        self._state = state
        running = state.running()
        self._saved: Running | None = None
        self._replicas = Replicas(state, environment, running.replicas)
        self._envoy = EnvoyProcess(state, environment, running.router)
        self._published = Published(state)
        self._certificates = Certificates(state)
        self._wanted: Wanted | None = None
        self._generation = running.generation
        self._version = 0, 0
        self._split = routing.Current(state)
        self._folder = _identity(state.folder)
        self._asked_to_stop = False
        self._complaint = ""

    def run(self) -> None:
        """Run until it is told to stop or its folder is removed; then stop everything."""
        while not self._asked_to_stop and _identity(self._state.folder) == self._folder:
            try:
                self._step()
                self._complaint = ""
            except (OSError, MlshipError) as error:
                self._complain(str(error))
            time.sleep(_PAUSE)
        self._stop()

    def ask_to_stop(self, _number: int, _frame: FrameType | None) -> None:
        """Handle SIGTERM."""
        self._asked_to_stop = True

    def _step(self) -> None:
        wanted = self._read()
        if wanted is None:
            return
        if wanted.stopped:
            # The command that wrote this may have been killed before it sent the signal.
            self._asked_to_stop = True
            return
        if wanted.generation != self._generation:
            self._replicas.retry()
            self._envoy.retry()
            self._generation = wanted.generation
        self._replicas.step(wanted, self._hosts(wanted))
        by_slot = serving(self._replicas.known, wanted)
        split = self._split.read() if wanted.safeguards.fallback else Split()
        self._published.step(by_slot, split, checked=wanted.safeguards.readiness)
        self._copy_certificate(wanted)
        self._envoy.step(wanted)
        self._save()
        self._replicas.let_go()
        self._envoy.let_go()

    def _copy_certificate(self, wanted: Wanted) -> None:
        """Copy the certificate for Envoy; one that clients would refuse is told, and not copied."""
        try:
            self._certificates.step(wanted.tls)
        except (OSError, MlshipError) as error:
            self._complain(f"the former certificate stays: {error}")

    def _read(self) -> Wanted | None:
        try:
            status = self._state.slots.stat()
        except FileNotFoundError:
            return self._wanted
        version = status.st_ino, status.st_mtime_ns
        if version != self._version:
            self._wanted = self._state.wanted()
            self._version = version
        return self._wanted

    def _hosts(self, wanted: Wanted) -> dict[tuple[str, int], admin.Host] | None:
        """Return Envoy's hosts if a replica drains or is replaced; `None` without Envoy."""
        router = self._envoy.router
        is_away = router is None or not processes.is_alive(router.process)
        if router is None or is_away or not self._replicas.awaits_envoy(wanted):
            return None
        return admin.hosts(router.admin)

    def _save(self) -> None:
        running = Running(
            generation=self._generation,
            router=self._envoy.router,
            replicas=self._replicas.known,
        )
        if running != self._saved:
            write(self._state.processes, msgspec.json.format(msgspec.json.encode(running)))
            write(self._state.metrics, discovery(self._state.folder.name, running.replicas))
            self._saved = running

    def _stop(self) -> None:
        wanted = self._wanted
        seconds = shutdown.patience(wanted) if wanted else _DRAIN_SECONDS
        running = Running(router=self._envoy.router, replicas=self._replicas.known)
        shutdown.stop(running, seconds=seconds)
        if _identity(self._state.folder) == self._folder:
            write(self._state.processes, msgspec.json.encode(Running()))
            write(self._state.metrics, discovery(self._state.folder.name, ()))

    def _complain(self, text: str) -> None:
        if text != self._complaint:
            sys.stderr.write(text + "\n")
            sys.stderr.flush()
            self._complaint = text


def _identity(folder: Path) -> tuple[int, int]:
    try:
        status = folder.stat()
    except OSError:
        return 0, 0
    return status.st_dev, status.st_ino


def main(arguments: list[str]) -> int:
    """Supervise the target in a folder until told to stop; return at once if another one does."""
    state = State(Path(arguments[0]))
    try:
        # A command that checks whether the lock is held takes it briefly.
        what = f"target {state.folder.name}"
        with locks.hold(state.supervisor, what=what, seconds=_LOCK_SECONDS):
            supervisor = Supervisor(state, os.environ)
            signal.signal(signal.SIGTERM, supervisor.ask_to_stop)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            supervisor.run()
    except ConflictError:
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
