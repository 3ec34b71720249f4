"""Writes to a cluster that a former holder of the target's lock cannot make.

Each holder of the lock has a number. An object has the number below which nobody may write it, in
an annotation: that of the holder who created it, raised by each holder who takes over from one that
may still be alive. Every write is made by compare-and-set on the resourceVersion of an object whose
number was looked at. So the raise defeats a write that was decided before it, and a write that is
decided after it is refused. Only what does not exist yet has no number; the clock of the process is
looked at immediately before each request.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final, TypeVar

import httpx

from mlship.adapters.http.door import Door
from mlship.adapters.targets.kubernetes import api as plain
from mlship.adapters.targets.kubernetes import routing
from mlship.adapters.targets.kubernetes.access import Access
from mlship.adapters.targets.kubernetes.api import Api, Kind, Manifest
from mlship.adapters.targets.kubernetes.manifests import INSTANCE, KINDS, Scope
from mlship.adapters.targets.kubernetes.router_manifests import instance_of, name_of
from mlship.domain.fence import Fence
from mlship.errors import ConflictError

_T = TypeVar("_T")

FENCE: Final = "mlship.dev/fence"
"""An annotation: the number of the lock's holder below which nobody may write the object."""

_PAUSE = 0.05
_TURNS = 40
_UNFENCED: frozenset[Kind] = frozenset({"Pod"})
"""Kinds that are written without their number: nobody has the right to read single pods."""
_ROUTES: frozenset[Kind] = frozenset({"ConfigMap", "HTTPRoute"})
"""Kinds that roles allow to update, and not to patch."""


def number_of(manifest: Manifest) -> int:
    """Return the number of an object; 0 if it has none."""
    text = str((manifest["metadata"].get("annotations") or {}).get(FENCE, ""))
    return int(text) if text.isdecimal() else 0


@contextmanager
def connected(
    access: Callable[[], Access], namespace: str, fence: Fence, name: str = ""
) -> Iterator[Api]:
    """Open a client whose writes carry a fence; without a number, a plain one.

    Args:
        access: how the cluster is reached.
        namespace: of the objects.
        fence: of the lock that is held.
        name: of the cluster in mlship.yaml, if the target has several.

    Raises:
        ConfigError: the settings give no access.
    """
    cluster = access()
    with plain.reached(cluster) as client:
        door = plain.door(client, cluster.name)
        if not fence.number:
            yield Api(door, cluster, namespace)
            return

        def check(request: httpx.Request) -> None:
            if request.method != "GET":
                fence.enter(name)
                fence.check()

        # Before each attempt: between two of them, much time may pass.
        client.event_hooks["request"].append(check)
        yield FencedApi(door, cluster, namespace, fence)


