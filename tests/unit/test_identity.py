"""Who a job is: bundles of Sigstore, and the workflows that a signer stands for."""

import json
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from mlship.adapters.keys import Bundles, Kept
from mlship.domain.identity import MOST, REF, WORKFLOW, Attested, Workflow
from mlship.errors import ConfigError, IntegrityError
from tests.harness.samples import NOON
from tests.harness.sigstore import CLAIMS, DAY, REPOSITORY, Authority
from tests.harness.sigstore import WORKFLOW as URI

PUBLIC, PRIVATE = Authority(), Authority(logs=False)
MAIN = Workflow(name="ada/iris/.github/workflows/main.yml", ref="refs/heads/main")
HEADS = "https://github.com/ada/iris/.github/workflows"


def verifier(folder: Path, *authorities: Authority) -> Bundles:
    """Return what verifies bundles of authorities, with nothing verified before."""
    root = folder / "roots.jsonl"
    root.write_bytes(b"".join(each.root() for each in authorities))
    return Bundles(root, Kept({"HOME": str(folder)}))


def data(bundle: dict[str, Any]) -> bytes:
    return json.dumps(bundle).encode()


@pytest.mark.parametrize("authority", [PUBLIC, PRIVATE], ids=["public", "private"])
def test_a_bundle_says_who_signed_what_and_when(authority: Authority, tmp_path: Path) -> None:
    found = verifier(tmp_path, PRIVATE, PUBLIC)(data(authority.bundle(b"said")))
    assert found.payload == b"said"
    assert found.identity.repository == REPOSITORY
    assert found.identity.subject == found.identity.workflow == URI
    assert (found.identity.environment, found.identity.time) == ("production", NOON)
    assert MAIN.refusal(found.identity) == ""


def test_a_job_without_an_environment_names_none(tmp_path: Path) -> None:
    claims = {number: text for number, text in CLAIMS.items() if number != 23}
    found = verifier(tmp_path, PUBLIC)(data(PUBLIC.bundle(b"", claims)))
    assert found.identity.environment == ""


def _entry(bundle: dict[str, Any]) -> dict[str, Any]:
    entry: dict[str, Any] = bundle["verificationMaterial"]["tlogEntries"][0]
    return entry


def _without_entry(bundle: dict[str, Any]) -> None:
    del bundle["verificationMaterial"]["tlogEntries"]


def _of_another(bundle: dict[str, Any], part: str) -> None:
    material = PUBLIC.bundle(b"said")["verificationMaterial"]
    bundle["verificationMaterial"][part] = material[part]


def _written(bundle: dict[str, Any], *path: str | int, value: object) -> None:
    *folders, last = path
    place: Any = bundle
    for each in folders:
        place = place[each]
    place[last] = value


MATERIAL = "verificationMaterial"
CHANGED: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "another payload": (
        lambda it: _written(it, "dsseEnvelope", "payload", value="Zm9yZ2Vk"),
        "signature|Signature",
    ),
    "another type of payload": (
        lambda it: _written(it, "dsseEnvelope", "payloadType", value="text/plain"),
        "signature|Signature",
    ),
    "no signature": (
        lambda it: _written(it, "dsseEnvelope", "signatures", value=[]),
        "it has 0 signatures, not one",
    ),
    "two signatures": (
        lambda it: it["dsseEnvelope"]["signatures"].append(it["dsseEnvelope"]["signatures"][0]),
        "it has 2 signatures, not one",
    ),
    "the certificate of another": (lambda it: _of_another(it, "certificate"), "ignature"),
    "the log entry of another envelope": (lambda it: _of_another(it, "tlogEntries"), "log entry"),
    "no log entry": (_without_entry, "no root for one without an entry in a log"),
    "two log entries": (
        lambda it: it[MATERIAL]["tlogEntries"].append(_entry(it)),
        "exactly one log entry",
    ),
    "a later time": (
        lambda it: _entry(it).update(integratedTime=str(int(NOON.timestamp()) + 9)),
        "inclusion promise",
    ),
    "no promise": (lambda it: _entry(it).pop("inclusionPromise"), "inclusion promise"),
    "no proof": (lambda it: _entry(it).pop("inclusionProof"), "failed to load bundle"),
    "another tree": (
        lambda it: _entry(it)["inclusionProof"].update(rootHash="AAAA"),
        "inclusion proof",
    ),
    "a checkpoint that nobody signed": (
        lambda it: _entry(it)["inclusionProof"]["checkpoint"].update(envelope="log\n1\nAA==\n\n"),
        "Note|note|checkpoint",
    ),
    "a certificate that is none": (
        lambda it: _written(it, MATERIAL, "certificate", "rawBytes", value="AAAA"),
        "its certificate cannot be read",
    ),
    "an older version": (
        lambda it: it.update(mediaType="application/vnd.dev.sigstore.bundle+json;version=0.2"),
        "no Sigstore bundle of version 0.3",
    ),
    "the other names of protobuf": (
        lambda it: it.update(verification_material=it[MATERIAL]),
        "no Sigstore bundle of version 0.3",
    ),
    "a message instead of an envelope": (
        lambda it: it.update(messageSignature=it.pop("dsseEnvelope")),
        "no Sigstore bundle of version 0.3",
    ),
}


