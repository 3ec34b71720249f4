r"""The supervisor's code for replicas: a state machine for each of them.

starting -> ready -> draining -> stopping -> (removed)
    \-------/\-> crashed -> starting          on another port, with back-off
"""

import os
import signal
import time
from collections.abc import Iterable, Mapping
from typing import assert_never

import msgspec

from mlship.adapters.targets.local import loopback, probe, processes
from mlship.adapters.targets.local.admin import Host
from mlship.adapters.targets.local.processes import Child, Process
from mlship.adapters.targets.local.state import Phase, Placement, Replica, State, Wanted
from mlship.domain.deployment import Slot
from mlship.domain.environment import of_serving, of_traces

_PROBE_SECONDS = 0.3
_STEADY_SECONDS = 2.0
_IDLE_SECONDS = 0.1
_GRACE_SECONDS = 2.0
_LONGEST_PAUSE = 10.0

_Key = tuple[Slot, int]
Hosts = Mapping[tuple[str, int], Host] | None
"""Envoy's hosts by cluster and port; `None` if Envoy does not run, empty without a response."""


class Replicas:
    """Keeps the wanted number of replicas in each slot."""

    def __init__(
        self, state: State, environment: Mapping[str, str], running: Iterable[Replica]
    ) -> None:
        """Take over the running replicas; a replica that has exited counts as crashed."""
        self._state = state
        self._environment = environment
        self._known: dict[_Key, Replica] = {(each.slot, each.number): each for each in running}
        now = time.monotonic()
        self._since: dict[_Key, float] = dict.fromkeys(self._known, now)
        self._busy: dict[_Key, float] = {}
        self._children: dict[int, Child] = {}
        self._port = loopback.start_of(f"{state.folder} replicas")

    @property
    def known(self) -> tuple[Replica, ...]:
        """The current replicas, by slot and number."""
        return tuple(self._known[key] for key in sorted(self._known))

    def step(self, wanted: Wanted, hosts: Hosts) -> None:
        """Advance every replica, by its observed and its desired state.

        Raises:
            OSError: a process cannot be started now; the next step tries again.
        """
        for key in list(self._known):
            self._advance(key, wanted, hosts)
        for slot in {*wanted.slots, *(slot for slot, _ in self._known)}:
            self._fit(slot, wanted, hosts)

    def awaits_envoy(self, wanted: Wanted) -> bool:
        """Return whether the next step needs Envoy's hosts: a replica drains or is replaced."""
        return any(
            each.phase == "draining" or not each.is_current(wanted) for each in self._known.values()
        )

    def retry(self) -> None:
        """Restart failed replicas without back-off, because the cause may be fixed."""
        for key, replica in list(self._known.items()):
            if replica.phase == "failed":
                processes.send(replica.process, signal.SIGTERM)
                self._enter(key, "stopping")
            else:
                self._known[key] = msgspec.structs.replace(replica, crashes=0)

    def let_go(self) -> None:
        """Let waiting processes execute their commands, because their pids are recorded now."""
        for child in self._children.values():
            child.let_go()

    def _advance(self, key: _Key, wanted: Wanted, hosts: Hosts) -> None:
        replica = self._known[key]
        placement = wanted.slots.get(replica.slot)
        match replica.phase:
            case "starting" | "ready" | "failed":
                if not self._is_alive(replica.process):
                    self._crash(key)
                elif replica.phase == "starting" and placement:
                    self._ask(key, placement)
            case "crashed":
                if placement and self._age(key) >= _pause(replica.crashes):
                    self._start(key, placement, wanted)
            case "draining":
                self._drain(key, wanted.drain_seconds, hosts)
            case "stopping":
                self._stop(key, wanted.drain_seconds)
            case _:
                assert_never(replica.phase)

    def _fit(self, slot: Slot, wanted: Wanted, hosts: Hosts) -> None:
        placement = wanted.slots.get(slot)
        count = placement.replicas if placement else 0
        staying = [
            key
            for key, replica in self._known.items()
            if replica.slot == slot and replica.phase not in ("draining", "stopping")
        ]
        fresh = [key for key in staying if self._known[key].is_current(wanted)]
        # Keep ready replicas first, and of these the lowest numbers.
        fresh.sort(key=lambda key: (self._known[key].phase != "ready", key))
        taking = [key for key in fresh if _takes_requests(self._known[key], hosts)]
        former = [key for key in staying if key not in fresh]
        # Those with other settings stay until others have taken their place.
        for key in [*fresh[count:], *(former if len(taking) >= count else ())]:
            self._release(key, at_once=not wanted.safeguards.draining)
        for _ in range(count - len(fresh)):
            number = next(n for n in range(1, len(self._known) + 2) if (slot, n) not in self._known)
            if placement:
                self._start((slot, number), placement, wanted)

    def _start(self, key: _Key, placement: Placement, wanted: Wanted) -> None:
        taken = {wanted.port}
        taken.update(port for each in self._known.values() for port in (each.port, each.metrics))
        port = loopback.free_port(self._port, taken)
        self._port = loopback.free_port(port, taken)
        slot, number = key
        command = _command(slot, (port, self._port), placement, wanted)
        variables = of_serving(
            self._environment, wanted.log, hashes="hash" in wanted.columns.values()
        )
        variables |= of_traces(self._environment)
        variables["PYTHONDONTWRITEBYTECODE"] = "1"
        log = self._state.log(f"{slot}-{number}")
        child = Child(command, log, variables, memory=wanted.memory)
        self._children[child.process.pid] = child
        before = self._known.get(key)
        self._known[key] = Replica(
            slot=slot,
            number=number,
            process=child.process,
            port=port,
            metrics=self._port,
            api_keys=wanted.api_keys,
            workers=placement.workers,
            timeout=placement.timeout,
            cache_rows=placement.cache_rows,
            phase="starting",
            crashes=before.crashes if before else 0,
        )
        self._since[key] = time.monotonic()

    def _ask(self, key: _Key, placement: Placement) -> None:
        answer = probe.ask(self._known[key].port, seconds=_PROBE_SECONDS)
        if answer is None or answer.release != placement.release:
            return
        if answer.ready:
            self._enter(key, "ready")
        elif answer.state == "failed":
            self._enter(key, "failed", problem=answer.problem)

    def _crash(self, key: _Key) -> None:
        replica = self._known[key]
        child = self._children.get(replica.process.pid)
        was_steady = replica.phase == "ready" and self._age(key) >= _STEADY_SECONDS
        self._sweep(replica.process)
        count = 1 if was_steady else replica.crashes + 1
        self._enter(key, "crashed", crashes=count, code=child.code if child else 0)

    def _release(self, key: _Key, *, at_once: bool) -> None:
        replica = self._known[key]
        if replica.phase == "crashed":
            self._forget(key)
        elif at_once:
            processes.send(replica.process, signal.SIGKILL)
            self._enter(key, "stopping")
        else:
            self._enter(key, "draining")
            self._busy[key] = time.monotonic()

    def _drain(self, key: _Key, seconds: float, hosts: Hosts) -> None:
        replica = self._known[key]
        if not self._is_alive(replica.process):
            self._forget(key)
            return
        now = time.monotonic()
        if hosts is not None and not _is_idle(hosts, replica.port):
            self._busy[key] = now
        idle = now - self._busy.get(key, now) >= _IDLE_SECONDS
        if idle or self._age(key) >= seconds:
            processes.send(replica.process, signal.SIGTERM)
            self._enter(key, "stopping")

    def _stop(self, key: _Key, seconds: float) -> None:
        process = self._known[key].process
        if not self._is_alive(process):
            self._forget(key)
        elif self._age(key) >= seconds + _GRACE_SECONDS:
            processes.send(process, signal.SIGKILL)

    def _forget(self, key: _Key) -> None:
        self._sweep(self._known.pop(key).process)
        self._since.pop(key, None)
        self._busy.pop(key, None)

    def _sweep(self, process: Process) -> None:
        """Kill the remaining processes in the group of a dead replica, such as its workers."""
        # Only for children of this supervisor, whose pids are not reused so soon.
        if self._children.pop(process.pid, None) is not None:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                return

    def _enter(self, key: _Key, phase: Phase, **facts: int | str) -> None:
        self._known[key] = msgspec.structs.replace(self._known[key], phase=phase, **facts)
        self._since[key] = time.monotonic()

    def _age(self, key: _Key) -> float:
        return time.monotonic() - self._since[key]

    def _is_alive(self, process: Process) -> bool:
        child = self._children.get(process.pid)
        return child.is_alive() if child else processes.is_alive(process)


