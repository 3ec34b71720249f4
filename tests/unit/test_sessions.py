"""Jobs that sign with a key of their own: whose records count, for how long, and for what."""

import json
import re
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mlship.adapters.keys import Bundles, Kept, SessionKey, Verifier
from mlship.adapters.keys.ed25519 import PrivateKey, generate
from mlship.config.layers import from_flags, from_yaml, resolve
from mlship.config.project import Config
from mlship.domain import dsse, evidence, sessions
from mlship.domain.evidence import Evidence, Record, Step
from mlship.domain.identity import MOST, Workflow
from mlship.domain.sessions import Session, WorkflowSigner
from mlship.domain.signatures import Signatures
from mlship.domain.trust import Scope, Signer, Trust
from mlship.errors import ConfigError, IntegrityError, UnavailableError
from mlship.wire import signing
from tests.harness.samples import NOON, release
from tests.harness.signing import key
from tests.harness.sigstore import CLAIMS, Authority, statement

SIGSTORE = Authority()
HOME = "github.com/ada/iris"
MAIN = Workflow(name="ada/iris/.github/workflows/main.yml", ref="refs/heads/main")
MAY = frozenset[Scope](["staging", "production"])
NAMED = (WorkflowSigner(name="main", workflow=MAIN, may=MAY),)
HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
JOB, EVE = key(), key()


def predicate(of: PrivateKey = JOB, name: str = "iris", home: str = HOME) -> bytes:
    return sessions.predicate(Session(name=name, home=home, key=of.public))


def bundle(of: PrivateKey = JOB, payload: bytes | None = None, **more: Any) -> str:
    """Return what GitHub's identity attests of a key, by default that it is the job's."""
    said = statement(predicate(of), of.key) if payload is None else payload
    return json.dumps(SIGSTORE.bundle(said, **more))


TRUE = bundle()


def said(
    step: Step,
    by: dsse.Signing | None,
    *after: Record,
    identity: str = "",
    time: datetime = NOON + MINUTE,
    name: str = "iris",
) -> Record:
    made = Evidence(
        release=msgspec.structs.replace(release(), name=name),
        step=step,
        verdict="passed",
        actor="ada",
        time=time,
        home=HOME,
        identity=identity,
        parents=tuple(record.digest for record in after),
    )
    return evidence.decode(evidence.encode(made, by))


@pytest.fixture
def identify(tmp_path: Path) -> Bundles:
    root = tmp_path / "roots.jsonl"
    root.write_bytes(SIGSTORE.root())
    return Bundles(root, Kept({"HOME": str(tmp_path)}))


@pytest.fixture
def reasons(identify: Bundles, tmp_path: Path) -> Callable[..., list[str]]:
    """Return a function: why each record does not count; an empty text for one that does."""

    def found(
        *records: Record,
        named: tuple[WorkflowSigner, ...] = NAMED,
        signers: tuple[Signer, ...] = (),
        others: tuple[Record, ...] = (),
    ) -> list[str]:
        signatures = Signatures(
            trust=lambda: Trust(signers=signers, unsigned=False),
            verify=Verifier({"HOME": str(tmp_path)}),
            prove=sessions.proven(named, identify),
        )
        own = frozenset(record.digest for record in records)
        why = signatures.sift((*others, *records), own)
        return [why.get(record.digest, "") for record in records]

    return found


Reasons = Callable[..., list[str]]


def test_the_records_of_a_job_count_once_one_has_its_bundle(reasons: Reasons) -> None:
    first = said("deploy-production", JOB, identity=TRUE)
    assert reasons(first, said("promote", JOB, first)) == ["", ""]


def test_without_a_bundle_nobody_knows_whose_key_it_is(reasons: Reasons) -> None:
    """The control: what lets a job's records count is the bundle."""
    first = said("deploy-production", JOB)
    assert "which `trust` does not name" in reasons(first)[0]


def test_a_job_says_what_its_signer_may(reasons: Reasons) -> None:
    first = said("deploy-production", JOB, identity=TRUE)
    found = reasons(first, said("train", JOB, first), said("approve", JOB, first))
    assert found == ["", "signer main may not say train", "signer main may not say approve"]


def test_the_first_signer_that_a_job_is_one_of_decides(reasons: Reasons) -> None:
    build = WorkflowSigner(
        name="build",
        workflow=msgspec.structs.replace(MAIN, environment="build"),
        may=frozenset[Scope](["build"]),
    )
    first = said("deploy-production", JOB, identity=TRUE)
    assert reasons(first, named=(build, *NAMED)) == [""]
    there = bundle(claims={**CLAIMS, 23: "build"})
    first = said("train", JOB, identity=there)
    found = reasons(first, said("promote", JOB, first), named=(build, *NAMED))
    assert found == ["", "signer build may not say promote"]


