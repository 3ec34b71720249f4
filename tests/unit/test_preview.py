"""deploy-staging and deploy-production that show, and do not deploy: on fakes."""

from pathlib import Path

import msgspec
import pytest

from mlship.adapters.targets.kubernetes import KubernetesTarget
from mlship.adapters.targets.local import LocalTarget
from mlship.config.project import TargetConfig
from mlship.domain.deployment import Split, TargetName, slot_of
from mlship.domain.digests import Digest
from mlship.domain.evidence import Saw, Step
from mlship.domain.facts import PushedImage
from mlship.domain.ports import Declarative, Target
from mlship.domain.release import Release
from mlship.errors import ConfigError, ConflictError, NotFoundError, RefusedError
from mlship.steps.deploy import deploy_production, deploy_staging
from mlship.steps.preview import changes, render
from mlship.steps.traffic import traffic
from mlship.steps.train import train
from tests.fakes.ports import CONFIG, World, world
from tests.fakes.target import FakeCluster, FakeTarget, text_of
from tests.harness.samples import nothing

DIGEST = Digest("sha256:" + "a" * 64)


@pytest.fixture
def here(tmp_path: Path) -> World:
    targets = {name: TargetConfig(kind="kubernetes") for name in ("staging", "production")}
    made = world(tmp_path, msgspec.structs.replace(CONFIG, targets=targets))
    made.targets |= {name: FakeCluster() for name in targets}
    return made


def pushed(here: World, params: str = "C=1") -> Release:
    """Train a release and say that its image is in a registry."""
    here.trainer.params = params
    release = train(here.pipeline).evidence.release
    facts = PushedImage(digest=DIGEST, reference=f"registry.example/{params}@{DIGEST}")
    here.pipeline.learn(release, "push-to-registry", "passed", facts, Saw(image=DIGEST))
    return release


def proven(here: World, params: str = "C=1") -> Release:
    """Say that a pushed release has passed all that production asks for."""
    release = pushed(here, params)
    steps: tuple[Step, ...] = ("test", "test-container", "verify-staging-workload")
    for step in steps:
        here.pipeline.learn(release, step, "passed", nothing(step), Saw(image=DIGEST))
    return release


def objects(here: World, name: TargetName, release: Release, *, replace: bool = False) -> list[str]:
    """Return what would change; nothing has changed after it."""
    target, before = here.targets[name], here.ledger.records()
    seen = (target.inspect(), target.routes(), here.store.versions())
    found = changes(here.pipeline, name, release, replace=replace)
    assert (target.inspect(), target.routes(), here.store.versions()) == seen
    assert here.ledger.records() == before
    return [f"{one.action} {one.object}" for one in found]


def test_only_targets_of_manifests_can_be_shown(here: World) -> None:
    assert issubclass(KubernetesTarget, Declarative)
    assert not issubclass(LocalTarget, Declarative)
    here.targets["staging"] = FakeTarget()
    release = pushed(here)
    with pytest.raises(ConfigError, match="target staging is local") as caught:
        changes(here.pipeline, "staging", release)
    assert "targets.staging.kind" in caught.value.hint
    with pytest.raises(ConfigError, match="target staging is local"):
        render(here.pipeline, "staging", release, here.pipeline.root / "out")


def test_the_diff_of_staging_is_what_the_deployment_then_does(here: World) -> None:
    one, two = pushed(here, "C=1"), pushed(here, "C=2")
    route = "change Route"
    assert objects(here, "staging", one) == [f"create Slot {slot_of(one)}", route]
    deploy_staging(here.pipeline, one)
    assert objects(here, "staging", one) == []
    gone = f"delete Slot {slot_of(one)}"
    assert objects(here, "staging", two) == [f"create Slot {slot_of(two)}", route, gone]
    deploy_staging(here.pipeline, two)
    assert objects(here, "staging", two) == []


def test_the_diff_needs_no_lock(here: World) -> None:
    release = pushed(here)
    with here.locks.exclusive("staging"):
        assert objects(here, "staging", release)


def test_the_diff_of_production_is_what_the_deployment_then_does(here: World) -> None:
    one, two, three = (proven(here, f"C={number}") for number in (1, 2, 3))
    assert objects(here, "production", one) == [f"create Slot {slot_of(one)}", "change Route"]
    deploy_production(here.pipeline, one)
    assert objects(here, "production", one) == []
    made = changes(here.pipeline, "production", two)
    deploy_production(here.pipeline, two)
    assert made[1].diff.endswith(f"+{text_of(here.targets['production'].routes().split)}")
    assert objects(here, "production", two) == []
    gone = f"delete Slot {slot_of(two)}"
    found = objects(here, "production", three, replace=True)
    assert found == [f"create Slot {slot_of(three)}", "change Route", gone]
    deploy_production(here.pipeline, three, occupied="replace")
    assert objects(here, "production", three) == []