def _takes_requests(replica: Replica, hosts: Hosts) -> bool:
    """Return whether a replica is ready, and Envoy knows it: Envoy has its own check of health."""
    if replica.phase != "ready" or hosts is None:
        return replica.phase == "ready"
    host = hosts.get((replica.slot, replica.port))
    return host is not None and host.healthy


def _is_idle(hosts: Mapping[tuple[str, int], Host], port: int) -> bool:
    """Return whether Envoy drains a replica and has no active requests to it, in any cluster."""
    own = [host for (_, other), host in hosts.items() if other == port]
    return bool(hosts) and all(host.draining and host.active == 0 for host in own)


def serving(replicas: Iterable[Replica], wanted: Wanted) -> dict[Slot, list[Replica]]:
    """Return the replicas that Envoy should have, for every slot, including draining ones."""
    phases: tuple[Phase, ...] = ("ready", "draining")
    if not wanted.safeguards.readiness:
        phases = ("starting", *phases)
    by_slot: dict[Slot, list[Replica]] = {slot: [] for slot in wanted.slots}
    for replica in replicas:
        if replica.phase in phases:
            by_slot.setdefault(replica.slot, []).append(replica)
    return by_slot


def _pause(crashes: int) -> float:
    """Return the back-off before the next start, in seconds; 0 after the first crash."""
    return 0.0 if crashes <= 1 else min(0.25 * 2 ** (crashes - 2), _LONGEST_PAUSE)


