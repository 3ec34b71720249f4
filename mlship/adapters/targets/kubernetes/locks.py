"""Exclusive locks in a cluster: Leases that are renewed while they are held.

Clocks of different machines are never compared. A process that finds a Lease held watches it. If
the Lease is renewed, its holder is alive. If it does not change for its whole duration, its holder
was killed or is stopped: the Lease is taken over by compare-and-set on its resourceVersion. The
algorithm is that of client-go's leader election:
https://pkg.go.dev/k8s.io/client-go/tools/leaderelection

Unlike there, a holder that was stopped and goes on is fenced off: each holder has a number, the
Lease's `leaseTransitions`, and who takes over raises that of every object, see `fencing`.
"""

import functools
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Final, NamedTuple, TypeVar

from mlship.adapters.http.retries import Patience
from mlship.adapters.targets.kubernetes import fencing, lease
from mlship.adapters.targets.kubernetes.access import Access
from mlship.adapters.targets.kubernetes.api import Api, Kind, Manifest, connected, new
from mlship.adapters.targets.kubernetes.lease import HeldLease, clock, holder_of, number_of
from mlship.adapters.targets.kubernetes.manifests import Scope
from mlship.domain.fence import Fence
from mlship.errors import ConflictError, MlshipError

_T = TypeVar("_T")
_PAUSE = 0.5
_QUICKLY: Final = Patience(deadline=2, attempts=1)
_QUICK_SECONDS: Final = 1.0
"""A cluster that does not answer must not delay what is done in the others, as a rollback is."""


class Elsewhere(NamedTuple):
    """Another cluster in which the target of a lock has objects."""

    namespace: str
    access: Callable[[], Access]


class LeaseLocks:
    """The port `Locks`, with a Lease per name in the target's namespace."""

    def __init__(
        self,
        project: str,
        namespace: str,
        access: Callable[[], Access],
        holder: str,
        *,
        route: Kind = "HTTPRoute",
        others: Mapping[str, Elsewhere] | None = None,
        elsewhere: Callable[[str], int] = lambda _: 0,
    ) -> None:
        """Store the settings; no request is sent.

        Args:
            project: the Leases' names begin with it.
            namespace: where the Leases are kept.
            access: how to reach the cluster.
            holder: names this process for people and for others, `ada at laptop, process 4711`.
            route: the kind of the object that has the targets' routes.
            others: by name, the clusters of the target without the Leases.
            elsewhere: returns the highest number of what a target has outside of its clusters. Its
                Lease may have been moved here from another cluster.
        """
        self._project = project
        self._namespace = namespace
        self._access = functools.cache(access)
        self._holder = holder
        self._route: Final[Kind] = route
        self._others = others or {}
        self._elsewhere = elsewhere

    @contextmanager
    def exclusive(self, name: str) -> Iterator[Fence]:
        """Hold the lock of that name.

        A lock that another process holds is refused after that process renews it, within 3
        seconds. A lock that a killed or stopped process left is taken over after 12 seconds; if it
        goes on, it writes no more, in no cluster of the target. One that does not answer now is
        fenced before the first write there.

        Raises:
            ConflictError: another process holds it, whose name is in the message; or the lock was
                lost while it was held.
            NotFoundError: there is no such namespace.
            UnavailableError: the cluster does not answer, or denies access.
        """
        scope = Scope(project=self._project, target=name)
        with connected(self._access, self._namespace) as api:
            before = api.get("Lease", scope.name)
            behind = lease.behind(before, frozenset(self._others))
            held = self._acquire(api, scope, before, behind)
            is_fenced = lease.is_settled(before)
            try:
                with held.renewed():
                    if not is_fenced:
                        fencing.raise_to(api, scope, self._route, held.number)
                        is_fenced = True
                    self._each(behind, lambda name: held.enter(name, quickly=True))
                    held.check()
                    yield held
                    held.check()
            finally:
                held.give_back(is_fenced=is_fenced)

    def _acquire(
        self, api: Api, scope: Scope, before: Manifest | None, behind: frozenset[str]
    ) -> HeldLease:
        name = scope.target
        if before is not None and holder_of(before) and self._is_renewed(api, before):
            raise _held(name, holder_of(before))
        least = 0 if lease.is_settled(before) else fencing.highest(api, scope, self._route)
        least = max(least, self._elsewhere(name))
        others = self._each(behind, functools.partial(self._highest, scope))
        number = max(number_of(before) if before else 0, least, *others) + 1
        taken, since = lease.spec(self._holder, number), clock()
        try:
            if before is None:
                written = api.create(new("Lease", {"name": scope.name}, taken))
            else:
                written = api.replace({**before, "spec": taken})
        except ConflictError as error:
            raise _held(name, "another process, just now") from error
        return HeldLease(
            api, written, since, name, behind, functools.partial(self._raise_in, scope)
        )

    def _highest(self, scope: Scope, cluster: str) -> int:
        with self._connected(cluster, quickly=True) as api:
            return fencing.highest(api, scope, None)

    def _raise_in(self, scope: Scope, cluster: str, number: int, *, quickly: bool) -> None:
        with self._connected(cluster, quickly=quickly) as api:
            fencing.raise_to(api, scope, None, number)

    @contextmanager
    def _connected(self, cluster: str, *, quickly: bool) -> Iterator[Api]:
        other = self._others[cluster]
        patience, seconds = (_QUICKLY, _QUICK_SECONDS) if quickly else (None, None)
        with connected(other.access, other.namespace, patience, seconds) as api:
            yield api

    def _each(self, clusters: frozenset[str], act: Callable[[str], _T]) -> list[_T]:
        """Do something in other clusters at once; return the results of those that answer."""
        known = sorted(clusters & set(self._others))
        if not known:
            return []

        def attempt(cluster: str) -> list[_T]:
            try:
                return [act(cluster)]
            except MlshipError:
                # Whatever it is: it must not keep from working elsewhere. `enter` tells it.
                return []

        with ThreadPoolExecutor(len(known)) as pool:
            return [result for results in pool.map(attempt, known) for result in results]

    def _is_renewed(self, api: Api, found: Manifest) -> bool:
        """Watch a Lease for its duration; return whether it was written in that time."""
        seconds = float(found["spec"].get("leaseDurationSeconds", lease.SECONDS))
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            time.sleep(_PAUSE)
            now = api.get("Lease", found["metadata"]["name"])
            if now is None or _version(now) != _version(found):
                return True
        return False


def _version(found: Manifest) -> str:
    return str(found["metadata"]["resourceVersion"])


def _held(name: str, holder: str) -> ConflictError:
    message = f"{name} is being changed by {holder}"
    return ConflictError(message, hint="wait until it ends, then run the command again")
