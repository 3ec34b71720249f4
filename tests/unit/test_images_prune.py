"""images prune and bundles prune: what they remove, what they never do, and after a kill."""

import dataclasses
from collections.abc import Collection, Sequence
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from mlship.config.project import ImageConfig, TargetConfig
from mlship.domain import digests, retention, shapes
from mlship.domain.deployment import Artifact, slot_of
from mlship.domain.digests import Digest
from mlship.domain.facts import Containerized, PushedImage, Routed
from mlship.domain.image import Layer, PlatformImage
from mlship.domain.release import Release
from mlship.domain.removal import PrunedImages
from mlship.domain.retention import Manifest, Retention
from mlship.errors import NotFoundError, RefusedError, UnavailableError
from mlship.steps.bundles_prune import prune_bundles
from mlship.steps.containerize import containerize
from mlship.steps.deploy import deploy_production
from mlship.steps.images_prune import prune_images
from mlship.steps.pipeline import PRODUCTION
from mlship.steps.promote import chosen, promote
from mlship.steps.push import push
from mlship.steps.retire import retire
from mlship.steps.rollback import rollback
from tests.fakes.ports import World, world
from tests.fakes.target import FakeTarget
from tests.harness.kills import Killed
from tests.unit.test_resume import proven, won

NAME = "localhost:5000/iris"
OLD = timedelta(days=100)


class FakeRepository:
    """A repository in memory: manifests by their digests, and tags.

    Attributes:
        log: what was removed, in order.
        dies: this removal is the last thing that its process does.
        refuses: nothing can be removed.
    """

    name = NAME

    def __init__(self) -> None:
        self.manifests: dict[Digest, Manifest] = {}
        self.named: dict[str, Digest] = {}
        self.log: list[Digest] = []
        self.dies = 0
        self.refuses = False

    def put(self, tag: str, manifest: Manifest) -> None:
        self.manifests[manifest.digest] = manifest
        self.named[tag] = manifest.digest

    def tags(self) -> Sequence[str]:
        return list(self.named)

    def find(self, wanted: str) -> Manifest | None:
        return self.manifests.get(self.named.get(wanted, Digest(wanted)))

    def remove(self, digest: Digest, tags: Collection[str] = ()) -> None:
        if self.refuses:
            raise RefusedError("it does not allow that", hint="allow it")
        self.log.append(digest)
        if len(self.log) == self.dies:
            raise Killed
        self.manifests.pop(digest, None)
        self.named = {tag: each for tag, each in self.named.items() if each != digest}


@pytest.fixture
def here(tmp_path: Path) -> World:
    return world(tmp_path)


@pytest.fixture
def place() -> FakeRepository:
    return FakeRepository()


def of(name: str) -> Digest:
    return digests.of_bytes(name.encode())


def pushed(
    here: World,
    place: FakeRepository,
    release: Release,
    *,
    needs: str = "deps-1",
    router: str = "",
    platforms: int = 1,
    text: str = "",
) -> Digest:
    """Record that the image of a release was built and pushed, and put it into the repository."""
    names = [f"image {release.id} {text} {number}" for number in range(platforms)]
    images = [of(name) for name in names]
    digest = images[0] if platforms == 1 else of(f"index {release.id} {text}")
    layer = Layer(
        role="dependencies",
        media_type="application/vnd.oci.image.layer.v1.tar+gzip",
        digest=of(f"layer {needs}"),
        diff_id=of(f"layer {needs}"),
        size=100,
        tag=needs,
    )
    built = Containerized(
        reference=f"{NAME}@{digest}",
        digest=digest,
        tag=digests.short(release.id),
        base=f"localhost:5000/python@{of('base')}",
        platforms=tuple(
            PlatformImage(platform="linux/amd64", manifest=image, config=image, layers=(layer,))
            for image in images
        ),
        size=200,
    )
    facts = PushedImage(
        reference=f"{NAME}@{digest}",
        digest=digest,
        tag=built.tag,
        router=f"{NAME}@{of(router)}" if router else "",
    )
    here.pipeline.learn(release, "containerize", "passed", built)
    here.pipeline.learn(release, "push-to-registry", "passed", facts)
    layers = frozenset({layer.digest})
    for image in images:
        place.manifests[image] = Manifest(digest=image, layers=layers)
    inner = tuple(images) if platforms > 1 else ()
    place.put(built.tag, Manifest(digest=digest, layers=layers, images=inner))
    place.put(needs, Manifest(digest=of(needs), layers=layers))
    if router:
        place.put(f"router-{of(router)[7:19]}", Manifest(digest=of(router)))
    return digest


