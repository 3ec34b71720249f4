"""A deployment verifies the image first, and a promotion that the ledger has lost nothing."""

import dataclasses
import re
from collections.abc import Callable, Container, Sequence
from pathlib import Path

import msgspec
import pytest

from mlship.config.project import ImageConfig, TargetConfig
from mlship.config.targets import KubernetesConfig
from mlship.domain import attestation, shapes
from mlship.domain.digests import Digest
from mlship.domain.evidence import Record, Step
from mlship.domain.facts import Deployed, Withdrawn
from mlship.domain.image import reference
from mlship.domain.policy import PromotePolicy
from mlship.domain.public_keys import pem
from mlship.domain.records import Records
from mlship.domain.release import Release
from mlship.domain.release_statement import KIND
from mlship.domain.signatures import Signatures
from mlship.domain.trust import OPEN, Scope, Signer, Trust
from mlship.errors import ConfigError, IntegrityError, RefusedError, UnavailableError
from mlship.steps.approve import approve
from mlship.steps.attest import attach_statement
from mlship.steps.containerize import containerize
from mlship.steps.deploy import deploy_production, deploy_staging
from mlship.steps.ledger import sign
from mlship.steps.promote import promote
from mlship.steps.push import push
from mlship.steps.train import train
from mlship.steps.verify_image import admission_policy, verify_image
from tests.fakes.ports import CONFIG, World, world
from tests.harness.samples import NOON, nothing
from tests.harness.signing import key, verified

CI, EVE, FORMER = key(), key(), key()
TRUST = Trust(signers=(Signer(name="ci", key=CI.public),), unsigned=False)
KUBERNETES = TargetConfig(kind="kubernetes", kubernetes=KubernetesConfig(namespace="iris"))


def ready(folder: Path, *steps: Step, trust: Trust = TRUST) -> tuple[World, Release]:
    """Give a signed release of which the image was pushed."""
    config = msgspec.structs.replace(
        CONFIG,
        targets={"staging": KUBERNETES, "production": KUBERNETES},
        image=ImageConfig(repository="localhost:5000/iris"),
        gates=msgspec.structs.replace(CONFIG.gates, container=False),
    )
    here = world(folder, config)
    here.ledger.by = CI
    by = Signatures(signing=CI, trust=lambda: trust, verify=verified)
    here.pipeline = dataclasses.replace(here.pipeline, signatures=by)
    release = train(here.pipeline).evidence.release
    for step in steps:
        here.pipeline.learn(release, step, "passed", nothing(step))
    containerize(here.pipeline, release)
    push(here.pipeline, release)
    return here, release


BOTH: tuple[Step, ...] = ("test", "verify-staging-workload")


def removed(here: World, *kinds: str) -> None:
    for kept in here.images.documents.values():
        for digest, each in list(kept.items()):
            if each.annotations.get(attestation.PREDICATE) in kinds:
                del kept[digest]


def test_what_was_verified_is_in_the_evidence_of_the_deployment(tmp_path: Path) -> None:
    here, release = ready(tmp_path, *BOTH)
    deploy_staging(here.pipeline, release)
    record = deploy_production(here.pipeline, release)
    names = [check.name for check in shapes.of(record, Deployed).checks]
    assert names[-3:] == ["verify-staging-workload", "provenance", "SBOM"]


Deploy = Callable[[World, Release], object]
DEPLOYMENTS: dict[str, Deploy] = {
    "staging": lambda here, release: deploy_staging(here.pipeline, release),
    "production": lambda here, release: deploy_production(here.pipeline, release),
}


@pytest.mark.parametrize("target", DEPLOYMENTS)
@pytest.mark.parametrize("kind", [attestation.SBOM, "https://slsa.dev/provenance/v1"])
def test_an_image_without_a_statement_is_not_deployed(
    target: str, kind: str, tmp_path: Path
) -> None:
    here, release = ready(tmp_path, *BOTH)
    removed(here, kind)
    with pytest.raises(RefusedError, match="is attached") as caught:
        DEPLOYMENTS[target](here, release)
    assert "push-to-registry" in caught.value.hint
    assert not here.targets[target].inspect()
    push(here.pipeline, release)
    DEPLOYMENTS[target](here, release)


