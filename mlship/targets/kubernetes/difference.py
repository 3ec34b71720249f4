"""What applying objects would change, as the cluster itself computes it."""

import difflib

import yaml

from mlship.targets.kubernetes.api import Api
from mlship.targets.kubernetes.kinds import Manifest

_BOOKKEEPING = {
    "creationTimestamp",
    "generation",
    "managedFields",
    "resourceVersion",
    "uid",
}


def of(api: Api, manifests: list[Manifest]) -> str:
    """Return a unified diff of all objects, empty where nothing would change."""
    parts: list[str] = []
    for manifest in manifests:
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        before = api.get(kind, name)
        after = api.apply(manifest, dry_run=True)
        parts += difflib.unified_diff(
            _lines(before),
            _lines(after),
            fromfile=f"{kind} {name} in {api.cluster}" if before else "nothing",
            tofile=f"{kind} {name}",
        )
    return "".join(parts)


def _lines(manifest: Manifest | None) -> list[str]:
    """Return an object as lines of YAML, without its status and the server's own bookkeeping."""
    if manifest is None:
        return []
    metadata = {
        key: value for key, value in manifest["metadata"].items() if key not in _BOOKKEEPING
    }
    shown = {**manifest, "metadata": metadata}
    shown.pop("status", None)
    return yaml.safe_dump(shown, sort_keys=True).splitlines(keepends=True)