@pytest.mark.parametrize("case", CHANGED)
def test_a_changed_bundle_attests_nothing(case: str, tmp_path: Path) -> None:
    change, reason = CHANGED[case]
    bundle = PUBLIC.bundle(b"said")
    verify = verifier(tmp_path, PUBLIC)
    verify(data(bundle))
    change(bundle)
    with pytest.raises(IntegrityError, match=reason):
        verify(data(bundle))


TIMED: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "no time": (
        lambda it: it[MATERIAL].pop("timestampVerificationData"),
        "it has 0 answers of authorities for times",
    ),
    "the time of another": (
        lambda it: it[MATERIAL].update(
            timestampVerificationData=PRIVATE.bundle(b"said")[MATERIAL]["timestampVerificationData"]
        ),
        "no authority in trust.root says when it was signed",
    ),
    "a time of another authority": (
        lambda it: it[MATERIAL].update(
            timestampVerificationData=Authority(logs=False).bundle(b"said")[MATERIAL][
                "timestampVerificationData"
            ]
        ),
        "no authority in trust.root says when it was signed",
    ),
    "a time that cannot be read": (
        lambda it: it[MATERIAL]["timestampVerificationData"].update(
            rfc3161Timestamps=[{"signedTimestamp": "AAAA"}]
        ),
        ".",
    ),
    "a hundred times": (
        lambda it: it[MATERIAL]["timestampVerificationData"].update(
            rfc3161Timestamps=it[MATERIAL]["timestampVerificationData"]["rfc3161Timestamps"] * 100
        ),
        "100 answers|bytes",
    ),
    "another payload": (
        lambda it: _written(it, "dsseEnvelope", "payload", value="Zm9yZ2Vk"),
        "its signature is not by the key of its certificate",
    ),
    "an entry in the log of others": (lambda it: _of_another(it, "tlogEntries"), "no root for one"),
    "another's certificate": (
        lambda it: _written(
            it, MATERIAL, "certificate", value=PRIVATE.bundle(b"said")[MATERIAL]["certificate"]
        ),
        "its signature is not by the key of its certificate",
    ),
}


@pytest.mark.parametrize("case", TIMED)
def test_a_changed_bundle_of_a_private_repository_attests_nothing(
    case: str, tmp_path: Path
) -> None:
    change, reason = TIMED[case]
    bundle = PRIVATE.bundle(b"said")
    verify = verifier(tmp_path, PRIVATE)
    verify(data(bundle))
    change(bundle)
    with pytest.raises(IntegrityError, match=reason):
        verify(data(bundle))


def test_an_entry_about_another_statement_does_not_prove_this_one(tmp_path: Path) -> None:
    bundle = PUBLIC.bundle(b"said", logged=b"something else")
    with pytest.raises(IntegrityError, match="payload hash does not match"):
        verifier(tmp_path, PUBLIC)(data(bundle))


NONE: dict[str, bytes] = {
    "nothing": b"",
    "no JSON": b"\x0a\x24application/vnd.dev.sigstore",
    "a list": b"[]",
    "a number": b"1e999",
    "half": json.dumps(PUBLIC.bundle(b"said")).encode()[:3_000],
    "deeply nested": b"[" * 50_000,
    "not text": b"\xff\xfe\x00",
    "fields of no meaning": b'{"mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json"}',
}


@pytest.mark.parametrize("case", NONE)
def test_what_is_no_bundle_attests_nothing(case: str, tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="no Sigstore bundle of version"):
        verifier(tmp_path, PUBLIC)(NONE[case])


def test_a_bundle_of_ten_megabytes_is_not_read(tmp_path: Path) -> None:
    bundle = PUBLIC.bundle(b" " * 7_500_000)
    with pytest.raises(IntegrityError, match=rf"may have {MOST}"):
        verifier(tmp_path, PUBLIC)(data(bundle))


def test_an_authority_that_is_not_pinned_attests_nothing(tmp_path: Path) -> None:
    for authority in (Authority(), Authority(logs=False)):
        with pytest.raises(IntegrityError):
            verifier(tmp_path, PUBLIC, PRIVATE)(data(authority.bundle(b"said")))


