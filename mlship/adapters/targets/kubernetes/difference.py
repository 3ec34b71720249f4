"""The changes that writing objects would make, as computed by the cluster."""

import difflib
from collections.abc import Sequence
from typing import Literal

import yaml
from msgspec.structs import replace

from mlship.adapters.targets.kubernetes.api import Api, Manifest
from mlship.adapters.targets.kubernetes.fencing import FENCE
from mlship.adapters.targets.kubernetes.reference import REFERENCE
from mlship.domain.deployment import Change

_KEPT = (FENCE, REFERENCE)
_BOOKKEEPING = {
    "creationTimestamp",
    "generation",
    "managedFields",
    "resourceVersion",
    "uid",
}


def of(cluster: str, before: Manifest | None, after: Manifest | None) -> list[Change]:
    """Return the change of an object in a cluster; empty if it stays the same.

    `None` is an object that does not exist.
    """
    known = before or after
    if known is None:
        return []
    name = f"{known['kind']} {known['metadata']['name']}"
    lines = difflib.unified_diff(
        _lines(before),
        _lines(after),
        fromfile=f"{name} in {cluster}" if before else "nothing",
        tofile=name if after else "nothing",
    )
    diff = "".join(lines)
    action: Literal["create", "change", "delete"] = "change" if before and after else "delete"
    action = action if before else "create"
    return [Change(object=name, action=action, diff=diff)] if diff else []


def within(cluster: str, changes: Sequence[Change]) -> list[Change]:
    """Return changes whose objects are named with one of several clusters."""
    return [replace(change, object=f"{change.object} in {cluster}") for change in changes]


def applied(api: Api, manifest: Manifest) -> list[Change]:
    """Return the change that applying an object would make; the cluster keeps nothing of it."""
    before = api.get(manifest["kind"], manifest["metadata"]["name"])
    return of(api.cluster, before, api.apply(manifest, dry_run=True))


def _lines(manifest: Manifest | None) -> list[str]:
    """Return an object as lines of YAML, without its status and the server's own fields."""
    if manifest is None:
        return []
    metadata = {
        key: value for key, value in manifest["metadata"].items() if key not in _BOOKKEEPING
    }
    # Kept by every write, and not part of what is wanted.
    annotations = metadata.pop("annotations", None) or {}
    annotations = {key: value for key, value in annotations.items() if key not in _KEPT}
    shown = {**manifest, "metadata": {**metadata, "annotations": annotations}}
    shown.pop("status", None)
    return yaml.safe_dump(shown, sort_keys=True).splitlines(keepends=True)
