"""Production that somebody changed by hand, in two clusters: told, refused, undone or accepted."""

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from mlship.adapters.targets.kubernetes import applied, reference
from mlship.config.project import GatesConfig
from mlship.domain.deployment import Split, slot_of
from mlship.domain.digests import Digest
from mlship.domain.evidence import Saw, Step
from mlship.domain.facts import PushedImage
from mlship.domain.policy import PromotePolicy
from mlship.domain.release import Release
from mlship.domain.versions import Version
from mlship.errors import IntegrityError, MlshipError, RefusedError, UnavailableError
from mlship.steps import compatibility
from mlship.steps.approve import approve
from mlship.steps.deploy import deploy_production
from mlship.steps.promote import promote
from mlship.steps.retire import retire
from mlship.steps.rollback import rollback
from mlship.steps.status import status
from mlship.steps.traffic import traffic
from tests.fakes import cluster as clusters
from tests.fakes import ports
from tests.fakes.cluster import IMAGE, SCOPE
from tests.harness.samples import better, nothing, release

ONE, TWO = release("one"), release("two")
OTHER = f"registry.example/iris@sha256:{'c' * 64}"
ROUTER = "iris-production-router"


class Shop(NamedTuple):
    """A pipeline in memory whose production has two clusters."""

    here: ports.World
    world: clusters.World

    def object(self, cluster: str, plural: str, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.world.servers[cluster].objects[plural, name]
        return found

    def drift(self) -> tuple[str, ...]:
        return status(self.here.pipeline).drift

    def changed(self) -> list[str]:
        """Return the drift without replicas that the fake does not start."""
        return [line for line in self.drift() if "replicas ready" not in line]

    def writes(self) -> list[int]:
        return [len(server.writes) for server in self.world.servers.values()]


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, filled: "Filled") -> Shop:
    """Give champion ONE in blue, and challenger TWO in green with 10 %, fit to be promoted."""
    made = empty(tmp_path, monkeypatch)
    made.world.restored(filled.clusters)
    made.here.clock.now = filled.now
    made.here.ledger.stored.update(filled.records)
    store = made.here.store
    store._versions.extend(filled.versions)
    for _ in filled.versions:
        store._clock()
    # The store has a bundle of each, whose contents nobody reads.
    store._bundles.update({each.id: {} for each in (ONE, TWO)})
    return made


class Filled(NamedTuple):
    """What deployments wrote."""

    clusters: bytes
    now: datetime
    records: dict[Digest, bytes]
    versions: tuple[Version, ...]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Filled:
    """Deploy ONE and TWO once; each test begins with a copy of what that wrote."""
    with pytest.MonkeyPatch.context() as patch:
        made = empty(tmp_path_factory.mktemp("shop"), patch)
        here = made.here
        for each in (ONE, TWO):
            prove(here, each)
            deploy_production(here.pipeline, each)
        here.pipeline.learn(TWO, "evaluate", "passed", better(), Saw(champion=ONE.id))
        approve(here.pipeline, TWO, "grace@example.org")
        return Filled(
            made.world.saved(),
            here.clock.now,
            dict(here.ledger.stored),
            tuple(here.store._versions),
        )


def empty(folder: Path, patch: pytest.MonkeyPatch) -> Shop:
    patch.setattr(compatibility, "checked", lambda *_: [])
    clusters.at_once(patch)
    world = clusters.World(replicas=2)
    policy = PromotePolicy(min_labels=50, approvals=1)
    targets = {"production": world.target._config}
    config = msgspec.structs.replace(
        ports.CONFIG, targets=targets, gates=GatesConfig(promote=policy)
    )
    here = ports.world(folder, config)
    here.targets["production"] = world.target
    return Shop(here, world)


def prove(here: ports.World, made: Release) -> None:
    # The store has a bundle of it, whose contents nobody reads.
    here.store._bundles[made.id] = {}
    saw = Saw(image=IMAGE.digest)
    steps: tuple[Step, ...] = ("train", "test", "test-container", "verify-staging-workload")
    for step in steps:
        here.pipeline.learn(made, step, "passed", nothing(step), saw)
    pushed = PushedImage(digest=IMAGE.digest, reference=IMAGE.location, router=IMAGE.router)
    here.pipeline.learn(made, "push-to-registry", "passed", pushed, saw)


def name_of(made: Release) -> str:
    return SCOPE.object(slot_of(made))


def image(shop: Shop) -> None:
    pod = shop.object("green", "deployments", name_of(TWO))["spec"]["template"]["spec"]
    pod["containers"][0]["image"] = OTHER


def added_variable(shop: Shop) -> None:
    pod = shop.object("blue", "deployments", name_of(ONE))["spec"]["template"]["spec"]
    pod["containers"][0]["env"].append({"name": "DEBUG", "value": "1"})


