"""Two clusters of GKE in memory behind Google's load balancer, and the target over them."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import httpx

from mlship.adapters.http.clients import Reach, open_client
from mlship.adapters.http.door import Door
from mlship.adapters.http.retries import Timing
from mlship.adapters.targets.google import compute, traffic
from mlship.adapters.targets.google.parent import GoogleParent, guarded
from mlship.adapters.targets.kubernetes import ClustersTarget, applied, revisions
from mlship.config.placement import ClusterConfig
from mlship.config.project import TargetConfig
from mlship.config.targets import GkeConfig, KubernetesConfig, LoadBalancerConfig
from mlship.domain.deployment import Split, slot_of
from mlship.domain.fence import KERNEL, Fence
from mlship.domain.release import Release
from tests.fakes.cluster import SCOPE, FakeApiServer, FakeMember, World
from tests.harness.places import Notes
from tests.stand_ins.google_compute import FULL, PROJECT, GoogleCompute
from tests.stand_ins.google_proxy import Proxies

NEG = "cloud.google.com/neg"
ADDRESS = "https://iris.example.com"
HOST = "iris.example.com"


class GkeServer(FakeApiServer):
    """A cluster of GKE: its controller makes network endpoint groups for Services that ask for it.

    A group lives as long as its Service, and longer if a backend service leads to it.
    """

    def __init__(self, name: str, compute: GoogleCompute) -> None:
        super().__init__(name)
        self._compute = compute
        self.zones = [f"europe-{name}-b"]
        self.makes_groups = True
        self._made = 0

    def _write(
        self, method: str, plural: str, name: str, body: Any, *, is_merge: bool
    ) -> httpx.Response:
        former = self._annotations(plural, name).get(f"{NEG}-status")
        response = super()._write(method, plural, name, body, is_merge=is_merge)
        annotations = self._annotations(plural, name)
        if plural == "services" and NEG in annotations and self.makes_groups:
            annotations[f"{NEG}-status"] = former or self._status(name)
        return response

    def _annotations(self, plural: str, name: str) -> dict[str, str]:
        found: dict[str, Any] = self.objects.get((plural, name), {"metadata": {}})
        return found["metadata"].get("annotations") or {}

    def _status(self, service: str) -> str:
        self._made += 1
        name = f"k8s1-{self.name}-{service[-12:]}-{self._made}"
        for zone in self.zones:
            group = f"{FULL}/projects/{PROJECT}/zones/{zone}/networkEndpointGroups/{name}"
            self._compute.groups[group] = [True]
        zones = ", ".join(f'"{zone}"' for zone in self.zones)
        return f'{{"network_endpoint_groups": {{"80": "{name}"}}, "zones": [{zones}]}}'


class GoogleWorld(World):
    """Clusters blue and green of GKE, a URL map, and the target over them."""

    def __init__(self, **settings: Any) -> None:
        self.compute = GoogleCompute()
        self.compute.shell()
        self.servers = {name: GkeServer(name, self.compute) for name in ("blue", "green")}
        self.proxies = Proxies(self.compute)
        self.paused = 0.0
        self.target = self.again(**settings)

    def limit(self, before_write: Callable[[], None]) -> None:
        """Call something at each write to clusters and to Google."""
        super().limit(before_write)
        self.compute.limit = before_write

    def again(self, **settings: Any) -> ClustersTarget:
        """Return the target with other settings."""
        fence = settings.pop("fence", KERNEL)
        config = self.config(**settings)
        members = [FakeMember(self.servers[name], config) for name in config.clusters]
        parent = self.parent(config, fence)
        return ClustersTarget(SCOPE, config, members, Notes(), parent=parent)

    def config(self, **settings: Any) -> TargetConfig:
        """Return settings of the target."""
        clusters = {
            name: ClusterConfig(gke=GkeConfig(project=PROJECT, location=name, cluster=name))
            for name in self.servers
        }
        own = {
            "kubernetes": KubernetesConfig(namespace="iris"),
            "load_balancer": LoadBalancerConfig(url_map="iris", address=ADDRESS),
        }
        return TargetConfig(kind="gke", clusters=clusters, **{**own, **settings})

    def parent(self, config: TargetConfig, fence: Fence = KERNEL) -> GoogleParent:
        """Return the load balancer, whose API is the stand-in."""

        def door(held: Fence) -> Door:
            reach = Reach(transport=httpx.MockTransport(self.compute))
            client = open_client(reach, base_url="https://compute")
            return guarded(client, held, Timing(pause=lambda _: None))

        return GoogleParent(config, door, fence)

    def routes(self, made: Release) -> list[tuple[str, str]]:
        """Return the clusters to which a slot's backend service leads, with their preference."""
        name = SCOPE.object(slot_of(made))
        backends = self.compute.objects["backendServices", name].get("backends") or []
        return [
            (each["group"].split("/")[-3].split("-")[1], each["preference"]) for each in backends
        ]

    def fail(self, cluster: str) -> None:
        """Let every pod of a cluster be unhealthy."""
        for group in self.compute.groups:
            if f"europe-{cluster}-" in group:
                self.compute.groups[group] = [False]

    def answers(self, count: int, **headers: str) -> dict[str, int]:
        """Return how many of so many requests each cluster answers; under "" those that fail."""
        found: dict[str, int] = {}
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        for _ in range(count):
            group = self.proxies.ask(HOST, "/v2/models/iris/infer", named).group
            cluster = group.split("/")[-3].split("-")[1] if group else ""
            found[cluster] = found.get(cluster, 0) + 1
        return found

    def split(self) -> Split:
        return self.target.routes().split


@contextmanager
def without_pauses(world: GoogleWorld) -> Iterator[None]:
    """Let time pass at once, and requests of `applied` go to the proxies."""

    def now() -> float:
        world.paused += 0.01
        return world.paused

    def pause(seconds: float) -> None:
        world.paused += seconds

    def client(_: Reach, **options: Any) -> httpx.Client:
        return open_client(Reach(transport=httpx.MockTransport(world.proxies)), **options)

    with ExitStack() as held:
        time = mock.Mock(monotonic=now, sleep=pause)
        held.enter_context(mock.patch.object(applied, "time", time))
        held.enter_context(mock.patch.object(applied, "open_client", client))
        held.enter_context(mock.patch.object(compute, "time", time))
        held.enter_context(mock.patch.object(revisions, "time", time))
        held.enter_context(mock.patch.object(traffic, "time", time))
        yield
