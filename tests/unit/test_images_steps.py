"""containerize and push-to-registry on fakes: what they record, and what they do not do twice."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec
import pytest

from mlship.cli import results
from mlship.config.project import ImageConfig, TargetConfig
from mlship.config.targets import KubernetesConfig
from mlship.domain import digests, shapes
from mlship.domain.attestation import SBOM
from mlship.domain.digests import Digest
from mlship.domain.evidence import Record
from mlship.domain.facts import PushedImage
from mlship.domain.image import Reference
from mlship.domain.provenance import PREDICATE_TYPE as SLSA
from mlship.domain.referrers import CYCLONEDX, PREDICATE, Document
from mlship.domain.release import Release
from mlship.domain.release_statement import KIND, ReleaseStatement, read
from mlship.errors import ConflictError, IntegrityError, NotFoundError, UnavailableError
from mlship.steps.approve import approve
from mlship.steps.containerize import containerize, hand_over
from mlship.steps.pipeline import Pipeline
from mlship.steps.push import push
from mlship.steps.test import test as check
from mlship.steps.train import train
from tests.fakes.ports import CONFIG, World, world


@pytest.fixture
def made(tmp_path: Path) -> tuple[World, Release]:
    there = world(tmp_path)
    return there, train(there.pipeline).evidence.release


def test_containerize_records_the_image_by_digest_with_its_layers(
    made: tuple[World, Release],
) -> None:
    there, release = made
    facts = containerize(there.pipeline, release).evidence.facts
    assert facts["reference"] == f"localhost:5000/iris@{facts['digest']}"
    (platform,) = facts["platforms"]
    assert [layer["role"] for layer in platform["layers"]] == ["base", "bundle"]
    assert facts["size"] == 200
    assert facts["base"].endswith(there.images.base)


def test_both_run_twice_record_once(made: tuple[World, Release]) -> None:
    there, release = made
    first = containerize(there.pipeline, release), push(there.pipeline, release)
    records = len(there.ledger.records())
    assert (containerize(there.pipeline, release), push(there.pipeline, release)) == first
    assert len(there.ledger.records()) == records


def test_an_image_that_a_registry_lost_is_pushed_again(made: tuple[World, Release]) -> None:
    there, release = made
    containerize(there.pipeline, release)
    reference = push(there.pipeline, release).evidence.facts["reference"]
    there.images.registry.clear()
    assert push(there.pipeline, release).evidence.facts["reference"] == reference
    assert len(there.images.registry) == 1


def test_a_release_keeps_its_base_when_the_tag_moves(made: tuple[World, Release]) -> None:
    there, release = made
    first = containerize(there.pipeline, release)
    there.images.base = digests.of_bytes(b"patched")
    assert containerize(there.pipeline, release) == first
    pushed = push(there.pipeline, release).evidence.facts
    assert pushed["digest"] == first.evidence.facts["digest"]


def test_only_what_was_proven_is_pushed(made: tuple[World, Release]) -> None:
    there, release = made
    containerize(there.pipeline, release)
    there.images.tool = "2"
    with pytest.raises(ConflictError, match="was tested"):
        push(there.pipeline, release)
    assert not there.images.registry
    again = containerize(there.pipeline, release).evidence.facts
    assert push(there.pipeline, release).evidence.facts["digest"] == again["digest"]


def test_a_release_without_an_image_is_not_pushed(made: tuple[World, Release]) -> None:
    there, release = made
    with pytest.raises(NotFoundError, match="no image yet") as caught:
        push(there.pipeline, release)
    assert "mlship containerize" in caught.value.hint


@pytest.mark.parametrize("step", [containerize, push])
def test_a_job_is_given_the_reference_and_the_digest(
    made: tuple[World, Release],
    step: Callable[[Pipeline, Release], Record],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    there, release = made
    digest = containerize(there.pipeline, release).evidence.facts["digest"]
    outputs = tmp_path / "outputs"
    monkeypatch.setenv("GITHUB_OUTPUT", str(outputs))
    results.record(step(there.pipeline, release), json=True)
    lines = outputs.read_text().splitlines()
    told = {line.partition("<<")[0]: lines[at + 1] for at, line in enumerate(lines) if "<<" in line}
    assert told == {
        "release": str(release),
        "verdict": "passed",
        "reference": f"localhost:5000/iris@{digest}",
        "digest": digest,
    }


def by_docker(there: World, extension: str = "RUN a") -> Pipeline:
    """Return the pipeline of a project whose images Docker builds."""
    there.images.builder = "docker"
    (there.pipeline.root / "system.Dockerfile").write_text(extension)
    image = ImageConfig(builder="docker", extend="system.Dockerfile", repository="localhost:5000/i")
    config = msgspec.structs.replace(there.pipeline.config, image=image)
    return dataclasses.replace(there.pipeline, config=config)


def test_what_docker_built_is_recorded_with_its_instructions_and_not_made_again_to_be_pushed(
    made: tuple[World, Release],
) -> None:
    there, release = made
    pipeline = by_docker(there)
    found = containerize(pipeline, release).evidence
    assert found.facts["builder"] == "docker"
    assert found.saw.extension == digests.of_bytes(b"RUN a")
    there.images.tool = "an engine that builds other bytes"
    pushed = push(pipeline, release).evidence
    assert pushed.facts["digest"] == found.facts["digest"]
    assert there.images.builds == 1


def test_what_docker_built_elsewhere_comes_as_a_file(
    made: tuple[World, Release], tmp_path: Path
) -> None:
    there, release = made
    pipeline, file = by_docker(there), tmp_path / "image.tar"
    record = containerize(pipeline, release)
    hand_over(pipeline, record, file)
    there.images.kept.clear()
    with pytest.raises(NotFoundError):
        push(pipeline, release)
    with pytest.raises(NotFoundError, match="there is no"):
        push(pipeline, release, tmp_path / "other.tar")
    (tmp_path / "other.tar").write_text("another image")
    with pytest.raises(IntegrityError):
        push(pipeline, release, tmp_path / "other.tar")
    assert not there.images.registry
    digest = push(pipeline, release, file).evidence.facts["digest"]
    assert digest == record.evidence.facts["digest"]
    assert there.images.builds == 1


def test_an_image_of_mlships_own_may_come_as_a_file_too(
    made: tuple[World, Release], tmp_path: Path
) -> None:
    there, release = made
    record = containerize(there.pipeline, release)
    hand_over(there.pipeline, record, tmp_path / "image.tar")
    push(there.pipeline, release, tmp_path / "image.tar")
    assert there.images.builds == 1


def test_once_pushed_docker_builds_a_release_again_only_by_other_instructions(
    made: tuple[World, Release],
) -> None:
    there, release = made
    pipeline = by_docker(there)
    first = containerize(pipeline, release)
    there.images.tool = "an engine that builds other bytes"
    second = containerize(pipeline, release)
    assert second != first, "not pushed: nobody depends on it"
    push(pipeline, release)
    there.images.tool = "a third"
    assert containerize(pipeline, release) == second
    assert there.images.builds == 2
    third = containerize(by_docker(there, "RUN b"), release)
    assert third.evidence.facts["digest"] != second.evidence.facts["digest"]


def test_another_builder_than_that_of_the_proven_image_is_refused(
    made: tuple[World, Release],
) -> None:
    there, release = made
    containerize(there.pipeline, release)
    pipeline = by_docker(there)
    with pytest.raises(ConflictError, match="built without Docker") as caught:
        push(pipeline, release)
    assert "containerize" in caught.value.hint
    assert there.images.builds == 1
    containerize(pipeline, release)
    push(pipeline, release)


@pytest.mark.parametrize(
    ("target", "is_pushed"),
    [
        (TargetConfig(), False),
        (TargetConfig(kind="kubernetes"), True),
        (TargetConfig(kind="kubernetes", kubernetes=KubernetesConfig(gateway="a/b")), False),
    ],
)
def test_a_router_is_pushed_where_a_target_in_a_cluster_names_no_gateway(
    tmp_path: Path, target: TargetConfig, *, is_pushed: bool
) -> None:
    there = world(tmp_path, msgspec.structs.replace(CONFIG, targets={"staging": target}))
    release = train(there.pipeline).evidence.release
    containerize(there.pipeline, release)
    record = push(there.pipeline, release)
    router = shapes.of(record, PushedImage).router
    assert bool(router) == is_pushed
    assert len(there.images.registry) == 1 + is_pushed
    if is_pushed:
        assert router.partition("@")[2] in there.images.registry
        artifact = there.pipeline.artifact(release, "staging", there.pipeline.read())
        assert artifact.router == router
    assert push(there.pipeline, release) == record


def test_a_release_that_was_pushed_before_gets_its_router_recorded(
    made: tuple[World, Release],
) -> None:
    there, release = made
    containerize(there.pipeline, release)
    assert shapes.of(push(there.pipeline, release), PushedImage).router == ""
    targets = {"staging": TargetConfig(kind="kubernetes")}
    config = msgspec.structs.replace(there.pipeline.config, targets=targets)
    plain = dataclasses.replace(there.pipeline, config=config)
    assert shapes.of(push(plain, release), PushedImage).router


def documents(there: World, digest: Digest) -> dict[str, bytes]:
    """Return what is attached to an image, by what it is about."""
    found = there.images.documents.get(digest, {}).values()
    return {each.annotations.get(PREDICATE, each.artifact_type): each.data for each in found}


def shipped(there: World, release: Release) -> tuple[PushedImage, Digest]:
    """Build and push an image; return what was recorded, and its digest."""
    containerize(there.pipeline, release)
    facts = shapes.of(push(there.pipeline, release), PushedImage)
    return facts, facts.digest


def test_a_push_attaches_sbom_and_provenance_of_the_image(made: tuple[World, Release]) -> None:
    there, release = made
    facts, digest = shipped(there, release)
    attached = documents(there, digest)
    assert set(attached) == {CYCLONEDX, SBOM, SLSA, KIND}
    bill, statement = json.loads(attached[CYCLONEDX]), json.loads(attached[SLSA])
    hexadecimal = digest.removeprefix("sha256:")
    assert bill["metadata"]["component"]["hashes"][0]["content"] == hexadecimal
    assert statement["subject"][0]["digest"]["sha256"] == hexadecimal
    assert json.loads(attached[SBOM])["predicate"] == bill
    assert set(facts.attached) == {"cyclonedx", "sbom", "provenance"}
    assert set(facts.attached.values()) < set(there.images.documents[digest])


def statements(there: World, digest: Digest) -> list[ReleaseStatement]:
    """Return the release statements at an image, in the order in which they were attached."""
    found = there.images.documents[digest].values()
    kept = [json.loads(each.data) for each in found if each.annotations.get(PREDICATE) == KIND]
    return [read(each["predicate"])[0] for each in kept]


def test_a_release_statement_has_the_records_as_the_ledger_has_them(
    made: tuple[World, Release],
) -> None:
    there, release = made
    tested = check(there.pipeline, release)
    _, digest = shipped(there, release)
    (first,) = statements(there, digest)
    assert [each.step for each in first.records] == [
        *("train", "test", "containerize", "push-to-registry"),
    ]
    assert first.records[1].record == there.ledger.stored[tested.digest]
    assert first.ledger.heads == (there.ledger.records()[-1].digest,)
    approve(there.pipeline, release, by="ada")
    push(there.pipeline, release)
    second = statements(there, digest)[-1]
    assert [each.step for each in second.records][-1] == "approve"
    assert second.ledger.records == first.ledger.records + 1


def test_the_same_statement_is_attached_once(made: tuple[World, Release]) -> None:
    there, release = made
    _, digest = shipped(there, release)
    documents, records = len(there.images.documents[digest]), len(there.ledger.records())
    push(there.pipeline, release)
    assert len(there.images.documents[digest]) == documents
    assert len(there.ledger.records()) == records


def test_a_registry_that_refuses_documents_gets_the_image_and_the_next_push_attaches_them(
    made: tuple[World, Release],
) -> None:
    there, release = made
    there.images.refuses = UnavailableError("localhost:5000 answered 405", hint="ask")
    facts, digest = shipped(there, release)
    assert facts.attached == {}
    assert digest in there.images.registry
    assert any("answered 405" in note for note in there.progress.notes)
    there.images.refuses = None
    attached = shapes.of(push(there.pipeline, release), PushedImage).attached
    assert set(attached) == {"cyclonedx", "sbom", "provenance"}


def with_attach(there: World, attach: Literal["try", "require", "off"]) -> Pipeline:
    image = msgspec.structs.replace(there.pipeline.config.image, attach=attach)
    config = msgspec.structs.replace(there.pipeline.config, image=image)
    return dataclasses.replace(there.pipeline, config=config)


def test_required_documents_fail_the_push_and_it_can_be_run_again(
    made: tuple[World, Release],
) -> None:
    there, release = made
    pipeline = with_attach(there, "require")
    containerize(pipeline, release)
    there.images.refuses = UnavailableError("localhost:5000 answered 405", hint="ask")
    with pytest.raises(UnavailableError, match="answered 405"):
        push(pipeline, release)
    there.images.refuses = None
    facts = shapes.of(push(pipeline, release), PushedImage)
    assert set(documents(there, facts.digest)) == {CYCLONEDX, SBOM, SLSA, KIND}


def test_a_damaged_layer_is_no_refusal(made: tuple[World, Release]) -> None:
    there, release = made
    containerize(there.pipeline, release)
    there.images.refuses = IntegrityError("layer has other bytes", hint="ask")
    with pytest.raises(IntegrityError):
        push(there.pipeline, release)


def test_nothing_is_attached_where_that_is_off(made: tuple[World, Release]) -> None:
    there, release = made
    pipeline = with_attach(there, "off")
    containerize(pipeline, release)
    facts = shapes.of(push(pipeline, release), PushedImage)
    assert (facts.attached, there.images.documents) == ({}, {})
    assert not (pipeline.state / "sboms").exists()


def test_a_build_leaves_the_sbom_that_the_push_attaches(made: tuple[World, Release]) -> None:
    there, release = made
    facts, digest = shipped(there, release)
    path = there.pipeline.state / "sboms" / f"{digests.short(digest)}.cdx.json"
    assert path.read_bytes() == documents(there, digest)[CYCLONEDX]
    assert facts.attached


def test_a_push_that_is_killed_between_two_documents_is_completed(
    made: tuple[World, Release], monkeypatch: pytest.MonkeyPatch
) -> None:
    there, release = made
    containerize(there.pipeline, release)
    attach, attached = there.images.attach, list[Document]()

    def killed(image: Reference, document: Document) -> Digest:
        if attached:
            raise KeyboardInterrupt
        attached.append(document)
        return attach(image, document)

    with monkeypatch.context() as patched:
        patched.setattr(there.images, "attach", killed)
        with pytest.raises(KeyboardInterrupt):
            push(there.pipeline, release)
    facts = shapes.of(push(there.pipeline, release), PushedImage)
    assert set(documents(there, facts.digest)) == {CYCLONEDX, SBOM, SLSA, KIND}
    assert set(facts.attached.values()) < set(there.images.documents[facts.digest])