def pruned(here: World, place: FakeRepository, *, days: int = 90, dry: bool = False) -> Retention:
    return prune_images(here.pipeline, place, keep_days=days, dry_run=dry)


def names(result: Retention) -> set[str]:
    return {item.name for item in result.removed}


def test_an_old_release_that_nothing_needs_is_removed_with_its_layers(
    here: World, place: FakeRepository
) -> None:
    old = proven(here, "C=1")
    pushed(here, place, old)
    here.clock.now += OLD
    kept = pushed(here, place, proven(here, "C=2"), needs="deps-2")
    result = pruned(here, place)
    assert names(result) == {str(old), "deps-1"}
    assert place.manifests.keys() == {kept, of("deps-2")}


def test_a_dry_run_changes_nothing_and_lists_the_same(here: World, place: FakeRepository) -> None:
    pushed(here, place, proven(here, "C=1"))
    here.clock.now += OLD
    proven(here, "C=2")
    before = (dict(place.manifests), here.ledger.records())
    listed = pruned(here, place, dry=True)
    assert (place.manifests, here.ledger.records(), here.locks.held) == (*before, set())
    assert listed.removed == pruned(here, place).removed
    assert listed.removed


def test_what_has_a_role_in_production_stays_however_old_it_is(
    here: World, place: FakeRepository
) -> None:
    first, second, third = (proven(here, f"C={number}") for number in (1, 2, 3))
    for release in (first, second, third):
        pushed(here, place, release)
    deploy_production(here.pipeline, first)
    deploy_production(here.pipeline, second)
    won(here, second)
    records = here.pipeline.read()
    promote(here.pipeline, chosen(here.pipeline, "challenger", records), records)
    deploy_production(here.pipeline, third)
    rollback(here.pipeline)  # the second one waits on standby
    history = here.pipeline.read().history
    assert (history.champion, history.challenger, history.standby) == (first, third, (second,))
    here.clock.now += 10 * OLD
    result = pruned(here, place)
    assert not result.removed
    assert {kept.name: kept.reason for kept in result.kept} == {
        str(first): "champion",
        str(second): "standby",
        str(third): "challenger",
    }


def test_a_retired_release_stays_for_the_days_and_then_goes(
    here: World, place: FakeRepository
) -> None:
    first, second = proven(here, "C=1"), proven(here, "C=2")
    deploy_production(here.pipeline, first)
    deploy_production(here.pipeline, second)
    retire(here.pipeline, second)
    for release in (first, second):
        pushed(here, place, release)
    here.clock.now += timedelta(days=89)
    deploy_production(here.pipeline, proven(here, "C=3"))
    assert not pruned(here, place).removed
    here.clock.now += timedelta(days=2)
    assert names(pruned(here, place)) == {str(second)}


def test_what_runs_in_a_slot_stays_though_the_ledger_does_not_know_why(
    here: World, place: FakeRepository
) -> None:
    by_release, by_image, gone = (proven(here, f"C={number}") for number in (1, 2, 3))
    one, two, _ = (pushed(here, place, each) for each in (by_release, by_image, gone))
    other = msgspec.structs.replace(gone, commit="f" * 40)
    for release, digest in ((by_release, of("another image")), (other, two)):
        artifact = Artifact(kind="image", digest=digest, location=f"{NAME}@{digest}")
        here.targets["staging"].deploy(release, artifact, slot_of(release), replicas=1)
    here.clock.now += OLD
    proven(here, "C=4")
    assert names(pruned(here, place)) == {str(gone)}
    assert {one, two} <= place.manifests.keys()


