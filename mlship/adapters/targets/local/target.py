"""LocalTarget: writes the desired state, waits until it is reached, and observes."""

import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from mlship.adapters.targets.local import (
    admin,
    envoy,
    loopback,
    observation,
    routing,
    shutdown,
    supervision,
)
from mlship.adapters.targets.local.processes import is_alive
from mlship.adapters.targets.local.readiness import Readiness
from mlship.adapters.targets.local.state import Logging, Placement, Safeguards, State, Tls, Wanted
from mlship.config import amounts
from mlship.config.project import TargetConfig
from mlship.domain import api_keys, tls
from mlship.domain.counts import Look
from mlship.domain.deployment import Artifact, Deployment, Revision, Route, Slot, Split
from mlship.domain.ports import Progress
from mlship.domain.release import Release
from mlship.errors import (
    ConfigError,
    ConflictError,
    MlshipError,
    NotFoundError,
    TimedOutError,
    UnavailableError,
)

_APPLY_SECONDS = 15.0
_END_SECONDS = 15.0
_ALL = Safeguards()
RUNTIME = (sys.executable, "-P", "-m", "mlship.runtime")


class LocalTarget:
    """Runs replicas of bundles as processes on this machine, behind Envoy: `ports.Target`."""

    def __init__(
        self,
        name: str,
        folder: Path,
        config: TargetConfig,
        logs: Logging,
        progress: Progress,
        safeguards: Safeguards = _ALL,
        *,
        runtime: Sequence[str] = RUNTIME,
    ) -> None:
        """Store the settings; nothing is read, written or started.

        Args:
            name: of the target, as in mlship.yaml.
            folder: the folder of the target's state, `.mlship/targets/<name>`.
            config: its section of mlship.yaml.
            logs: how replicas log predictions.
            progress: receives the number of ready replicas.
            safeguards: all enabled, except in control runs.
            runtime: the command that serves a bundle, before its options.
        """
        self._name = name
        self._state = State(folder.absolute())
        self._config = config
        self._logs = logs
        self._progress = progress
        self._safeguards = safeguards
        self._runtime = tuple(runtime)

    def deploy(
        self, release: Release, artifact: Artifact, slot: Slot, *, replicas: int
    ) -> Deployment:
        """Run replicas in a slot; return when all are ready and Envoy routes to them.

        Raises:
            ConflictError: the slot holds another artifact.
            ConfigError: replicas must start, and the file of API keys cannot be read; or clients
                would refuse the certificate, and the router has no former one.
            TimedOutError: they were not ready within `ready_seconds`.
            ProjectError: they keep exiting; the message has the end of their log.
            UnavailableError: Envoy is not installed, or the port is in use.
        """
        if artifact.kind != "bundle":
            message = f"target {self._name} of kind local runs bundles, not an {artifact.kind}"
            raise ConfigError(message, hint="deploy a bundle, or choose another kind of target")
        if replicas < 1:
            message = f"target {self._name}: replicas is {replicas}"
            raise ConfigError(message, hint="set replicas to 1 or more")
        envoy.program()
        placement = Placement(
            bundle=str(Path(artifact.location).absolute()),
            artifact=artifact.digest,
            release=release.id,
            name=str(release),
            replicas=replicas,
            workers=self._config.workers,
            timeout=self._config.timeout_seconds,
            cache_rows=self._config.cache_rows,
        )
        with self._state.changing():
            former = self._state.wanted()
            before = former.slots.get(slot) if former else None
            self._check_artifact(slot, before, placement)
            wanted = _with(self._settings(former), slot, placement)
            self._check_keys(slot, wanted)
            self._check_certificate(former, wanted)
            routing.ensure(self._state)
            self._state.want(wanted)
        seconds = self._config.ready_seconds
        try:
            Readiness(self._state, slot, wanted, progress=self._progress, seconds=seconds).wait()
        except MlshipError:
            # The first error is the cause; an error while undoing must not hide it.
            with suppress(MlshipError):
                self._restore(slot, wanted, former)
            raise
        return self.inspect()[slot]

    def inspect(self) -> Mapping[Slot, Deployment]:
        """Return the observed state of each slot, by querying each replica. Starts nothing."""
        wanted = self._state.wanted()
        if wanted is None:
            return {}
        supervised = supervision.runs(self._state)
        return observation.deployments(wanted, self._state.running(), supervised=supervised)

    def route(self, split: Split, *, expected: Revision) -> Revision:
        """Set the split by compare-and-set; return when Envoy applies it.

        Raises:
            ConflictError: the route is not at the expected revision; it is unchanged.
            NotFoundError: the split names a slot without a ready replica.
            UnavailableError: the route is written, but Envoy does not apply it.
        """
        with self._state.changing():
            current = routing.read(self._state)
            if current.revision != expected:
                message = (
                    f"the route of {self._name} is at revision {current.revision}, not {expected}"
                )
                raise ConflictError(
                    message, hint="check `mlship status`, then run the command again"
                )
            self._check_ready(split)
            revision = routing.change(self._state, split, self._config.sticky_header)
        self._wait_applied()
        return revision

    def routes(self) -> Route:
        """Return the split in the route's file; the endpoint is empty before the first deploy."""
        written = routing.read(self._state)
        wanted = self._state.wanted()
        scheme = "https" if wanted and wanted.tls else "http"
        endpoint = f"{scheme}://{loopback.HOST}:{wanted.port}" if wanted else ""
        return Route(split=written.split, revision=written.revision, endpoint=endpoint)

    def remove(self, slot: Slot) -> None:
        """Drain and stop a slot. If the slot does not exist, do nothing.

        Raises:
            ConflictError: the route still sends it requests, or copies of them.
            TimedOutError: its replicas do not exit.
        """
        if self._state.wanted() is None:
            return
        with self._state.changing():
            split = routing.read(self._state).split
            if split.share(slot) or split.shadow == slot:
                message = f"slot {slot} of {self._name} still gets traffic"
                raise ConflictError(message, hint="route its traffic to another slot first")
            wanted = self._state.wanted()
            placement = wanted.slots.get(slot) if wanted else None
            if wanted is None or placement is None:
                return
            empty = msgspec.structs.replace(placement, replicas=0)
            changed = msgspec.structs.replace(
                wanted, drain_seconds=self._config.drain_seconds, safeguards=self._safeguards
            )
            self._state.want(_with(changed, slot, empty))
        if not wanted.stopped:
            self._await_end(slot)
        self._forget(slot)

    def counts(self) -> Look:
        """Return what Envoy has counted of requests, by slot: the port Counted."""
        router = self._state.running().router
        try:
            if router is not None and router.process is not None:
                process = router.process
                name = f"{process.pid} since {process.started}"
                return {name: admin.counts(router.admin)}
        except msgspec.DecodeError:
            pass
        message = f"the router of {self._name} does not say what it has counted"
        raise UnavailableError(message, hint=f"see {self._state.log('envoy')}")

    def down(self) -> tuple[str, ...]:
        """Stop replicas, router and supervisor; return what was stopped, for people.

        The desired state and the route are kept: the next `deploy` starts all slots again.
        """
        if self._state.wanted() is None:
            return ()
        # Held until everything has stopped, so that a concurrent deploy comes before or after.
        with self._state.changing():
            wanted = self._state.wanted()
            if wanted is None:
                return ()
            self._state.want(msgspec.structs.replace(wanted, stopped=True))
            supervised = supervision.runs(self._state)
            before = supervision.stop(self._state, seconds=shutdown.patience(wanted))
        return observation.stopped(before, supervised=supervised)

    def _settings(self, former: Wanted | None) -> Wanted:
        """Return the desired state with this target's settings, not stopped."""
        return Wanted(
            port=self._port(former.port if former else 0),
            generation=(former.generation if former else 0) + 1,
            stopped=False,
            log=self._logs.place,
            spool=self._logs.spool,
            columns=self._logs.columns,
            program=self._runtime,
            drain_seconds=self._config.drain_seconds,
            memory=amounts.bytes_of(self._config.memory) if self._config.memory else None,
            api_keys=self._config.api_keys,
            access_log=self._config.access_log == "json",
            tls=msgspec.convert(self._config.tls, Tls | None, from_attributes=True),
            safeguards=self._safeguards,
            slots=former.slots if former else {},
        )

    def _port(self, kept: int) -> int:
        """Return the router's port: the configured one, else the one chosen earlier."""
        port = self._config.port or kept
        if not port:
            return loopback.free_port(loopback.start_of(str(self._state.folder)), ())
        router = self._state.running().router
        # It need not respond: a router that starts or stops also holds the port.
        is_ours = router is not None and router.port == port and is_alive(router.process)
        if not is_ours and (obstacle := loopback.obstacle(port)):
            other = f"set targets.{self._name}.port to another port"
            hint = f"stop that program, or {other}" if "in use" in obstacle else other
            raise UnavailableError(obstacle, hint=hint)
        return port

    def _check_artifact(self, slot: Slot, before: Placement | None, after: Placement) -> None:
        if before and before.replicas and before.artifact != after.artifact:
            message = f"slot {slot} of {self._name} holds {before.artifact}, not {after.artifact}"
            raise ConflictError(message, hint="a slot runs one artifact: remove it first")

    def _check_keys(self, slot: Slot, wanted: Wanted) -> None:
        """Check the file of API keys; replicas that run keep the former ones, which is noted.

        A damaged file must not refuse a rollback to a slot that runs.

        Raises:
            ConfigError: the file cannot be read, and replicas must start with it.
        """
        if wanted.api_keys is None:
            return
        try:
            api_keys.read(Path(wanted.api_keys))
        except ConfigError as error:
            running = [
                item
                for item in self._state.running().replicas
                if item.slot == slot and item.is_current(wanted) and is_alive(item.process)
            ]
            if len(running) < wanted.slots[slot].replicas:
                raise
            self._progress.note(f"{slot}: the former API keys stay: {error.message}")

    def _check_certificate(self, former: Wanted | None, wanted: Wanted) -> None:
        """Check the certificate; a router that runs keeps the former one, which is noted.

        Raises:
            ConfigError: clients would refuse it, and the router has no former one.
        """
        if wanted.tls is None:
            return
        try:
            tls.check(Path(wanted.tls.certificate), Path(wanted.tls.key))
        except ConfigError as error:
            is_kept = former is not None and former.tls is not None and not former.stopped
            if not (is_kept and self._state.certificate.exists()):
                raise
            self._progress.note(f"the former certificate stays: {error.message}")

    def _check_ready(self, split: Split) -> None:
        needed = {slot for slot, weight in split.weights.items() if weight}
        needed |= {split.shadow} if split.shadow is not None else set()
        deployments = self.inspect()
        for slot in sorted(needed):
            deployment = deployments.get(slot)
            if deployment is None or not (deployment.ready or not self._safeguards.readiness):
                message = f"slot {slot} of {self._name} has no ready replica"
                raise NotFoundError(message, hint="deploy its release, then set the traffic again")

    def _restore(self, slot: Slot, failed: Wanted, before: Wanted | None) -> None:
        """Undo a failed deploy: restore the port and the slot."""
        placement = before.slots.get(slot) if before else None
        with self._state.changing():
            wanted = self._state.wanted()
            if wanted and before and wanted.generation == failed.generation:
                wanted = msgspec.structs.replace(wanted, port=before.port)
            if wanted and placement and placement.replicas:
                wanted = _with(wanted, slot, placement)
            if wanted and before:
                self._state.want(wanted)
        if placement is None or not placement.replicas:
            self.remove(slot)

    def _await_end(self, slot: Slot) -> None:
        """Wait until no replica of a slot is left."""

        def is_empty() -> bool:
            supervision.start(self._state)
            return all(item.slot != slot for item in self._state.running().replicas)

        supervision.until(
            is_empty,
            seconds=2 * self._config.drain_seconds + _END_SECONDS,
            what=f"stopping slot {slot} of {self._name}",
        )

    def _forget(self, slot: Slot) -> None:
        with self._state.changing():
            wanted = self._state.wanted()
            placement = wanted.slots.get(slot) if wanted else None
            if wanted and placement and not placement.replicas:
                self._state.want(_with(wanted, slot, None))

    def _wait_applied(self) -> None:
        """Wait until Envoy applies the route in the file, unless the target is stopped."""
        wanted = self._state.wanted()
        if wanted is None or wanted.stopped:
            return

        def applied() -> bool:
            supervision.start(self._state)
            router = self._state.running().router
            written = routing.read(self._state).revision
            return router is not None and admin.revision(router.admin) == written

        try:
            supervision.until(applied, seconds=_APPLY_SECONDS, what="route")
        except TimedOutError as error:
            log = self._state.log("envoy")
            message = f"the route of {self._name} is written, but Envoy does not apply it"
            raise UnavailableError(
                message, hint=f"see {log}, then run the command again"
            ) from error


def _with(wanted: Wanted, slot: Slot, placement: Placement | None) -> Wanted:
    slots = {name: item for name, item in wanted.slots.items() if name != slot}
    if placement is not None:
        slots[slot] = placement
    return msgspec.structs.replace(wanted, slots=slots)
