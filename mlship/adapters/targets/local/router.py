"""The supervisor's code for Envoy: keep it running on the desired port, or record the problem."""

import signal
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from mlship.adapters.targets.envoy import routes
from mlship.adapters.targets.local import admin, envoy, loopback, processes, shutdown
from mlship.adapters.targets.local.processes import Child
from mlship.adapters.targets.local.state import Replica, Router, State, Wanted, write
from mlship.domain.deployment import Slot, Split
from mlship.domain.environment import of_serving

_LONGEST_PAUSE = 5.0


class EnvoyProcess:
    """Keeps one Envoy running."""

    def __init__(self, state: State, environment: Mapping[str, str], router: Router | None) -> None:
        """Take over a running Envoy."""
        self._state = state
        self._environment = of_serving(environment)
        self.router = router
        self._child: Child | None = None
        self._was_live = False
        self._failures = 0
        self._next_start = 0.0
        self._drained_until: float | None = None

    def step(self, wanted: Wanted) -> None:
        """Start Envoy if it does not run; stop it if it listens on another port.

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
            self._start(wanted.port, is_encrypted=wanted.tls is not None)

    def retry(self) -> None:
        """Start a failed Envoy without back-off, because the cause may be fixed."""
        self._failures = 0
        self._next_start = 0.0

    def let_go(self) -> None:
        """Let the waiting process execute Envoy, because its pid is recorded now."""
        if self._child:
            self._child.let_go()

    def _is_alive(self) -> bool:
        if self._child:
            return self._child.is_alive()
        return self.router is not None and processes.is_alive(self.router.process)

    def _attend(self, router: Router, wanted: Wanted) -> None:
        if router.draining:
            self._drain(router, wanted)
        elif not _is_as(router, wanted):
            self._move(router, wanted.port)
        elif self._was_live or admin.is_live(router.admin):
            self._was_live = True
            self._failures = 0
            self._set_problem("")

    def _move(self, router: Router, port: int) -> None:
        """Start to drain Envoy, so that the next one starts on the new port, if that is free.

        This is recorded before Envoy stops listening, for a supervisor that takes over.
        """
        if port != router.port and (obstacle := loopback.obstacle(port)):
            self._set_problem(obstacle)
        else:
            self.router = msgspec.structs.replace(router, problem="", draining=True)

    def _drain(self, router: Router, wanted: Wanted) -> None:
        """Stop Envoy when it has no requests left, or after the time for them."""
        if self._drained_until is None:
            self._drained_until = time.monotonic() + shutdown.patience(wanted)
            admin.stop_listening(router.admin)
        is_late = time.monotonic() >= self._drained_until
        if router.process and (is_late or not admin.active_requests(router.admin)):
            processes.send(router.process, signal.SIGTERM)

    def _note_death(self, router: Router, wanted: Wanted) -> None:
        """Schedule a restart; with back-off and a recorded problem only if it did not start."""
        problem = ""
        if self._child and not self._was_live and not self._was_asked(router, wanted):
            self._failures += 1
            problem = self._child.last_lines(3) or f"it exited with code {self._child.code}"
        self._was_live = False
        self._drained_until = None
        self._child = None
        admin.remove(router.admin)
        self._wait()
        self.router = msgspec.structs.replace(router, process=None, problem=problem, draining=False)

    def _was_asked(self, router: Router, wanted: Wanted) -> bool:
        """Return whether Envoy was stopped on request, perhaps of an earlier supervisor."""
        code = self._child.code if self._child else 0
        return router.draining or not _is_as(router, wanted) or code in (0, -signal.SIGTERM)

    def _set_problem(self, problem: str) -> None:
        if self.router and self.router.problem != problem:
            self.router = msgspec.structs.replace(self.router, problem=problem)

    def _wait(self) -> None:
        pause = 0.0 if not self._failures else min(0.1 * 2**self._failures, _LONGEST_PAUSE)
        self._next_start = time.monotonic() + pause

    def _start(self, port: int, *, is_encrypted: bool) -> None:
        before = self.router
        if obstacle := loopback.obstacle(port):
            self._failures += 1
            self._wait()
            self.router = Router(process=None, port=port, admin="", problem=obstacle)
            return
        own = admin.socket_in(self._state.envoy)
        bootstrap = envoy.bootstrap(self._state, port, own, is_encrypted=is_encrypted)
        write(self._state.bootstrap, bootstrap)
        command = envoy.command(envoy.program(), self._state)
        self._child = Child(command, self._state.log("envoy"), self._environment)
        problem = before.problem if before else ""
        self.router = Router(
            process=self._child.process,
            port=port,
            admin=own,
            problem=problem,
            is_encrypted=is_encrypted,
        )


def _is_as(router: Router, wanted: Wanted) -> bool:
    """Return whether Envoy listens as it should: on the port, with or without encryption."""
    return router.port == wanted.port and router.is_encrypted == (wanted.tls is not None)


class Published:
    """The clusters and endpoints in Envoy's files, which are written only when they change."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._written: dict[str, bytes] = {}
        self._settled: tuple[dict[Slot, tuple[Replica, ...]], Split, bool] | None = None

    def step(
        self, serving: Mapping[Slot, Iterable[Replica]], split: Split, *, checked: bool
    ) -> None:
        """Write the changed files: endpoints before the clusters that refer to them.

        Args:
            serving: the replicas of each slot.
            split: its slots answer for a slot without a healthy replica.
            checked: whether only ready replicas get traffic.

        Raises:
            UnavailableError: a file cannot be written; the next step tries again.
        """
        # To compose the files and their digests is most of the work of an idle supervisor.
        by_slot = {slot: tuple(replicas) for slot, replicas in serving.items()}
        wanted = by_slot, split, checked
        if wanted == self._settled:
            return
        self._settled = None
        names = set()
        for slot, replicas in by_slot.items():
            others = [by_slot.get(other, ()) for other in routes.others(split, slot)]
            own = f"{slot}{routes.OWN}"
            names |= {self._state.endpoints(name).name for name in (slot, own)}
            self._put(self._state.endpoints(slot), envoy.endpoints(slot, replicas, *others))
            self._put(self._state.endpoints(own), envoy.endpoints(own, replicas))
        clusters = envoy.clusters(self._state, by_slot, checked=checked)
        if not self._put(self._state.clusters, clusters):
            self._forget(names)
            self._settled = wanted

    def _put(self, path: Path, data: bytes) -> bool:
        if self._written.get(path.name) == data:
            return False
        write(path, data)
        self._written[path.name] = data
        return True

    def _forget(self, current: set[str]) -> None:
        """Remove the endpoints of removed slots, one step after their clusters."""
        stale = {name for name in self._written if name.startswith("endpoints-")} - current
        for name in stale:
            (self._state.envoy / name).unlink(missing_ok=True)
            del self._written[name]
