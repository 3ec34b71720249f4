"""The route of a target at Google's load balancer: the methods of `kubernetes.parents.Traffic`.

A new slot is written without a share first. Google then programs its proxies and checks the pods by
itself; the share follows when it finds one healthy.
"""

import time
from collections.abc import Mapping
from typing import Final

from mlship.adapters.targets.google import url_map
from mlship.adapters.targets.google.compute import Compute, Resource
from mlship.adapters.targets.google.services import Services
from mlship.adapters.targets.kubernetes import applied, difference, revisions, routing
from mlship.adapters.targets.kubernetes.applied import Asked
from mlship.adapters.targets.kubernetes.manifests import Scope
from mlship.adapters.targets.kubernetes.parents import MadeByOthers
from mlship.adapters.targets.kubernetes.routing import Placed, Written
from mlship.config.project import TargetConfig
from mlship.domain.deployment import Change, Revision, Route, Slot, Split
from mlship.domain.drift import Altered
from mlship.errors import ConflictError, IntegrityError, NotFoundError, UnavailableError

_AGREEING: Final = 20
"""Answers in a row: a load balancer has many proxies, and a machine reaches the near ones."""
_APPLIED_SECONDS: Final = 600.0
_SETTLE_SECONDS: Final = 60.0
_HEALTHY_SECONDS: Final = 300.0
_PAUSE: Final = 2.0
_TURNS: Final = 3