HOSTILE: dict[str, tuple[Callable[[], str], str]] = {
    "of another key": (lambda: bundle(EVE), "it is about another key"),
    "of another project": (
        lambda: bundle(payload=statement(predicate(name="churn"), JOB.key)),
        "it is of project churn",
    ),
    "of another home": (
        lambda: bundle(payload=statement(predicate(home="github.com/eve/iris"), JOB.key)),
        "it is of project iris in github.com/eve/iris",
    ),
    "another statement": (
        lambda: bundle(
            payload=statement(predicate(), JOB.key, predicateType="https://slsa.dev/provenance/v1")
        ),
        "its statement is https://slsa.dev/provenance/v1",
    ),
    "another form of statement": (
        lambda: bundle(payload=statement(predicate(), JOB.key, _type="https://in-toto.io/v0.1")),
        "its statement cannot be read",
    ),
    "no statement": (lambda: bundle(payload=b"said"), "its statement cannot be read"),
    "a statement that is not UTF-8": (
        lambda: bundle(payload=b'{"_type":"\xff"}'),
        "it is not UTF-8",
    ),
    "a payload of another type": (lambda: bundle(kind="text/plain"), "its payload is text/plain"),
    "two subjects": (
        lambda: bundle(
            payload=statement(
                predicate(),
                JOB.key,
                subject=[{"name": each, "digest": {"sha256": JOB.key[7:]}} for each in "ab"],
            )
        ),
        "its statement has 2 subjects, not one",
    ),
    "no subject": (
        lambda: bundle(payload=statement(predicate(), JOB.key, subject=[])),
        "its statement has 0 subjects, not one",
    ),
    "the subject is another key": (
        lambda: bundle(payload=statement(predicate(), EVE.key)),
        "its subject is not the key that it names",
    ),
    "the subject has another digest, too": (
        lambda: bundle(
            payload=statement(
                predicate(),
                JOB.key,
                subject=[{"name": "key", "digest": {"sha256": JOB.key[7:], "sha512": "00"}}],
            )
        ),
        "its subject is not the key that it names",
    ),
    "a key that is none": (
        lambda: bundle(
            payload=statement(predicate(), JOB.key, predicate={"name": "", "home": "", "key": "x"})
        ),
        "is no public key",
    ),
    "a field of no meaning": (
        lambda: bundle(
            payload=statement(
                predicate(), JOB.key, predicate={**json.loads(predicate()), "may": ["approve"]}
            )
        ),
        "its statement cannot be read",
    ),
    "another workflow": (
        lambda: bundle(claims={**CLAIMS, 18: CLAIMS[18].replace("main.yml", "feature.yml")}),
        "the workflow is",
    ),
    "a pull request": (lambda: bundle(claims={**CLAIMS, 14: "refs/pull/7/merge"}), "the branch is"),
    "an authority that is not pinned": (
        lambda: json.dumps(Authority().bundle(statement(predicate(), JOB.key))),
        "ignature|certificate",
    ),
    "text": (lambda: "no bundle", "it is no Sigstore bundle of version 0.3"),
    "half": (lambda: TRUE[: len(TRUE) // 2], "it is no Sigstore bundle of version 0.3"),
    "ten megabytes": (lambda: TRUE + " " * 10_000_000, f"it has .* bytes, and may have {MOST}"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_bundle_of_something_else_lets_no_record_count(case: str, reasons: Reasons) -> None:
    make, reason = HOSTILE[case]
    first = said("deploy-production", JOB, identity=make())
    found = reasons(first, said("promote", JOB, first))
    assert re.search(f"^the bundle of its key is refused: .*{reason}", found[0])
    assert found[1] == found[0]


def test_a_strangers_record_does_not_count_by_the_bundle_of_a_job(reasons: Reasons) -> None:
    first = said("deploy-production", JOB, identity=TRUE)
    stolen = said("promote", EVE, first, identity=TRUE)
    unsigned = said("promote", None, first, identity=TRUE)
    found = reasons(first, stolen, unsigned)
    assert found[0] == ""
    assert "it is about another key" in found[1]
    assert found[2] == "it is not signed"


def test_a_forged_record_with_a_true_bundle_does_not_count(reasons: Reasons) -> None:
    true = said("deploy-production", JOB, identity=TRUE)
    assert true.envelope
    payload = true.envelope.payload.replace(b'"passed"', b'"failed"')
    changed = msgspec.structs.replace(true.envelope, payload=payload)
    forged = evidence.decode(msgspec.json.encode(changed, order="deterministic"))
    assert reasons(forged) == ["the signature is not one of signer main"]


def test_a_bundle_in_a_record_of_another_project_proves_nothing(reasons: Reasons) -> None:
    there = said("deploy-production", JOB, identity=TRUE, name="churn")
    here = said("promote", JOB, there)
    assert "which `trust` does not name" in reasons(here, others=(there,))[0]


@pytest.mark.parametrize(
    ("time", "reason"),
    [
        (NOON - 4 * MINUTE, ""),
        (NOON - 6 * MINUTE, "the key of signer main begins at"),
        (NOON - 365 * 24 * HOUR, "the key of signer main begins at"),
        (NOON + 5 * HOUR, ""),
        (NOON + 6 * HOUR + MINUTE, "the key of signer main ended at 2026-03-01 18:00 UTC"),
        (NOON + 365 * 24 * HOUR, "the key of signer main ended at"),
    ],
)
def test_a_job_signs_for_as_long_as_a_job_lasts(
    time: datetime, reason: str, reasons: Reasons
) -> None:
    found = reasons(said("deploy-production", JOB, identity=TRUE, time=time))[0]
    assert found.startswith(reason)
    assert bool(found) is bool(reason)


def test_a_key_that_was_kept_cannot_sign_for_an_earlier_time(reasons: Reasons) -> None:
    first = said("deploy-production", JOB, identity=TRUE)
    ada = Signer(name="ada", key=EVE.public)
    later = said("evaluate", EVE, first, time=NOON + 48 * HOUR)
    late = said("promote", JOB, later, time=NOON + HOUR)
    assert "ended at" in reasons(first, later, late, signers=(ada,))[2]


def test_a_signer_may_end_before_its_jobs(reasons: Reasons) -> None:
    ends = (msgspec.structs.replace(NAMED[0], until=NOON + HOUR),)
    first = said("deploy-production", JOB, identity=TRUE)
    late = said("promote", JOB, first, time=NOON + 2 * HOUR)
    assert reasons(first, late, named=ends)[0] == ""
    assert "ended at 2026-03-01 13:00" in reasons(first, late, named=ends)[1]


def test_one_record_of_each_release_of_a_job_carries_the_bundle() -> None:
    signatures = Signatures(signing=JOB, identity=TRUE)
    other = said("train", EVE, identity=bundle(EVE))
    about = other.evidence.release
    assert sessions.proof(signatures, about, [other]) == TRUE
    first = said("deploy-production", JOB, other, identity=TRUE)
    assert sessions.proof(signatures, about, [other, first]) == ""
    assert sessions.proof(signatures, release("b"), [other, first]) == TRUE
    assert sessions.proof(Signatures(signing=EVE), about, []) == ""


def test_a_record_without_a_bundle_is_written_as_before() -> None:
    record = said("train", EVE)
    assert record.envelope
    assert b"identity" not in record.envelope.payload
    assert evidence.decode(record.envelope.data).evidence.identity == ""


# The machine of the job.

PROJECT = """
name: iris
home: github.com/ada/iris
data: {train: data/train.csv, test: data/test.csv}
model: {train: "pipeline:train"}
trust:
  root: roots.jsonl
  signers:
    main:
      workflow: ada/iris/.github/workflows/main.yml
      ref: refs/heads/main
      may: [staging, production]
"""


def config(text: str = PROJECT) -> Config:
    return resolve([from_yaml(text, "mlship.yaml"), from_flags([])]).config


@pytest.fixture
def job(tmp_path: Path) -> Mapping[str, str]:
    """Return the environment of a job, in a project that pins the roots."""
    (tmp_path / "roots.jsonl").write_bytes(SIGSTORE.root())
    (tmp_path / "temp").mkdir()
    return {"HOME": str(tmp_path / "home"), "RUNNER_TEMP": str(tmp_path / "temp")}


def _attested(job: Mapping[str, str], root: Path, **more: Any) -> str:
    """Make a key in a job; return what GitHub attests of it."""
    made, path = signing.new_session(config(), job, root)
    return json.dumps(SIGSTORE.bundle(statement(path.read_bytes(), made.key), **more))


def test_the_key_of_a_job_signs_once_it_is_attested(job: Mapping[str, str], tmp_path: Path) -> None:
    def signatures() -> Signatures:
        return signing.signatures(config(), job, tmp_path, HOME, shared=True)

    attested = _attested(job, tmp_path)
    assert signatures().signing is None
    signer = signing.keep_session(config(), job, tmp_path, attested)
    assert (signer.name, signer.may) == ("main", MAY)
    found = signatures()
    assert found.signing is not None
    assert found.identity == attested
    found.check_may(["deploy-production"], NOON + MINUTE)
    with pytest.raises(ConfigError, match="signer main may not say train"):
        found.check_may(["train"], NOON + MINUTE)
    with pytest.raises(ConfigError, match="the key of signer main ended"):
        found.check_may(["deploy-production"], NOON + 7 * HOUR)
    own = signing.own(config(), job, tmp_path, shared=True)
    assert (own.trusted, own.ends) == (("main",), True)


def test_a_private_key_is_for_its_user_alone(job: Mapping[str, str], tmp_path: Path) -> None:
    signing.new_session(config(), job, tmp_path)
    folder = tmp_path / "temp" / "mlship" / "iris"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "key.pem").stat().st_mode & 0o777 == 0o600
    (folder / "key.pem").chmod(0o644)
    with pytest.raises(ConfigError, match="other users of this machine may read"):
        SessionKey("iris", job).key()


def test_a_refused_bundle_lets_the_key_sign_nothing(job: Mapping[str, str], tmp_path: Path) -> None:
    attested = _attested(job, tmp_path, claims={**CLAIMS, 14: "refs/heads/feature"})
    with pytest.raises(IntegrityError, match="the branch is refs/heads/feature"):
        signing.keep_session(config(), job, tmp_path, attested)
    assert signing.signatures(config(), job, tmp_path, HOME, shared=True).signing is None


def test_a_new_key_is_not_proved_by_the_bundle_of_the_former(
    job: Mapping[str, str], tmp_path: Path
) -> None:
    attested = _attested(job, tmp_path)
    signing.keep_session(config(), job, tmp_path, attested)
    _attested(job, tmp_path)
    assert signing.signatures(config(), job, tmp_path, HOME, shared=True).signing is None
    with pytest.raises(IntegrityError, match="it is about another key"):
        signing.keep_session(config(), job, tmp_path, attested)


def test_a_secret_that_somebody_gave_to_the_job_comes_first(
    job: Mapping[str, str], tmp_path: Path
) -> None:
    signing.keep_session(config(), job, tmp_path, _attested(job, tmp_path))
    pem = generate().decode()
    found = signing.signatures(
        config(), {**job, "MLSHIP_SIGNING_KEY": pem}, tmp_path, HOME, shared=True
    )
    assert found.signing is not None
    assert found.signing.key == PrivateKey(pem.encode(), "").key
    assert found.identity == ""


def test_outside_of_a_job_the_next_action_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="RUNNER_TEMP is not set") as caught:
        SessionKey("iris", {}).new(HOME)
    assert "mlship keys new" in caught.value.hint
    with pytest.raises(ConfigError, match="this job has no key of its own") as caught:
        SessionKey("iris", {"RUNNER_TEMP": str(tmp_path)}).key()
    assert "mlship keys session" in caught.value.hint
    (tmp_path / "mlship").write_text("")
    with pytest.raises(UnavailableError, match="cannot write the key of this job"):
        SessionKey("iris", {"RUNNER_TEMP": str(tmp_path)}).new(HOME)


WRONG: dict[str, tuple[str, str]] = {
    "neither": ("{may: [build]}", "needs exactly one of `key` and `workflow`"),
    "both": (
        f'{{key: "{JOB.public}", workflow: a/b/.github/workflows/c.yml, ref: refs/heads/main}}',
        "needs exactly one of `key` and `workflow`",
    ),
    "no branch": ("{workflow: a/b/.github/workflows/c.yml}", "`workflow` needs `ref`"),
    "a short branch": ("{workflow: a/b/.github/workflows/c.yml, ref: main}", "refs/heads/BRANCH"),
    "a tag": ("{workflow: a/b/.github/workflows/c.yml, ref: refs/tags/v1}", "refs/heads/BRANCH"),
    "a file alone": ("{workflow: main.yml, ref: refs/heads/main}", "OWNER/REPOSITORY"),
    "a branch of a key": (
        f'{{key: "{JOB.public}", ref: refs/heads/main}}',
        "are for a `workflow`",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_signer_that_says_too_little_is_refused(case: str) -> None:
    entry, reason = WRONG[case]
    text = PROJECT.split("    main:", maxsplit=1)[0] + f"    main: {entry}\n"
    with pytest.raises(ConfigError) as caught:
        config(text)
    assert reason in caught.value.message + caught.value.hint


def test_a_workflow_needs_pinned_roots() -> None:
    with pytest.raises(ConfigError, match="needs `root`"):
        config(PROJECT.replace("  root: roots.jsonl\n", ""))