def test_nothing_is_removed_while_a_cluster_does_not_tell_what_runs(
    here: World, place: FakeRepository
) -> None:
    release = proven(here, "C=1")
    pushed(here, place, release)
    artifact = Artifact(kind="image", digest=of("x"), location=f"{NAME}@{of('x')}")
    target = here.targets["production"]
    assert isinstance(target, FakeTarget)
    deployment = target.deploy(release, artifact, slot_of(release), replicas=1)
    unseen = msgspec.structs.replace(deployment, observed=False, cluster="east")
    target._slots[deployment.slot] = unseen
    here.clock.now += OLD
    with pytest.raises(UnavailableError, match="cluster east of target production"):
        pruned(here, place)
    assert not place.log


def test_a_transition_that_has_not_ended_needs_its_release(
    here: World, place: FakeRepository
) -> None:
    deploy_production(here.pipeline, proven(here, "C=1"))
    second = proven(here, "C=2")
    pushed(here, place, second)
    routed = Routed(operation="1")
    here.pipeline.learn(second, "deploy-production/route", "passed", routed)
    here.clock.now += OLD
    result = pruned(here, place)
    assert not result.removed
    assert [kept.reason for kept in result.kept] == ["a transition of it has not ended"]


def test_a_tag_of_somebodys_own_keeps_the_image(here: World, place: FakeRepository) -> None:
    first, second = proven(here, "C=1"), proven(here, "C=2")
    digest = pushed(here, place, first)
    index = pushed(here, place, second, platforms=2)
    place.named["v1.0"] = digest
    inner = place.manifests[index].images[:1]
    place.put("mine", Manifest(digest=of("mine"), images=inner))
    here.clock.now += OLD
    proven(here, "C=3")
    result = pruned(here, place)
    assert not result.removed
    assert {kept.name for kept in result.kept} == {"v1.0", "mine"}


def test_images_of_other_projects_stay_with_the_layers_that_they_share(
    here: World, place: FakeRepository
) -> None:
    old = proven(here, "C=1")
    pushed(here, place, old, router="router 1")
    shared = Manifest(digest=of("theirs"), layers=frozenset({of("layer deps-1")}))
    place.put("0123456789ab", shared)
    place.put("deps-9", Manifest(digest=of("deps-9")))
    place.put("mlship.iris.record.12", Manifest(digest=of("a record")))
    here.clock.now += OLD
    proven(here, "C=2")
    assert names(pruned(here, place)) == {str(old)}
    tags = {"0123456789ab", "deps-1", "deps-9", "mlship.iris.record.12"}
    assert place.named.keys() == tags | {f"router-{of('router 1')[7:19]}"}


def test_a_load_balancer_goes_with_the_last_image_that_names_it(
    here: World, place: FakeRepository
) -> None:
    pushed(here, place, proven(here, "C=1"), router="router 1")
    second = proven(here, "C=2")
    pushed(here, place, second, router="router 2")
    here.clock.now += OLD
    pushed(here, place, proven(here, "C=3"), router="router 2")
    result = pruned(here, place)
    routers = [item.digest for item in result.removed if item.kind == "load balancer"]
    assert routers == [of("router 1")]
    assert of("router 2") in place.manifests


def test_the_images_of_an_index_go_with_it(here: World, place: FakeRepository) -> None:
    release = proven(here, "C=1")
    pushed(here, place, release, platforms=2)
    here.clock.now += OLD
    proven(here, "C=2")
    pruned(here, place)
    assert not place.manifests


def test_the_ledger_says_what_was_removed(here: World, place: FakeRepository) -> None:
    release = proven(here, "C=1")
    digest = pushed(here, place, release)
    here.clock.now += OLD
    proven(here, "C=2")
    pruned(here, place)
    begun, ended = (each for each in here.ledger.records() if each.evidence.step == "prune-images")
    assert (begun.evidence.verdict, ended.evidence.verdict) == ("undecided", "passed")
    facts = shapes.of(ended, PrunedImages)
    assert (facts.repository, facts.keep_days) == (NAME, 90)
    assert [item.digest for item in facts.removed] == [digest, of("deps-1")]
    records = len(here.ledger.records())
    assert not pruned(here, place).removed
    assert len(here.ledger.records()) == records


