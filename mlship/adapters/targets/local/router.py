"""The supervisor's part for Envoy: it runs, on the wanted port, or says why it cannot."""

import signal
import time
from collections.abc import Iterable, Mapping

import msgspec

from mlship.adapters.targets.local import admin, envoy, loopback, processes
from mlship.adapters.targets.local.processes import Child
from mlship.adapters.targets.local.state import Replica, Router, State, Wanted, write
from mlship.domain.deployment import Slot
from mlship.domain.environment import of_serving

_LONGEST_PAUSE = 5.0


class EnvoyProcess:
    """Keeps one Envoy running."""

    def __init__(self, state: State, environment: Mapping[str, str], router: Router | None) -> None:
        """Take over the one that runs."""
        self._state = state
        self._environment = of_serving(environment)
        self.router = router
        self._child: Child | None = None
        self._was_live = False
        self._failures = 0
        self._next_start = 0.0

    def step(self, wanted: Wanted) -> None:
        """Start Envoy where it does not run, and end one that listens on another port.

        Raises:
            OSError, MlshipError: it cannot be started now; the next step tries again.
        """
        router = self.router
        if router and router.process and self._is_alive():
            self._attend(router, wanted)
            return
        if router and router.process:
            self._note_death(router, wanted)
        if time.monotonic() >= self._next_start:
            self._start(wanted.port)

    def retry(self) -> None:
        """Start it without a pause where it did not start: the reason may be mended."""
        self._failures = 0
        self._next_start = 0.0

    def let_go(self) -> None:
        """Let it become Envoy: it is written down now."""
        if self._child:
            self._child.let_go()

    def _is_alive(self) -> bool:
        if self._child:
            return self._child.is_alive()
        return self.router is not None and processes.is_alive(self.router.process)

    def _attend(self, router: Router, wanted: Wanted) -> None:
        if router.port != wanted.port:
            self._move(router, wanted.port)
        elif self._was_live or admin.is_live(router.admin):
            self._was_live = True
            self._failures = 0
            self._tell("")

    def _move(self, router: Router, port: int) -> None:
        """End it, so that the next one starts on the new port; the old port serves until then."""
        if not loopback.is_free(port):
            self._tell(_taken(port))
        elif router.process:
            self._tell("")
            processes.send(router.process, signal.SIGTERM)

    def _note_death(self, router: Router, wanted: Wanted) -> None:
        """Restart it; later each time, and with the reason, only where it did not start."""
        problem = ""
        if self._child and not self._was_live and not self._was_asked(router, wanted):
            self._failures += 1
            problem = self._child.last_lines(3) or f"it ended with exit code {self._child.code}"
        self._was_live = False
        self._child = None
        self._wait()
        self.router = msgspec.structs.replace(router, process=None, problem=problem)

    def _was_asked(self, router: Router, wanted: Wanted) -> bool:
        """Tell whether one that ended was told to: by `_move`, perhaps of a supervisor before."""
        code = self._child.code if self._child else 0
        return router.port != wanted.port or code in (0, -signal.SIGTERM)

    def _tell(self, problem: str) -> None:
        if self.router and self.router.problem != problem:
            self.router = msgspec.structs.replace(self.router, problem=problem)

    def _wait(self) -> None:
        pause = 0.0 if not self._failures else min(0.1 * 2**self._failures, _LONGEST_PAUSE)
        self._next_start = time.monotonic() + pause

    def _start(self, port: int) -> None:
        before = self.router
        if not loopback.is_free(port):
            self._failures += 1
            self._wait()
            self.router = Router(process=None, port=port, admin=0, problem=_taken(port))
            return
        start = loopback.start_of(f"{self._state.folder} admin")
        own = loopback.free_port(start, {port})
        write(self._state.bootstrap, envoy.bootstrap(self._state, port, own))
        command = envoy.command(envoy.program(), self._state)
        self._child = Child(command, self._state.log("envoy"), self._environment)
        problem = before.problem if before else ""
        self.router = Router(process=self._child.process, port=port, admin=own, problem=problem)


def _taken(port: int) -> str:
    return f"port {port} of {loopback.HOST} is already in use by another program"


class Published:
    """The clusters and endpoints that Envoy was given, written again only when they change."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._written: dict[str, bytes] = {}

    def step(self, serving: Mapping[Slot, Iterable[Replica]], *, checked: bool) -> None:
        """Write what changed: endpoints before the clusters that refer to them.

        Raises:
            UnavailableError: a file cannot be written; the next step tries again.
        """
        for slot, replicas in serving.items():
            self._put(self._state.endpoints(slot).name, envoy.endpoints(slot, replicas))
        clusters = envoy.clusters(self._state, serving, checked=checked)
        if not self._put(self._state.clusters.name, clusters):
            self._forget({self._state.endpoints(slot).name for slot in serving})

    def _put(self, name: str, data: bytes) -> bool:
        if self._written.get(name) == data:
            return False
        write(self._state.envoy / name, data)
        self._written[name] = data
        return True

    def _forget(self, current: set[str]) -> None:
        """Remove the endpoints of slots that are gone, one step after their clusters went."""
        stale = {name for name in self._written if name.startswith("endpoints-")} - current
        for name in stale:
            (self._state.envoy / name).unlink(missing_ok=True)
            del self._written[name]
