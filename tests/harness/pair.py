"""Two real clusters for tests as blue and green: a namespace in each, and one target over both."""

import json
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import yaml

from mlship.adapters.targets.kubernetes import Access, ClustersTarget, Member, find
from mlship.adapters.targets.kubernetes.manifests import Scope
from mlship.config.placement import ClusterConfig
from mlship.config.project import TargetConfig
from mlship.config.targets import KubernetesConfig
from mlship.domain.deployment import Deployment, Slot, Split, slot_of
from mlship.domain.release import Release
from tests.harness import clusters
from tests.harness.clusters import Cluster
from tests.harness.kills import Project
from tests.harness.places import Notes
from tests.harness.twice import Shop, proven, section

CONFIG = {
    "name": "iris",
    "data": {"train": "train.csv", "test": "test.csv", "target": "species"},
    "model": {"train": "pipeline:train"},
    "gates": {"promote": {"min_labels": 50}},
    "store": {"kind": "directory"},
    # The images are stand-ins, of which nobody attests anything.
    "image": {"attach": "off"},
}


class Pair:
    """A target with the clusters blue and green, of which blue has the parent.

    The parent is mlship's own load balancer, or a Gateway.
    """

    def __init__(self, blue: Cluster, green: Cluster, gateway: str | None = None) -> None:
        self.blue, self.green = blue, green
        self._gateway = gateway
        self.scope = Scope(project="iris", target="production")
        for cluster in (blue, green):
            cluster.scope = self.scope
        self.notes = Notes()
        self.target = self.again()

    def again(self, **settings: Any) -> ClustersTarget:
        """Return the target as another command sees it, with other settings.

        Settings of the section `kubernetes` have the prefix `kubernetes_`.
        """
        prefix = "kubernetes_"
        own = {
            name.removeprefix(prefix): settings.pop(name)
            for name in list(settings)
            if name.startswith(prefix)
        }
        # Gateways are shared, also with others' tests.
        path = f"/{self.blue.namespace}" if self._gateway else "/"
        kubernetes = KubernetesConfig(
            **{
                "namespace": self.blue.namespace,
                "gateway": self._gateway,
                "path": path,
                "cpu": None,
                "memory": None,
                "prestop_seconds": 2,
                **own,
            }
        )
        config = TargetConfig(
            **{
                "kind": "kubernetes",
                "kubernetes": kubernetes,
                "clusters": {"blue": named(self.blue), "green": named(self.green)},
                "ready_seconds": 60,
                "drain_seconds": 5,
                "sticky_header": None if self._gateway else "x-user",
                **settings,
            }
        )
        self.config = config
        return ClustersTarget(self.scope, config, self.members(), self.notes)

    def members(self) -> list[Member]:
        """Return both clusters as the target reaches them."""

        def access(name: str) -> Callable[[], Access]:
            return lambda: find(self.config.in_cluster(name).kubernetes, {})

        return [Member(name, self.config, access(name)) for name in self.config.clusters]

    def deploy(self, made: Release, *, replicas: int = 1, **behaviour: Any) -> Deployment:
        """Deploy a release in its slot."""
        slot = slot_of(made)
        artifact = clusters.artifact(slot, **behaviour)
        if self._gateway is None:
            artifact = msgspec.structs.replace(artifact, router=clusters.router_image())
        return self.target.deploy(made, artifact, slot, replicas=replicas)

    def route(self, *shares: tuple[Release, int], shadow: Slot | None = None) -> None:
        """Set the split from wherever it is."""
        split = Split(weights={slot_of(made): share for made, share in shares}, shadow=shadow)
        self.target.route(split, expected=self.target.routes().revision)

    @property
    def url(self) -> str:
        return f"{self.target.routes().endpoint}/predict"


def named(cluster: Cluster) -> ClusterConfig:
    """Return the settings of a cluster; other namespaces of it are others' tests."""
    context = json.loads(cluster.path.read_text())["contexts"][0]["name"]
    return ClusterConfig(context=context, kubeconfig=str(cluster.path), namespace=cluster.namespace)


def production(places: Sequence[Cluster], **settings: Any) -> dict[str, Any]:
    """Return the section of production in mlship.yaml, for one plain cluster or blue and green.

    Settings of the section `kubernetes` are in `kubernetes`.
    """
    own = {
        "namespace": places[0].namespace,
        "cpu": None,
        "memory": None,
        "prestop_seconds": 2,
        **settings.pop("kubernetes", {}),
    }
    section = {"kind": "kubernetes", "kubernetes": own, "ready_seconds": 120, "drain_seconds": 5}
    if len(places) == 1:
        own["kubeconfig"] = str(places[0].path)
        return {**section, **settings}
    clusters = zip(("blue", "green"), map(named, places), strict=True)
    return {**section, "clusters": {name: set_values(one) for name, one in clusters}, **settings}


def set_values(cluster: ClusterConfig) -> dict[str, Any]:
    """Return the settings of a cluster as mlship.yaml has them."""
    values: dict[str, Any] = msgspec.to_builtins(cluster)
    return {name: value for name, value in values.items() if value not in (None, True)}


def project_of(places: Sequence[Cluster], folder: Path) -> tuple[Project, Release, Release]:
    """Write a project whose production is in these clusters; return it, with two proven releases.

    Their images are the stand-in's.
    """
    section = {"targets": {"production": production(places)}}
    (folder / "mlship.yaml").write_text(yaml.safe_dump({**CONFIG, **section}))
    shop = Shop(folder, {})
    one, two = (proven(shop, name, clusters.router_image()) for name in ("one", "two"))
    return Project(folder), one, two


@contextmanager
def pair(blue: Path, green: Path, gateway: str | None = None) -> Iterator[Pair]:
    """Give a new namespace in both clusters, and take them away with all that is in them."""
    namespace = f"test-{uuid.uuid4().hex[:8]}"
    places = [Cluster(path, namespace, is_plain=True) for path in (blue, green)]
    with clusters.new_namespace(places[0]), clusters.new_namespace(places[1]):
        yield Pair(places[0], places[1], gateway)


def target_of_two(blue: Cluster, green: Cluster) -> dict[str, Any]:
    """Return the section of mlship.yaml of a target over two clusters."""
    both = {"blue": named(blue), "green": named(green)}
    return {**section({"namespace": blue.namespace}), "clusters": msgspec.to_builtins(both)}


@contextmanager
def shop_of_two(folder: Path, config: dict[str, Any]) -> Iterator[Shop]:
    """Give a project whose production has two clusters: new namespaces, blue with the parent."""
    blue = clusters.kubeconfig(is_plain=True)
    green = clusters.kubeconfig("TEST_KUBECONFIG_PRODUCTION", is_plain=True)
    with pair(blue, green) as both:
        targets = {"production": target_of_two(both.blue, both.green)}
        (folder / "mlship.yaml").write_text(yaml.safe_dump({**config, "targets": targets}))
        yield Shop(folder, {"blue": both.blue, "green": both.green})
