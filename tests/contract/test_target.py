"""What every target does, whatever it runs releases on."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from mlship.adapters.targets.local import processes
from mlship.config.project import TargetConfig
from mlship.domain import digests
from mlship.domain.deployment import Artifact, Revision, Slot, Split, slot_of
from mlship.domain.ports import Target
from mlship.domain.release import Release
from mlship.errors import ConfigError, ConflictError, NotFoundError, ProjectError, TimedOutError
from tests.fakes.cluster import IMAGE, World, at_once
from tests.fakes.target import FakeTarget
from tests.harness import clusters, commands, servers
from tests.harness.clusters import Cluster
from tests.harness.places import place
from tests.harness.samples import release

ONE = release("one")
TWO = release("two")
THREE = release("three")


class Stage:
    """A target under test, and artifacts that it can and cannot run."""

    def __init__(self, target: Target) -> None:
        self.target = target

    def artifact(self, name: str, *, is_broken: bool = False) -> Artifact:
        raise NotImplementedError

    def deploy(self, made: Release, *, replicas: int = 1) -> Slot:
        slot = slot_of(made)
        self.target.deploy(made, self.artifact(slot), slot, replicas=replicas)
        return slot

    def route(self, weights: dict[Slot, int], shadow: Slot | None = None) -> Revision:
        expected = self.target.routes().revision
        return self.target.route(Split(weights=weights, shadow=shadow), expected=expected)


class FakeStage(Stage):
    def __init__(self) -> None:
        self.fake = FakeTarget()
        super().__init__(self.fake)

    def artifact(self, name: str, *, is_broken: bool = False) -> Artifact:
        digest = digests.of_bytes(name.encode())
        if is_broken:
            self.fake.broken.add(digest)
        return Artifact(kind="bundle", digest=digest, location=name)


class LocalStage(Stage):
    def __init__(self, folder: Path) -> None:
        config = TargetConfig(ready_seconds=20, drain_seconds=2)
        self.scope = place(folder, config)
        self.place = self.scope.__enter__()
        super().__init__(self.place.target)

    def artifact(self, name: str, *, is_broken: bool = False) -> Artifact:
        behaviour = {"fail": "no such column: petal_colour"} if is_broken else {}
        return self.place.artifact(name, **behaviour)


class ClustersStage(Stage):
    """Two clusters in memory: the composition is under test, not the clusters."""

    def __init__(self, gateway: str | None = None) -> None:
        self.world = World(gateway=gateway)
        super().__init__(self.world.target)

    def artifact(self, name: str, *, is_broken: bool = False) -> Artifact:
        digest = digests.of_bytes(name.encode())
        location = f"registry.example/iris@{digest}"
        if is_broken:
            for server in self.world.servers.values():
                server.broken.add(location)
        return msgspec.structs.replace(IMAGE, digest=digest, location=location)


class ClusterStage(Stage):
    def __init__(self, place: Cluster) -> None:
        self.place = place
        super().__init__(place.again(drain_seconds=1, kubernetes_prestop_seconds=1))

    def artifact(self, name: str, *, is_broken: bool = False) -> Artifact:
        behaviour = {"refuses": "no such column: petal_colour"} if is_broken else {}
        return self.place.artifact(name, **behaviour)


PLAIN = [pytest.param("plain kubernetes", marks=pytest.mark.service("cluster"))]
"""A cluster without a Gateway, for which mlship brings the load balancer.

It differs in the route alone: other tests run there only if TEST_PLAIN_CLUSTER is set.
"""
STAGES = [
    "fake",
    "local",
    "clusters",
    "clusters at a gateway",
    pytest.param("kubernetes", marks=pytest.mark.service("cluster")),
]
if os.environ.get("TEST_PLAIN_CLUSTER"):
    STAGES += PLAIN


@pytest.fixture(autouse=True)
def _warm_supervisors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the processes of local targets be forks of the warm process."""
    replaced = servers.Launches(commands.process().start)
    monkeypatch.setattr(processes, "subprocess", replaced)


@pytest.fixture(params=STAGES)
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stage]:
    with staged(request.param, tmp_path) as found:
        yield found


@pytest.fixture(params=STAGES if PLAIN[0] in STAGES else [*STAGES, *PLAIN])
def routed(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stage]:
    with staged(request.param, tmp_path) as found:
        yield found


@pytest.fixture(scope="module")
def namespace() -> Iterator[Cluster]:
    """Give the namespace in a cluster that the tests of `shared` have together."""
    with clusters.cluster() as place:
        yield place


@pytest.fixture(params=STAGES)
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stage]:
    """Give a stage without traffic, where releases ONE and TWO may run already."""
    if request.param == "kubernetes":
        place = request.getfixturevalue("namespace")
        with place.api() as api:
            api.delete("HTTPRoute", place.scope.name)
        yield ClusterStage(place)
        return
    with staged(request.param, tmp_path) as found:
        yield found


@contextmanager
def staged(name: str, folder: Path) -> Iterator[Stage]:
    if name == "fake":
        yield FakeStage()
        return
    if name.startswith("clusters"):
        with pytest.MonkeyPatch.context() as patch:
            at_once(patch)
            yield ClustersStage("iris/gateway" if name.endswith("gateway") else None)
        return
    if "kubernetes" in name:
        with clusters.cluster(is_plain=name.startswith("plain")) as place:
            yield ClusterStage(place)
        return
    local = LocalStage(folder)
    try:
        yield local
    finally:
        local.scope.__exit__(None, None, None)


