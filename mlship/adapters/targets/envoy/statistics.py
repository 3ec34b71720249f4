"""What Envoy's admin interface says of requests: counts of each address, and times.

The share of a slot is a cluster, see `routes`. Its addresses of priority 0 are the slot's own,
those of further priorities answer in its place. Copies of requests are in its second cluster.

`rq_total` counts attempts that got a connection, `rq_active` those that are open. An attempt whose
client goes away is in neither `rq_success` nor `rq_error` then; a connection that is refused is in
`rq_error` alone.
Source: https://www.envoyproxy.io/docs/envoy/latest/operations/admin
"""

import re
from collections.abc import Mapping
from typing import Final

import msgspec

from mlship.adapters.targets.envoy.routes import OWN
from mlship.domain.counts import Counts, Tally
from mlship.domain.deployment import Slot

ADDRESSES: Final = "/clusters"
TIMES: Final = "/stats"
ADDRESSES_QUERY: Final = {"format": "json"}
TIMES_QUERY: Final = {
    "format": "json",
    "histogram_buckets": "detailed",
    "filter": r"^cluster\.[^.]*\.upstream_rq_time$",
}
_TIME: Final = re.compile(r"cluster\.(?P<slot>[^.]*)\.upstream_rq_time")


class _Socket(msgspec.Struct, frozen=True):
    address: str = ""
    port_value: int = 0


class _Address(msgspec.Struct, frozen=True):
    socket_address: _Socket = _Socket()


class _Stat(msgspec.Struct, frozen=True):
    """A number; Envoy writes it as text, and leaves out a zero."""

    name: str
    value: str | int = 0


class _Host(msgspec.Struct, frozen=True):
    address: _Address = _Address()
    priority: int = 0
    stats: tuple[_Stat, ...] = ()


class _Cluster(msgspec.Struct, frozen=True):
    name: str
    host_statuses: tuple[_Host, ...] = ()


class _Clusters(msgspec.Struct, frozen=True):
    cluster_statuses: tuple[_Cluster, ...]


class _Bin(msgspec.Struct, frozen=True):
    lower_bound: float
    count: int


class _Histogram(msgspec.Struct, frozen=True):
    name: str
    totals: tuple[_Bin, ...] = ()


class _Histograms(msgspec.Struct, frozen=True):
    details: tuple[_Histogram, ...] = ()


class _Entry(msgspec.Struct, frozen=True):
    histograms: _Histograms = _Histograms()


class _Stats(msgspec.Struct, frozen=True):
    stats: tuple[_Entry, ...]


def counts(addresses: bytes | str, times: bytes | str) -> Mapping[Slot, Counts]:
    """Return what an Envoy counted, by slot.

    Args:
        addresses: its answer to `ADDRESSES`.
        times: its answer to `TIMES`.

    Raises:
        msgspec.DecodeError: they are not such answers.
    """
    clusters = msgspec.json.decode(addresses, type=_Clusters).cluster_statuses
    entries = msgspec.json.decode(times, type=_Stats).stats
    by_slot = {
        match["slot"]: {each.lower_bound: each.count for each in histogram.totals}
        for entry in entries
        for histogram in entry.histograms.details
        if (match := _TIME.fullmatch(histogram.name))
    }
    return {
        Slot(cluster.name): _counts(cluster, by_slot.get(cluster.name, {}))
        for cluster in clusters
        if not cluster.name.endswith(OWN)
    }


def _counts(cluster: _Cluster, times: dict[float, int]) -> Counts:
    own: dict[str, Tally] = {}
    elsewhere: dict[str, int] = {}
    for host in cluster.host_statuses:
        socket = host.address.socket_address
        name = f"{socket.address}:{socket.port_value}"
        numbers = {stat.name: int(stat.value) for stat in host.stats}
        answered, failed = numbers.get("rq_success", 0), numbers.get("rq_error", 0)
        if host.priority:
            elsewhere[name] = answered + failed
        else:
            ended = numbers.get("rq_total", 0) - numbers.get("rq_active", 0)
            own[name] = Tally(answered=answered, failed=failed, ended=ended)
    return Counts(own=own, elsewhere=elsewhere, times=times)