class FencedApi(Api):
    """Objects of one namespace, written for the holder of a lock.

    Every write raises ConflictError where a later holder has written the object.
    """

    def __init__(self, door: Door, access: Access, namespace: str, fence: Fence) -> None:
        super().__init__(door, access, namespace)
        self._fence = fence

    def apply(self, manifest: Manifest, *, dry_run: bool = False) -> Manifest:
        """Set fields of an object as `Api.apply`, unless it was changed meanwhile."""
        if dry_run:
            return super().apply(manifest, dry_run=True)

        def write(current: Manifest | None) -> Manifest:
            if current is None:
                return Api.apply(self, _marked(manifest, self._fence.number))
            marked = _marked(manifest, number_of(current))
            version = current["metadata"]["resourceVersion"]
            metadata = {**marked["metadata"], "resourceVersion": version}
            return Api.apply(self, {**marked, "metadata": metadata})

        return self._turns(manifest["kind"], manifest["metadata"]["name"], write)

    def create(self, manifest: Manifest, *, dry_run: bool = False) -> Manifest:
        """Create an object with the number of the holder."""
        return super().create(_marked(manifest, self._fence.number), dry_run=dry_run)

    def replace(self, manifest: Manifest, *, dry_run: bool = False) -> Manifest:
        """Write an object that was read and changed, unless it was changed since."""
        self._check(manifest)
        return super().replace(manifest, dry_run=dry_run)

    def annotate(
        self, kind: Kind, name: str, annotations: Mapping[str, str], *, version: str = ""
    ) -> None:
        """Set annotations as `Api.annotate`; without a version, those of a pod."""
        current = self.get(kind, name) if version else None
        if current is not None:
            self._check(current)
        super().annotate(kind, name, annotations, version=version)

    def delete(self, kind: Kind, name: str, *, grace: int | None = None, version: str = "") -> None:
        """Delete an object as `Api.delete`, unless it is changed meanwhile."""
        if kind in _UNFENCED or version:
            super().delete(kind, name, grace=grace, version=version)
            return

        def write(current: Manifest | None) -> None:
            if current is not None:
                own = current["metadata"]["resourceVersion"]
                Api.delete(self, kind, name, grace=grace, version=own)

        self._turns(kind, name, write)

    def _turns(self, kind: Kind, name: str, write: Callable[[Manifest | None], _T]) -> _T:
        """Write an object as it was read; read it again if a controller has written to it."""
        turn = 0
        while True:
            current = self.get(kind, name)
            if current is not None:
                self._check(current)
            try:
                return write(current)
            except ConflictError:
                self._fence.check()
                turn += 1
                if turn == _TURNS:
                    raise
                time.sleep(_PAUSE)

    def _check(self, manifest: Manifest) -> None:
        if number_of(manifest) > self._fence.number:
            what = f"{manifest['kind']} {manifest['metadata']['name']}"
            message = f"{what} was written by a later holder of the lock"
            hint = "look at `mlship status`, then run the command again"
            raise ConflictError(message, hint=hint)


def highest(api: Api, scope: Scope, route: Kind | None) -> int:
    """Return the highest number of a target's objects; 0 if none has one."""
    return max((number_of(each) for each in _objects(api, scope, route)), default=0)


def raise_to(api: Api, scope: Scope, route: Kind | None, number: int) -> None:
    """Give all objects of a target a number at least, so that nobody with a lower one writes them.

    Args:
        api: of the target's namespace.
        scope: of the target.
        route: the kind of the object that has its route; `None` in a cluster that has none, nor
            the right to read one.
        number: of the holder who takes over.

    Raises:
        ConflictError: an object has a higher number.
    """
    for found in _objects(api, scope, route):
        kind, name = found["kind"], found["metadata"]["name"]
        current: Manifest | None = found
        for _ in range(_TURNS):
            if current is None or number_of(current) >= number:
                break
            try:
                _mark(api, current, number)
                break
            except ConflictError:
                # A controller, or the former holder, has written to it.
                time.sleep(_PAUSE)
                current = api.get(kind, name)
        else:
            message = f"{kind} {name} is written to again and again; the lock is not taken over"
            raise ConflictError(message, hint="run the command again")


def _mark(api: Api, manifest: Manifest, number: int) -> None:
    kind, metadata = manifest["kind"], manifest["metadata"]
    if kind in _ROUTES:
        api.replace(_marked(manifest, number))
        return
    version = metadata["resourceVersion"]
    api.annotate(kind, metadata["name"], {FENCE: str(number)}, version=version)


def _objects(api: Api, scope: Scope, route: Kind | None) -> Iterator[Manifest]:
    """Yield the objects of a target: of each slot, of the router, and of the route."""
    names = [
        deployment["metadata"]["name"]
        for instance in (scope.name, instance_of(scope))
        for deployment in api.list("Deployment", {INSTANCE: instance})
    ]
    wanted: list[tuple[Kind, str]] = [(kind, name) for name in names for kind in KINDS]
    if route is not None:
        wanted.insert(0, (route, name_of(scope) if route == "ConfigMap" else scope.name))
    for kind, name in wanted:
        manifest = api.get(kind, name)
        if manifest is not None:
            yield manifest
            if kind == "HTTPRoute":
                wanted += routing.entries(scope, manifest)


def _marked(manifest: Manifest, number: int) -> Manifest:
    """Return an object with a number; 0 is none."""
    if not number:
        return manifest
    metadata = manifest["metadata"]
    annotations = {**(metadata.get("annotations") or {}), FENCE: str(number)}
    return {**manifest, "metadata": {**metadata, "annotations": annotations}}
