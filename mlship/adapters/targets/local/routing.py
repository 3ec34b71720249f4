"""The route's file: the source of truth for the traffic split, in Envoy's format.

Its `version_info` is the revision: a number that increases with each change, and a digest.
"""

from typing import Any

import msgspec

from mlship.adapters.targets.local import envoy
from mlship.adapters.targets.local.state import State, unreadable, write
from mlship.domain import digests
from mlship.domain.deployment import Revision, Slot, Split
from mlship.errors import ConfigError, IntegrityError

FIRST = Revision("0")
_TIMEOUT = "60s"
_NOBODY = b'{"error": "no release gets traffic here yet"}'
_COPY = b'{"error": "a host name that ends in -shadow is kept for copies of requests"}'


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """The route in the file: its split, its revision, and Envoy's route table."""

    split: Split
    revision: Revision
    table: dict[str, Any]


def read(state: State) -> Written:
    """Return the route in the file; without a file, a route without weights.

    Raises:
        IntegrityError: the file is not a route that mlship wrote.
    """
    try:
        data = state.routes.read_bytes()
    except FileNotFoundError:
        return Written(split=Split(), revision=FIRST, table=_table(Split(), None))
    except OSError as error:
        raise unreadable(state.routes, error) from error
    try:
        document = msgspec.json.decode(data)
        table = document["resources"][0]
        return Written(
            split=_split(table), revision=Revision(document["version_info"]), table=table
        )
    except (msgspec.DecodeError, LookupError, TypeError, ConfigError) as error:
        message = f"{state.routes} is damaged: {error!r}"
        hint = "run `mlship down`, remove the file, deploy again, then run `mlship traffic`"
        raise IntegrityError(message, hint=hint) from error


def ensure(state: State) -> None:
    """Write a first route if there is none, because Envoy needs one to start."""
    if not state.routes.exists():
        _write(state, _table(Split(), None), FIRST)


def change(state: State, split: Split, sticky_header: str | None) -> Revision:
    """Write the route for a split, unless it is unchanged.

    The caller holds the lock and has compared the revision.

    Raises:
        ConfigError: there is a shadow, but no traffic to copy.
        UnavailableError: it cannot be written; the route is unchanged.
    """
    if split.shadow is not None and not split.weights:
        message = f"slot {split.shadow} cannot shadow: no slot has traffic to copy"
        raise ConfigError(message, hint="give a slot weight in the same split")
    before = read(state)
    table = _table(split, sticky_header)
    if table == before.table and before.revision != FIRST:
        return before.revision
    number = int(before.revision.partition("-")[0]) + 1
    revision = Revision(f"{number}-{digests.short(digests.of_value(table))}")
    _write(state, table, revision)
    return revision


def _write(state: State, table: dict[str, Any], revision: Revision) -> None:
    write(state.routes, envoy.resources("route.v3.RouteConfiguration", revision, [table]))


def _table(split: Split, sticky_header: str | None) -> dict[str, Any]:
    copies = {
        "match": {
            "prefix": "/",
            "headers": [
                {
                    "name": ":authority",
                    "string_match": {"safe_regex": {"regex": ".*-shadow(:[0-9]*)?"}},
                }
            ],
        },
        "direct_response": {"status": 400, "body": {"inline_string": _COPY.decode()}},
    }
    everything: dict[str, Any] = {"match": {"prefix": "/"}}
    if split.weights:
        everything["route"] = _weighted(split, sticky_header)
    else:
        everything["direct_response"] = {
            "status": 503,
            "body": {"inline_string": _NOBODY.decode()},
        }
    host = {"name": envoy.ROUTE, "domains": ["*"], "routes": [copies, everything]}
    kind = f"{envoy.TYPES}.config.route.v3.RouteConfiguration"
    return {"@type": kind, "name": envoy.ROUTE, "virtual_hosts": [host]}


def _weighted(split: Split, sticky_header: str | None) -> dict[str, Any]:
    # Sorted, so that a change of weights reassigns as few sticky clients as possible.
    weighted: dict[str, Any] = {
        "clusters": [
            {"name": slot, "weight": split.weights[slot]} for slot in sorted(split.weights)
        ]
    }
    action: dict[str, Any] = {
        "weighted_clusters": weighted,
        "timeout": _TIMEOUT,
        "retry_policy": {
            "retry_on": "connect-failure,refused-stream,reset",
            "num_retries": 2,
            "retry_host_predicate": [
                {
                    "name": "envoy.retry_host_predicates.previous_hosts",
                    "typed_config": {
                        "@type": f"{envoy.TYPES}.extensions.retry.host.previous_hosts.v3"
                        ".PreviousHostsPredicate"
                    },
                }
            ],
            "host_selection_retry_max_attempts": 5,
            "retry_back_off": {"base_interval": "0.01s", "max_interval": "0.1s"},
        },
    }
    if sticky_header:
        weighted["use_hash_policy"] = True
        action["hash_policy"] = [{"header": {"header_name": sticky_header}}]
    if split.shadow is not None:
        action["request_mirror_policies"] = [{"cluster": split.shadow}]
    return action


def _split(table: dict[str, Any]) -> Split:
    action = table["virtual_hosts"][0]["routes"][-1].get("route")
    if action is None:
        return Split()
    weights = {
        Slot(cluster["name"]): int(cluster["weight"])
        for cluster in action["weighted_clusters"]["clusters"]
    }
    copies = action.get("request_mirror_policies", [])
    return Split(weights=weights, shadow=Slot(copies[0]["cluster"]) if copies else None)
