"""The clusters of a target: what people call them, and the address by which the parent reaches."""

import pytest

from mlship.adapters.targets.kubernetes import Member, manifests
from mlship.adapters.targets.kubernetes.access import Access
from mlship.adapters.targets.kubernetes.members import INTERNAL
from mlship.config.placement import ClusterConfig
from mlship.config.project import TargetConfig
from mlship.config.targets import GkeConfig, KubernetesConfig
from mlship.domain.deployment import slot_of
from mlship.errors import ConfigError
from tests.fakes.cluster import IMAGE, SCOPE
from tests.harness.samples import release

GREEN = GkeConfig(project="iris-4711", location="europe-west4", cluster="green")


def member(cluster: ClusterConfig, kind: str = "kubernetes") -> Member:
    own = KubernetesConfig(namespace="iris")
    target = TargetConfig(kind=kind, kubernetes=own, clusters={"green": cluster})  # type: ignore[arg-type]
    return Member("green", target, no_access)


def no_access() -> Access:
    raise AssertionError


def service(found: Member) -> dict[str, object]:
    made = release("one")
    slot, config = slot_of(made), found.config
    objects = manifests.render(SCOPE, config, made, IMAGE, slot, 1, entry=found.entry)
    (service,) = [each for each in objects if each["kind"] == "Service"]
    assert service["spec"]["type"] == "LoadBalancer"
    annotations: dict[str, object] = service["metadata"]["annotations"]
    return annotations


def test_on_gke_the_address_is_internal_and_reached_from_other_regions() -> None:
    google = member(ClusterConfig(gke=GREEN), "gke")
    assert INTERNAL.items() <= service(google).items()
    assert INTERNAL["networking.gke.io/load-balancer-type"] == "Internal"


@pytest.mark.parametrize("own", [{}, {"example.org/internal": "true"}])
def test_the_kind_of_address_can_be_set(own: dict[str, str]) -> None:
    for cluster, kind in (
        (ClusterConfig(gke=GREEN, service_annotations=own), "gke"),
        (ClusterConfig(context="green", service_annotations=own), "kubernetes"),
    ):
        found = service(member(cluster, kind))
        assert own.items() <= found.items()
        assert not INTERNAL.items() <= found.items()


def test_a_cluster_is_named_as_people_know_it() -> None:
    google = member(ClusterConfig(gke=GREEN), "gke")
    assert google.place == "cluster green of iris-4711"
    assert google.command == (
        "gcloud container clusters resize green --location europe-west4 --project iris-4711 "
        "--num-nodes 0"
    )
    other = member(ClusterConfig(context="green"))
    assert (other.place, other.command) == (
        "context green",
        "kubectl --context green --namespace iris get all",
    )


def test_a_context_that_is_gone_names_the_setting_of_its_cluster() -> None:
    def access() -> Access:
        raise ConfigError("kubeconfig k has no context green", hint="correct kubernetes.context")

    target = TargetConfig(kind="kubernetes", clusters={"green": ClusterConfig(context="green")})
    with pytest.raises(ConfigError) as caught:
        Member("green", target, access).access()
    assert caught.value.message == "kubeconfig k has no context green"
    assert caught.value.hint == "correct clusters.green.context"
