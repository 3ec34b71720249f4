"""An image may run only if what is attached to it was signed by those who may say it."""

import base64
import dataclasses
import json
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, Final

import msgspec
import pytest

from mlship.domain import attestation, digests, dsse, evidence, release_statement, verification
from mlship.domain.attestation import Attestation
from mlship.domain.digests import Digest
from mlship.domain.dsse import Signing
from mlship.domain.evidence import Evidence, Record, Saw, Step, Verdict
from mlship.domain.provenance import PREDICATE_TYPE as SLSA
from mlship.domain.records import Records
from mlship.domain.release import Release
from mlship.domain.signatures import Signatures
from mlship.domain.trust import Scope, Signer, Trust
from mlship.domain.verification import Verified, Wanted
from mlship.errors import IntegrityError
from tests.harness.samples import NOON, release
from tests.harness.signing import key, verified

IMAGE, OTHER = digests.of_bytes(b"image"), digests.of_bytes(b"other image")
HOME = "github.com/team/iris"
SOURCE = "https://github.com/team/iris"
VULN = "https://cosign.sigstore.dev/attestation/vuln/v1"
HOUR = timedelta(hours=1)

CI, STAGE, OPS, ADA, EVE = key(), key(), key(), key(), key()
SIGNERS = (
    Signer(name="ci", key=CI.public, may=frozenset[Scope](["build"])),
    Signer(name="stage", key=STAGE.public, may=frozenset[Scope](["staging"])),
    Signer(name="ops", key=OPS.public, may=frozenset[Scope](["production"])),
    Signer(name="ada", key=ADA.public, may=frozenset[Scope](["approve"])),
)
WANTED = Wanted(
    image=IMAGE,
    project="iris",
    home=HOME,
    source=SOURCE,
    release=release(),
    steps=("test", "push-to-registry", "verify-staging-workload", "test-container"),
)
SIGNS: dict[Step, Signing] = {"verify-staging-workload": STAGE, "approve": ADA}


@dataclasses.dataclass
class Case:
    """An image with all that it needs; a test changes one thing.

    Attributes:
        steps: of the release, with the verdict of each.
        by: who signs the record of a step.
    """

    image: Digest = IMAGE
    of: Release = dataclasses.field(default_factory=release)
    project: str = "iris"
    home: str = HOME
    steps: dict[Step, Verdict] = dataclasses.field(
        default_factory=lambda: dict.fromkeys(
            (
                *("train", "test", "containerize", "test-container", "push-to-registry"),
                "verify-staging-workload",
            ),
            "passed",
        )
    )
    by: dict[Step, Signing | None] = dataclasses.field(default_factory=dict)
    contained: Digest = IMAGE
    tested: Digest = IMAGE

    def record(self, step: Step, *after: Record) -> Record:
        seen = {"test-container": self.tested, "push-to-registry": self.image}.get(step)
        facts = {"digest": self.contained} if step == "containerize" else {}
        made = Evidence(
            release=self.of,
            step=step,
            verdict=self.steps[step],
            facts=facts,
            saw=Saw(image=seen),
            actor="ada",
            time=NOON,
            home=self.home,
            parents=tuple(record.digest for record in after),
        )
        return evidence.decode(evidence.encode(made, self.by.get(step, SIGNS.get(step, CI))))

    def records(self) -> list[Record]:
        made: list[Record] = []
        for step in self.steps:
            made.append(self.record(step, *made[-1:]))
        return made

    def statement(self, kind: str) -> tuple[Digest, str, Any]:
        records = self.records()
        built = next((each for each in records if each.evidence.step == "containerize"), None)
        predicates: dict[str, Any] = {
            attestation.SBOM: bill(self.image),
            SLSA: slsa(self.of.commit, built.digest if built else ""),
            release_statement.KIND: release_statement.of(
                self.project, self.home, self.of, Records.alone(records)
            ),
        }
        return self.image, kind, predicates[kind]


def bill(image: Digest) -> dict[str, Any]:
    hashes = [{"alg": "SHA-256", "content": image.removeprefix("sha256:")}]
    return {"bomFormat": "CycloneDX", "metadata": {"component": {"hashes": hashes}}}


def slsa(commit: str, built: str, source: str = SOURCE) -> dict[str, Any]:
    listed = [
        {"name": "source", "uri": f"git+{source}@{commit}", "digest": {"gitCommit": commit}},
        {"name": "base", "digest": {"sha256": "0" * 64}, "annotations": {"a": True}},
    ]
    return {
        "buildDefinition": {"buildType": "x", "resolvedDependencies": listed},
        "runDetails": {"metadata": {"invocationId": built}},
    }


