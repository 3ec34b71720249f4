"""Queries to Envoy's admin interface. If Envoy does not run, they return an empty value.

The interface is a socket in the file system, which only the owner of the target may open: whoever
opens it can end all traffic. An Envoy that an older version started has a port instead.
"""

import http.client
import os
import socket
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import msgspec

from mlship.adapters.targets.envoy import statistics
from mlship.adapters.targets.local.loopback import HOST
from mlship.domain.counts import Counts
from mlship.domain.deployment import Slot

_SECONDS = 1.0
_SOCKET = "socket"
_LONGEST_PATH = 100
"""In bytes. Linux takes 107, macOS 103."""


Address = int | str
"""The path of Envoy's admin socket, or its port."""


class _Connection(http.client.HTTPConnection):
    """A connection to a socket in the file system."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_SECONDS)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(_SECONDS)
        self.sock.connect(self._path)


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint as Envoy sees it."""

    healthy: bool
    draining: bool
    active: int


def socket_in(folder: Path) -> str:
    """Return the path of a new admin socket, in a folder that only the owner may open.

    A socket in a deep folder would have a path that is too long for the system: then its folder is
    a new one of the system's for temporary files.
    """
    own = folder / "admin"
    path = str(own / _SOCKET)
    if len(os.fsencode(path)) > _LONGEST_PATH:
        return str(Path(tempfile.mkdtemp(prefix="mlship-")) / _SOCKET)
    own.mkdir(mode=0o700, parents=True, exist_ok=True)
    own.chmod(0o700)
    Path(path).unlink(missing_ok=True)
    return path


def remove(admin: Address) -> None:
    """Remove the admin socket of an Envoy that has ended, and its folder."""
    if isinstance(admin, int) or not admin:
        return
    with suppress(OSError):
        Path(admin).unlink(missing_ok=True)
        Path(admin).parent.rmdir()


def is_live(admin: Address) -> bool:
    """Return whether Envoy has started and accepts connections."""
    return _ask(admin, "GET", "/ready").strip() == b"LIVE"


def revision(admin: Address) -> str:
    """Return the revision of the route that Envoy applies; empty if there is none."""
    dump = _json(admin, "/config_dump?resource=dynamic_route_configs")
    return next((str(entry.get("version_info", "")) for entry in dump.get("configs", [])), "")


def hosts(admin: Address) -> dict[tuple[str, int], Host]:
    """Return the endpoints that Envoy knows, by cluster and port."""
    return {
        (str(cluster["name"]), host["address"]["socket_address"]["port_value"]): _host(host)
        for cluster in _json(admin, "/clusters?format=json").get("cluster_statuses", [])
        for host in cluster.get("host_statuses", [])
    }


def active_requests(admin: Address) -> int:
    """Return the number of active client requests in Envoy; 0 if it does not run."""
    stats = _json(admin, "/stats?format=json&filter=^http.router.downstream_rq_active$")
    return sum(int(stat.get("value", 0)) for stat in stats.get("stats", []))


def counts(admin: Address) -> Mapping[Slot, Counts]:
    """Return what Envoy counted of requests, by slot.

    Raises:
        msgspec.DecodeError: it does not run, or gives no such answer.
    """
    addresses = f"{statistics.ADDRESSES}?{urlencode(statistics.ADDRESSES_QUERY)}"
    times = f"{statistics.TIMES}?{urlencode(statistics.TIMES_QUERY)}"
    return statistics.counts(_ask(admin, "GET", addresses), _ask(admin, "GET", times))


def stop_listening(admin: Address) -> None:
    """Make Envoy accept no new connections; active requests continue."""
    _ask(admin, "POST", "/drain_listeners")


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


def _json(admin: Address, path: str) -> dict[str, Any]:
    try:
        document = msgspec.json.decode(_ask(admin, "GET", path) or b"{}")
    except msgspec.DecodeError:
        return {}
    return document if isinstance(document, dict) else {}


def _ask(admin: Address, method: str, path: str) -> bytes:
    connection = (
        http.client.HTTPConnection(HOST, admin, timeout=_SECONDS)
        if isinstance(admin, int)
        else _Connection(admin)
    )
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
