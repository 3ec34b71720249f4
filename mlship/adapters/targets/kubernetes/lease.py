"""A Lease that this process holds: renewed by a thread, and the fence of its lock."""

import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Final, Protocol

from mlship.adapters.targets.kubernetes.api import Api, Manifest
from mlship.errors import ConflictError, MlshipError

SECONDS: Final = 12
"""How long a Lease lasts that is not renewed."""

_TRUSTED_SECONDS = 10.0
"""How long its holder relies on it. A request that is sent then arrives before another process may
take over."""

_RENEW_SECONDS = 2.0
_PENDING: Final = "mlship.dev/pending"
"""An annotation: who took this Lease over did not get to fence off the holder before, anywhere or
in the clusters that it names."""
_ANYWHERE: Final = "true"


def clock() -> float:
    """Return seconds of a clock that no one sets, and that goes on while the machine sleeps."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


def spec(holder: str, number: int, before: Manifest | None = None) -> Manifest:
    """Return the spec of a Lease that is taken, or renewed if `before` is its spec.

    Its times are for people. No process compares them.
    """
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return {
        **(before or {"acquireTime": now}),
        "holderIdentity": holder,
        "leaseDurationSeconds": SECONDS,
        "leaseTransitions": number,
        "renewTime": now,
    }


def holder_of(lease: Manifest) -> str:
    """Return the holder of a Lease; empty if it is free."""
    return str(lease.get("spec", {}).get("holderIdentity") or "")


def number_of(lease: Manifest) -> int:
    """Return the number of the last holder; 0 if mlship without numbers wrote the Lease."""
    return int(lease.get("spec", {}).get("leaseTransitions") or 0)


def is_settled(lease: Manifest | None) -> bool:
    """Return whether the last holder has given a Lease back, and nobody before can be alive."""
    if lease is None or holder_of(lease) or not number_of(lease):
        return False
    return _pending(lease) != _ANYWHERE


def behind(lease: Manifest | None, clusters: frozenset[str]) -> frozenset[str]:
    """Return where a holder before may still write, of clusters without the Lease.

    Args:
        lease: as it was found.
        clusters: those of the settings. One that is not among them may be returned: it was, when
            somebody took over while it did not answer.
    """
    named = frozenset(_pending(lease).split()) - {_ANYWHERE} if lease is not None else frozenset()
    return named if is_settled(lease) else named | clusters


def _pending(lease: Manifest) -> str:
    return str((lease["metadata"].get("annotations") or {}).get(_PENDING, ""))


class Raise(Protocol):
    """Raises the number of a target's objects in one of its clusters."""

    def __call__(self, cluster: str, number: int, *, quickly: bool) -> None:
        """Raise it; errors as in `HeldLease.enter`."""


class HeldLease:
    """The Fence of a process that has taken a Lease.

    Args:
        api: of the Lease's namespace.
        lease: as it was written.
        since: the `clock` before that write was sent.
        name: of the lock, for people.
        behind: the other clusters where a holder before may still write.
        raise_in: raises the number of the objects in one of them.
    """

    def __init__(
        self,
        api: Api,
        lease: Manifest,
        since: float,
        name: str,
        behind: Collection[str] = (),
        raise_in: "Raise | None" = None,
    ) -> None:
        self.number: Final = number_of(lease)
        self._api = api
        self._lease = lease
        self._since = since
        self._name = name
        self._behind = set(behind)
        self._raise_in = raise_in
        self._holder = holder_of(lease)
        self._ended = threading.Event()
        self._is_lost = False

    @contextmanager
    def renewed(self) -> Iterator[None]:
        """Renew the Lease until the end."""
        renewal = threading.Thread(target=self._renew, daemon=True)
        renewal.start()
        try:
            yield
        finally:
            self._ended.set()
            renewal.join()

    def check(self) -> None:
        """Check by the clock that nobody can have taken over.

        Raises:
            ConflictError: the Lease was not renewed in time. It stays lost.
        """
        if clock() - self._since >= _TRUSTED_SECONDS:
            self._is_lost = True
        if self._is_lost:
            message = f"the lock of {self._name} was lost: it was not renewed in time"
            hint = "this process was stopped, or the cluster did not answer; look at "
            raise ConflictError(message, hint=f"{hint}`mlship status`, then run the command again")

    def confirm(self) -> None:
        """Check with the cluster that nobody has taken over.

        Raises:
            ConflictError: somebody has, or may have.
            UnavailableError: the cluster does not answer.
        """
        self.check()
        self._look()
        self.check()

    def enter(self, cluster: str, *, quickly: bool = False) -> None:
        """Fence off the holders before in another cluster; once is enough.

        Args:
            cluster: its name.
            quickly: give up soon if it does not answer.

        Raises:
            ConflictError: the lock was lost.
            UnavailableError: that cluster does not answer.
        """
        if cluster in self._behind and self._raise_in is not None:
            self.check()
            self._raise_in(cluster, self.number, quickly=quickly)
            self._behind.discard(cluster)

    def give_back(self, *, is_fenced: bool) -> None:
        """Free the Lease, if it is still held.

        Args:
            is_fenced: whether holders before are fenced off in the cluster of the Lease; if not,
                the next one does it. The others are known from `enter`.
        """
        with suppress(MlshipError):
            lease = self._look()
            if lease is None:
                return
            metadata = lease["metadata"]
            mark = " ".join(sorted(self._behind)) if is_fenced else _ANYWHERE
            annotations = {**(metadata.get("annotations") or {}), _PENDING: mark}
            if not mark:
                del annotations[_PENDING]
            freed = {**lease["spec"], "holderIdentity": ""}
            kept = {**metadata, "annotations": annotations}
            self._api.replace({**lease, "metadata": kept, "spec": freed})

    def _look(self) -> Manifest | None:
        """Return the Lease as it is; `None`, and it is lost, if it is another's or gone."""
        current = self._api.get("Lease", self._lease["metadata"]["name"])
        own = self._holder, self.number
        if current is None or (holder_of(current), number_of(current)) != own:
            self._is_lost = True
            return None
        return current

    def _renew(self) -> None:
        while not self._ended.wait(_RENEW_SECONDS):
            since = clock()
            if self._is_lost or since - self._since >= _TRUSTED_SECONDS:
                return
            before = self._lease
            renewed = spec(self._holder, self.number, before["spec"])
            try:
                self._lease = self._api.replace({**before, "spec": renewed})
                self._since = since
            except MlshipError:
                # It may have been written, and the response got lost. The server may come back
                # before another process takes over.
                with suppress(MlshipError):
                    self._lease = self._look() or before
