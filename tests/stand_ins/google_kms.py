"""A stand-in of Cloud KMS: versions of one key, which sign.

It is made from the definitions of Google's own client, see `kms_definitions`: another method and an
unknown field are refused. What it says of versions that cannot be used is what Google says.
"""

import base64
import json
import re
from collections.abc import Callable
from typing import Any

import google_crc32c
import httpx
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from tests.stand_ins.kms_definitions import recorded

KEY = "projects/iris-4711/locations/europe-west3/keyRings/mlship/cryptoKeys/ci"
_NAME = r"(?P<name>projects/[^/]+/locations/[^/]+/keyRings/[^/]+/cryptoKeys/[^/]+"
_NAME += r"/cryptoKeyVersions/[^/:]+)"


class GoogleKms:
    """The API, with a key of some versions.

    Attributes:
        states: of each version.
        algorithms: of each version.
        requests: all of them.
        before: called with each request; may return a response of its own.
        damage: changes an answer on its way.
    """

    def __init__(self) -> None:
        self.states = {"1": "ENABLED"}
        self.algorithms = {"1": "EC_SIGN_ED25519"}
        self.requests: list[httpx.Request] = []
        self.before: Callable[[httpx.Request], httpx.Response | None] = lambda _: None
        self.damage: Callable[[dict[str, Any]], None] = lambda _: None
        self._keys: dict[str, Any] = {}

    def __call__(self, request: httpx.Request) -> httpx.Response:
        """Answer a request."""
        self.requests.append(request)
        own = self.before(request)
        if own is not None:
            return own
        method, name = _method(request)
        version = name.rpartition("/")[2]
        if not name.startswith(f"{KEY}/") or version not in self.states:
            return refusal(404, "NOT_FOUND", f"CryptoKeyVersion {name} not found.")
        if self.states[version] != "ENABLED":
            text = f"{name} is not enabled, current state is: {self.states[version]}."
            return refusal(400, "FAILED_PRECONDITION", text)
        answer = self._key(name) if method == "GetPublicKey" else self._sign(name, request)
        if isinstance(answer, httpx.Response):
            return answer
        self.damage(answer)
        return httpx.Response(200, json=answer)

    def _private(self, name: str) -> Any:
        if name not in self._keys:
            is_edwards = self.algorithms[name.rpartition("/")[2]] == "EC_SIGN_ED25519"
            make = ed25519.Ed25519PrivateKey.generate if is_edwards else _of_curve
            self._keys[name] = make()
        return self._keys[name]

    def _key(self, name: str) -> dict[str, Any]:
        pem = (
            self._private(name)
            .public_key()
            .public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        )
        return {
            "pem": pem.decode(),
            "algorithm": self.algorithms[name.rpartition("/")[2]],
            "pemCrc32c": crc32c(pem),
            "name": name,
            "protectionLevel": "SOFTWARE",
        }

    def _sign(self, name: str, request: httpx.Request) -> dict[str, Any] | httpx.Response:
        body = json.loads(request.content)
        # The name is in the path.
        unknown = set(body) - (set(recorded()["messages"]["AsymmetricSignRequest"]) - {"name"})
        if unknown:
            return refusal(400, "INVALID_ARGUMENT", f"Unknown name {min(unknown)!r}")
        if self.algorithms[name.rpartition("/")[2]] != "EC_SIGN_ED25519" or "data" not in body:
            return refusal(400, "INVALID_ARGUMENT", "The request does not fit the algorithm.")
        data = base64.b64decode(body["data"], validate=True)
        if "dataCrc32c" in body and body["dataCrc32c"] != crc32c(data):
            return refusal(400, "INVALID_ARGUMENT", "The checksum of the data did not match.")
        signature = self._private(name).sign(data)
        return {
            "signature": base64.b64encode(signature).decode(),
            "signatureCrc32c": crc32c(signature),
            "verifiedDataCrc32c": "dataCrc32c" in body,
            "name": name,
            "protectionLevel": "SOFTWARE",
        }


def crc32c(data: bytes) -> str:
    """Return the checksum as the API has it: an int64, which is text in JSON."""
    return str(google_crc32c.value(data))


def refusal(code: int, status: str, message: str, reason: str = "") -> httpx.Response:
    """Return a refusal in the form of Google's APIs."""
    details = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason}]
    error = {"code": code, "message": message, "status": status}
    return httpx.Response(code, json={"error": error | ({"details": details} if reason else {})})


def _of_curve() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _method(request: httpx.Request) -> tuple[str, str]:
    """Return the method of a request and the name in its path."""
    for method, option in recorded()["methods"].items():
        pattern = re.sub(r"\{name=[^}]*\}", "NAME", option["path"])
        found = re.fullmatch(re.escape(pattern).replace("NAME", _NAME), request.url.path)
        if found and request.method == option["verb"]:
            assert not request.url.query
            return method, found["name"]
    raise AssertionError(f"Cloud KMS has no {request.method} {request.url}")