def discovery(target: str, replicas: Iterable[Replica]) -> bytes:
    """Return where the metrics of replicas are, as `file_sd_configs` of Prometheus reads it."""
    places = [
        {
            "targets": [f"{loopback.HOST}:{replica.metrics}"],
            "labels": {"target": target, "replica": f"{replica.slot}-{replica.number}"},
        }
        for replica in replicas
        if replica.metrics
    ]
    return msgspec.json.format(msgspec.json.encode(places))


def _command(slot: Slot, ports: tuple[int, int], placement: Placement, wanted: Wanted) -> list[str]:
    """Return the command of a replica; the ports are those of requests and of metrics."""
    port, metrics = ports
    options = {
        "--bundle": placement.bundle,
        "--digest": placement.artifact,
        "--release": placement.release,
        "--name-of-release": placement.name,
        "--slot": slot,
        "--host": loopback.HOST,
        "--port": str(port),
        "--metrics-port": str(metrics),
        "--log": wanted.log,
        "--shutdown-seconds": f"{wanted.drain_seconds:g}",
        "--workers": str(placement.workers),
        "--timeout": f"{placement.timeout:g}",
    }
    if placement.cache_rows:
        options["--cache-rows"] = str(placement.cache_rows)
    if wanted.spool:
        options["--spool"] = wanted.spool.folder
        options["--spool-mb"] = str(wanted.spool.max_mb)
    if wanted.api_keys is not None:
        options["--api-keys"] = wanted.api_keys
    if wanted.columns:
        options["--log-columns"] = msgspec.json.encode(wanted.columns).decode()
    if wanted.access_log:
        options["--access-log"] = "json"
    flat = [text for option in options.items() for text in option]
    return [*wanted.program, "serve", *flat]
