"""A schema registry: schemas by the id that each value begins with, and the schema of outputs.

Source: https://docs.confluent.io/platform/current/schema-registry/develop/api.html and
https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/index.html#wire-format
"""

import base64
import json
import struct
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from mlship.errors import (
    ConfigError,
    CredentialsError,
    MlshipError,
    NotFoundError,
    UnavailableError,
)

LOGIN: Final = "registry.basic.auth.user.info"
"""The property in `stream.variables` whose variable has `user:password`."""
_HEAD: Final = struct.Struct(">bI")
_SECONDS: Final = 10.0
_JSON: Final = "application/vnd.schemaregistry.v1+json"
_UNKNOWN_SCHEMA: Final = 40403


class _Error(msgspec.Struct, frozen=True):
    error_code: int | None = None


class Registry:
    """The REST API of a schema registry.

    Args:
        url: its address.
        login: `user:password`; empty for none.
    """

    def __init__(self, url: str, login: str = "") -> None:
        if not url.startswith(("http://", "https://")):
            message = f"invalid address of the schema registry: {url}"
            raise ConfigError(message, hint="use such as http://registry:8081")
        self._url = url.rstrip("/")
        self._headers = {"Accept": _JSON, "Content-Type": _JSON}
        if login:
            encoded = base64.b64encode(login.encode()).decode()
            self._headers["Authorization"] = f"Basic {encoded}"

    def schema(self, number: int, *, is_serialized: bool = False) -> str:
        """Return the text of a schema.

        Args:
            number: its id.
            is_serialized: return a schema of Protobuf as a descriptor in base64.

        Raises:
            NotFoundError: the registry does not know the id.
            MlshipError: it does not answer, or refuses.
        """
        query = "?format=serialized" if is_serialized else ""
        try:
            answer = self._call("GET", f"/schemas/ids/{number}{query}")
        except NotFoundError as error:
            message = f"schema {number} is not in the registry {self._url}"
            raise NotFoundError(message, hint="register it, or correct the producer") from error
        if answer.get("references"):
            message = f"schema {number} refers to other schemas, which mlship does not read"
            raise ConfigError(message, hint="write it in one piece")
        return str(answer["schema"])

    def register(self, subject: str, schema: str, kind: str) -> int:
        """Return the id of a schema, which is registered if it is new.

        Raises:
            ConfigError: it is not compatible with what the subject has.
            MlshipError: the registry does not answer, or refuses.
        """
        path = f"/subjects/{urllib.parse.quote(subject, safe='')}/versions"
        body = {"schema": schema} | ({} if kind == "AVRO" else {"schemaType": kind})
        return int(self._call("POST", path, body)["id"])

    def _call(self, method: str, path: str, body: Mapping[str, str] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(  # noqa: S310 (the scheme is checked)
            self._url + path, data, self._headers, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=_SECONDS) as response:  # noqa: S310
                return json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                raise self._refused(error.code, error.read(2000), path) from error
        except (OSError, ValueError) as error:
            message = f"the schema registry {self._url} does not answer: {error}"
            raise UnavailableError(
                message, hint="check stream.registry and the registry"
            ) from error

    def _refused(self, status: int, body: bytes, path: str) -> MlshipError:
        text = body.decode(errors="replace")[:300]
        message = f"the schema registry {self._url} answered {path} with {status}: {text}"
        if status in (401, 403):
            hint = f"set {LOGIN} in stream.variables to a variable with user:password"
            return CredentialsError(message, hint=hint)
        if status == 404 and _code(body) == _UNKNOWN_SCHEMA:
            return NotFoundError(message, hint="check stream.registry")
        if status == 404:
            # A proxy says so, too, while the registry is away: no message is to blame.
            return UnavailableError(message, hint="check stream.registry and the registry")
        if status in (409, 422):
            hint = "change the compatibility of the subject, or write to another output topic"
            return ConfigError(message, hint=hint)
        return UnavailableError(message, hint="check the registry, then run it again")


def _code(body: bytes) -> int | None:
    """Return the registry's own code of an error."""
    try:
        return msgspec.json.decode(body, type=_Error).error_code
    except msgspec.DecodeError:
        return None


def unframed(value: bytes) -> tuple[int, bytes]:
    """Return the id of a value's schema, and the rest.

    Raises:
        ValueError: the value has no id.
    """
    if len(value) < _HEAD.size or value[0] != 0:
        message = "the value does not begin with the id of a schema"
        raise ValueError(message)
    return _HEAD.unpack_from(value)[1], value[_HEAD.size :]


def framed(number: int, data: bytes) -> bytes:
    """Return data with the id of its schema before it."""
    return _HEAD.pack(0, number) + data