def replicas(shop: Shop) -> None:
    shop.object("green", "deployments", name_of(TWO))["spec"]["replicas"] = 5


def budget(shop: Shop) -> None:
    shop.object("blue", "poddisruptionbudgets", name_of(ONE))["spec"]["maxUnavailable"] = 2


def label(shop: Shop) -> None:
    del shop.object("green", "services", name_of(TWO))["metadata"]["labels"]["mlship.dev/target"]


def weights(shop: Shop) -> None:
    data = shop.object("blue", "configmaps", ROUTER)["data"]
    document = json.loads(data["routes.json"])
    action = document["resources"][0]["virtual_hosts"][0]["routes"][-1]["route"]
    for each in action["weighted_clusters"]["clusters"]:
        each["weight"] = 40 if each["name"] == slot_of(TWO) else 60
    data["routes.json"] = json.dumps(document)


def selector(shop: Shop) -> None:
    spec = shop.object("green", "services", name_of(TWO))["spec"]
    spec["selector"]["mlship.dev/slot"] = slot_of(ONE)


def address(shop: Shop) -> None:
    service = shop.object("green", "services", name_of(TWO))
    service["status"] = {"loadBalancer": {"ingress": [{"ip": "10.9.9.9"}]}}


def neighbours(shop: Shop) -> None:
    data = shop.object("blue", "configmaps", ROUTER)["data"]
    data["clusters.json"] = data["clusters.json"].replace("10.0.0.", "10.8.8.")


def alias(shop: Shop) -> None:
    shop.here.store.point("champion", TWO)


def deleted_slot(shop: Shop) -> None:
    objects = shop.world.servers["green"].objects
    for key in [key for key in objects if key[1].startswith(name_of(TWO))]:
        del objects[key]


def deleted_service(shop: Shop) -> None:
    del shop.world.servers["green"].objects["services", name_of(TWO)]


def own_route(shop: Shop) -> None:
    shop.object("blue", "configmaps", ROUTER)["data"] = {"routes.json": "{}"}


def own_slot(shop: Shop) -> None:
    shop.world.deploy(release("three"))


def router(shop: Shop) -> None:
    shop.object("blue", "deployments", ROUTER)["spec"]["replicas"] = 0


Change = Callable[[Shop], None]
TOLD: dict[Change, str] = {
    image: f"Deployment {name_of(TWO)} in green: spec.template.spec.containers.server.image is "
    f"{OTHER}, not {IMAGE.location}",
    added_variable: f"Deployment {name_of(ONE)} in blue: "
    "spec.template.spec.containers.server.env.DEBUG was added",
    replicas: f"Deployment {name_of(TWO)} in green: spec.replicas is 5, not 1",
    budget: f"PodDisruptionBudget {name_of(ONE)} in blue: spec.maxUnavailable is 2, not 1",
    label: f"Service {name_of(TWO)} in green: label mlship.dev/target is missing",
    weights: f"the route sends 40 % to challenger {TWO}, and 10 % are recorded",
    selector: f"Service {name_of(TWO)} in green: spec.selector.mlship.dev/slot is {slot_of(ONE)}",
    address: f"Service {name_of(TWO)} in green: is at 10.9.9.9, and the load balancer in blue "
    "sends requests to 10.0.0.1",
    neighbours: f"ConfigMap {ROUTER} in blue: clusters.json was edited",
    alias: f"alias champion points to {slot_of(TWO)[1:]}, expected {ONE} from the ledger",
    deleted_slot: f"Deployment {name_of(TWO)} in green: is missing",
    deleted_service: f"Service {name_of(TWO)} in green: is missing",
    own_route: f"ConfigMap {ROUTER} in blue: was edited, and mlship cannot read it",
    own_slot: f"slot {slot_of(release('three'))} in green runs a release that is not in production",
    router: f"Deployment {ROUTER} in blue: spec.replicas is 0, not 2",
}
NEVER: tuple[Change, ...] = (
    *(image, added_variable, selector, deleted_slot, deleted_service, own_route, own_slot),
)
"""What nobody may accept: what answers was never tested, or nothing is there."""


def test_what_commands_wrote_is_no_drift(shop: Shop) -> None:
    assert shop.drift() == ()
    traffic(shop.here.pipeline, {"challenger": 20})
    promote(shop.here.pipeline, TWO)
    assert shop.drift() == ()
    rollback(shop.here.pipeline)
    assert shop.drift() == ()


