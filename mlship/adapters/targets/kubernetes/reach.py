"""Whether a target's load balancer reaches a slot, whatever the slot's share is."""

import ssl
import time
from collections.abc import Callable
from typing import Final

import httpx

from mlship.adapters.http.clients import Reach, open_client
from mlship.adapters.targets.envoy import routes
from mlship.adapters.targets.kubernetes.manifests import Scope
from mlship.adapters.targets.kubernetes.routing import READY, Placed
from mlship.domain.deployment import Slot
from mlship.errors import UnavailableError

ARRIVE_SECONDS: Final = 10.0
_REACH_SECONDS = 5.0
_PAUSE = 0.2


def answer_of(
    url: str,
    slot: Slot,
    host: str | None = None,
    trust: Callable[[], ssl.SSLContext] | None = None,
) -> httpx.Response | None:
    """Return the answer to the question whether a slot is ready; `None` without any.

    Args:
        url: of the target's requests.
        slot: that is asked for.
        host: the host name of requests, if it is not that of the URL.
        trust: returns the trusted certificates, if they are not the system's.
    """
    headers = {routes.SLOT: slot, **({"Host": host} if host else {})}
    try:
        with open_client(Reach(trust=trust), timeout=httpx.Timeout(_REACH_SECONDS)) as client:
            return client.get(f"{url}{READY}", headers=headers)
    except httpx.HTTPError:
        return None


def arrives(reaches: Callable[[Slot], bool | None], slot: Slot) -> bool:
    """Wait until a load balancer reaches a slot; return `False` if it does not.

    Where it cannot be asked (`None`), it counts as reached.
    """
    deadline = time.monotonic() + ARRIVE_SECONDS
    while reaches(slot) is False:
        if time.monotonic() >= deadline:
            return False
        time.sleep(_PAUSE)
    return True


def unreached(where: str, scope: Scope, slot: Slot, place: Placed) -> UnavailableError:
    """Return the error for a slot that the load balancer does not reach."""
    message = f"the load balancer in {where} does not reach {slot} in cluster {place.cluster} at "
    hint = "connect the networks of the clusters, or open the firewall for port 80; "
    hint += f"`kubectl describe service {scope.object(slot)}` there, and service_annotations of "
    hint += "the cluster, say what kind of address it is"
    return UnavailableError(f"{message}{place.address}", hint=hint)
