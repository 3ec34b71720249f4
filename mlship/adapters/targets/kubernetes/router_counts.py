"""What the pods of a router have counted of requests, read through the API server's proxy."""

import msgspec

from mlship.adapters.targets.envoy import statistics
from mlship.adapters.targets.kubernetes import router_manifests
from mlship.adapters.targets.kubernetes.api import Api, Manifest
from mlship.adapters.targets.kubernetes.manifests import Scope
from mlship.adapters.targets.kubernetes.pod_status import is_ready, restarts
from mlship.adapters.targets.kubernetes.router_manifests import PROBE_PORT
from mlship.domain.counts import Counts, Look
from mlship.domain.deployment import Slot
from mlship.errors import UnavailableError


def read(api: Api, scope: Scope) -> Look:
    """Return what each pod that is ready has counted, by the name of its Envoy.

    Raises:
        UnavailableError: there is no such pod, one does not answer, or it may not be asked.
    """
    pods = api.list("Pod", router_manifests.selector_of(scope))
    ready = [pod for pod in pods if is_ready(pod)]
    if not ready:
        message = f"{api.cluster}: the load balancer of {scope.target} has no ready replica"
        raise UnavailableError(message, hint="see `kubectl describe pod`")
    return {_name(pod): _counts(api, scope, pod) for pod in ready}


def _name(pod: Manifest) -> str:
    """Return a name that changes when the container starts again."""
    return f"{pod['metadata']['name']}/{restarts(pod)}"


def _counts(api: Api, scope: Scope, pod: Manifest) -> dict[Slot, Counts]:
    name = f"{pod['metadata']['name']}:{PROBE_PORT}"
    addresses = api.text(name, f"proxy{statistics.ADDRESSES}", **statistics.ADDRESSES_QUERY)
    times = api.text(name, f"proxy{statistics.TIMES}", **statistics.TIMES_QUERY)
    try:
        return dict(statistics.counts(addresses, times))
    except msgspec.DecodeError as error:
        message = f"{api.cluster}: pod {pod['metadata']['name']}, the load balancer of "
        message += f"{scope.target}, does not say what it has counted"
        hint = "allow `get` of pods/proxy; a load balancer of an earlier version of mlship says it "
        raise UnavailableError(message, hint=f"{hint}after the next deployment") from error
