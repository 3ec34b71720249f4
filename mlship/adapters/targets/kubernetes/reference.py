"""What mlship wrote last into an object, kept in an annotation of it: its reference.

A field that differs from it was changed by somebody else: settings that changed since, defaults of
the cluster, and fields that mlship does not write are no difference. Pure functions but for `kept`.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, Final, NamedTuple

import msgspec

from mlship.adapters.targets.kubernetes.api import MANAGER, Api, Manifest
from mlship.domain import digests
from mlship.errors import MlshipError, shown

REFERENCE: Final = "mlship.dev/written"
_PARTS: Final = ("labels", "annotations")
_CLOSED: Final = frozenset(
    {"selector", "matchLabels", "containers", "initContainers", "env", "envFrom", "volumes"}
)
"""Fields in which whatever mlship did not write was added by somebody else."""
_RUNS: Final = frozenset(
    {"image", "command", "args", "env", "envFrom", "initContainers", "volumes", "volumeMounts"}
)
"""Fields on which it depends what is computed: what was tested would not be what runs."""
_ANSWERS: Final = frozenset({"selector", "matchLabels", "type", "ports"})
_MISSING: Final = object()
Path = tuple[str, ...]
"""The names of a field, from the outermost: `("spec", "replicas")`."""
REPLICAS: Final[Path] = ("spec", "replicas")


class Difference(NamedTuple):
    """One field of an object that is not as it was written.

    Attributes:
        path: of the field; empty if it is the reference itself.
        text: `spec.replicas is 5, not 2`, for people.
        is_adoptable: whether it may become the reference: nothing else is computed, or answers.
    """

    path: Path
    text: str
    is_adoptable: bool


def kept(api: Api, manifest: Manifest) -> Manifest:
    """Return a manifest with its reference: the values that the cluster makes of it."""
    made = manifest
    with suppress(MlshipError):  # the write itself tells it
        made = api.apply(manifest, dry_run=True)
    return _with(manifest, _text(_projected(_contents(made), _contents(manifest))))


def of(manifest: Manifest) -> Manifest | None:
    """Return the reference of an object; `None` if a former version of mlship wrote it.

    It has the `labels`, `annotations` and `spec` that mlship wrote.
    """
    text = _annotations(manifest).get(REFERENCE)
    if text is None:
        return None
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.DecodeError:
        return {}


def adopted(manifest: Manifest) -> str:
    """Return the text of the reference by which an object is as it was written."""
    return _text(_projected(_contents(manifest), of(manifest) or {}))


def restored(current: Manifest, former: Manifest) -> Manifest:
    """Return an object with the spec of a former state of it, and with the reference of that."""
    text = _annotations(former).get(REFERENCE)
    whole = {**current, "spec": former["spec"]}
    return whole if text is None else _with(whole, text)


def differences(manifest: Manifest) -> list[Difference]:
    """Return each field of an object that is not as it was written."""
    reference = of(manifest)
    if reference is None:
        return []
    if not reference:
        return [Difference((), f"annotation {REFERENCE} was damaged", is_adoptable=False)]
    found = []
    for path, now, before in _compared(_contents(manifest), reference, ()):
        text = f"{_named(path)} {_said(now, before)}{_by(manifest, path)}"
        runs = path[0] == "spec" and not (_RUNS | _ANSWERS).isdisjoint(path)
        found.append(Difference(path, text, is_adoptable=not runs))
    return found


def _contents(manifest: Manifest) -> Manifest:
    metadata = manifest["metadata"]
    parts = {name: dict(metadata.get(name) or {}) for name in _PARTS}
    parts["annotations"].pop(REFERENCE, None)
    return {**parts, "spec": manifest["spec"]}


def _annotations(manifest: Manifest) -> Mapping[str, str]:
    annotations: Mapping[str, str] = manifest["metadata"].get("annotations") or {}
    return annotations


def _with(manifest: Manifest, text: str) -> Manifest:
    metadata = manifest["metadata"]
    annotations = {**_annotations(manifest), REFERENCE: text}
    return {**manifest, "metadata": {**metadata, "annotations": annotations}}


def _text(reference: Manifest) -> str:
    return digests.canonical_json(reference).decode()


def _projected(made: Any, asked: Any) -> Any:
    """Return the part of a value that was asked for, as it was made."""
    if isinstance(made, dict) and isinstance(asked, dict):
        return {key: _projected(made[key], value) for key, value in asked.items() if key in made}
    if _is_named(made) and _is_named(asked):
        by_name = {each["name"]: each for each in made}
        return [
            _projected(by_name[each["name"]], each) for each in asked if each["name"] in by_name
        ]
    return made


def _compared(now: Any, before: Any, path: Path) -> Iterator[tuple[Path, Any, Any]]:
    """Yield path, value now and value before of each difference; `_MISSING` is none."""
    if _is_named(now) and _is_named(before):
        now, before = ({each["name"]: each for each in one} for one in (now, before))
    if isinstance(now, dict) and isinstance(before, dict):
        for key, value in before.items():
            yield from _compared(now.get(key, _MISSING), value, (*path, key))
        is_closed = bool(path) and path[-1] in _CLOSED
        for key in now.keys() - before.keys():
            if is_closed or (key in _CLOSED and now[key]):
                yield (*path, key), now[key], _MISSING
    elif now != before:
        yield path, now, before


def _is_named(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(each, dict) and "name" in each for each in value)
    )


def _named(path: Path) -> str:
    if path[0] in _PARTS:
        return f"{path[0].removesuffix('s')} {'.'.join(path[1:])}"
    return ".".join(path)


def _said(now: Any, before: Any) -> str:
    if now is _MISSING:
        return f"is missing, it was {_value(before)}"
    if before is _MISSING:
        return f"was added: {_value(now)}"
    return f"is {_value(now)}, not {_value(before)}"


def _value(value: Any) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return shown(text) or "empty"


def _by(manifest: Manifest, path: Path) -> str:
    """Return who changed a field, and when, if the cluster knows it; else nothing."""
    for entry in manifest["metadata"].get("managedFields") or ():
        if entry.get("manager") != MANAGER and _owns(entry.get("fieldsV1"), path):
            parts = (entry["manager"], entry.get("time", ""))
            return f" ({', '.join(shown(part) for part in parts if part)})"
    return ""


def _owns(fields: Any, path: Path) -> bool:
    """Return whether a set of fields has one; a part of a list is found by its name."""
    inside = fields.get("f:metadata") if path[0] in _PARTS and fields else fields
    for key in path:
        if not isinstance(inside, dict):
            return False
        named = next((each for each in inside if f'"name":"{key}"' in each), "")
        inside = inside.get(f"f:{key}", inside.get(named))
    return inside is not None
