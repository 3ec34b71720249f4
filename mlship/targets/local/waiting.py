"""Wait until a slot is as it is wanted, telling people how far it is and why it fails."""

import time
from pathlib import Path

from mlship.deployment import Slot
from mlship.errors import ConflictError, ProjectError, TimedOutError, UnavailableError
from mlship.ports import Progress
from mlship.targets.local import admin, processes
from mlship.targets.local.state import Placement, Replica, Running, Safeguards, State

_PAUSE = 0.03
_CRASHES = 3


class Readiness:
    """Waits for the replicas of one slot."""

    def __init__(
        self,
        state: State,
        slot: Slot,
        *,
        progress: Progress,
        seconds: float,
        safeguards: Safeguards,
    ) -> None:
        self._state = state
        self._slot = slot
        self._progress = progress
        self._seconds = seconds
        self._safeguards = safeguards
        self._told = -1

    def wait(self, placement: Placement) -> None:
        """Wait until so many replicas are ready, Envoy sends to them, and no other is left.

        Raises:
            TimedOutError: not in time; the message ends with what the replicas logged.
            ProjectError: a replica ended by itself three times before it was ready.
            UnavailableError: Envoy cannot run.
            ConflictError: another command wants another thing of the slot now.
        """
        deadline = time.monotonic() + self._seconds
        while True:
            running = self._state.running()
            replicas = [item for item in running.replicas if item.slot == self._slot]
            if self._is_done(running, replicas, placement.replicas):
                return
            self._check(placement, replicas, running)
            if time.monotonic() >= deadline:
                raise self._timed_out(running, replicas, placement.replicas)
            time.sleep(_PAUSE)

    def _is_done(self, running: Running, replicas: list[Replica], count: int) -> bool:
        if not self._safeguards.readiness:
            return len(replicas) == count and running.router is not None
        ready = [item for item in replicas if item.phase == "ready"]
        healthy = self._healthy(running, ready)
        if healthy != self._told:
            self._progress.note(f"{self._slot}: {healthy} of {count} replicas ready")
            self._told = healthy
        return healthy == count == len(replicas)

    def _healthy(self, running: Running, ready: list[Replica]) -> int:
        if running.router is None or not ready:
            return 0
        hosts = admin.hosts(running.router.admin)
        found = [hosts.get((item.slot, item.port)) for item in ready]
        return sum(host is not None and host.healthy for host in found)

    def _check(self, placement: Placement, replicas: list[Replica], running: Running) -> None:
        wanted = self._state.wanted()
        if wanted is None or wanted.stopped or wanted.slots.get(self._slot) != placement:
            message = f"slot {self._slot} was changed by another command meanwhile"
            raise ConflictError(message, hint="look at `mlship status`, then decide again")
        if running.router and not running.router.process and running.router.problem:
            message = f"the router does not run: {running.router.problem}"
            raise UnavailableError(message, hint=f"look into {self._state.log('envoy')}")
        for item in replicas:
            if item.crashes >= _CRASHES and item.phase != "ready":
                message = f"replica {item.number} of {self._slot} ends by itself"
                raise ProjectError(f"{message}:\n{self._log(item)}", hint=self._hint(item))

    def _timed_out(self, running: Running, replicas: list[Replica], count: int) -> TimedOutError:
        text = f"{self._slot}: not {count} replicas ready in {self._seconds:g} s"
        unready = [item for item in replicas if item.phase != "ready"]
        if unready:
            hint = self._hint(unready[0])
            return TimedOutError(f"{text}:\n{self._log(unready[0])}".rstrip(":\n"), hint=hint)
        problem = running.router.problem if running.router else "the supervisor runs no router"
        hint = f"look into {self._state.log('envoy')} and {self._state.log('supervisor')}"
        return TimedOutError(f"{text}: {problem or 'Envoy does not see them'}", hint=hint)

    def _log(self, replica: Replica) -> str:
        return processes.last_lines(self._path(replica))

    def _hint(self, replica: Replica) -> str:
        return f"the whole log: {self._path(replica)}"

    def _path(self, replica: Replica) -> Path:
        return self._state.log(f"{replica.slot}-{replica.number}")
