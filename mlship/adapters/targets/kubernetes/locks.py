"""Exclusive locks in a cluster: Leases that are renewed while they are held.

Clocks of different machines are never compared. A process that finds a Lease held watches it. If
the Lease is renewed, its holder is alive. If it does not change for its whole duration, its holder
was killed: the Lease is taken over by compare-and-set on its resourceVersion. The algorithm is that
of client-go's leader election: https://pkg.go.dev/k8s.io/client-go/tools/leaderelection
"""

import functools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

from mlship.adapters.targets.kubernetes.access import Access
from mlship.adapters.targets.kubernetes.api import Api, Manifest, connected, new
from mlship.adapters.targets.kubernetes.manifests import Scope
from mlship.errors import ConflictError, MlshipError

_SECONDS = 12
_RENEW_SECONDS = 2.0
_PAUSE = 0.5


class LeaseLocks:
    """The port `Locks`, with a Lease per name in the target's namespace."""

    def __init__(
        self, project: str, namespace: str, access: Callable[[], Access], holder: str
    ) -> None:
        """Store the settings; no request is sent.

        Args:
            project: the Leases' names begin with it.
            namespace: where the Leases are kept.
            access: how to reach the cluster.
            holder: names this process for people and for others, `ada at laptop, process 4711`.
        """
        self._project = project
        self._namespace = namespace
        self._access = functools.cache(access)
        self._holder = holder

    @contextmanager
    def exclusive(self, name: str) -> Iterator[None]:
        """Hold the lock of that name.

        A lock that another process holds is refused after that process renews it, within 3
        seconds. A lock that a killed process left is taken over after 12 seconds.

        Raises:
            ConflictError: another process holds it, whose name is in the message; or the lock was
                lost while it was held.
            NotFoundError: there is no such namespace.
            UnavailableError: the cluster does not answer, or denies access.
        """
        lease = Scope(project=self._project, target=name).name
        with connected(self._access, self._namespace) as api:
            held = self._acquire(api, lease, name)
            ended, lost = threading.Event(), threading.Event()
            renewal = threading.Thread(
                target=self._renew, args=(api, held, ended, lost), daemon=True
            )
            renewal.start()
            try:
                yield
            finally:
                ended.set()
                renewal.join()
                with suppress(MlshipError):
                    self._release(api, lease)
            if lost.is_set():
                message = f"the lock of {name} was lost: the cluster did not answer in time"
                hint = "look at `mlship status`, then run the command again"
                raise ConflictError(message, hint=hint)

    def _acquire(self, api: Api, lease: str, name: str) -> Manifest:
        current = api.get("Lease", lease)
        if current is None:
            with self._racing(name):
                return api.create(new("Lease", {"name": lease}, self._spec(taken=True)))
        holder = _holder(current)
        if holder and self._is_renewed(api, current):
            raise _held(name, holder)
        with self._racing(name):
            return api.replace({**current, "spec": self._spec(taken=True)})

    def _is_renewed(self, api: Api, lease: Manifest) -> bool:
        """Watch a Lease for its duration; return whether it was written in that time."""
        deadline = time.monotonic() + float(lease["spec"].get("leaseDurationSeconds", _SECONDS))
        while time.monotonic() < deadline:
            time.sleep(_PAUSE)
            now = api.get("Lease", lease["metadata"]["name"])
            if now is None or _version(now) != _version(lease):
                return True
        return False

    @contextmanager
    def _racing(self, name: str) -> Iterator[None]:
        try:
            yield
        except ConflictError as error:
            raise _held(name, "another process, just now") from error

    def _renew(
        self, api: Api, held: Manifest, ended: threading.Event, lost: threading.Event
    ) -> None:
        """Write the Lease every 2 s until the end, or until it is lost."""
        last = time.monotonic()
        while not ended.wait(_RENEW_SECONDS):
            try:
                held = api.replace({**held, "spec": self._spec(held)})
                last = time.monotonic()
            except MlshipError:
                # The write may have succeeded and its response got lost, or the API server may come
                # back before another process takes the Lease over.
                with suppress(MlshipError):
                    held = api.get("Lease", held["metadata"]["name"]) or held
                if _holder(held) != self._holder or time.monotonic() - last > _SECONDS:
                    lost.set()
                    return

    def _release(self, api: Api, lease: str) -> None:
        now = api.get("Lease", lease)
        if now is not None and _holder(now) == self._holder:
            api.replace({**now, "spec": {**now["spec"], "holderIdentity": ""}})

    def _spec(self, held: Manifest | None = None, *, taken: bool = False) -> Manifest:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        before = held["spec"] if held else {}
        return {
            **before,
            **({"acquireTime": now} if taken else {}),
            "holderIdentity": self._holder,
            "leaseDurationSeconds": _SECONDS,
            "renewTime": now,
        }


def _holder(lease: Manifest) -> str:
    return str(lease.get("spec", {}).get("holderIdentity") or "")


def _version(lease: Manifest) -> str:
    return str(lease["metadata"]["resourceVersion"])


def _held(name: str, holder: str) -> ConflictError:
    message = f"{name} is being changed by {holder}"
    return ConflictError(message, hint="wait until it ends, then run the command again")
