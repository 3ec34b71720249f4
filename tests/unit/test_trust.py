"""Whose records count: signatures, what a signer may say, and what a ledger had before."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mlship.adapters.keys import Keys, MachineSigning, Verifier
from mlship.adapters.keys.ed25519 import PrivateKey, generate
from mlship.domain import dsse, evidence, trust
from mlship.domain.digests import Digest
from mlship.domain.evidence import Evidence, Record, Step
from mlship.domain.public_keys import key_id
from mlship.domain.records import Records
from mlship.domain.trust import Scope, Sealed, Signer, Trust
from mlship.errors import ConfigError, ConflictError, IntegrityError
from tests.harness.samples import NOON, release
from tests.harness.signing import key, verified

CI, OPS, ADA, EVE = key(), key(), key(), key()
SIGNERS = (
    Signer(name="ci", key=CI.public, may=frozenset[Scope](["build", "staging"])),
    Signer(name="ops", key=OPS.public, may=frozenset[Scope](["production"])),
    Signer(name="ada", key=ADA.public),
)
HOUR = timedelta(hours=1)


def said(
    step: Step,
    by: dsse.Signing | None,
    *after: Record,
    time: datetime = NOON,
    facts: dict[str, Any] | None = None,
) -> Record:
    """Return a record that somebody signed, after others."""
    made = Evidence(
        release=release(),
        step=step,
        verdict="passed",
        facts=facts or {},
        actor="ada",
        time=time,
        parents=tuple(record.digest for record in after),
    )
    return evidence.decode(evidence.encode(made, by))


def sealed(public: str, record: Record) -> Sealed:
    assert record.envelope
    return public, record.digest, record.envelope


def reasons(
    *records: Record, signers: Sequence[Signer] = SIGNERS, unsigned: bool = False
) -> list[str]:
    """Return why each record does not count; an empty text for one that does."""
    own = frozenset(record.digest for record in records)
    named = Trust(signers=tuple(signers), unsigned=unsigned)
    found = trust.sift(records, own, named, verified)
    return [found.get(record.digest, "") for record in records]


def forged(record: Record, change: Callable[[dsse.Envelope], dsse.Envelope]) -> Record:
    assert record.envelope
    return evidence.decode(msgspec.json.encode(change(record.envelope), order="deterministic"))


def test_each_signer_says_what_it_may() -> None:
    trained = said("train", CI)
    deployed = said("deploy-production", OPS, trained)
    assert reasons(trained, deployed, said("approve", ADA, deployed)) == ["", "", ""]


REFUSED: dict[str, tuple[Callable[[], Record], str]] = {
    "not signed": (lambda: said("promote", None), "it is not signed"),
    "a key that nobody knows": (lambda: said("promote", EVE), "which `trust` does not name"),
    "the build job promotes": (lambda: said("promote", CI), "signer ci may not say promote"),
    "the build job approves": (lambda: said("approve", CI), "signer ci may not say approve"),
    "production trains": (lambda: said("train", OPS), "signer ops may not say train"),
    "production approves": (lambda: said("approve", OPS), "signer ops may not say approve"),
    "an evaluation by the build job": (lambda: said("evaluate", CI), "may not say evaluate"),
    "traffic by the build job": (lambda: said("traffic", CI), "may not say traffic"),
    "a takeover by the build job": (lambda: said("sign-ledger", CI), "may not say sign-ledger"),
    "another's signature": (
        lambda: forged(
            said("promote", OPS),
            lambda it: msgspec.structs.replace(it, signatures=_envelope("evaluate").signatures),
        ),
        "the signature is not one of signer ops",
    ),
    "a changed payload": (
        lambda: forged(
            said("promote", OPS),
            lambda it: msgspec.structs.replace(it, payload=it.payload.replace(b"ada", b"eve")),
        ),
        "the signature is not one of signer ops",
    ),
    "a changed verdict": (
        lambda: forged(
            said("evaluate", OPS),
            lambda it: msgspec.structs.replace(
                it, payload=it.payload.replace(b'"passed"', b'"failed"')
            ),
        ),
        "the signature is not one of signer ops",
    ),
    "a key's id on another's signature": (
        lambda: forged(said("promote", EVE), lambda it: _relabelled(it, OPS.key)),
        "the signature is not one of signer ops",
    ),
    "an empty signature": (
        lambda: forged(said("promote", OPS), lambda it: _signed(it, b"")),
        "the signature is not one of signer ops",
    ),
    "half a signature": (
        lambda: forged(said("promote", OPS), lambda it: _signed(it, it.signatures[0].sig[:32])),
        "the signature is not one of signer ops",
    ),
    "a signature of zeros": (
        lambda: forged(said("promote", OPS), lambda it: _signed(it, bytes(64))),
        "the signature is not one of signer ops",
    ),
}


def _envelope(step: Step) -> dsse.Envelope:
    found = said(step, OPS).envelope
    assert found
    return found


def _signed(envelope: dsse.Envelope, sig: bytes) -> dsse.Envelope:
    signature = msgspec.structs.replace(envelope.signatures[0], sig=sig)
    return msgspec.structs.replace(envelope, signatures=(signature,))


def _relabelled(envelope: dsse.Envelope, keyid: Digest) -> dsse.Envelope:
    signature = msgspec.structs.replace(envelope.signatures[0], keyid=keyid)
    return msgspec.structs.replace(envelope, signatures=(signature,))


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_said_by_whom_may_say_it_does_not_count(case: str) -> None:
    make, reason = REFUSED[case]
    assert reason in reasons(make())[0]


def _twice(data: bytes) -> bytes:
    envelope = dsse.read(data)
    signatures = envelope.signatures * 2
    return msgspec.json.encode(msgspec.structs.replace(envelope, signatures=signatures))


def _reversed(data: bytes) -> bytes:
    fields = msgspec.json.decode(data)
    ordered = ("payload", "signatures", "payloadType")
    return msgspec.json.encode({name: fields[name] for name in ordered})


UNREADABLE: dict[str, Callable[[bytes], bytes]] = {
    "no signature": lambda data: data.split(b',"signatures"')[0] + b',"signatures":[]}',
    "two signatures": _twice,
    "spaces": lambda data: data.replace(b'","', b'", "', 1),
    "another order": _reversed,
    "an unknown field": lambda data: data[:-1] + b',"note":1}',
    "another type of payload": lambda data: data.replace(b"in-toto+json", b"other+jsonn"),
    "a payload that is cut off": lambda data: data.replace(b'"payload":"ey', b'"payload":"', 1),
    "base64 of another kind": lambda data: data.replace(b'=="', b'="', 1).replace(b'="', b'"', 1),
    "an envelope in an envelope": lambda data: dsse.seal(data, OPS),
    "nothing in it": lambda _: dsse.seal(b"", OPS),
    "deeply nested": lambda _: dsse.seal(b"[" * 100_000, OPS),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_another_form_of_an_envelope_is_no_record(case: str) -> None:
    made = Evidence(release=release(), step="promote", verdict="passed", actor="a", time=NOON)
    data = evidence.encode(made, OPS)
    changed = UNREADABLE[case](data)
    assert changed != data
    with pytest.raises(IntegrityError):
        evidence.decode(changed)


def test_what_a_signature_covers_is_the_encoding_that_dsse_names() -> None:
    """The example of the protocol: https://github.com/secure-systems-lab/dsse."""
    assert (
        dsse.encoded("http://example.com/HelloWorld", b"hello world")
        == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


def test_the_id_of_a_key_is_the_digest_of_its_der_form() -> None:
    """As `openssl pkey -pubin -outform DER | sha256sum` computes it."""
    public = "ed25519:11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
    assert key_id(public) == (
        "sha256:06e3fd8fda29bb60ab59557de61edb0aecdb231134be30e75b455f8e1b792fa9"
    )


def test_a_copy_of_a_record_counts_once() -> None:
    first = said("train", CI)
    again = said("promote", OPS, first)
    assert reasons(first, again, again)[2] == "it is a copy of another record"


def test_a_key_counts_until_its_end() -> None:
    end = NOON + HOUR
    signer = Signer(name="old", key=OPS.public, until=end)
    fresh = Signer(name="new", key=ADA.public)
    before = said("promote", OPS, time=NOON)
    after = said("rollback", OPS, before, time=end + HOUR)
    assert reasons(before, after, signers=[signer, fresh]) == [
        "",
        "the key of signer old ended at 2026-03-01 13:00 UTC",
    ]


def test_a_key_that_ended_cannot_give_a_record_an_earlier_time_than_what_it_follows() -> None:
    signer = Signer(name="old", key=OPS.public, until=NOON + HOUR)
    fresh = Signer(name="new", key=ADA.public)
    later = said("promote", ADA, time=NOON + 3 * HOUR)
    dated_back = said("rollback", OPS, later, time=NOON)
    assert "ended" in reasons(later, dated_back, signers=[signer, fresh])[1]


def test_the_time_of_a_record_that_does_not_count_ends_no_key() -> None:
    signer = Signer(name="old", key=OPS.public, until=NOON + HOUR)
    wrong = said("promote", EVE, time=NOON + 3 * HOUR)
    assert reasons(wrong, said("rollback", OPS, wrong), signers=[signer])[1] == ""


def test_claims_of_unreviewed_jobs_need_no_signature() -> None:
    assert reasons(said("unreviewed/train", None)) == [""]


def test_a_ledger_that_trusts_nobody_in_particular_counts_everything() -> None:
    assert reasons(said("promote", None), signers=[], unsigned=True) == [""]


def test_unsigned_records_may_count_beside_signed_ones() -> None:
    records = said("promote", None), said("promote", EVE)
    assert [bool(reason) for reason in reasons(*records, unsigned=True)] == [False, True]


def test_records_of_a_former_version_are_taken_over_once() -> None:
    old = said("train", None)
    promoted = said("promote", None, old)
    taken = said("sign-ledger", ADA, promoted)
    late = said("rollback", None, taken)
    forked = said("rollback", None, old)
    expected = ["", "", "", "it is not signed", "it is not signed"]
    assert reasons(old, promoted, taken, late, forked) == expected


def test_who_may_not_say_everything_takes_nothing_over() -> None:
    old = said("promote", None)
    assert reasons(old, said("sign-ledger", OPS, old)) == ["it is not signed", ""]


def test_records_that_are_taken_over_do_not_include_those_of_a_stranger() -> None:
    strange = said("promote", EVE)
    assert "does not name" in reasons(strange, said("sign-ledger", ADA, strange))[0]


def test_a_forged_record_neither_counts_nor_voids_others() -> None:
    trained = said("train", ADA)
    real = msgspec.structs.replace(said("promote", ADA, trained).evidence, fence=3)
    honest = evidence.decode(evidence.encode(real, ADA))
    later = msgspec.structs.replace(real, fence=9, step="rollback")
    forgery = evidence.decode(evidence.encode(later, EVE))
    named = Trust(signers=SIGNERS, unsigned=False)
    found = Records.alone(
        [trained, honest, forgery],
        lambda records, own: trust.sift(records, own, named, verified),
    )
    assert found.listed == (trained, honest)
    assert [each.record for each in found.untrusted] == [forgery]
    assert found.void == ()
    assert set(found.heads) == {honest.digest, forgery.digest}


def test_a_ledger_of_which_nothing_counts_is_not_an_empty_one() -> None:
    untrusted = [trust.Untrusted(record=said("promote", None), reason="it is not signed")]
    with pytest.raises(IntegrityError, match="its only record does not count") as caught:
        trust.check_trusted([], untrusted)
    assert "mlship ledger sign" in caught.value.hint
    trust.check_trusted([], [])
    trust.check_trusted([said("train", CI)], untrusted)


MAY: dict[str, tuple[Step, PrivateKey | None, str]] = {
    "no key": ("promote", None, "there is no key here"),
    "a stranger": ("promote", EVE, "which `trust` does not name"),
    "another's step": ("promote", CI, "signer ci may not say promote: `may` has no production"),
}


@pytest.mark.parametrize("case", MAY)
def test_who_would_not_be_believed_is_told_before_anything_is_done(case: str) -> None:
    step, by, message = MAY[case]
    named = Trust(signers=SIGNERS, unsigned=False)
    with pytest.raises(ConfigError, match=message):
        trust.check_may([step], by.key if by else None, named, NOON)
    trust.check_may(["promote"], OPS.key, named, NOON)
    trust.check_may(["promote"], None, trust.OPEN, NOON)


def test_a_key_that_ended_is_told() -> None:
    ended = Trust(signers=(Signer(name="old", key=OPS.public, until=NOON),), unsigned=False)
    with pytest.raises(ConfigError, match="the key of signer old ended at"):
        trust.check_may(["promote"], OPS.key, ended, NOON + HOUR)


# Keys


def keys(folder: Path, **variables: str) -> Keys:
    return Keys("iris", {"HOME": str(folder), **variables})


def test_a_machine_makes_its_key_once_and_for_itself(tmp_path: Path) -> None:
    first, second = MachineSigning(keys(tmp_path)), MachineSigning(keys(tmp_path))
    assert keys(tmp_path).public() == ()
    assert first.key == second.key
    path = tmp_path / ".config" / "mlship" / "keys" / "machine.pem"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert [key_id(each) for each in keys(tmp_path).public()] == [first.key]
    assert sorted(each.name for each in path.parent.iterdir()) == ["machine.pem", "machine.pub"]


def test_a_private_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    MachineSigning(keys(tmp_path)).sign(b"x")
    keys(tmp_path).machine.chmod(0o644)
    with pytest.raises(ConfigError, match="other users of this machine may read") as caught:
        MachineSigning(keys(tmp_path)).sign(b"x")
    assert "chmod 600" in caught.value.hint


def test_a_project_has_a_key_of_its_own(tmp_path: Path) -> None:
    made = keys(tmp_path).new()
    own = keys(tmp_path).own()
    assert own is not None
    assert own.key == made.key
    with pytest.raises(ConflictError, match="there is a key of this project already"):
        keys(tmp_path).new()
    assert Keys("churn", {"HOME": str(tmp_path)}).own() is None


def test_a_variable_wins_over_files(tmp_path: Path) -> None:
    keys(tmp_path).new()
    pem = generate()
    own = keys(tmp_path, MLSHIP_SIGNING_KEY=pem.decode()).own()
    assert own is not None
    assert own.key == PrivateKey(pem, "").key


WRONG_KEYS = {
    "nothing": "",
    "text": "secret",
    "a public key": CI.public,
    "a certificate": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
}


@pytest.mark.parametrize("case", WRONG_KEYS)
def test_what_is_no_key_is_named(case: str) -> None:
    with pytest.raises(ConfigError, match="MLSHIP_SIGNING_KEY has no private key in PEM"):
        PrivateKey(WRONG_KEYS[case].encode(), "MLSHIP_SIGNING_KEY")


def test_a_key_of_another_kind_or_with_a_password_is_named() -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519

    other = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    with pytest.raises(ConfigError, match="is not an Ed25519 key"):
        PrivateKey(other, "the file")
    locked = ed25519.Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"word"),
    )
    with pytest.raises(ConfigError, match="is protected by a password"):
        PrivateKey(locked, "the file")


