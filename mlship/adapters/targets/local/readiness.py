"""Wait until a slot is ready; report progress, or raise the reason why it is not."""

import time
from pathlib import Path

from mlship.adapters.targets.local import admin, processes, supervision
from mlship.adapters.targets.local.state import Replica, Running, State, Wanted
from mlship.domain.deployment import Slot
from mlship.domain.notation import quoted
from mlship.domain.ports import Progress
from mlship.errors import (
    ConflictError,
    IntegrityError,
    MlshipError,
    NotFoundError,
    ProjectError,
    TimedOutError,
    UnavailableError,
)

_PAUSE = 0.03
_CRASHES = 3
_KINDS: dict[int, type[MlshipError]] = {
    kind.exit_code: kind for kind in (UnavailableError, NotFoundError, IntegrityError)
}


class Readiness:
    """Waits until the replicas of one slot reach the desired state."""

    def __init__(
        self, state: State, slot: Slot, wanted: Wanted, *, progress: Progress, seconds: float
    ) -> None:
        self._state = state
        self._slot = slot
        self._wanted = wanted
        self._count = wanted.slots[slot].replicas
        self._progress = progress
        self._seconds = seconds
        self._noted = -1

    def wait(self) -> None:
        """Wait until all replicas are ready, Envoy routes to them, and no others are left.

        Raises:
            TimedOutError: not in time; the message ends with the log of a replica.
            ProjectError: a replica reports that it failed, or exited three times. If its exit code
                is one of mlship's, the error of that code.
            UnavailableError: Envoy cannot run.
            ConflictError: another command has changed the slot.
        """
        deadline = time.monotonic() + self._seconds
        while True:
            # Replace a supervisor that was killed, or stopped by `down`.
            supervision.start(self._state)
            running = self._state.running()
            replicas = [item for item in running.replicas if item.slot == self._slot]
            if self._is_done(running, replicas):
                return
            self._check(replicas, running)
            if time.monotonic() >= deadline:
                raise self._timed_out(running, replicas)
            time.sleep(_PAUSE)

    def _is_done(self, running: Running, replicas: list[Replica]) -> bool:
        if not self._wanted.safeguards.readiness:
            return len(replicas) == self._count and running.router is not None
        # The file may be older than the kill of a supervisor.
        ready = [
            item for item in replicas if item.phase == "ready" and processes.is_alive(item.process)
        ]
        healthy = self._healthy(running, ready)
        if healthy != self._noted:
            self._progress.note(f"{self._slot}: {healthy} of {self._count} replicas ready")
            self._noted = healthy
        is_whole = healthy == self._count == len(replicas)
        # Those with other settings are about to be replaced.
        is_current = all(item.is_current(self._wanted) for item in replicas)
        return is_whole and is_current and self._listens(running)

    def _listens(self, running: Running) -> bool:
        router = running.router
        return (
            router is not None
            and router.port == self._wanted.port
            and router.is_encrypted == (self._wanted.tls is not None)
            and admin.is_live(router.admin)
        )

    def _healthy(self, running: Running, ready: list[Replica]) -> int:
        if running.router is None or not ready:
            return 0
        hosts = admin.hosts(running.router.admin)
        known = [hosts.get((item.slot, item.port)) for item in ready]
        return sum(host is not None and host.healthy for host in known)

    def _check(self, replicas: list[Replica], running: Running) -> None:
        current = self._state.wanted()
        expected = self._wanted.slots[self._slot]
        if current is None or current.stopped or current.slots.get(self._slot) != expected:
            message = f"another command changed slot {self._slot} at the same time"
            raise ConflictError(message, hint="check `mlship status`, then run the command again")
        if running.generation is not None and running.generation < self._wanted.generation:
            # The supervisor has not acted on this deploy yet; the file is about an earlier one.
            return
        router = running.router
        if router and router.problem and not (router.process and router.port == self._wanted.port):
            message = f"the router cannot run on port {self._wanted.port}: {router.problem}"
            raise UnavailableError(message, hint=f"see {self._state.log('envoy')}")
        for item in replicas:
            name = f"replica {item.number} of {self._slot}"
            if item.phase == "failed":
                message = f"{name} failed to start: {item.problem}"
                raise ProjectError(message, hint=self._hint(item))
            if item.crashes >= _CRASHES and item.phase != "ready":
                kind = _KINDS.get(item.code, ProjectError)
                raise kind(f"{name} keeps exiting:\n{self._log(item)}", hint=self._hint(item))

    def _timed_out(self, running: Running, replicas: list[Replica]) -> TimedOutError:
        ready = sum(item.phase == "ready" for item in replicas)
        text = f"{self._slot}: {ready} of {self._count} replicas ready after {self._seconds:g} s"
        unready = [item for item in replicas if item.phase != "ready"]
        if unready:
            hint = self._hint(unready[0])
            return TimedOutError(f"{text}:\n{self._log(unready[0])}".rstrip(":\n"), hint=hint)
        problem = running.router.problem if running.router else "the router is not running"
        hint = f"see {self._state.log('envoy')} and {self._state.log('supervisor')}"
        return TimedOutError(f"{text}: {problem or 'Envoy reports them as unhealthy'}", hint=hint)

    def _log(self, replica: Replica) -> str:
        return quoted(processes.last_lines(self._path(replica)))

    def _hint(self, replica: Replica) -> str:
        return f"see the full log: {self._path(replica)}"

    def _path(self, replica: Replica) -> Path:
        return self._state.log(f"{replica.slot}-{replica.number}")