def test_what_deploying_would_refuse_the_diff_refuses(here: World) -> None:
    unproven = pushed(here)
    with pytest.raises(RefusedError, match="not fit for production") as deploying:
        deploy_production(here.pipeline, unproven)
    with pytest.raises(RefusedError) as showing:
        changes(here.pipeline, "production", unproven)
    assert showing.value.message == deploying.value.message
    one, two, three = (proven(here, f"C={number}") for number in (1, 2, 3))
    deploy_production(here.pipeline, one)
    deploy_production(here.pipeline, two)
    with pytest.raises(RefusedError, match="is already challenger"):
        changes(here.pipeline, "production", three)


def test_a_release_without_an_image_has_no_manifests(here: World) -> None:
    release = train(here.pipeline).evidence.release
    names: tuple[TargetName, ...] = ("staging", "production")
    for name in names:
        with pytest.raises(NotFoundError, match="no image in a registry"):
            render(here.pipeline, name, release, here.pipeline.root / "out")
    assert not (here.pipeline.root / "out").exists()


def test_files_are_the_same_each_time_and_written_once(here: World) -> None:
    release, out = pushed(here), here.pipeline.root / "a" / "out"
    files = render(here.pipeline, "staging", release, out)
    assert [one.name for one in files] == [f"1-slot-{slot_of(release)}.yaml", "2-route.yaml"]
    assert {one.name for one in out.iterdir()} == {one.name for one in files}
    first = {one: (one.read_bytes(), one.stat().st_ino) for one in files}
    assert render(here.pipeline, "staging", release, out) == files
    assert {one: (one.read_bytes(), one.stat().st_ino) for one in files} == first
    assert here.targets["staging"].inspect() == {}


def test_files_of_our_own_are_renewed_and_those_of_others_are_kept(here: World) -> None:
    release, out = pushed(here), here.pipeline.root / "out"
    slot, route = render(here.pipeline, "staging", release, out)
    more = TargetConfig(kind="kubernetes", replicas=3)
    targets = {**here.pipeline.config.targets, "staging": more}
    object.__setattr__(
        here.pipeline, "config", msgspec.structs.replace(here.pipeline.config, targets=targets)
    )
    render(here.pipeline, "staging", release, out)
    assert "times 3" in slot.read_text()
    route.write_text(route.read_text().replace("100", "90"))
    slot.unlink()
    with pytest.raises(ConflictError, match=r"2-route\.yaml was changed since mlship"):
        render(here.pipeline, "staging", release, out)
    assert not slot.exists()
    route.write_text("kind: HTTPRoute\n")
    with pytest.raises(ConflictError, match=r"2-route\.yaml"):
        render(here.pipeline, "staging", release, out)
    assert route.read_text() == "kind: HTTPRoute\n"


@pytest.mark.parametrize("name", ["out", "out/below"])
def test_what_is_no_folder_is_named(here: World, name: str) -> None:
    (here.pipeline.root / "out").write_text("mine")
    with pytest.raises(ConfigError, match="is not a folder"):
        render(here.pipeline, "staging", pushed(here), here.pipeline.root / name)


def test_the_files_of_production_have_the_split_that_the_ledger_speaks_of(here: World) -> None:
    one, two = proven(here, "C=1"), proven(here, "C=2")
    out = here.pipeline.root / "out"

    def route(release: Release) -> str:
        return render(here.pipeline, "production", release, out)[1].read_text().partition("\n")[2]

    def shown(weights: dict[Release, int]) -> str:
        return text_of(Split(weights={slot_of(each): share for each, share in weights.items()}))

    assert route(one) == shown({one: 100})
    deploy_production(here.pipeline, one)
    assert route(one) == shown({one: 100})
    assert route(two) == shown({one: 90, two: 10})
    deploy_production(here.pipeline, two)
    traffic(here.pipeline, {"challenger": 25}, override="a drill")
    assert route(two) == route(one) == shown({one: 75, two: 25})


def test_a_fake_that_can_be_shown_is_a_target() -> None:
    target: Target = FakeCluster()
    assert isinstance(target, Declarative)
    assert not isinstance(FakeTarget(), Declarative)
