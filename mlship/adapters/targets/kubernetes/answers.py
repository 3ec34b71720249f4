"""The shapes of the API server's answers: what every object of the API has."""

from typing import Annotated, Any

import httpx
import msgspec

from mlship.adapters.http.bodies import decoded, settle

_Word = Annotated[str, msgspec.Meta(min_length=1)]


class _Metadata(msgspec.Struct, rename="camel"):
    name: _Word
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    resource_version: str = ""


class _Item(msgspec.Struct):
    """An object in a list: its kind and version are those of the list."""

    metadata: _Metadata
    spec: dict[str, Any] | None = None
    status: dict[str, Any] | None = None


class Answer(msgspec.Struct, rename="camel"):
    """What every answer has; that to a deletion may be the object or a Status."""

    kind: _Word
    api_version: _Word


class Object(Answer):
    """An object of the API."""

    metadata: _Metadata
    spec: dict[str, Any] | None = None
    status: dict[str, Any] | None = None


class Objects(Answer):
    """A list of objects."""

    metadata: dict[str, Any]
    items: list[_Item] | None = None


class _Allowed(msgspec.Struct):
    allowed: bool


class Review(Answer):
    """The answer to an access review."""

    status: _Allowed


def read(response: httpx.Response, shape: type[Answer]) -> dict[str, Any]:
    """Return the object in an answer.

    Raises:
        msgspec.DecodeError: it is not JSON, or not of that shape.
    """
    document = decoded(response.content, dict[str, Any])
    settle(shape)
    msgspec.convert(document, shape)
    return document