@pytest.mark.parametrize("logs", [True, False])
def test_an_authority_that_had_expired_attests_nothing(logs: bool, tmp_path: Path) -> None:
    authority = Authority(logs=logs, until=NOON + DAY)
    verify = verifier(tmp_path, authority)
    # What it has attested before counts for ever.
    assert verify(data(authority.bundle(b"said")))
    with pytest.raises(IntegrityError):
        verify(data(authority.bundle(b"said", time=NOON + 2 * DAY)))


@pytest.mark.parametrize("authority", [PUBLIC, PRIVATE], ids=["public", "private"])
def test_a_signature_outside_of_the_certificates_time_attests_nothing(
    authority: Authority, tmp_path: Path
) -> None:
    verify = verifier(tmp_path, PUBLIC, PRIVATE)
    assert verify(data(authority.bundle(b"said", after=timedelta(minutes=9))))
    for after in (timedelta(minutes=11), timedelta(minutes=-1)):
        with pytest.raises(IntegrityError):
            verify(data(authority.bundle(b"said", after=after)))


@pytest.mark.parametrize("authority", [PUBLIC, PRIVATE], ids=["public", "private"])
def test_a_certificate_for_something_else_attests_nothing(
    authority: Authority, tmp_path: Path
) -> None:
    bundle = authority.bundle(b"said", purpose=ExtendedKeyUsageOID.SERVER_AUTH)
    with pytest.raises(IntegrityError, match="code"):
        verifier(tmp_path, PUBLIC, PRIVATE)(data(bundle))


@pytest.mark.parametrize("missing", [8, 12, 14, 15, 18])
def test_a_certificate_that_does_not_say_whose_job_it_is_attests_nothing(
    missing: int, tmp_path: Path
) -> None:
    claims = {number: text for number, text in CLAIMS.items() if number != missing}
    with pytest.raises(IntegrityError, match=f"it has no extension {missing}"):
        verifier(tmp_path, PUBLIC)(data(PUBLIC.bundle(b"said", claims)))
    with pytest.raises(IntegrityError, match="it has no extension 8"):
        verifier(tmp_path, PUBLIC)(data(PUBLIC.bundle(b"said", {})))


def test_what_was_verified_is_remembered_for_these_roots_alone(tmp_path: Path) -> None:
    bundle, other = data(PUBLIC.bundle(b"said")), data(Authority().bundle(b"said"))
    assert verifier(tmp_path, PUBLIC)(bundle)
    known = (tmp_path / ".local" / "state" / "mlship" / "verified").read_bytes()
    assert verifier(tmp_path, PUBLIC)(bundle)
    assert (tmp_path / ".local" / "state" / "mlship" / "verified").read_bytes() == known
    with pytest.raises(IntegrityError):
        verifier(tmp_path, PUBLIC)(other)
    with pytest.raises(IntegrityError):
        verifier(tmp_path, PRIVATE)(bundle)


ROOTS: dict[str, tuple[bytes | None, str]] = {
    "no file": (None, "cannot read .*roots.jsonl"),
    "nothing": (b"", "is empty"),
    "no JSON": (b"-----BEGIN CERTIFICATE-----", "has no roots of Sigstore"),
    "another document": (b'{"mediaType": "application/json"}', "has no roots of Sigstore"),
    "half": (PUBLIC.root()[:500], "has no roots of Sigstore"),
}


@pytest.mark.parametrize("case", ROOTS)
def test_without_roots_the_next_action_is_told(case: str, tmp_path: Path) -> None:
    content, reason = ROOTS[case]
    verify = verifier(tmp_path)
    path = tmp_path / "roots.jsonl"
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(ConfigError, match=reason) as caught:
        verify(data(PUBLIC.bundle(b"said")))
    assert "gh attestation trusted-root" in (caught.value.hint or "")


def _of(**claims: str) -> dict[int, str]:
    return {**CLAIMS, **{int(number.removeprefix("_")): text for number, text in claims.items()}}