@pytest.mark.parametrize(
    "text",
    ["", "ed25519:", "ed25519:AAAA", "rsa:x", CI.public + "\n", "é"],
    ids=["nothing", "no bytes", "three bytes", "another kind", "a further line", "not ASCII"],
)
def test_what_is_no_public_key_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is no public key"):
        key_id(text)


# Signatures that were verified


def test_a_signature_is_verified_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record, environment = said("train", CI), {"HOME": str(tmp_path)}
    assert record.digest in Verifier(environment)([sealed(CI.public, record)])
    asked: list[bytes] = []
    monkeypatch.setattr(
        "mlship.adapters.keys.verified.verify", lambda *given: asked.append(given[1])
    )
    assert record.digest in Verifier(environment)([sealed(CI.public, record)])
    assert asked == []


def test_a_wrong_signature_is_never_kept(tmp_path: Path) -> None:
    wrong = forged(said("promote", OPS), lambda it: _signed(it, bytes(64)))
    for _ in range(2):
        assert wrong.digest not in Verifier({"HOME": str(tmp_path)})([sealed(OPS.public, wrong)])


@pytest.mark.parametrize("content", [b"", b"x" * 33, b"x" * 31])
def test_what_was_verified_may_be_cut_off_or_lost(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / ".local" / "state" / "mlship" / "verified"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    path.chmod(0o600)
    record, environment = said("train", CI), {"HOME": str(tmp_path)}
    for _ in range(2):
        assert record.digest in Verifier(environment)([sealed(CI.public, record)])
    assert len(path.read_bytes()) % 32 == 0


def test_what_others_may_write_is_not_believed(tmp_path: Path) -> None:
    wrong = forged(said("promote", OPS), lambda it: _signed(it, bytes(64)))
    path = tmp_path / ".local" / "state" / "mlship" / "verified"
    path.parent.mkdir(parents=True)
    path.write_bytes(bytes.fromhex(wrong.digest.removeprefix("sha256:")))
    path.chmod(0o666)
    assert wrong.digest not in Verifier({"HOME": str(tmp_path)})([sealed(OPS.public, wrong)])


UNTIL_NOON = (msgspec.structs.replace(SIGNERS[0], until=NOON), *SIGNERS[1:])


@pytest.mark.parametrize("before", ["nothing", "older records"])
def test_a_key_that_ended_says_nothing_of_a_release_that_was_trained_later(before: str) -> None:
    old = said("deploy-production", OPS, time=NOON - 2 * HOUR)
    trained = said("train", ADA, old, time=NOON + 2 * HOUR)
    parents = (old,) if before == "older records" else ()
    late = said("test", CI, *parents, time=NOON - HOUR)
    for order in ((old, trained, late), (old, late, trained)):
        found = dict(zip(map(id, order), reasons(*order, signers=UNTIL_NOON), strict=True))
        assert (found[id(old)], found[id(trained)]) == ("", "")
        assert "the key of signer ci ended" in found[id(late)]
        assert reasons(*order) == ["", "", ""]


def test_a_key_that_ended_keeps_what_it_said_of_a_release_that_was_there() -> None:
    trained = said("train", CI, time=NOON - 2 * HOUR)
    tested = said("test", CI, trained, time=NOON - HOUR)
    assert reasons(trained, tested, signers=UNTIL_NOON) == ["", ""]


def test_the_time_of_a_claim_that_nobody_signed_ends_no_key() -> None:
    trained = said("train", CI, time=NOON - 2 * HOUR)
    claim = said("unreviewed/train", None, trained, time=NOON.replace(year=9998))
    tested = said("test", CI, claim, time=NOON - HOUR)
    assert reasons(trained, claim, tested, signers=UNTIL_NOON) == ["", "", ""]
