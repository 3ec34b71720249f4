"""What Envoy reads, except the route: files, listeners and clusters.

A slot is a cluster. Source of the fields: the v3 API reference of Envoy.
"""

from collections.abc import Sequence
from pathlib import PurePath
from typing import Any, Final

import msgspec

from mlship.adapters.targets.envoy import limits
from mlship.adapters.targets.envoy.limits import TYPES

ROUTE: Final = "mlship"
HEALTH_SECONDS: Final = 0.25
_RETRIES: Final = {"budget_percent": {"value": 100}, "min_retry_concurrency": 100}
"""Retries in a cluster: at most as many as its requests, but always 100.

All requests of a slot without a replica are retried, so a smaller share would fail some of them. A
retry costs no replica anything: it follows a connection that failed.
"""
_EJECTION: Final[dict[str, Any]] = {
    "split_external_local_origin_errors": True,
    "consecutive_local_origin_failure": 3,
    # What a model answers does not count: a release that is busy must not hand its requests to the
    # other one.
    "enforcing_consecutive_gateway_failure": 0,
    "enforcing_consecutive_5xx": 0,
    "enforcing_success_rate": 0,
    "enforcing_local_origin_success_rate": 0,
    "interval": "0.5s",
    "base_ejection_time": "2s",
    "max_ejection_time": "10s",
    "max_ejection_percent": 100,
}
_USER_TIMEOUT: Final = {
    "description": "TCP_USER_TIMEOUT in ms",
    "level": "6",
    "name": "18",
    "int_value": "1500",
    "state": "STATE_PREBIND",
}
"""Source: tcp(7), and the numbers of Linux."""
_OPTIONS = "extensions.upstreams.http.v3.HttpProtocolOptions"
_TLS = "extensions.transport_sockets.tls.v3.DownstreamTlsContext"
_CERTIFICATE = "extensions.transport_sockets.tls.v3.Secret"
_MANAGER = "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"


def file(kind: str, version: str, items: Sequence[dict[str, Any]]) -> bytes:
    """Return a DiscoveryResponse, the format of Envoy's files."""
    typed = [{"@type": f"{TYPES}.config.{kind}"} | item for item in items]
    return text({"version_info": version, "resources": typed})