OTHERS: dict[str, tuple[dict[int, str], str, str]] = {
    "another issuer": (_of(_8="https://gitlab.com"), URI, "the issuer is https://gitlab.com"),
    "an issuer that begins likewise": (_of(_8=CLAIMS[8] + "/ada"), URI, "the issuer is"),
    "another repository": (_of(_12="https://github.com/ada/churn"), URI, "the repository is"),
    "another owner": (_of(_12="https://github.com/eve/iris"), URI, "the repository is"),
    "another forge": (_of(_12="https://github.com.eve.example/ada/iris"), URI, "the repository is"),
    "a repository that begins likewise": (_of(_12=REPOSITORY + "2"), URI, "the repository is"),
    "another branch": (_of(_14="refs/heads/develop"), URI, "the branch is refs/heads/develop"),
    "a branch that begins likewise": (_of(_14="refs/heads/main2"), URI, "the branch is"),
    "a tag of the branch's name": (_of(_14="refs/tags/main"), URI, "the branch is refs/tags/main"),
    "a pull request": (_of(_14="refs/pull/7/merge"), URI, "the branch is refs/pull/7/merge"),
    "another workflow": (
        _of(_18=f"{HEADS}/feature.yml@refs/heads/main"),
        f"{HEADS}/feature.yml@refs/heads/main",
        "the workflow is",
    ),
    "a workflow that begins likewise": (
        _of(_18=f"{HEADS}/main.yml2@refs/heads/main"),
        f"{HEADS}/main.yml2@refs/heads/main",
        "the workflow is",
    ),
    "a workflow of another commit": (
        _of(_18=f"{HEADS}/main.yml@refs/heads/develop"),
        f"{HEADS}/main.yml@refs/heads/develop",
        "the workflow is",
    ),
    "a reusable workflow of others": (
        _of(),
        "https://github.com/eve/tools/.github/workflows/sign.yml@refs/heads/main",
        "the workflow with the steps is",
    ),
    "a reusable workflow that others call": (
        _of(_12="https://github.com/eve/iris", _18=f"{HEADS}/main.yml@refs/heads/main"),
        URI,
        "the repository is",
    ),
    "a subject that is only the beginning": (_of(), URI.split("@")[0], "the workflow with the"),
    "a subject that goes on": (_of(), URI + "/x", "the workflow with the steps is"),
}


@pytest.mark.parametrize("case", OTHERS)
def test_a_job_of_others_is_not_the_signers(case: str, tmp_path: Path) -> None:
    claims, subject, reason = OTHERS[case]
    found = verifier(tmp_path, PUBLIC)(data(PUBLIC.bundle(b"said", claims, subject=subject)))
    assert reason in MAIN.refusal(found.identity)


def _attested(folder: Path, **claims: str) -> Attested:
    return verifier(folder, PUBLIC)(data(PUBLIC.bundle(b"said", _of(**claims))))


def test_another_repository_of_the_same_name_has_another_number(tmp_path: Path) -> None:
    rule = Workflow(name=MAIN.name, ref=MAIN.ref, repository_id=1234)
    assert rule.refusal(_attested(tmp_path).identity) == ""
    reason = rule.refusal(_attested(tmp_path, _15="99").identity)
    assert reason == "the number of the repository is 99, not 1234"


def test_a_job_of_another_environment_is_not_the_signers(tmp_path: Path) -> None:
    rule = Workflow(name=MAIN.name, ref=MAIN.ref, environment="production")
    assert rule.refusal(_attested(tmp_path).identity) == ""
    assert "is build, not production" in rule.refusal(_attested(tmp_path, _23="build").identity)
    assert "is not named, not" in rule.refusal(_attested(tmp_path, _23="").identity)


@pytest.mark.parametrize(
    ("ref", "counts"),
    [
        ("refs/heads/release/1.2", True),
        ("refs/heads/release/", False),
        ("refs/heads/release", False),
        ("refs/heads/release/1/2", False),
        ("refs/heads/releases", False),
        ("refs/tags/release/1.2", False),
    ],
)
def test_a_pattern_stands_for_one_part_of_a_branch(
    ref: str,
    counts: bool,
    tmp_path: Path,
) -> None:
    rule = Workflow(name=MAIN.name, ref="refs/heads/release/*")
    workflow = f"{HEADS}/main.yml@{ref}"
    claims = {**CLAIMS, 14: ref, 18: workflow}
    bundle = PUBLIC.bundle(b"said", claims, subject=workflow)
    assert (rule.refusal(verifier(tmp_path, PUBLIC)(data(bundle)).identity) == "") is counts


def test_a_certificate_cannot_write_into_a_message(tmp_path: Path) -> None:
    reason = MAIN.refusal(_attested(tmp_path, _12="\x1b[2J\n::error::" + "x" * 9_000).identity)
    assert reason.isprintable()
    assert len(reason) < 500


@pytest.mark.parametrize("text", ["ada/iris", "ada/iris/.github/workflows/../x.yml", "a/b/c.yml"])
def test_a_workflow_is_named_in_full(text: str) -> None:
    assert not re.search(WORKFLOW, text)
    assert re.search(WORKFLOW, MAIN.name)
    assert not re.search(REF, "main")
    assert not re.search(REF, "refs/heads/*/main")
    assert not re.search(REF, "refs/tags/v1")