def test_a_statement_of_a_stranger_is_not_enough(tmp_path: Path) -> None:
    here, release = ready(tmp_path, *BOTH)
    removed(here, attestation.SBOM)
    stranger = dataclasses.replace(here.pipeline.signatures, signing=EVE)
    by_eve = dataclasses.replace(here.pipeline, signatures=stranger)
    here.ledger.by = EVE
    trusting = dataclasses.replace(stranger, trust=lambda: OPEN)
    push(dataclasses.replace(by_eve, signatures=trusting), release)
    here.ledger.by = CI
    with pytest.raises(RefusedError, match="which `trust` does not name"):
        deploy_staging(here.pipeline, release)


def test_what_the_ledger_learned_since_the_push_counts(
    tmp_path: Path,
) -> None:
    here, release = ready(tmp_path, "test")
    step: Step = "verify-staging-workload"
    here.pipeline.learn(release, step, "passed", nothing(step))
    deploy_production(here.pipeline, release)


def test_a_step_that_is_missing_is_the_next_action(tmp_path: Path) -> None:
    here, release = ready(tmp_path)
    with pytest.raises(RefusedError, match="test: no record that counts") as caught:
        deploy_staging(here.pipeline, release)
    assert caught.value.hint == f"run `mlship test {release}`"


def test_a_registry_that_does_not_respond_stops_a_deployment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, release = ready(tmp_path, *BOTH)

    def away(*_: object) -> None:
        raise UnavailableError("localhost:5000 does not respond", hint="retry")

    monkeypatch.setattr(here.images, "attached", away)
    with pytest.raises(UnavailableError, match="does not respond"):
        deploy_staging(here.pipeline, release)
    assert not here.targets["staging"].inspect()


def test_where_nothing_is_attached_or_anybody_counts_nothing_is_verified(tmp_path: Path) -> None:
    here, release = ready(tmp_path, *BOTH)
    here.images.documents.clear()
    image = msgspec.structs.replace(here.pipeline.config.image, attach="off")
    config = msgspec.structs.replace(here.pipeline.config, image=image)
    deploy_staging(dataclasses.replace(here.pipeline, config=config), release)
    assert "the image is not verified: image.attach is off" in here.progress.notes
    anybody = dataclasses.replace(here.pipeline.signatures, trust=lambda: OPEN)
    open_to_all = dataclasses.replace(here.pipeline, signatures=anybody)
    deploy_staging(open_to_all, release)
    assert any("not verified: nobody is named" in note for note in here.progress.notes)
    with pytest.raises(ConfigError, match="cannot be verified"):
        verify_image(open_to_all, reference("localhost:5000/iris"), "staging", Records())


def _promotable(folder: Path) -> tuple[World, Release]:
    """Give a champion, and a release beside it that may be promoted."""
    here, champion = ready(folder, *BOTH)
    deploy_production(here.pipeline, champion)
    here.trainer.params = "C=2"
    release = train(here.pipeline).evidence.release
    for step in BOTH:
        here.pipeline.learn(release, step, "passed", nothing(step))
    containerize(here.pipeline, release)
    push(here.pipeline, release)
    deploy_production(here.pipeline, release)
    policy = PromotePolicy(metric="none", approvals=1)
    gates = msgspec.structs.replace(here.pipeline.config.gates, promote=policy)
    config = msgspec.structs.replace(here.pipeline.config, gates=gates)
    here.pipeline = dataclasses.replace(here.pipeline, config=config)
    approve(here.pipeline, release, by="grace@example.org")
    return here, release


def _withdraw_and_forget(here: World, release: Release) -> None:
    """Withdraw the approval; then somebody removes the record of it from the ledger."""
    facts = Withdrawn(by="grace@example.org", reason="it is wrong")
    record = here.pipeline.learn(release, "withdraw-approval", "passed", facts)
    attach_statement(here.pipeline, release, here.pipeline.read())
    del here.ledger.stored[record.digest]


