"""Keys in Google's Cloud KMS: it signs, and the private key never leaves it.

`gcpkms://projects/P/locations/L/keyRings/R/cryptoKeys/K/cryptoKeyVersions/V` names a version of a
key with the algorithm EC_SIGN_ED25519, which signs data and no digest of them. Both directions have
a CRC32C, as Google asks for (https://docs.cloud.google.com/kms/docs/data-integrity-guidelines), and
a signature is verified before it is used.
"""

import base64
import re
from collections.abc import Callable
from functools import cache, cached_property
from typing import Any, Final, TypeVar

import httpx
import msgspec

from mlship.adapters.http.bodies import decoded
from mlship.adapters.http.clients import Reach, open_client
from mlship.adapters.http.door import Door, NoAnswerError, Terms
from mlship.adapters.http.retries import Patience, Timing
from mlship.adapters.keys import kms_faults
from mlship.adapters.keys.ed25519 import verify
from mlship.adapters.targets import gke
from mlship.config import installation
from mlship.domain.digests import Digest
from mlship.domain.public_keys import key_id, of_pem
from mlship.errors import ConfigError, UnavailableError

SCHEME: Final = "gcpkms://"
URL: Final = "https://cloudkms.googleapis.com"
ALGORITHM: Final = "EC_SIGN_ED25519"

_VERSION: Final = re.compile(
    r"projects/([\w.:-]+)/locations/[\w-]+/keyRings/[\w-]+/cryptoKeys/[\w-]+"
    r"/cryptoKeyVersions/[1-9][0-9]*"
)
_FORM: Final = (
    "gcpkms://projects/P/locations/L/keyRings/R/cryptoKeys/K/cryptoKeyVersions/1, with a version"
)
_PATIENCE: Final = Patience(deadline=60, attempts=5, first=1, longest=10)
_TRIES: Final = 3
"""Of a request whose data or answer were damaged on the way."""

_Answer = TypeVar("_Answer", "_PublicKey", "_Signed")


class _PublicKey(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    name: str = ""
    algorithm: str = ""
    pem: str = ""
    pem_crc32c: str = msgspec.field(default="", name="pemCrc32c")


class _Signed(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    name: str = ""
    signature: bytes = b""
    signature_crc32c: str = msgspec.field(default="", name="signatureCrc32c")
    verified_data_crc32c: bool = msgspec.field(default=False, name="verifiedDataCrc32c")


class KmsKey:
    """The port Signing with a key version in Cloud KMS. Nothing is requested before it is used.

    Args:
        uri: of the version.
        door: returns the door to the API, opened when it is first used.

    Raises:
        ConfigError: it is another URI.
    """

    def __init__(self, uri: str, door: Callable[[], Door] | None = None) -> None:
        self.uri = uri
        self._name = uri.removeprefix(SCHEME)
        found = _VERSION.fullmatch(self._name)
        if found is None:
            raise ConfigError(f"{uri[:200]!r} is no key version of Cloud KMS", hint=_FORM)
        self._project = found[1]
        self._open = door or _door

    @cached_property
    def public(self) -> str:
        """The public key, as `mlship.domain.public_keys.KEY`.

        Raises:
            ConfigError: it has another algorithm, the version is disabled or destroyed, or the
                library for Google's credentials is missing.
            NotFoundError: there is no such version.
            UnavailableError: Google denies access, or does not answer.
        """
        found = self._whole("GET", "/publicKey", None, _PublicKey, _is_whole_key)
        if found.algorithm != ALGORITHM:
            message = f"key version {self._name} has the algorithm {found.algorithm[:60]}"
            raise ConfigError(message, hint=f"create a key whose algorithm is {ALGORITHM}")
        public = of_pem(found.pem, self._name)
        if not public.startswith("ed25519:"):
            message = f"the key in {self._name} is not an Ed25519 key"
            raise ConfigError(message, hint="use another key")
        return public

    @cached_property
    def key(self) -> Digest:
        """The id of the key."""
        return key_id(self.public)

    def sign(self, message: bytes) -> bytes:
        """Return the signature of a message.

        Raises:
            ConfigError, NotFoundError, UnavailableError: as `public`.
        """
        public = self.public
        data = base64.b64encode(message).decode()
        body = {"data": data, "dataCrc32c": str(_crc32c(message))}

        def is_whole(found: _Signed) -> bool:
            checksum = str(_crc32c(found.signature))
            return found.verified_data_crc32c and found.signature_crc32c == checksum

        found = self._whole("POST", ":asymmetricSign", body, _Signed, is_whole)
        if not verify(public, message, found.signature):
            text = f"key version {self._name} returned something else than its signature"
            raise UnavailableError(text, hint="check the proxy; nothing was recorded")
        return found.signature

    def _whole(
        self,
        method: str,
        action: str,
        body: dict[str, str] | None,
        shape: type[_Answer],
        is_whole: Callable[[_Answer], bool],
    ) -> _Answer:
        """Return an answer that arrived as it was sent, of this key version."""
        for _ in range(_TRIES):
            found = self._answer(method, action, body, shape)
            if found.name == self._name and is_whole(found):
                return found
        text = f"key version {self._name}: what Cloud KMS received or answered was damaged"
        raise UnavailableError(text, hint="check the network and the proxy, then try again")

    def _answer(
        self, method: str, action: str, body: dict[str, str] | None, shape: type[_Answer]
    ) -> _Answer:
        request = self._door.client.build_request(method, f"/v1/{self._name}{action}", json=body)
        try:
            response = self._door.send(request, repeat="always")
        except NoAnswerError as error:
            raise kms_faults.unreachable(error, self._name) from error
        if response.is_error:
            raise kms_faults.error_of(response, self._name, self._project)
        try:
            return decoded(response.content, shape)
        except msgspec.DecodeError as error:
            message = f"key version {self._name}: the answer is not of Cloud KMS"
            raise UnavailableError(message, hint="check the proxy, then try again") from error

    @cached_property
    def _door(self) -> Door:
        return self._open()


@cache
def named(uri: str) -> KmsKey:
    """Return the key of a URI; of one version, the public key is always the same.

    Raises:
        ConfigError: it is another URI.
    """
    return KmsKey(uri)


def door_of(client: httpx.Client, timing: Timing | None = None) -> Door:
    """Return the door of a client to the API."""
    terms = Terms(name="Cloud KMS", patience=_PATIENCE, timing=timing or Timing())
    return Door(client, terms)


def _door() -> Door:
    return door_of(open_client(Reach(), base_url=URL, auth=gke.token()))


def _is_whole_key(found: _PublicKey) -> bool:
    return found.pem_crc32c == str(_crc32c(found.pem.encode()))


def _crc32c(data: bytes) -> int:
    try:
        import google_crc32c
    except ImportError as error:
        message = f"Cloud KMS needs the package {error.name}, which is not installed"
        raise ConfigError(message, hint=installation.hint("gcp")) from error
    value: Any = google_crc32c.value(data)
    return int(value)
