"""What Envoy grants a client: time for its request, the size of a body, connections and memory.

Source of the fields: the v3 API reference of Envoy, and its page on edge proxies.
"""

from typing import Any, Final

TYPES: Final = "type.googleapis.com/envoy"
BODY_BYTES: Final = 10_000_000
"""The largest body, that of `mlship.runtime`; Envoy answers a larger one with 413."""
BUFFER_BYTES: Final = 32 << 10
"""What Envoy holds of a connection before it stops reading; the body of a request is extra."""
KEPT_SECONDS: Final = 20
"""After this time Envoy closes an idle connection to a replica.

A replica keeps it for longer. Otherwise, a request could meet a connection that a replica closes
in the same moment, and it is not retried.
"""
DEADLINES: Final[dict[str, Any]] = {
    "request_headers_timeout": "10s",
    # From the first byte to the last one of the body.
    "request_timeout": "30s",
    # Without a byte in either direction. It is longer than the time limit of a route, because a
    # model that computes sends nothing.
    "stream_idle_timeout": "75s",
    # Load balancers of clouds reuse connections for 600 s.
    "common_http_protocol_options": {"idle_timeout": "620s"},
}
_HEAP_BYTES = 384 << 20
_CONNECTIONS = 10_000
_MONITORS = "extensions.resource_monitors"


def body_filter() -> dict[str, Any]:
    """Return the filter that sends a request on when all of its body has arrived.

    So a slow client occupies no replica, and a body that is too large reaches none.
    """
    return {
        "name": "envoy.filters.http.buffer",
        "typed_config": {
            "@type": f"{TYPES}.extensions.filters.http.buffer.v3.Buffer",
            "max_request_bytes": BODY_BYTES,
        },
    }


def overload() -> dict[str, Any]:
    """Return Envoy's overload manager: bounds of its memory and of its connections.

    Before the memory is used up, the requests with the largest bodies are ended, and idle
    connections get less time.
    """
    heap = "envoy.resource_monitors.fixed_heap"
    idle = [{"timer": "HTTP_DOWNSTREAM_CONNECTION_IDLE", "min_timeout": "2s"}]
    timers = f"{TYPES}.config.overload.v3.ScaleTimersOverloadActionConfig"
    return {
        "refresh_interval": "0.25s",
        "resource_monitors": [
            _monitor(
                heap, f"{_MONITORS}.fixed_heap.v3.FixedHeapConfig", max_heap_size_bytes=_HEAP_BYTES
            ),
            _monitor(
                "envoy.resource_monitors.global_downstream_max_connections",
                f"{_MONITORS}.downstream_connections.v3.DownstreamConnectionsConfig",
                max_active_downstream_connections=_CONNECTIONS,
            ),
        ],
        "actions": [
            {
                "name": "envoy.overload_actions.reduce_timeouts",
                "triggers": [_rising(heap, 0.7, 0.9)],
                "typed_config": {"@type": timers, "timer_scale_factors": idle},
            },
            {
                "name": "envoy.overload_actions.reset_high_memory_stream",
                "triggers": [_rising(heap, 0.85, 0.95)],
            },
            {
                "name": "envoy.overload_actions.stop_accepting_requests",
                "triggers": [{"name": heap, "threshold": {"value": 0.95}}],
            },
        ],
        # Streams below 1 MiB are never ended for their size.
        "buffer_factory_config": {"minimum_account_to_track_power_of_two": 20},
    }


def _monitor(name: str, kind: str, **fields: int) -> dict[str, Any]:
    return {"name": name, "typed_config": {"@type": f"{TYPES}.{kind}", **fields}}


def _rising(resource: str, start: float, end: float) -> dict[str, Any]:
    return {"name": resource, "scaled": {"scaling_threshold": start, "saturation_threshold": end}}