@pytest.mark.parametrize("change", TOLD, ids=lambda each: each.__name__)
def test_a_change_by_hand_is_told_and_nothing_is_promoted(change: Change, shop: Shop) -> None:
    change(shop)
    assert any(TOLD[change] in line for line in shop.drift()), shop.drift()
    before = shop.writes()
    with pytest.raises((RefusedError, IntegrityError)) as caught:
        promote(shop.here.pipeline, TWO)
    assert "--reconcile" in caught.value.hint
    if isinstance(caught.value, RefusedError):
        assert TOLD[change] in caught.value.message
    assert shop.writes() == before


@pytest.mark.parametrize("change", TOLD, ids=lambda each: each.__name__)
def test_a_change_by_hand_is_undone_by_reconcile(change: Change, shop: Shop) -> None:
    change(shop)
    promote(shop.here.pipeline, TWO, on_drift="reconcile")
    assert shop.drift() == ()
    (record,) = [each for each in shop.here.ledger.records() if each.evidence.step == "reconcile"]
    assert any(TOLD[change] in line for line in record.evidence.facts["differences"])
    assert shop.world.target.routes().split.weights == {slot_of(TWO): 100}


@pytest.mark.parametrize(
    "change", [each for each in TOLD if each not in NEVER], ids=lambda each: each.__name__
)
def test_a_change_by_hand_may_be_accepted(change: Change, shop: Shop) -> None:
    change(shop)
    if change is not alias:  # the promotion itself sets it
        promote(shop.here.pipeline, ONE, on_drift="adopt")
        assert shop.changed() == []
    promote(shop.here.pipeline, TWO, on_drift="adopt")
    assert shop.drift() == ()
    steps = [each.evidence.step for each in shop.here.ledger.records()]
    assert steps.count("adopt") == 1


def test_more_than_configured_that_was_set_by_hand_is_accepted_as_an_override(shop: Shop) -> None:
    weights(shop)
    promote(shop.here.pipeline, ONE, on_drift="adopt")
    found = status(shop.here.pipeline).override
    assert found is not None
    assert (found.release, found.share, found.configured) == (str(TWO), 40, 10)
    assert found.why == "adopted: the split was changed by hand"
    promote(shop.here.pipeline, TWO)
    assert status(shop.here.pipeline).override is None


@pytest.mark.parametrize("change", NEVER, ids=lambda each: each.__name__)
def test_what_was_never_tested_is_not_accepted(change: Change, shop: Shop) -> None:
    change(shop)
    before, records = shop.writes(), len(shop.here.ledger.records())
    with pytest.raises(MlshipError, match=r"cannot be accepted|cannot read it"):
        promote(shop.here.pipeline, TWO, on_drift="adopt")
    assert (shop.writes(), len(shop.here.ledger.records())) == (before, records)


def test_a_champion_is_reconciled_without_a_promotion(shop: Shop) -> None:
    weights(shop)
    promote(shop.here.pipeline, ONE, on_drift="reconcile")
    assert shop.drift() == ()
    assert shop.world.target.routes().split.share(slot_of(TWO)) == 10
    assert shop.here.pipeline.read().history.champion == ONE


@pytest.mark.parametrize("on_drift", ["reconcile", "adopt"])
def test_without_drift_nothing_is_written(on_drift: Any, shop: Shop) -> None:
    before, records = shop.writes(), len(shop.here.ledger.records())
    promote(shop.here.pipeline, ONE, on_drift=on_drift)
    assert (shop.writes(), len(shop.here.ledger.records())) == (before, records)


def test_a_rollback_is_not_refused_and_writes_over_what_it_needs(shop: Shop) -> None:
    promote(shop.here.pipeline, TWO)
    shop.object("blue", "deployments", name_of(ONE))["spec"]["replicas"] = 7
    label(shop)
    rollback(shop.here.pipeline)
    assert shop.object("blue", "deployments", name_of(ONE))["spec"]["replicas"] == 2
    (line,) = shop.drift()
    assert "label mlship.dev/target is missing" in line


def test_a_cluster_that_does_not_answer_is_no_drift_to_refuse(shop: Shop) -> None:
    shop.world.servers["blue"].answers = True
    promote(shop.here.pipeline, TWO)
    shop.world.servers["green"].answers = False
    assert not any("Deployment" in line for line in shop.drift())


def test_an_object_of_a_former_version_has_no_reference_and_no_drift(shop: Shop) -> None:
    found = shop.object("green", "deployments", name_of(TWO))
    del found["metadata"]["annotations"][reference.REFERENCE]
    found["spec"]["replicas"] = 5
    assert shop.changed() == []


