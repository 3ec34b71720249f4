"""The shapes of the API server's answers: what every object of the API has."""

from typing import Annotated, Any, Final

import httpx
import msgspec

from mlship.adapters.http.bodies import decoded, settle

_MARKS: Final = ("labels", "annotations")
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


def has(current: dict[str, Any], written: dict[str, Any]) -> bool:
    """Return whether an object is as it was written; the server adds defaults to its contents.

    Its status is of others.
    """
    now, before = current["metadata"], written["metadata"]
    is_marked = all((now.get(part) or {}) == (before.get(part) or {}) for part in _MARKS)
    contents = {key: value for key, value in written.items() if key not in ("metadata", "status")}
    return is_marked and _covers(current, contents)


def _covers(whole: Any, part: Any) -> bool:
    if isinstance(whole, dict) and isinstance(part, dict):
        return all(key in whole and _covers(whole[key], value) for key, value in part.items())
    if isinstance(whole, list) and isinstance(part, list):
        return len(whole) == len(part) and all(map(_covers, whole, part))
    return bool(whole == part)