def text(document: dict[str, Any]) -> bytes:
    """Return a document as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(document), indent=1)


def file_source(path: PurePath) -> dict[str, Any]:
    """Return a source of configuration that watches a file that is replaced by renaming."""
    watched = {"path": str(path), "watched_directory": {"path": str(path.parent)}}
    return {"path_config_source": watched, "resource_api_version": "V3"}


def address(host: str, port: int) -> dict[str, Any]:
    """Return the address of a socket."""
    return {"socket_address": {"address": host, "port_value": port}}


def listener(name: str, host: str, port: int, manager: dict[str, Any]) -> dict[str, Any]:
    """Return a listener for HTTP; `manager` has the fields of its connection manager."""
    config = {"@type": f"{TYPES}.{_MANAGER}", "stat_prefix": name, **limits.DEADLINES, **manager}
    chain = {"name": "envoy.filters.network.http_connection_manager", "typed_config": config}
    return {
        "name": name,
        "address": address(host, port),
        "per_connection_buffer_limit_bytes": limits.BUFFER_BYTES,
        "filter_chains": [{"filters": [chain]}],
    }


def secret(
    name: str,
    version: str,
    certificate: dict[str, Any],
    key: dict[str, Any],
    watched: PurePath | None = None,
) -> bytes:
    """Return the file with a certificate for `encrypted`.

    Args:
        name: of the certificate in the file.
        version: of the file.
        certificate: the text in PEM, `inline_string`, or the file that has it, `filename`.
        key: the same of its key.
        watched: a folder; both files are read again when something in it is renamed.
    """
    pair: dict[str, Any] = {"certificate_chain": certificate, "private_key": key}
    if watched is not None:
        pair["watched_directory"] = {"path": str(watched)}
    item = {"@type": f"{TYPES}.{_CERTIFICATE}", "name": name, "tls_certificate": pair}
    return text({"version_info": version, "resources": [item]})


def encrypted(listener: dict[str, Any], name: str, secret: PurePath) -> dict[str, Any]:
    """Return a listener for HTTPS, with a certificate from a file that may be replaced.

    Args:
        listener: for HTTP.
        name: of the certificate in the file.
        secret: the file, a DiscoveryResponse.
    """
    context = {
        "@type": f"{TYPES}.{_TLS}",
        "common_tls_context": {
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
            "alpn_protocols": ["http/1.1"],
            "tls_certificate_sds_secret_configs": [
                {"name": name, "sds_config": file_source(secret)}
            ],
        },
    }
    socket = {"name": "envoy.transport_sockets.tls", "typed_config": context}
    chains = [{**chain, "transport_socket": socket} for chain in listener["filter_chains"]]
    return {**listener, "filter_chains": chains}


def routing(routes: PurePath) -> dict[str, Any]:
    """Return the fields of a connection manager that routes requests by a file."""
    return {
        "rds": {"route_config_name": ROUTE, "config_source": file_source(routes)},
        # The id of a request becomes the id of its prediction, so clients must not choose it.
        # No address is internal, so Envoy overwrites the id (and drops x-envoy-*) of a client.
        "generate_request_id": True,
        "use_remote_address": True,
        "internal_address_config": {
            "cidr_ranges": [{"address_prefix": "255.255.255.255", "prefix_len": 32}]
        },
        "server_header_transformation": "PASS_THROUGH",
        "local_reply_config": own_errors(),
        "http_filters": [limits.body_filter(), router_filter()],
    }


def own_errors() -> dict[str, Any]:
    """Return how Envoy writes what it answers itself: as a replica does, in the same shapes.

    The path may have a prefix which replicas do not see. Status and headers stay as they are.
    """
    text = "the load balancer answered %RESPONSE_CODE%: %LOCAL_REPLY_BODY%"
    protocols = {"safe_regex": {"regex": "[^?]*/v[12]/.*"}}
    return {
        "mappers": [
            {
                "filter": {
                    "header_filter": {"header": {"name": ":path", "string_match": protocols}}
                },
                "body_format_override": {"json_format": {"error": text}},
            }
        ],
        "body_format": {"json_format": {"error": {"message": text}}},
    }


def router_filter() -> dict[str, Any]:
    """Return the last filter of a connection manager."""
    return {
        "name": "envoy.filters.http.router",
        "typed_config": {
            "@type": f"{TYPES}.extensions.filters.http.router.v3.Router",
            "suppress_envoy_headers": True,
        },
    }


def cluster(
    name: str, discovery: dict[str, Any], *, checked: bool, connection_seconds: int | None = None
) -> dict[str, Any]:
    """Return the cluster of a slot.

    Args:
        name: its name.
        discovery: the fields that say where its replicas are.
        checked: whether only replicas that pass their health check get traffic.
        connection_seconds: how long a connection gets new requests; `None` is for ever.
    """
    cluster: dict[str, Any] = {
        "name": name,
        **discovery,
        "typed_extension_protocol_options": _protocol(connection_seconds),
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
        "circuit_breakers": {
            "thresholds": [
                {
                    "max_connections": 4096,
                    "max_pending_requests": 4096,
                    "max_requests": 4096,
                    "retry_budget": _RETRIES,
                }
            ]
        },
        "per_connection_buffer_limit_bytes": limits.BUFFER_BYTES,
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


def _protocol(connection_seconds: int | None) -> dict[str, Any]:
    """Return the options of connections to replicas: HTTP/1.1, and how long they last."""
    common = {"idle_timeout": f"{limits.KEPT_SECONDS}s"}
    if connection_seconds is not None:
        common["max_connection_duration"] = f"{connection_seconds}s"
    options = {
        "@type": f"{TYPES}.{_OPTIONS}",
        "explicit_http_config": {"http_protocol_options": {}},
        "common_http_protocol_options": common,
    }
    return {f"envoy.{_OPTIONS}": options}


def guarded(cluster: dict[str, Any]) -> dict[str, Any]:
    """Return a cluster of addresses on other machines, of which each may be out of reach.

    An address is checked: with a new connection each time, because behind it is a load balancer,
    and twice, because one of its replicas may just end. It is ejected if requests show that it is
    out of reach, until a check succeeds. Statuses of the model itself, such as 500, do not count.
    """
    every = f"{HEALTH_SECONDS}s"
    ready = {"path": "/v2/health/ready", "retriable_statuses": [{"start": "400", "end": "600"}]}
    check = {
        "timeout": "0.5s",
        "interval": every,
        "no_traffic_interval": every,
        "no_traffic_healthy_interval": every,
        "unhealthy_interval": every,
        "unhealthy_threshold": 2,
        "healthy_threshold": 2,
        "reuse_connection": False,
        "http_health_check": ready,
    }
    return {
        **remote(cluster),
        "connect_timeout": "0.5s",
        # An address that fails its checks gets requests nevertheless if no other one is better: a
        # slow network or a busy node must not become an outage.
        "common_lb_config": {
            **cluster["common_lb_config"],
            "healthy_panic_threshold": {"value": 50},
        },
        "health_checks": [check],
        "outlier_detection": _EJECTION,
    }


def remote(cluster: dict[str, Any]) -> dict[str, Any]:
    """Return a cluster of addresses on other machines: a connection to a silent one is closed.

    Where packets are dropped, because a node or a network is gone, an open request would wait for
    an answer that does not come. Envoy closes no connection of HTTP when a check fails, so the
    kernel does: 1.5 s after bytes that nobody acknowledged, or 2 s after an answer became silence.
    A model that takes long is not affected: its machine acknowledges.
    """
    keepalive = {"keepalive_probes": 1, "keepalive_time": 1, "keepalive_interval": 1}
    return {
        **cluster,
        "upstream_bind_config": {"socket_options": [_USER_TIMEOUT]},
        "upstream_connection_options": {"tcp_keepalive": keepalive},
    }
