"""The part of a URL map that is a target's route: the one source of truth for its traffic.

It is a path matcher of the target's name and the host rule that leads there; the rest of the URL
map is somebody else's and is kept. Each slot has a rule of its own, which keeps its backend service
in the URL map, without which Google checks no health, and remembers where the slot is. The rule for
requests lists the slots with a share. Slots without one are parked, see `kubernetes.routing`.

Source of the fields: https://docs.cloud.google.com/compute/docs/reference/rest/v1/urlMaps
"""

import ipaddress
from collections.abc import Mapping
from typing import Any, Final

import httpx
import msgspec

from mlship.adapters.targets.google.compute import FULL, Resource
from mlship.adapters.targets.kubernetes.applied import HEADER
from mlship.adapters.targets.kubernetes.manifests import Scope
from mlship.adapters.targets.kubernetes.routing import FIRST, Placed, Written
from mlship.config.project import TargetConfig
from mlship.config.targets import LoadBalancerConfig
from mlship.domain import digests, home
from mlship.domain.deployment import Revision, Slot, Split
from mlship.errors import ConfigError, ConflictError, IntegrityError, fault_of

SLOT: Final = "mlship-slot"
"""A header of requests for the readiness of one slot, whatever its share is."""
_READY: Final = "v2/health/ready"
_SECONDS: Final = "60"
_RETRIES: Final = {"retryConditions": ["connect-failure", "refused-stream"], "numRetries": 2}
"""Only where Google knows that no pod has got the request."""
_EVERYTHING: Final = 1000
_STICKY: Final = 500