KINDS: Final = (attestation.SBOM, SLSA, release_statement.KIND)


def sealed(case: Case, kind: str, by: Signing = CI) -> bytes:
    image, named, predicate = case.statement(kind)
    return attestation.seal(attestation.statement("localhost/iris", image, named, predicate), by)


def attached(case: Case | None = None, **by: Signing) -> dict[str, bytes]:
    """Return the documents of an image by their kinds."""
    made = case or Case()
    names = dict(zip(("sbom", "slsa", "release"), KINDS, strict=True))
    return {kind: sealed(made, kind, by.get(name, CI)) for name, kind in names.items()}


def judged(
    documents: Sequence[bytes],
    wanted: Wanted = WANTED,
    signers: Sequence[Signer] = SIGNERS,
) -> Verified:
    found: list[Attestation] = []
    unreadable: list[str] = []
    for document in documents:
        try:
            found.append(attestation.read(document))
        except IntegrityError as error:
            unreadable.append(error.message)
    named = Trust(signers=tuple(signers), unsigned=False)
    by = Signatures(trust=lambda: named, verify=verified)
    return verification.verify(found, unreadable, wanted, by)


def problems(found: Verified) -> str:
    assert found.decision.verdict == "failed"
    return "; ".join(check.text for check in found.decision.failed)


def test_an_image_with_all_that_it_needs_may_run() -> None:
    found = judged(list(attached().values()))
    assert [check.text for check in found.decision.failed] == []
    assert found.decision.verdict == "passed"
    assert found.release == release()
    assert [check.name for check in found.decision.checks] == [
        *("release", "project", *WANTED.steps, "provenance", "SBOM"),
    ]


def test_documents_of_others_at_the_image_change_nothing() -> None:
    foreign = [
        sealed(Case(), attestation.SBOM, EVE),
        sealed(Case(image=OTHER), SLSA),
        b"{}",
        b"\xff",
        *(sealed(Case(home="github.com/eve/iris"), kind, EVE) for kind in KINDS),
    ]
    assert judged([*foreign, *attached().values(), *foreign]).decision.verdict == "passed"


def test_the_statement_with_the_most_records_counts() -> None:
    early = Case()
    del early.steps["verify-staging-workload"]
    older = sealed(early, release_statement.KIND)
    for documents in ([older, *attached().values()], [*attached().values(), older]):
        assert judged(documents).decision.verdict == "passed"
    failed = Case()
    failed.steps["verify-staging-workload"] = "failed"
    later = sealed(failed, release_statement.KIND)
    early_ones = attached(early)
    assert "verify-staging-workload: failed" in problems(judged([later, *early_ones.values()]))


def test_what_the_ledger_had_is_told_by_every_statement_that_counts() -> None:
    early = Case()
    del early.steps["verify-staging-workload"]
    documents = [sealed(early, release_statement.KIND), *attached().values()]
    heads = judged(documents).heads
    assert set(heads) == {early.records()[-1].digest, Case().records()[-1].digest}


def test_a_statement_of_another_tool_can_be_asked_for() -> None:
    wanted = msgspec.structs.replace(WANTED, attested={VULN: EVE.public})
    said = attestation.statement("localhost/iris", IMAGE, VULN, {"scanner": "x"})
    ours = list(attached().values())
    assert f"no {VULN} is attached" in problems(judged(ours, wanted))
    assert "the key in `trust.attested`" in problems(
        judged([*ours, attestation.seal(said, CI)], wanted)
    )
    other = attestation.statement("localhost/iris", OTHER, VULN, {"scanner": "x"})
    assert "another image" in problems(judged([*ours, attestation.seal(other, EVE)], wanted))
    assert judged([*ours, attestation.seal(said, EVE)], wanted).decision.verdict == "passed"


def changed(kind: str, document: Callable[[], bytes]) -> Callable[[], Verified]:
    """Return a case in which one document is another."""
    return lambda: judged(list((attached() | {kind: document()}).values()))


def without(kind: str) -> Callable[[], Verified]:
    return lambda: judged([data for name, data in attached().items() if name != kind])


def whole(change: Callable[[Case], None], **by: Signing) -> Callable[[], Verified]:
    """Return a case in which all documents were made from something else."""

    def run() -> Verified:
        case = Case()
        change(case)
        return judged(list(attached(case, **by).values()))

    return run


