"""Queries to Envoy's admin port. Every function returns an empty value if Envoy does not run."""

import http.client
from typing import Any

import msgspec

from mlship.adapters.targets.local.loopback import HOST
from mlship.domain.deployment import Slot

_SECONDS = 1.0


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint as Envoy sees it."""

    healthy: bool
    draining: bool
    active: int


def is_live(port: int) -> bool:
    """Return whether Envoy has started and accepts connections."""
    return _ask(port, "GET", "/ready").strip() == b"LIVE"


def revision(port: int) -> str:
    """Return the revision of the route that Envoy applies; empty if there is none."""
    dump = _json(port, "/config_dump?resource=dynamic_route_configs")
    return next((str(entry.get("version_info", "")) for entry in dump.get("configs", [])), "")


def hosts(port: int) -> dict[tuple[Slot, int], Host]:
    """Return the endpoints that Envoy knows, by slot and port."""
    return {
        (
            Slot(cluster["name"]),
            host["address"]["socket_address"]["port_value"],
        ): _host(host)
        for cluster in _json(port, "/clusters?format=json").get("cluster_statuses", [])
        for host in cluster.get("host_statuses", [])
    }


def active_requests(port: int) -> int:
    """Return the number of active client requests in Envoy; 0 if it does not run."""
    stats = _json(port, "/stats?format=json&filter=^http.router.downstream_rq_active$")
    return sum(int(stat.get("value", 0)) for stat in stats.get("stats", []))


def stop_listening(port: int) -> None:
    """Make Envoy accept no new connections; active requests continue."""
    _ask(port, "POST", "/drain_listeners")


def _host(host: dict[str, Any]) -> Host:
    health = host.get("health_status", {})
    failed = {key: value for key, value in health.items() if key != "eds_health_status" and value}
    active = next(
        (
            int(stat.get("value", 0))
            for stat in host.get("stats", [])
            if stat["name"] == "rq_active"
        ),
        0,
    )
    status = health.get("eds_health_status", "UNKNOWN")
    return Host(
        healthy=not failed and status in ("HEALTHY", "UNKNOWN"),
        draining=status == "DRAINING",
        active=active,
    )


def _json(port: int, path: str) -> dict[str, Any]:
    try:
        document = msgspec.json.decode(_ask(port, "GET", path) or b"{}")
    except msgspec.DecodeError:
        return {}
    return document if isinstance(document, dict) else {}


def _ask(port: int, method: str, path: str) -> bytes:
    connection = http.client.HTTPConnection(HOST, port, timeout=_SECONDS)
    try:
        connection.request(method, path, headers={"Connection": "close"})
        response = connection.getresponse()
        body = response.read()
    except (OSError, http.client.HTTPException):
        return b""
    else:
        return body if response.status == 200 else b""
    finally:
        connection.close()
