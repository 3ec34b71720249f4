"""The pods of a router: whether some are ready, and how they hear of a new route soon."""

import time
from typing import Final

from mlship.adapters.targets.kubernetes import router_manifests
from mlship.adapters.targets.kubernetes.api import Api
from mlship.adapters.targets.kubernetes.manifests import Scope
from mlship.adapters.targets.kubernetes.pod_status import is_ready, staying
from mlship.errors import UnavailableError

_NUDGE_SECONDS: Final = 0.5
_LEAST_NUDGES: Final = 2
_QUIET_SECONDS: Final = 1.0
"""How long answers have to name a route that was there before."""
_PAUSE: Final = 0.2
_NUDGE: Final = "mlship.dev/route"


def check_ready(api: Api, scope: Scope) -> int:
    """Return how many pods of a router are ready.

    Raises:
        UnavailableError: none is.
    """
    count = sum(is_ready(pod) for pod in api.list("Pod", router_manifests.selector_of(scope)))
    if not count:
        name = router_manifests.name_of(scope)
        message = f"{api.cluster}: Deployment {name}, the load balancer of {scope.target}, has no "
        raise unavailable(f"{message}ready replica", f"see `kubectl describe deployment {name}`; ")
    return count


def check_rights(api: Api) -> None:
    """Check, before a route is written, that its pods can be told of it.

    Otherwise it would be written, and the command would end before it is applied and recorded.

    Raises:
        UnavailableError: they cannot; nothing was written.
    """
    if not api.may("Pod", "patch", api.namespace):
        message = f"{api.cluster} forbids: patch pods in {api.namespace}, by which the load "
        message += "balancer hears of a new route; the route is unchanged"
        hint = "have its administrator apply the Role of `mlship guide kubernetes`"
        raise UnavailableError(message, hint=hint)


def unavailable(message: str, hint: str = "") -> UnavailableError:
    """Return the error for a router that does not run."""
    again = "restore it by `mlship deploy-production champion`, then run the command again"
    return UnavailableError(f"{message}: no request is answered", hint=f"{hint}{again}")


class Nudges:
    """Makes kubelets update the volumes of a router's pods.

    A kubelet does it once a minute, and when a pod changes: so an annotation changes, and again
    after half a second, because a kubelet may hear of the pod before it hears of the route.
    """

    def __init__(self, api: Api, scope: Scope, name: str, *, is_new: bool) -> None:
        self._api = api
        self._least = _LEAST_NUDGES if is_new else 0
        self._labels = router_manifests.selector_of(scope)
        self._name = name
        self._count = 0
        self._next = time.monotonic() + (0 if is_new else _QUIET_SECONDS)

    def step(self) -> None:
        """Change the annotation, unless it was changed less than half a second ago."""
        if time.monotonic() < self._next:
            return
        self._count += 1
        self._least = _LEAST_NUDGES
        self._next = time.monotonic() + _NUDGE_SECONDS
        for pod in staying(self._api.list("Pod", self._labels)):
            name = pod["metadata"]["name"]
            self._api.annotate("Pod", name, {_NUDGE: f"{self._name}.{self._count}"})

    def finish(self) -> None:
        """Change it at least twice: a pod that is new to the Service may not have answered."""
        while self._count < self._least:
            time.sleep(_PAUSE)
            self.step()