def edited(kind: str, change: Callable[[dict[str, Any]], None]) -> Callable[[], Verified]:
    """Return a case in which the JSON of a bundle was changed after it was signed."""

    def document() -> bytes:
        bundle = json.loads(sealed(Case(), kind))
        change(bundle)
        return json.dumps(bundle).encode()

    return changed(kind, document)


def resaid(kind: str, change: Callable[[dict[str, Any]], None], by: Signing = CI) -> Any:
    """Return a case in which a signer said something else."""

    def document() -> bytes:
        image, named, predicate = Case().statement(kind)
        said = json.loads(attestation.statement("localhost/iris", image, named, predicate))
        change(said)
        return attestation.seal(digests.canonical_json(said), by)

    return changed(kind, document)


def _payload(bundle: dict[str, Any], change: Callable[[dict[str, Any]], None]) -> None:
    said = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    change(said)
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(said).encode()).decode()


def _sig(bundle: dict[str, Any], sig: bytes) -> None:
    bundle["dsseEnvelope"]["signatures"][0]["sig"] = base64.b64encode(sig).decode()


def _step(step: Step, verdict: Verdict) -> Callable[[Case], None]:
    return lambda case: case.steps.update({step: verdict})


def _missing(step: Step) -> Callable[[Case], None]:
    return lambda case: case.steps.__delitem__(step)


def _by(step: Step, signing: Signing | None) -> Callable[[Case], None]:
    return lambda case: case.by.update({step: signing})


def _set(**values: Any) -> Callable[[Case], None]:
    def change(case: Case) -> None:
        for name, value in values.items():
            setattr(case, name, value)

    return change


def _records(change: Callable[[list[dict[str, Any]]], None]) -> Callable[[dict[str, Any]], None]:
    return lambda said: change(said["predicate"]["records"])


def _unsigned(listed: list[dict[str, Any]]) -> None:
    for each in listed:
        envelope = dsse.read(base64.b64decode(each["record"]))
        each["record"] = base64.b64encode(envelope.payload).decode()


def _other_release() -> Release:
    return msgspec.structs.replace(release(), commit="b" * 40)


def _of_another(step: Step) -> Callable[[list[dict[str, Any]]], None]:
    """Put a record of another release in the place of one of this release."""

    def change(listed: list[dict[str, Any]]) -> None:
        foreign = Case(of=_other_release()).record(step)
        at = [each["step"] for each in listed].index(step)
        listed[at]["record"] = base64.b64encode(evidence.stored(foreign)).decode()

    return change


def _ended(signer: str) -> Callable[[], Verified]:
    signers = [
        msgspec.structs.replace(each, until=NOON - HOUR) if each.name == signer else each
        for each in SIGNERS
    ]
    return lambda: judged(list(attached().values()), signers=signers)


def _wanting(**values: Any) -> Callable[[], Verified]:
    wanted = msgspec.structs.replace(WANTED, **values)
    return lambda: judged(list(attached().values()), wanted)


def _signed_by(**by: Signing) -> Callable[[], Verified]:
    return lambda: judged(list(attached(None, **by).values()))


RELEASE: Final = release_statement.KIND
SBOM: Final = attestation.SBOM
STRANGER: Final = "which `trust` does not name"