class _Notes(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The description of the path matcher.

    Attributes:
        number: how often the route was written.
        home: of the project.
        fence: the number of the lock's holder who wrote it last.
    """

    number: int
    home: str = ""
    fence: int = 0


class _Rule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The description of a slot's rule."""

    slot: Slot
    parked: bool = False
    place: Placed | None = None


def read(scope: Scope, url_map: Resource) -> Written:
    """Return the route of a target in a URL map; without one, a route without weights.

    Raises:
        IntegrityError: it is not as mlship writes it.
        ConflictError: it is of another project of this name.
    """
    matcher = _matcher(scope, url_map)
    if matcher is None:
        return Written(manifest=url_map)
    what = f"path matcher {scope.name} of URL map {url_map['name']}"
    try:
        notes = _notes(matcher)
        rules = [_rule(rule) for rule in matcher["routeRules"] if rule["priority"] < _STICKY]
        split = _split(scope, matcher, rules)
        name = str(matcher["headerAction"]["responseHeadersToAdd"][0]["headerValue"])
    except (msgspec.MsgspecError, LookupError, TypeError, ValueError, ConfigError) as error:
        message = f"{what} was edited and mlship cannot read it: {fault_of(error)}"
        hint = f"remove it: `gcloud compute url-maps remove-path-matcher {url_map['name']} "
        hint += f"--path-matcher-name {scope.name} --global`, then deploy again"
        raise IntegrityError(message, hint=hint) from error
    home.check(what, notes.home or home.UNKNOWN, scope.home, scope.project)
    parked = frozenset(rule.slot for rule in rules if rule.parked)
    digest = digests.short(digests.of_value([split, sorted(parked)]))[:6]
    return Written(
        split=split,
        parked=parked,
        revision=Revision(f"{notes.number}-{digest}") if rules else FIRST,
        name=name,
        manifest=url_map,
        places={rule.slot: rule.place for rule in rules if rule.place is not None},
    )


def written(
    scope: Scope,
    config: TargetConfig,
    url_map: Resource,
    split: Split,
    parked: frozenset[Slot],
    observed: Mapping[Slot, Placed],
    *,
    services: Mapping[Slot, str],
    fence: int = 0,
) -> Resource:
    """Return the URL map with the route for a split; it is `url_map` if nothing changes.

    Args:
        scope: of the target.
        config: of the target.
        url_map: as it was read.
        split: the new split.
        parked: slots that are kept beside it.
        observed: where slots are; of others, `url_map` says it.
        services: the backend service of each slot, by its link.
        fence: the number of the lock's holder; 0 without a lock.

    Raises:
        ConfigError: there is a shadow and no traffic that it could get a copy of; or the URL map
            has no default service.
        ConflictError: another host rule has the address; or a later holder wrote the route.
    """
    parked -= frozenset(split.weights)
    _check(scope, url_map, split)
    before, current = _matcher(scope, url_map), read(scope, url_map)
    notes = _notes(before) if before else _Notes(number=0)
    if fence and notes.fence > fence:
        message = f"the route of {scope.target} was written by a later holder of the lock"
        raise ConflictError(message, hint="look at `mlship status`, then run the command again")
    known = {**current.places, **observed}
    rules = [
        _Rule(slot=slot, parked=slot not in split.weights, place=known.get(slot))
        for slot in sorted(parked | split.slots)
    ]
    matcher: Resource = {
        "name": scope.name,
        "defaultService": url_map["defaultService"],
        "routeRules": _rules(config, split, rules, services),
    }
    host = host_of(balancer_of(config).address)
    hosts: Resource = {"hosts": [host], "pathMatcher": scope.name}
    _check_host(scope, url_map, host)
    # What is wanted may be there with more than that: a shadow, which is to go.
    is_same = before is not None and (current.split, current.parked) == (split, parked)
    if is_same and covers([before, *_own_rules(scope, url_map)], [matcher, hosts]):
        return url_map
    kept = _Notes(number=notes.number + 1, home=scope.home, fence=max(fence, notes.fence))
    return {
        **url_map,
        "hostRules": [*_other_rules(scope, url_map), hosts],
        "pathMatchers": [
            *_other_matchers(scope, url_map),
            {**matcher, **_marks(kept, split, parked)},
        ],
    }


def fence_of(scope: Scope, url_map: Resource) -> int:
    """Return the number of the lock's holder who wrote a target's route last; 0 without one."""
    matcher = _matcher(scope, url_map)
    try:
        return _notes(matcher).fence if matcher else 0
    except msgspec.DecodeError:
        return 0


def removed(scope: Scope, url_map: Resource) -> Resource:
    """Return a URL map without the target; it is `url_map` if that has nothing of it."""
    if _matcher(scope, url_map) is None:
        return url_map
    others = _other_rules(scope, url_map)
    return {**url_map, "hostRules": others, "pathMatchers": _other_matchers(scope, url_map)}


def shown(scope: Scope, url_map: Resource) -> Resource | None:
    """Return the part of a URL map that is a target's, for a dry run."""
    matcher = _matcher(scope, url_map)
    if matcher is None:
        return None
    metadata = {"name": url_map["name"]}
    return {"kind": "URL map", "metadata": metadata, "pathMatcher": matcher}


def covers(found: Any, wanted: Any) -> bool:
    """Return whether all fields of a wanted value are in a found one, which may have more.

    Google completes objects by defaults, writes large numbers as text, and links in several ways.
    What is not there is zero.
    """
    match wanted:
        case dict():
            return isinstance(found, dict) and all(
                covers(found.get(name, 0), value) for name, value in wanted.items()
            )
        case list():
            return (
                isinstance(found, list)
                and len(found) == len(wanted)
                and all(covers(*pair) for pair in zip(found, wanted, strict=True))
            )
        case str():
            return partial(str(found)) == partial(wanted)
        case bool():
            return found is wanted
        case _:
            return _number(found) == float(wanted)


def _number(value: object) -> float | None:
    try:
        return float(str(value))
    except ValueError:
        return None


def partial(link: str) -> str:
    """Return the part of a link to an object that all its forms have."""
    return link.rpartition("/compute/v1/")[2] if link.startswith("https://") else link


def balancer_of(config: TargetConfig) -> LoadBalancerConfig:
    """Return the settings of the load balancer; only targets with them have this parent."""
    if config.load_balancer is None:
        message = "the target names no load balancer of Google"
        raise ValueError(message)
    return config.load_balancer


def host_of(address: str) -> str:
    """Return the host of the host rule for an address; `*` for a number."""
    host = httpx.URL(address).host
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host
    return "*"


def _rules(
    config: TargetConfig, split: Split, rules: list[_Rule], services: Mapping[Slot, str]
) -> list[Resource]:
    """Return the rules of the path matcher, in the order of their priority."""
    path = config.kubernetes.path.rstrip("/")
    found = [_of_slot(path, rule, number, services) for number, rule in enumerate(rules)]
    shares = {slot: weight for slot, weight in sorted(split.weights.items()) if weight}
    action: Resource = {"timeout": {"seconds": _SECONDS}, "retryPolicy": _RETRIES}
    action |= {"urlRewrite": {"pathPrefixRewrite": "/"}} if path else {}
    if split.shadow is not None:
        action["requestMirrorPolicy"] = {"backendService": services[split.shadow]}

    def rule(priority: int, weights: Mapping[Slot, int], *headers: Resource) -> Resource:
        match = {"prefixMatch": f"{path}/", **({"headerMatches": [*headers]} if headers else {})}
        weighted = [
            {"backendService": services[slot], "weight": weight} for slot, weight in weights.items()
        ]
        routed = {**action, "weightedBackendServices": weighted}
        return {"priority": priority, "matchRules": [match], "routeAction": routed}

    start = 0
    for number, (slot, weight) in enumerate(shares.items()):
        if config.sticky_header and len(shares) > 1:
            bounds = {"rangeStart": str(start), "rangeEnd": str(start + weight)}
            header = {"headerName": config.sticky_header, "rangeMatch": bounds}
            found.append(rule(_STICKY + number, {slot: 100}, header))
        start += weight
    return [*found, rule(_EVERYTHING, shares)] if shares else found


def _of_slot(path: str, rule: _Rule, priority: int, services: Mapping[Slot, str]) -> Resource:
    """Return the rule of a slot, which leads a question for its readiness there."""
    headers = [{"headerName": SLOT, "exactMatch": rule.slot}]
    rewrite = {"urlRewrite": {"pathPrefixRewrite": f"/{_READY}"}}
    return {
        "priority": priority,
        "description": msgspec.json.encode(rule).decode(),
        "matchRules": [{"prefixMatch": f"{path}/{_READY}", "headerMatches": headers}],
        "service": services[rule.slot],
        **({"routeAction": rewrite} if path else {}),
    }


def _split(scope: Scope, matcher: Resource, rules: list[_Rule]) -> Split:
    everything = [rule for rule in matcher["routeRules"] if rule["priority"] == _EVERYTHING]
    action = everything[0]["routeAction"] if everything else {}
    weights = {rule.slot: 0 for rule in rules if not rule.parked}
    for entry in action.get("weightedBackendServices") or ():
        slot = _slot(scope, entry["backendService"])
        if slot not in weights:
            message = f"slot {slot} has traffic and is parked or unknown"
            raise ValueError(message)
        weights[slot] = int(entry["weight"])
    copies = action.get("requestMirrorPolicy")
    shadow = _slot(scope, copies["backendService"]) if copies else None
    return Split(weights=weights if any(weights.values()) else {}, shadow=shadow)


def _slot(scope: Scope, service: str) -> Slot:
    name, prefix = service.rpartition("/")[2], f"{scope.name}-"
    if not name.startswith(prefix):
        message = f"backend service {name} is no slot's"
        raise ValueError(message)
    return Slot(name.removeprefix(prefix))


def _rule(rule: Resource) -> _Rule:
    return msgspec.json.decode(rule["description"], type=_Rule)


def _notes(matcher: Resource) -> _Notes:
    return msgspec.json.decode(matcher.get("description") or "{}", type=_Notes)


def _matcher(scope: Scope, url_map: Resource) -> Resource | None:
    matchers: list[Resource] = url_map.get("pathMatchers") or []
    return next((each for each in matchers if each.get("name") == scope.name), None)


def _other_matchers(scope: Scope, url_map: Resource) -> list[Resource]:
    matchers: list[Resource] = url_map.get("pathMatchers") or []
    return [each for each in matchers if each.get("name") != scope.name]


def _own_rules(scope: Scope, url_map: Resource) -> list[Resource]:
    rules: list[Resource] = url_map.get("hostRules") or []
    return [rule for rule in rules if rule.get("pathMatcher") == scope.name]


def _other_rules(scope: Scope, url_map: Resource) -> list[Resource]:
    rules: list[Resource] = url_map.get("hostRules") or []
    return [rule for rule in rules if rule.get("pathMatcher") != scope.name]


def _marks(notes: _Notes, split: Split, parked: frozenset[Slot]) -> Resource:
    """Return what a path matcher says of itself: to us, and in answers."""
    name = f"{notes.number}-{digests.short(digests.of_value([split, sorted(parked)]))}"
    header = {"headerName": HEADER, "headerValue": name, "replace": True}
    description = msgspec.json.encode(notes).decode()
    return {"description": description, "headerAction": {"responseHeadersToAdd": [header]}}


def _check(scope: Scope, url_map: Resource, split: Split) -> None:
    """Check that a split can be written; the default service answers where nobody has a share."""
    if split.shadow is not None and not split.weights:
        message = f"slot {split.shadow} of {scope.target} cannot shadow: no slot has traffic"
        raise ConfigError(message, hint="give a slot weight in the same split")
    if not url_map.get("defaultService"):
        message = f"URL map {url_map['name']} has no default backend service"
        hint = "make the URL map with the commands of `mlship guide clusters`"
        raise ConfigError(message, hint=hint)


def _check_host(scope: Scope, url_map: Resource, host: str) -> None:
    for rule in _other_rules(scope, url_map):
        if host in (rule.get("hosts") or ()):
            message = f"URL map {url_map['name']}: path matcher {rule.get('pathMatcher')} has the "
            message += f"host {host} of target {scope.target} already"
            hint = f"set targets.{scope.target}.load_balancer.address to a host name of its own"
            raise ConflictError(message, hint=hint)


def group(project: str, zone: str, name: str) -> str:
    """Return the full name of a network endpoint group, by which a backend must call it."""
    return f"{FULL}/projects/{project}/zones/{zone}/networkEndpointGroups/{name}"