def test_a_promotion_finds_that_a_withdrawal_was_removed_from_the_ledger(tmp_path: Path) -> None:
    here, release = _promotable(tmp_path)
    _withdraw_and_forget(here, release)
    with pytest.raises(IntegrityError, match="the release statement at localhost"):
        promote(here.pipeline, release)
    assert here.pipeline.read().history.role(release) == "challenger"


def test_what_a_restored_ledger_lacks_can_be_accepted_by_signature(tmp_path: Path) -> None:
    here, release = _promotable(tmp_path)
    _withdraw_and_forget(here, release)
    with pytest.raises(IntegrityError) as caught:
        promote(here.pipeline, release)
    (gone,) = re.findall(r"`mlship ledger sign --gone (sha256:[0-9a-f]{64})`", caught.value.hint)
    sign(here.pipeline, here.pipeline.read(), [Digest(gone)])
    promote(here.pipeline, release)
    assert here.pipeline.read().history.role(release) == "champion"


def test_without_the_anchor_the_removal_is_not_found(tmp_path: Path) -> None:
    here, release = _promotable(tmp_path)
    _withdraw_and_forget(here, release)
    removed(here, KIND)
    promote(here.pipeline, release)
    assert here.pipeline.read().history.role(release) == "champion"


def test_a_promotion_does_not_wait_for_a_registry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, release = _promotable(tmp_path)

    def away(*_: object) -> None:
        raise UnavailableError("localhost:5000 does not respond", hint="retry")

    for name in ("attached", "attach"):
        monkeypatch.setattr(here.images, name, away)
    promote(here.pipeline, release)
    assert any("was not compared" in note for note in here.progress.notes)


def test_a_policy_has_the_keys_of_those_who_build(tmp_path: Path) -> None:
    ops = Signer(name="ops", key=EVE.public, may=frozenset[Scope](["production"]))
    former = Signer(name="former", key=FORMER.public, until=NOON)
    trust = Trust(signers=(*TRUST.signers, former, ops), unsigned=False)
    here, _ = ready(tmp_path, trust=trust)
    spec = admission_policy(here.pipeline)["spec"]
    assert [each["cosign"]["key"]["data"] for each in spec["attestors"]] == [
        pem(CI.public),
        pem(FORMER.public),
    ]
    assert [each["glob"] for each in spec["matchImageReferences"]] == [
        "localhost:5000/iris:*",
        "localhost:5000/iris@*",
    ]
    nobody = dataclasses.replace(
        here.pipeline.signatures, trust=lambda: Trust(signers=(ops,), unsigned=False)
    )
    with pytest.raises(ConfigError, match="may say build"):
        admission_policy(dataclasses.replace(here.pipeline, signatures=nobody))


def test_what_the_key_of_a_former_job_signed_counts_for_a_later_one(tmp_path: Path) -> None:
    """Each job has a key of its own; the ledger has the bundle that says whose it was."""
    here, release = ready(tmp_path, *BOTH)
    known = Signer(name="main", key=CI.public)

    def prove(trust: Trust, records: Sequence[Record], own: Container[Digest]) -> Trust:
        carried = any(
            each.evidence.identity == "bundle" and each.signer == CI.key and each.digest in own
            for each in records
        )
        return msgspec.structs.replace(trust, signers=(*trust.signers, known)) if carried else trust

    later = Signatures(
        signing=EVE,
        trust=lambda: Trust(signers=(Signer(name="main", key=EVE.public),), unsigned=False),
        verify=verified,
        prove=prove,
    )
    by_later = dataclasses.replace(here.pipeline, signatures=later)
    here.ledger.by = EVE
    # The control: without the bundle nobody knows whose that key was.
    with pytest.raises(IntegrityError, match="the ledger is not trusted"):
        deploy_staging(by_later, release)
    here.ledger.by = CI
    former = dataclasses.replace(here.pipeline.signatures, identity="bundle")
    carrying = dataclasses.replace(here.pipeline, signatures=former)
    carrying.learn(release, "test", "passed", nothing("test"), after=carrying.read())
    here.ledger.by = EVE
    record = deploy_staging(by_later, release)
    assert record.evidence.verdict == "passed"
    assert record.signer == EVE.key
