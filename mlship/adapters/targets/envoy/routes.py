"""Envoy's route table of a target: weights, stickiness, shadow and retries."""

import re
from typing import Any, Final

import msgspec

from mlship.adapters.targets.envoy.limits import TYPES
from mlship.adapters.targets.envoy.resources import ROUTE
from mlship.domain.deployment import Slot, Split
from mlship.errors import ConfigError

_TIMEOUT = "60s"
RETRY_ON: Final = "connect-failure,refused-stream,reset-before-request"
"""Only where no replica got anything of the request: it may have been what ended the replica.

Source: https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/router_filter
"""
_NOBODY: Final = "no release gets traffic here yet"
_COPY: Final = "a host name that ends in -shadow is kept for copies of requests"


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """Which requests are a target's.

    Attributes:
        host: their host name; `None` is any.
        path: the prefix of their path, which replicas do not see.
    """

    host: str | None = None
    path: str = "/"


EVERYWHERE: Final = Address()
OWN: Final = ".own"
"""The end of the name of a slot's second cluster, whose requests never fall back."""
SLOT: Final = "mlship-slot"
"""A header of requests for the readiness of one slot, whatever its share is."""
_READY: Final = "v2/health/ready"


def table(
    split: Split,
    sticky_header: str | None,
    *,
    parked: frozenset[Slot] = frozenset(),
    address: Address = EVERYWHERE,
    falls_back: bool = False,
) -> dict[str, Any]:
    """Return the route table for a split.

    Args:
        split: the weights and the shadow.
        sticky_header: a header whose value selects the slot.
        parked: slots that are kept beside the split, with weight 0.
        address: which requests it takes.
        falls_back: whether a request that fails may go to another slot. Then each slot has a second
            cluster, `OWN`, for copies, and for requests that ask for its readiness.

    Raises:
        ConfigError: there is a shadow, but no traffic to copy.
    """
    if split.shadow is not None and not split.weights:
        message = f"slot {split.shadow} cannot shadow: no slot has traffic to copy"
        raise ConfigError(message, hint="give a slot weight in the same split")
    everything: dict[str, Any] = {"match": _match(address.path)}
    if split.weights:
        everything["route"] = _weighted(split, parked, sticky_header, address.path)
        if falls_back:
            _fall_back(everything["route"])
    else:
        everything["direct_response"] = _answer(503, _NOBODY)
    domains = [address.host, f"{address.host}:*"] if address.host else ["*"]
    looks = [_look(slot, address.path) for slot in sorted(parked | split.slots) if falls_back]
    host = {"name": ROUTE, "domains": domains, "routes": [_copies(), *looks, everything]}
    found: dict[str, Any] = {"@type": f"{TYPES}.config.route.v3.RouteConfiguration", "name": ROUTE}
    return {**found, "virtual_hosts": [host]}


def others(split: Split, slot: Slot) -> list[Slot]:
    """Return the slots that answer for one that is out of reach, the largest share first."""
    asked = [other for other, weight in split.weights.items() if weight and other != slot]
    return sorted(asked, key=lambda other: (-split.share(other), other))


def named(table: dict[str, Any], headers: dict[str, str]) -> dict[str, Any]:
    """Return a route table whose responses get headers."""
    added = [
        {
            "header": {"key": name, "value": value},
            "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
        }
        for name, value in headers.items()
    ]
    return {**table, "response_headers_to_add": added}


def split_of(table: dict[str, Any], parked: frozenset[Slot] = frozenset()) -> Split:
    """Return the split of a route table, without its parked slots.

    Raises:
        LookupError, TypeError, ValueError, ConfigError: it is not as `table` gives it.
    """
    action = table["virtual_hosts"][0]["routes"][-1].get("route")
    if action is None:
        return Split()
    weights = {
        Slot(cluster["name"]): int(cluster["weight"])
        for cluster in action["weighted_clusters"]["clusters"]
    }
    if any(weights.get(slot) for slot in parked):
        message = "a parked slot has traffic"
        raise ValueError(message)
    copies = action.get("request_mirror_policies", [])
    return Split(
        weights={slot: weight for slot, weight in weights.items() if slot not in parked},
        shadow=Slot(copies[0]["cluster"].removesuffix(OWN)) if copies else None,
    )


def _match(path: str) -> dict[str, Any]:
    return {"prefix": "/"} if path == "/" else {"path_separated_prefix": path.rstrip("/")}


def _answer(status: int, body: str) -> dict[str, Any]:
    return {"status": status, "body": {"inline_string": body}}


def _copies() -> dict[str, Any]:
    """Return the route that refuses requests which look like copies."""
    host = {"safe_regex": {"regex": ".*-shadow(:[0-9]*)?"}}
    headers = [{"name": ":authority", "string_match": host}]
    return {
        "match": {"prefix": "/", "headers": headers},
        "direct_response": _answer(400, _COPY),
    }


def _weighted(
    split: Split, parked: frozenset[Slot], sticky_header: str | None, path: str
) -> dict[str, Any]:
    # Sorted, so that a change of weights reassigns as few sticky clients as possible.
    weights = {**dict.fromkeys(parked, 0), **split.weights}
    weighted: dict[str, Any] = {
        "clusters": [{"name": slot, "weight": weights[slot]} for slot in sorted(weights)]
    }
    action: dict[str, Any] = {
        "weighted_clusters": weighted,
        "timeout": _TIMEOUT,
        "retry_policy": {
            "retry_on": RETRY_ON,
            "num_retries": 2,
            "retry_host_predicate": [
                {
                    "name": "envoy.retry_host_predicates.previous_hosts",
                    "typed_config": {
                        "@type": f"{TYPES}.extensions.retry.host.previous_hosts.v3"
                        ".PreviousHostsPredicate"
                    },
                }
            ],
            "host_selection_retry_max_attempts": 5,
            "retry_back_off": {"base_interval": "0.01s", "max_interval": "0.1s"},
        },
    }
    action |= _rewritten(path)
    if sticky_header:
        weighted["use_hash_policy"] = True
        action["hash_policy"] = [{"header": {"header_name": sticky_header}}]
    if split.shadow is not None:
        action["request_mirror_policies"] = [{"cluster": split.shadow}]
    return action


def _rewritten(path: str) -> dict[str, Any]:
    if path == "/":
        return {}
    # Not prefix_rewrite: it would leave `//` at the start.
    pattern = {"regex": f"^{re.escape(path.rstrip('/'))}/?"}
    return {"regex_rewrite": {"pattern": pattern, "substitution": "/"}}


def _fall_back(action: dict[str, Any]) -> None:
    """Send a retry to the slot that is next by priority, and copies to no other slot."""
    kind = f"{TYPES}.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig"
    action["retry_policy"]["retry_priority"] = {
        "name": "envoy.retry_priorities.previous_priorities",
        "typed_config": {"@type": kind, "update_frequency": 1},
    }
    for copies in action.get("request_mirror_policies", []):
        copies["cluster"] += OWN


def _look(slot: Slot, path: str) -> dict[str, Any]:
    """Return the route that shows whether a slot is reached, and nothing else of it."""
    headers = [{"name": SLOT, "string_match": {"exact": slot}}]
    match = {"path": f"{path.rstrip('/')}/{_READY}", "headers": headers}
    return {
        "match": match,
        "route": {"cluster": f"{slot}{OWN}", "timeout": "2s", **_rewritten(path)},
    }