TAMPERED: dict[str, tuple[Callable[[], Verified], str]] = {
    "nothing attached": (lambda: judged([]), "no release statement is attached"),
    "no release statement": (without(RELEASE), "no release statement is attached"),
    "no provenance": (without(SLSA), "no provenance is attached"),
    "no SBOM": (without(SBOM), "no SBOM is attached"),
    "a stranger's release statement": (_signed_by(release=EVE), STRANGER),
    "a stranger's provenance": (_signed_by(slsa=EVE), STRANGER),
    "a stranger's SBOM": (_signed_by(sbom=EVE), STRANGER),
    "a provenance by staging": (_signed_by(slsa=STAGE), "may not say it: `may` has no build"),
    "an SBOM by an approver": (_signed_by(sbom=ADA), "may not say it: `may` has no build"),
    "a release statement by an approver": (_signed_by(release=ADA), "signer ada may not say it"),
    "a key that ended": (_ended("ci"), "the key of signer ci ended"),
    "a key that ended, of one step": (_ended("stage"), "the key of signer stage ended"),
    "a key that is not named any more": (
        lambda: judged(list(attached().values()), signers=SIGNERS[1:]),
        STRANGER,
    ),
    "an image under a tag that moved": (_wanting(image=OTHER), "it is about another image"),
    "a bundle of another image": (
        changed(SBOM, lambda: sealed(Case(image=OTHER), SBOM)),
        "it is about another image",
    ),
    "a release statement of another image": (
        changed(RELEASE, lambda: sealed(Case(image=OTHER), RELEASE)),
        "it is about another image",
    ),
    "another release than asked for": (
        _wanting(release=_other_release()),
        f"contains {release()}, not {_other_release()}",
    ),
    "an SBOM of another image, signed": (
        resaid(SBOM, lambda said: said.update(predicate=bill(OTHER))),
        "no SBOM that counts: it is of another image",
    ),
    "an SBOM of no image": (
        resaid(SBOM, lambda said: said.update(predicate={"metadata": {"component": {}}})),
        "it is of another image",
    ),
    "an SBOM that is none": (
        resaid(SBOM, lambda said: said.update(predicate={"a": 1})),
        "no SBOM that counts: it cannot be read",
    ),
    "a provenance of another commit": (
        resaid(SLSA, lambda said: said.update(predicate=slsa("b" * 40, ""))),
        "it is of another build",
    ),
    "a provenance of another commit of this build": (
        resaid(
            SLSA,
            lambda said: said.update(predicate=slsa("b" * 40, Case().records()[2].digest)),
        ),
        "it names commit bbbbbbbbbbbb",
    ),
    "a provenance of another repository": (
        _wanting(source="https://github.com/team/other"),
        "its source is https://github.com/team/iris, not https://github.com/team/other",
    ),
    "a provenance of a repository whose name begins alike": (
        _wanting(source=SOURCE[:-1]),
        "its source is",
    ),
    "a provenance without a commit": (
        resaid(
            SLSA,
            lambda said: said["predicate"]["buildDefinition"].update(resolvedDependencies=[]),
        ),
        "it names no commit",
    ),
    "a provenance that is none": (
        resaid(SLSA, lambda said: said.update(predicate={})),
        "no provenance that counts: it cannot be read",
    ),
    "another project": (whole(_set(project="churn")), "is of project 'churn'"),
    "another repository": (whole(_set(home="github.com/eve/iris")), "of github.com/eve/iris"),
    "another folder of the repository": (whole(_set(home=f"{HOME}//eve")), "in folder eve"),
    "another image was built": (
        whole(_set(contained=OTHER)),
        f"no record that counts says that {release()} was built into this image",
    ),
    "another image was tested": (
        whole(_set(tested=OTHER)),
        "test-container: passed with another image",
    ),
    "tests failed": (whole(_step("test", "failed")), "test: failed"),
    "tests were not run": (whole(_missing("test")), "test: no record that counts"),
    "the container test failed": (whole(_step("test-container", "failed")), "container: failed"),
    "staging is undecided": (
        whole(_step("verify-staging-workload", "undecided")),
        "verify-staging-workload: undecided",
    ),
    "staging was not verified": (
        whole(_missing("verify-staging-workload")),
        "verify-staging-workload: no record that counts",
    ),
    "unsigned tests": (whole(_by("test", None)), "no record that counts: it is not signed"),
    "a stranger's tests": (whole(_by("test", EVE)), "test: no record that counts: it is signed"),
    "an approver's tests": (whole(_by("test", ADA)), "signer ada may not say test"),
    "a stranger's build": (whole(_by("containerize", EVE)), "was built into this image"),
    "staging's word on the build": (
        whole(_by("containerize", STAGE)),
        "signer stage may not say containerize",
    ),
    "tests of another release": (
        resaid(RELEASE, _records(_of_another("test"))),
        "test: no record that counts",
    ),
    "the build of another release": (
        resaid(RELEASE, _records(_of_another("containerize"))),
        "was built into this image",
    ),
    "staging of another release": (
        resaid(RELEASE, _records(_of_another("verify-staging-workload"))),
        "verify-staging-workload: no record that counts",
    ),
    "records without their signatures": (
        resaid(
            RELEASE,
            _records(_unsigned),
        ),
        "it is not signed",
    ),
    "a verdict beside the record": (
        resaid(
            RELEASE,
            _records(lambda listed: listed.__delitem__(1)),
        ),
        "test: no record that counts",
    ),
    "a record that is none": (
        resaid(RELEASE, _records(lambda listed: listed[0].update(record="e30="))),
        "no release statement that counts",
    ),
    "a release statement that is none": (
        resaid(RELEASE, lambda said: said.update(predicate={"release": {}})),
        "the release statement cannot be read",
    ),
    "the image of the statement was changed": (
        edited(
            SBOM,
            lambda bundle: _payload(
                bundle, lambda said: said.update(predicate=bill(IMAGE) | {"a": 1})
            ),
        ),
        "its signature is not one of signer ci",
    ),
    "a signature of nothing": (
        edited(SLSA, lambda bundle: _sig(bundle, bytes(64))),
        "its signature is not one of signer ci",
    ),
    "an empty signature": (
        edited(SLSA, lambda bundle: _sig(bundle, b"")),
        "its signature is not one of signer ci",
    ),
    "a signature of another document": (
        edited(
            SBOM,
            lambda bundle: bundle["dsseEnvelope"].update(
                signatures=json.loads(sealed(Case(), SLSA))["dsseEnvelope"]["signatures"]
            ),
        ),
        "its signature is not one of signer ci",
    ),
    "no signature": (
        edited(SBOM, lambda bundle: bundle["dsseEnvelope"].update(signatures=[])),
        "it has 0 signatures",
    ),
    "two signatures": (
        edited(
            SBOM,
            lambda bundle: bundle["dsseEnvelope"].update(
                signatures=bundle["dsseEnvelope"]["signatures"] * 2
            ),
        ),
        "it has 2 signatures",
    ),
    "a stranger under the name of a signer": (
        changed(
            SBOM,
            lambda: sealed(Case(), SBOM, EVE).replace(
                base64.b64encode(bytes.fromhex(EVE.key[7:])),
                base64.b64encode(bytes.fromhex(CI.key[7:])),
            ),
        ),
        "its signature is not one of signer ci",
    ),
    "a stranger without a name": (
        changed(
            SBOM,
            lambda: sealed(Case(), SBOM, EVE).replace(
                base64.b64encode(bytes.fromhex(EVE.key[7:])), b""
            ),
        ),
        "its signature is not one of a signer whom `trust` names",
    ),
    "two subjects": (
        resaid(SBOM, lambda said: said.update(subject=said["subject"] * 2)),
        "about 2 subjects",
    ),
    "no subject": (resaid(SBOM, lambda said: said.update(subject=[])), "about 0 subjects"),
    "a subject without a digest": (
        resaid(SBOM, lambda said: said.update(subject=[{"name": "iris", "digest": {}}])),
        "no SBOM that counts",
    ),
    "another type of statement": (
        resaid(SBOM, lambda said: said.update(_type="https://eve.example/Statement/v9")),
        "it has no in-toto Statement",
    ),
    "another type of payload": (
        edited(SBOM, lambda bundle: bundle["dsseEnvelope"].update(payloadType="text/plain")),
        "it has no in-toto Statement",
    ),
    "another version of bundles": (
        edited(SBOM, lambda bundle: bundle.update(mediaType="application/vnd.eve+json")),
        "it is a 'application/vnd.eve+json'",
    ),
    "a certificate": (
        edited(
            SBOM,
            lambda bundle: bundle.update(verificationMaterial={"certificate": {"rawBytes": ""}}),
        ),
        "it is signed with a certificate",
    ),
    "a truncated bundle": (
        changed(SBOM, lambda: sealed(Case(), SBOM)[:-40]),
        "it cannot be read",
    ),
    "an empty document": (changed(RELEASE, lambda: b""), "no release statement that counts"),
    "deep JSON": (changed(RELEASE, lambda: b"[" * 100_000), "no release statement that counts"),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_a_tampered_image_is_refused_with_the_reason(name: str) -> None:
    run, reason = TAMPERED[name]
    assert reason in problems(run())


def test_enough_is_tampered_with() -> None:
    assert len(TAMPERED) >= 60


def test_without_a_name_every_key_is_tried() -> None:
    anonymous = sealed(Case(), SBOM).replace(base64.b64encode(bytes.fromhex(CI.key[7:])), b"")
    assert anonymous != sealed(Case(), SBOM)
    assert judged(list((attached() | {SBOM: anonymous}).values())).decision.verdict == "passed"


def test_thousands_of_documents_of_a_stranger_are_told_in_one_line() -> None:
    strange = [sealed(Case(), SBOM, key()) for _ in range(50)]
    text = problems(
        judged([*strange, *[data for kind, data in attached().items() if kind != SBOM]])
    )
    assert "and 47 more" in text
    assert len(text) < 600


def test_the_same_statement_gives_the_same_bytes() -> None:
    assert sealed(Case(), SBOM) == sealed(Case(), SBOM)