def test_who_changed_a_field_is_told(shop: Shop) -> None:
    replicas(shop)
    metadata = shop.object("green", "deployments", name_of(TWO))["metadata"]
    metadata["managedFields"] = [
        {"manager": "mlship", "fieldsV1": {"f:spec": {"f:template": {}}}},
        {
            "manager": "kubectl-scale",
            "time": "2026-11-26T20:10:00Z",
            "fieldsV1": {"f:spec": {"f:replicas": {}}},
        },
    ]
    (line,) = shop.changed()
    assert line.endswith("spec.replicas is 5, not 1 (kubectl-scale, 2026-11-26T20:10:00Z)")
    del metadata["managedFields"][1]["time"]
    (line,) = shop.changed()
    assert line.endswith("spec.replicas is 5, not 1 (kubectl-scale)")


@pytest.mark.parametrize("change", [weights, own_route], ids=lambda each: each.__name__)
def test_a_second_rollback_writes_over_a_route_that_was_edited(change: Change, shop: Shop) -> None:
    promote(shop.here.pipeline, TWO)
    rollback(shop.here.pipeline)
    change(shop)
    rollback(shop.here.pipeline)
    assert shop.world.target.routes().split == Split(weights={slot_of(ONE): 100})
    assert shop.drift() == ()


def test_a_second_rollback_writes_nothing_and_keeps_a_later_split(shop: Shop) -> None:
    promote(shop.here.pipeline, TWO)
    rollback(shop.here.pipeline)
    traffic(shop.here.pipeline, {"challenger": 20})
    before = shop.writes()
    rollback(shop.here.pipeline)
    assert shop.writes() == before


def test_a_champion_that_gets_other_traffic_than_recorded_is_not_promoted_already(
    shop: Shop,
) -> None:
    weights(shop)
    with pytest.raises(RefusedError, match="not as recorded"):
        promote(shop.here.pipeline, ONE)


def test_what_runs_already_is_deployed_with_the_record_of_its_deployment(shop: Shop) -> None:
    promote(shop.here.pipeline, TWO)
    rollback(shop.here.pipeline)
    record = deploy_production(shop.here.pipeline, TWO)
    assert (record.evidence.step, record.evidence.release) == ("deploy-production", TWO)


@pytest.mark.parametrize(
    ("plural", "told"), [("deployments", "has no ready replica"), ("services", "has no Service")]
)
def test_a_split_that_no_load_balancer_applies_is_not_told_as_applied(
    plural: str, told: str, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = shop.world.servers["blue"]
    del server.objects[plural, ROUTER]
    for name in [name for kind, name in server.objects if kind == "pods" and ROUTER in name]:
        del server.objects["pods", name]
    monkeypatch.setattr(applied, "wait", lambda *_: False)
    with pytest.raises(UnavailableError, match=told) as caught:
        traffic(shop.here.pipeline, {"challenger": 20})
    assert "`mlship deploy-production champion`" in caught.value.hint
    deploy_production(shop.here.pipeline, ONE)
    traffic(shop.here.pipeline, {"challenger": 20})
    assert shop.drift() == ()


def test_an_autoscaler_with_a_range_may_change_the_replicas(shop: Shop) -> None:
    target = shop.world.target
    pods = msgspec.structs.replace(target._config.kubernetes, max_replicas=9)
    shop.here.targets["production"] = shop.world.again(replicas=2)
    replicas(shop)
    assert len(shop.changed()) == 1
    for member in target._members.values():
        member.config = msgspec.structs.replace(member.config, kubernetes=pods)
    shop.here.targets["production"] = target
    assert shop.changed() == []


def test_a_value_that_the_cluster_writes_in_its_own_way_is_no_difference() -> None:
    """Quantities come back in another form, and webhooks change what they are made for."""

    class Normalising:
        def apply(self, manifest: Any, *, dry_run: bool = False) -> Any:
            assert dry_run
            return {**manifest, "spec": {"cpu": "1", "default": True}}

    asked = {"kind": "Deployment", "metadata": {"name": "a"}, "spec": {"cpu": "1000m"}}
    kept = reference.kept(Normalising(), asked)  # type: ignore[arg-type]
    live = {**kept, "spec": {"cpu": "1", "default": True}}
    assert reference.differences(live) == []
    live["spec"] = {"cpu": "2", "default": False}
    (found,) = reference.differences(live)
    assert found.text == "spec.cpu is 2, not 1"


def test_retire_asks_the_cluster_before_it_changes_anything(shop: Shop) -> None:
    shop.world.servers["green"].answers = False
    before, records = shop.writes(), len(shop.here.ledger.records())
    with pytest.raises(UnavailableError, match=r"cluster green, where .* runs") as caught:
        retire(shop.here.pipeline, TWO)
    assert "remove it from mlship.yaml" in caught.value.hint
    assert (shop.writes(), len(shop.here.ledger.records())) == (before, records)
    assert shop.here.store.versions()[-1].aliases == ("challenger",)
