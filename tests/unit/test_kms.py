"""Keys in Cloud KMS, over a stand-in of its API."""

import base64
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from mlship.adapters.http.clients import Reach, open_client
from mlship.adapters.keys import Keys, kms
from mlship.adapters.keys.ed25519 import verify
from mlship.adapters.keys.kms import URL, KmsKey, door_of
from mlship.config.layers import from_yaml, resolve
from mlship.domain import evidence
from mlship.domain.evidence import Evidence
from mlship.domain.public_keys import key_id
from mlship.errors import ConfigError, MlshipError, NotFoundError, UnavailableError
from mlship.wire import signing
from tests.fakes.timing import patient
from tests.harness.samples import NOON, release
from tests.stand_ins.google_kms import KEY, GoogleKms, crc32c, refusal

URI = f"gcpkms://{KEY}/cryptoKeyVersions/1"
MESSAGE = b"DSSEv1 1 a 1 b"
SETTINGS = """
name: iris
data: {train: data/train.csv, test: data/test.csv}
model: {train: "pipeline:train"}
"""


def key(api: GoogleKms, uri: str = URI) -> KmsKey:
    client = open_client(Reach(transport=httpx.MockTransport(api)), base_url=URL)
    return KmsKey(uri, lambda: door_of(client, patient([])))


def test_it_signs_as_a_key_in_a_file_does() -> None:
    api = GoogleKms()
    signing = key(api)
    assert api.requests == []
    record = evidence.decode(
        evidence.encode(
            Evidence(release=release(), step="train", verdict="passed", actor="ci", time=NOON),
            signing,
        )
    )
    assert record.envelope is not None
    assert record.signer == signing.key == key_id(signing.public)
    assert verify(signing.public, record.envelope.message, record.envelope.signatures[0].sig)
    assert [request.method for request in api.requests] == ["GET", "POST"]


def test_data_are_sent_with_their_checksum() -> None:
    api = GoogleKms()
    key(api).sign(MESSAGE)
    expected = f'"dataCrc32c":"{crc32c(MESSAGE)}"'
    assert expected in api.requests[-1].content.decode().replace(" ", "")


def changes(**fields: Any) -> Callable[[dict[str, Any]], None]:
    return lambda answer: answer.update({each: fields[each] for each in fields if each in answer})


OTHER = base64.b64encode(bytes(64)).decode()
DAMAGED: dict[str, tuple[Callable[[dict[str, Any]], None], str, int]] = {
    "another signature": (changes(signature=OTHER), "was damaged", 3),
    "another checksum": (changes(signatureCrc32c="7"), "was damaged", 3),
    "no checksum": (lambda answer: void(answer, "signatureCrc32c"), "was damaged", 3),
    "data that were not checked": (changes(verifiedDataCrc32c=False), "was damaged", 3),
    "another version": (
        lambda answer: answer.update(name=f"{KEY}/cryptoKeyVersions/2"),
        "was damaged",
        3,
    ),
    "a signature of something else": (
        changes(signature=OTHER, signatureCrc32c=crc32c(bytes(64))),
        "something else than its signature",
        1,
    ),
}


def void(answer: dict[str, Any], field: str) -> None:
    answer.pop(field, None)


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_answer_is_asked_for_again_and_never_used(case: str) -> None:
    damage, message, tries = DAMAGED[case]
    api = GoogleKms()
    signing = key(api)
    signing.public  # noqa: B018 (fetched)
    api.damage, api.requests = damage, []
    with pytest.raises(UnavailableError, match=message):
        signing.sign(MESSAGE)
    assert len(api.requests) == tries


def test_one_damaged_answer_is_no_failure() -> None:
    api = GoogleKms()
    signing = key(api)
    damaged = iter([changes(pemCrc32c="7"), changes(signature=OTHER)])

    def damage(answer: dict[str, Any]) -> None:
        if len(api.requests) in (1, 3):
            next(damaged)(answer)

    api.damage = damage
    assert verify(signing.public, MESSAGE, signing.sign(MESSAGE))
    assert len(api.requests) == 4


def test_a_public_key_that_was_damaged_is_not_used() -> None:
    api = GoogleKms()
    api.damage = changes(pem="-----BEGIN PUBLIC KEY-----")
    with pytest.raises(UnavailableError, match="was damaged"):
        key(api).key  # noqa: B018 (asked for)


DISABLED = "Cloud KMS API has not been used in project 4711 before or it is disabled."
FAULTS: dict[str, tuple[httpx.Response, type[MlshipError], str, str]] = {
    "denied": (
        refusal(403, "PERMISSION_DENIED", "Permission 'cloudkms.useToSign' denied on resource"),
        UnavailableError,
        "Permission 'cloudkms.useToSign' denied",
        "grant roles/cloudkms.signerVerifier",
    ),
    "an API that is not enabled": (
        refusal(403, "PERMISSION_DENIED", DISABLED, "SERVICE_DISABLED"),
        UnavailableError,
        "has not been used in project",
        "gcloud services enable cloudkms.googleapis.com --project iris-4711",
    ),
    "no login": (
        refusal(401, "UNAUTHENTICATED", "Request had invalid authentication credentials."),
        UnavailableError,
        "invalid authentication",
        "log in again",
    ),
    "busy": (
        refusal(503, "UNAVAILABLE", "The service is currently unavailable."),
        UnavailableError,
        "currently unavailable. .5 attempts",
        "run the command again",
    ),
    "a proxy": (
        httpx.Response(502, text="<html>"),
        UnavailableError,
        "answered 502",
        "run the command again",
    ),
    "another server": (
        httpx.Response(200, text="<html>"),
        UnavailableError,
        "the answer is not of Cloud KMS",
        "check the proxy",
    ),
}