def test_nothing_runs_and_nobody_gets_traffic_at_first(stage: Stage) -> None:
    assert stage.target.inspect() == {}
    assert stage.target.routes().split == Split()


def test_a_deployment_is_ready_when_deploy_returns(stage: Stage) -> None:
    slot = slot_of(ONE)
    artifact = stage.artifact("a")
    deployed = stage.target.deploy(ONE, artifact, slot, replicas=2)
    assert (deployed.ready, deployed.wanted, deployed.slot) == (2, 2, slot)
    assert (deployed.release, deployed.artifact) == (ONE.id, artifact.digest)
    assert stage.target.inspect() == {slot: deployed}


def test_deploying_leaves_traffic_alone(stage: Stage) -> None:
    before = stage.target.routes()
    stage.deploy(ONE)
    after = stage.target.routes()
    assert (after.split, after.revision) == (before.split, before.revision)


def test_deploying_again_changes_only_the_number_of_replicas(shared: Stage) -> None:
    slot = shared.deploy(ONE)
    first = shared.target.inspect()[slot]
    shared.deploy(ONE)
    assert shared.target.inspect()[slot] == first
    for count in (3, 1):
        shared.deploy(ONE, replicas=count)
        assert shared.target.inspect()[slot].ready == count


def test_a_slot_does_not_change_its_artifact(shared: Stage) -> None:
    slot = shared.deploy(ONE)
    with pytest.raises(ConflictError, match=slot):
        shared.target.deploy(ONE, shared.artifact("another"), slot, replicas=1)
    assert shared.target.inspect()[slot].ready == 1


def test_a_new_slot_that_fails_goes_and_the_others_stay(shared: Stage) -> None:
    good = shared.deploy(ONE)
    shared.route({good: 100})
    before = shared.target.inspect()
    broken = shared.artifact("broken", is_broken=True)
    with pytest.raises((TimedOutError, ProjectError)) as caught:
        shared.target.deploy(THREE, broken, slot_of(THREE), replicas=1)
    assert slot_of(THREE) in caught.value.message
    assert caught.value.hint
    assert shared.target.inspect() == before
    assert shared.target.routes().split.weights == {good: 100}


def test_a_route_is_read_back_as_it_was_set(routed: Stage) -> None:
    one, two = routed.deploy(ONE), routed.deploy(TWO)
    for split in (
        Split(weights={one: 100}),
        Split(weights={one: 90, two: 10}),
        Split(weights={one: 100, two: 0}),
        Split(weights={one: 100}, shadow=two),
    ):
        revision = routed.route(split.weights, split.shadow)
        route = routed.target.routes()
        assert (route.split, route.revision) == (split, revision)
        assert route.endpoint.startswith("http://")


def test_every_change_of_the_route_has_a_revision_of_its_own(shared: Stage) -> None:
    one, two = shared.deploy(ONE), shared.deploy(TWO)
    first = shared.target.routes().revision
    seen = [first, *(shared.route({slot: 100}) for slot in (one, two, one, two))]
    assert len(set(seen)) == 5


def test_a_route_that_stays_as_it_is_keeps_its_revision(shared: Stage) -> None:
    one = shared.deploy(ONE)
    assert shared.route({one: 100}) == shared.route({one: 100})


def test_a_stale_revision_changes_nothing(shared: Stage) -> None:
    one, two = shared.deploy(ONE), shared.deploy(TWO)
    stale = shared.target.routes().revision
    current = shared.route({one: 100})
    with pytest.raises(ConflictError, match=f"{current}.*{stale}"):
        shared.target.route(Split(weights={two: 100}), expected=stale)
    route = shared.target.routes()
    assert (route.split.weights, route.revision) == ({one: 100}, current)


def test_no_traffic_goes_to_a_slot_that_is_not_there(shared: Stage) -> None:
    one = shared.deploy(ONE)
    missing = slot_of(THREE)
    current = shared.route({one: 100})
    with pytest.raises(NotFoundError, match=missing):
        shared.route({one: 90, missing: 10})
    with pytest.raises(NotFoundError, match=missing):
        shared.route({one: 100}, shadow=missing)
    assert shared.target.routes().revision == current


def test_a_shadow_needs_traffic_to_copy(shared: Stage) -> None:
    one = shared.deploy(ONE)
    with pytest.raises(ConfigError):
        shared.route({}, shadow=one)


def test_a_slot_with_traffic_or_a_copy_of_it_is_not_removed(shared: Stage) -> None:
    one, two = shared.deploy(ONE), shared.deploy(TWO)
    shared.route({one: 100}, shadow=two)
    for slot in (one, two):
        with pytest.raises(ConflictError, match=slot):
            shared.target.remove(slot)
        assert shared.target.inspect()[slot].ready == 1


def test_a_removed_slot_is_gone_and_removing_it_again_is_no_error(shared: Stage) -> None:
    one, two = shared.deploy(ONE), shared.deploy(TWO)
    shared.route({one: 100, two: 0})
    shared.target.remove(two)
    shared.target.remove(two)
    assert set(shared.target.inspect()) == {one}


def test_a_removed_slot_can_be_deployed_again_with_another_artifact(stage: Stage) -> None:
    slot = stage.deploy(ONE)
    stage.target.remove(slot)
    stage.target.deploy(ONE, stage.artifact("another"), slot, replicas=1)
    assert stage.target.inspect()[slot].artifact == stage.artifact("another").digest