@pytest.mark.parametrize("point", range(1, 6))
def test_after_a_kill_the_same_command_removes_the_rest(
    here: World, place: FakeRepository, point: int
) -> None:
    pushed(here, place, proven(here, "C=1"), platforms=2)
    pushed(here, place, proven(here, "C=2"), needs="deps-2")
    here.clock.now += OLD
    kept = pushed(here, place, proven(here, "C=3"), needs="deps-3")
    place.dies = point
    with pytest.raises(Killed):
        pruned(here, place)
    place.dies = 0
    pruned(here, place)
    assert place.manifests.keys() == {kept, of("deps-3")}
    assert not retention.begun(here.ledger.records(), NAME)


def test_a_registry_that_refuses_is_told_and_nothing_counts_as_removed(
    here: World, place: FakeRepository
) -> None:
    release = proven(here, "C=1")
    pushed(here, place, release)
    here.clock.now += OLD
    proven(here, "C=2")
    place.refuses = True
    with pytest.raises(RefusedError):
        pruned(here, place)
    records = here.pipeline.read()
    push_record = records.latest("push-to-registry", release)
    assert push_record is not None
    assert not retention.is_removed(records, push_record)


def in_a_cluster(here: World) -> World:
    cluster = TargetConfig(kind="kubernetes")
    config = msgspec.structs.replace(
        here.pipeline.config,
        image=ImageConfig(repository=NAME),
        targets={"staging": cluster, "production": cluster},
    )
    return dataclasses.replace(here, pipeline=dataclasses.replace(here.pipeline, config=config))


def test_a_removed_image_is_not_deployed_and_can_be_pushed_again(
    here: World, place: FakeRepository
) -> None:
    here = in_a_cluster(here)
    release = proven(here, "C=1")
    containerize(here.pipeline, release)
    first = push(here.pipeline, release)
    place.put("tag", Manifest(digest=shapes.of(first, PushedImage).digest))
    place.named.clear()
    here.clock.now += OLD
    proven(here, "C=2")
    assert pruned(here, place).removed
    here.images.registry.clear()
    with pytest.raises(NotFoundError, match="removed the image") as caught:
        here.pipeline.artifact(release, PRODUCTION, here.pipeline.read())
    assert f"mlship push-to-registry {release}" in caught.value.hint
    again = push(here.pipeline, release)
    assert again != first
    artifact = here.pipeline.artifact(release, PRODUCTION, here.pipeline.read())
    assert artifact.digest == shapes.of(first, PushedImage).digest
    assert push(here.pipeline, release) == again


def bundles_of(here: World) -> set[str]:
    return {path.name for path in (here.pipeline.state / "bundles").iterdir()}


def test_an_old_bundle_goes_and_comes_back_from_the_store(here: World) -> None:
    old = proven(here, "C=1")
    here.clock.now += OLD
    new = proven(here, "C=2")
    listed = prune_bundles(here.pipeline, keep_days=90, dry_run=True)
    assert [item.name for item in listed.removed] == [str(old)]
    assert here.pipeline.bundle_folder(old.bundle).is_dir()
    records = len(here.ledger.records())
    assert prune_bundles(here.pipeline, keep_days=90, dry_run=False).removed == listed.removed
    assert bundles_of(here) == {digests.short(new.bundle)}
    assert len(here.ledger.records()) == records
    assert here.pipeline.bundle(old).is_dir()


def test_a_bundle_that_the_store_lost_stays(here: World) -> None:
    old = proven(here, "C=1")
    here.clock.now += OLD
    proven(here, "C=2")
    del here.store._bundles[old.id]
    result = prune_bundles(here.pipeline, keep_days=90, dry_run=False)
    assert not result.removed
    assert next(kept.reason for kept in result.kept) == "the store has no copy of its bundle"
    assert here.pipeline.bundle_folder(old.bundle).is_dir()


def test_a_bundle_that_runs_stays_and_so_does_a_folder_that_the_ledger_does_not_know(
    here: World,
) -> None:
    champion = proven(here, "C=1")
    deploy_production(here.pipeline, champion)
    (here.pipeline.state / "bundles" / "0123456789ab").mkdir()
    here.clock.now += 10 * OLD
    assert not prune_bundles(here.pipeline, keep_days=90, dry_run=False).removed
    assert bundles_of(here) == {digests.short(champion.bundle), "0123456789ab"}