@pytest.mark.parametrize("case", FAULTS)
def test_failures_are_named_with_the_next_action(case: str) -> None:
    response, error, message, hint = FAULTS[case]
    api = GoogleKms()
    api.before = lambda _: response
    with pytest.raises(error, match=message) as told:
        key(api).sign(MESSAGE)
    assert hint in told.value.hint
    assert f"{KEY}/cryptoKeyVersions/1" in told.value.message


@pytest.mark.parametrize("state", ["DISABLED", "DESTROY_SCHEDULED", "DESTROYED"])
def test_a_version_that_cannot_be_used_is_named(state: str) -> None:
    api = GoogleKms()
    api.states["1"] = state
    with pytest.raises(ConfigError, match=f"current state is: {state}") as told:
        key(api).sign(MESSAGE)
    assert "enable the version" in told.value.hint


def test_a_version_that_is_disabled_between_two_signatures_is_named() -> None:
    api = GoogleKms()
    signing = key(api)
    signing.sign(MESSAGE)
    api.states["1"] = "DISABLED"
    with pytest.raises(ConfigError, match="current state is: DISABLED"):
        signing.sign(MESSAGE)


def test_a_key_of_another_algorithm_is_refused() -> None:
    api = GoogleKms()
    api.algorithms["1"] = "EC_SIGN_P256_SHA256"
    with pytest.raises(ConfigError, match="has the algorithm EC_SIGN_P256_SHA256") as told:
        key(api).sign(MESSAGE)
    assert "EC_SIGN_ED25519" in told.value.hint


def test_a_key_that_is_another_one_than_its_algorithm_says_is_refused() -> None:
    api = GoogleKms()
    api.algorithms["1"] = "EC_SIGN_P256_SHA256"
    api.damage = changes(algorithm="EC_SIGN_ED25519")
    with pytest.raises(ConfigError, match="is not an Ed25519 key"):
        key(api).sign(MESSAGE)


def test_a_version_that_does_not_exist_is_named() -> None:
    with pytest.raises(NotFoundError, match="cryptoKeyVersions/9 not found"):
        key(GoogleKms(), f"gcpkms://{KEY}/cryptoKeyVersions/9").sign(MESSAGE)


WRONG = {
    "no version": f"gcpkms://{KEY}",
    "a version of no number": f"gcpkms://{KEY}/cryptoKeyVersions/latest",
    "another path": f"gcpkms://{KEY}/cryptoKeyVersions/1/../2",
    "a query": f"{URI}?alt=media",
    "another host": f"gcpkms://evil.example/{KEY}/cryptoKeyVersions/1",
    "an empty part": f"gcpkms://projects//{KEY.partition('/')[2]}/cryptoKeyVersions/1",
    "two lines": f"{URI}\n{URI}",
}


@pytest.mark.parametrize("case", WRONG)
def test_another_name_is_refused_before_anything_is_sent(case: str) -> None:
    with pytest.raises(ConfigError, match="is no key version of Cloud KMS"):
        key(GoogleKms(), WRONG[case])


def test_the_variable_names_a_version(tmp_path: Path) -> None:
    own = Keys("iris", {"HOME": str(tmp_path), "MLSHIP_SIGNING_KEY": f"{URI}\n"}).own()
    assert isinstance(own, KmsKey)
    assert own.uri == URI


@pytest.mark.parametrize("shared", [True, False])
def test_it_is_shown_and_trusted_like_a_key_in_a_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, shared: bool
) -> None:
    signing_key = key(GoogleKms())
    monkeypatch.setattr(kms, "named", lambda _: signing_key)
    signers = f"trust: {{signers: {{build: {{key: '{signing_key.public}'}}}}}}\n"
    config = resolve([from_yaml(f"{SETTINGS}{signers}", "mlship.yaml")]).config
    environment = {"HOME": str(tmp_path), "MLSHIP_SIGNING_KEY": URI}
    shown = signing.own(config, environment, Path(), shared=shared)
    assert (shown.name, shown.public, shown.where) == (
        *("build", signing_key.public),
        "MLSHIP_SIGNING_KEY",
    )
    assert shown.trusted == ("build",)


@contextmanager
def missing(monkeypatch: pytest.MonkeyPatch, module: str) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setitem(__import__("sys").modules, module, None)
        yield


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        missing(monkeypatch, "google_crc32c"),
        pytest.raises(ConfigError, match="google_crc32c, which is not installed") as told,
    ):
        key(GoogleKms()).sign(MESSAGE)
    assert "gcp" in told.value.hint
