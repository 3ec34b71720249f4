"""The parent of a target with several clusters: Google's external Application Load Balancer."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import httpx

from mlship.adapters.http.clients import Reach, open_client
from mlship.adapters.http.door import Door, Terms
from mlship.adapters.http.retries import Timing
from mlship.adapters.targets import gke
from mlship.adapters.targets.google import compute, faults
from mlship.adapters.targets.google.compute import Compute
from mlship.adapters.targets.google.traffic import Traffic
from mlship.adapters.targets.google.url_map import balancer_of, fence_of
from mlship.adapters.targets.kubernetes.api import Manifest
from mlship.adapters.targets.kubernetes.manifests import Scope
from mlship.adapters.targets.kubernetes.parents import Opened
from mlship.config.project import TargetConfig
from mlship.domain.deployment import Plan
from mlship.domain.fence import KERNEL, Fence
from mlship.errors import UnavailableError

PERMISSIONS: Final = ("compute.urlMaps.get", "compute.urlMaps.update")
_SILENCE: Final = httpx.Timeout(30.0, connect=10.0)


class GoogleParent:
    """What stands above the clusters of a target: the port `kubernetes.parents.Parent`."""

    name: Final = "Google"
    """It is in no cluster."""
    limits: Final = ""

    def __init__(self, config: TargetConfig, door: Callable[[Fence], Door], fence: Fence) -> None:
        """Store the settings; no request is sent.

        Args:
            config: of the target, with its clusters, which are of one project.
            door: opens the door to the API; the fence is asked before each write.
            fence: of the lock that is held.
        """
        self._config = config
        self._door = door
        self._fence = fence
        clusters = (cluster.gke for cluster in config.clusters.values())
        self._project = next(each.project for each in clusters if each is not None)

    @contextmanager
    def opened(self, scope: Scope) -> Iterator[Opened]:
        """Open a client of the API; nothing is requested yet."""
        door = self._door(self._fence)
        with door.client:
            api = Compute(door, self._project, self._fence)
            yield Opened(
                api=None,
                cluster=api.cluster,
                traffic=lambda places: Traffic(api, scope, self._config, places),
            )

    def rendered(self, scope: Scope, plan: Plan) -> tuple[list[Manifest], list[Manifest]]:
        """Return nothing: no object of it can be applied by kubectl."""
        del scope, plan
        return [], []

    def highest(self, scope: Scope) -> int:
        """Return the number of the lock's holder who wrote the route last; 0 without one.

        Raises:
            NotFoundError: there is no URL map of that name.
            UnavailableError: the API does not answer, or denies access.
        """
        with self.opened(scope) as opened:
            return fence_of(scope, opened.traffic({}).read().manifest or {})

    def look(self, scope: Scope) -> str:
        """Check that the URL map is there and may be changed. Nothing is changed.

        Returns:
            its name and the address for requests, for people.

        Raises:
            NotFoundError: there is no URL map of that name.
            UnavailableError: a permission is missing; or the API is not enabled.
            ConflictError, IntegrityError: as `Traffic.read`.
        """
        name = balancer_of(self._config).url_map
        door = self._door(self._fence)
        with door.client:
            api = Compute(door, self._project, self._fence)
            traffic = Traffic(api, scope, self._config)
            traffic.check()
            denied = api.missing(name, PERMISSIONS)
        if denied:
            message = f"{api.cluster}: URL map {name}: no permission {', '.join(denied)}"
            hint = "grant the role of `mlship guide clusters` to the account that deploys"
            raise UnavailableError(message, hint=hint)
        return f"URL map {name} answers at {traffic.endpoint()}"


def parent(config: TargetConfig, fence: Fence = KERNEL) -> GoogleParent:
    """Return the load balancer of a target, reached with Application Default Credentials."""

    def door(held: Fence) -> Door:
        client = open_client(Reach(), base_url=compute.URL, auth=gke.token(), timeout=_SILENCE)
        return guarded(client, held)

    return GoogleParent(config, door, fence)


def guarded(client: httpx.Client, fence: Fence, timing: Timing | None = None) -> Door:
    """Return a door whose writes ask a fence immediately before each attempt."""

    def check(request: httpx.Request) -> None:
        if request.method != "GET":
            fence.check()

    client.event_hooks["request"].append(check)
    terms = Terms(
        name="Compute Engine API",
        patience=compute.PATIENCE,
        timing=timing or Timing(),
        put_off=faults.is_put_off,
    )
    return Door(client, terms)