class Traffic(MadeByOthers):
    """The path matcher of one target, and the backend services that it leads to."""

    def __init__(
        self,
        compute: Compute,
        scope: Scope,
        config: TargetConfig,
        places: Mapping[Slot, Placed] | None = None,
    ) -> None:
        """Store what is needed; nothing is requested.

        Args:
            compute: the API, of the load balancer's project.
            scope: of the target.
            config: of the target.
            places: where slots were observed.
        """
        self._compute = compute
        self._scope = scope
        self._config = config
        self._settings = url_map.balancer_of(config)
        self._places = places or {}
        self._services = Services(compute, scope, config)

    def check(self) -> None:
        """Check that the route may be changed, before a deployment.

        Raises:
            NotFoundError: there is no URL map of that name.
            ConflictError: the route is another project's.
            IntegrityError: it is not a route that mlship wrote.
        """
        self.read()

    def close(self) -> None:
        """Remove what mlship made for a target in which nothing runs."""
        slots = self.read().slots
        self._vanish()
        # Of a cluster that is not in mlship.yaml any more, slots may be left in the route.
        for slot in sorted(slots):
            self._services.remove(slot)
        self._services.close()

    def read(self) -> Written:
        """Return the route as it is written; before the first, one without weights.

        Raises:
            NotFoundError: there is no URL map of that name.
            IntegrityError: it is not a route that mlship wrote.
            ConflictError: it is another project's.
        """
        return url_map.read(self._scope, self._url_map())

    def route(self) -> Route:
        """Return the split, its revision, and the endpoint for requests."""
        written = self.read()
        return Route(split=written.split, revision=written.revision, endpoint=self.endpoint())

    def endpoint(self) -> str:
        """Return the address for clients, as the settings have it."""
        return f"{self._settings.address}{self._config.kubernetes.path.rstrip('/')}"

    def change(self, split: Split, expected: Revision, *, running: frozenset[Slot]) -> Revision:
        """Write a split if the route is at the expected revision; return when it is applied.

        Args:
            split: the new split.
            expected: the revision that it replaces.
            running: the existing slots; no other one stays parked.

        Raises:
            ConflictError: the route is at another revision and unchanged.
            NotFoundError: GKE has made no network endpoint group for a slot.
            UnavailableError: Google finds no pod of a new slot healthy: the route is as before; or
                the route is written, but the proxies do not apply it.
        """
        before = self.read()
        self._check_revision(before, expected)
        unknown = split.slots - before.slots
        self._settle(before)
        if unknown:
            written = self._write(expected, before.split, before.parked | unknown)
            expected = self._healthy(written, unknown, before)
        written = self._write(expected, split, (before.slots | unknown) & running)
        self._services.settle_all(written.split, written.slots, written.places)
        if split.weights:
            self._apply(written)
        return written.revision

    def reaches(self, slot: Slot) -> bool | None:
        """Return whether Google finds a pod of a slot healthy; `None` if it does not know yet."""
        place = self.read().places.get(slot)
        return None if place is None else self._services.is_healthy(slot, place)

    def planned(self, split: Split, *, running: frozenset[Slot]) -> list[Change]:
        """Return what `change` would write. Nothing is written."""
        current = self._url_map()
        before = url_map.read(self._scope, current)
        parked = (before.slots | split.slots) & running
        after = url_map.shown(self._scope, self._written(current, split, parked))
        return difference.of(self._compute.cluster, url_map.shown(self._scope, current), after)

    def forget(self, slot: Slot) -> None:
        """Remove a slot without traffic from the route, and its backend service.

        Raises:
            ConflictError: it has traffic, or a copy of it.
        """
        current = self.read()
        rest = routing.forgotten(self._scope, current, slot)
        if rest is not None:
            self._write(current.revision, *rest)
        # After a removal that was killed, the service may be left.
        self._services.remove(slot)

    def altered(self, cluster: str) -> list[Altered]:
        """Return whether the route can be read; its split is compared elsewhere."""
        del cluster
        try:
            self.read()
        except IntegrityError:
            name = f"URL map {self._settings.url_map}"
            return [Altered(object=name, text="was edited, and mlship cannot read it")]
        return []

    def adopt(self) -> None:
        """Do nothing: the commands of the guide make the load balancer."""

    def rewrite(self, split: Split) -> None:
        """Write a split, if what is there can be read.

        Raises:
            IntegrityError: it cannot; the URL map is of others too.
        """
        self.change(split, self.read().revision, running=split.slots)

    def _url_map(self) -> Resource:
        name = self._settings.url_map
        found = self._compute.get("urlMaps", name)
        if found is None:
            message = f"{self._compute.cluster} has no URL map {name}"
            hint = "make it with the commands of `mlship guide clusters`, or correct "
            hint += f"targets.{self._scope.target}.load_balancer.url_map"
            raise NotFoundError(message, hint=hint)
        return found

    def _check_revision(self, before: Written, expected: Revision) -> None:
        """Refuse before anything is made for slots that another command may have removed."""
        if before.revision != expected:
            raise revisions.conflict(self._scope, before.revision, expected)

    def _settle(self, before: Written) -> None:
        """Make or correct the services of observed slots: a new Service has another NEG."""
        stale = {
            slot: place for slot, place in self._places.items() if before.places.get(slot) != place
        }
        if stale:
            self._services.prepare()
        for slot, place in stale.items():
            self._services.settle(slot, place)

    def _healthy(self, written: Written, slots: frozenset[Slot], before: Written) -> Revision:
        """Wait until Google finds a pod of each new slot healthy, before they get a share.

        Raises:
            UnavailableError: it does not; the route is as before.
        """
        end = time.monotonic() + _HEALTHY_SECONDS
        for slot in sorted(slots & frozenset(written.places)):
            place = written.places[slot]
            while not self._services.is_healthy(slot, place):
                if time.monotonic() >= end:
                    self._write(written.revision, before.split, before.parked)
                    message = f"Google finds no pod of {slot} in cluster {place.cluster} healthy "
                    message += f"after {_HEALTHY_SECONDS:g} s"
                    hint = "allow its health checks by the firewall rule of `mlship guide clusters`"
                    hint += "; `gcloud compute backend-services get-health "
                    hint += f"{self._scope.object(slot)} --global` shows each pod"
                    raise UnavailableError(message, hint=hint)
                time.sleep(_PAUSE)
        return written.revision

    def _written(self, current: Resource, split: Split, parked: frozenset[Slot]) -> Resource:
        slots = url_map.read(self._scope, current).slots | split.slots | parked
        return url_map.written(
            self._scope,
            self._config,
            current,
            split,
            parked,
            self._places,
            services={slot: self._services.link(slot) for slot in slots},
            fence=self._compute.number,
        )

    def _write(self, expected: Revision, split: Split, parked: frozenset[Slot]) -> Written:
        """Write the route by compare-and-set, unless it stays as it is."""

        def put(current: Written) -> Written:
            before = current.manifest or {}
            after = self._written(before, split, parked)
            if after is before:
                return current
            self._compute.update("urlMaps", after)
            return url_map.read(self._scope, after)

        return revisions.compare_and_set(self._scope, expected, self.read, put)

    def _vanish(self) -> None:
        """Remove the target from the URL map by compare-and-set, whatever its revision is."""
        for turn in range(_TURNS):
            before = self._url_map()
            after = url_map.removed(self._scope, before)
            if after is before:
                return
            try:
                self._compute.update("urlMaps", after)
            except ConflictError:
                if turn == _TURNS - 1:
                    raise
            else:
                return

    def _apply(self, written: Written) -> None:
        """Wait until the answers of the load balancer name the route."""
        name = self._settings.url_map
        hint = "a change takes seconds to minutes to reach all proxies of Google: run it again; "
        hint += f"`gcloud compute url-maps describe {name} --global` shows what is written"
        asked = Asked(
            url=self.endpoint(),
            agreeing=_AGREEING,
            settle_seconds=_SETTLE_SECONDS,
            seconds=_APPLIED_SECONDS,
            # A new load balancer answers without a name for minutes.
            unnamed_seconds=_APPLIED_SECONDS,
            hint=hint,
        )
        applied.wait(asked, written.name)
