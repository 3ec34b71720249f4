"""The requirements of a target on its cluster: rights, namespace, Gateway."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from mlship.adapters.targets.kubernetes import (
    entries,
    gateway,
    network_policy,
    router,
    router_tls,
)
from mlship.adapters.targets.kubernetes.access import Access
from mlship.adapters.targets.kubernetes.api import PLACES, Api, Kind, connected, new
from mlship.adapters.targets.kubernetes.manifests import Scope, kinds
from mlship.adapters.targets.kubernetes.members import Member, check_different
from mlship.config.project import TargetConfig
from mlship.errors import UnavailableError

_RIGHTS: dict[Kind, tuple[str, ...]] = {
    "Deployment": ("get", "list", "create", "patch", "update", "delete"),
    "Service": ("get", "create", "patch", "delete"),
    "PodDisruptionBudget": ("get", "create", "patch", "delete"),
    "HorizontalPodAutoscaler": ("get", "create", "patch", "update", "delete"),
    "Lease": ("get", "create", "update"),
    "Pod": ("list", "delete"),
}
"""The rights of the guide's Role, without the optional ones."""

_GATEWAY: dict[Kind, tuple[str, ...]] = {"HTTPRoute": ("get", "create", "update", "delete")}
"""The additional rights for a target that names a Gateway."""

_ROUTER: dict[Kind, tuple[str, ...]] = {
    "ConfigMap": ("get", "create", "update", "delete"),
    "Pod": ("list", "delete", "patch"),
}
"""The rights for a target that names none, for which mlship runs its own router."""

_CHECKS: dict[Kind, tuple[str, ...]] = {"HealthCheckPolicy": ("get", "create", "patch", "delete")}
"""The additional rights for Google's Gateways: docs/guide/gke.md."""

_AT_ONCE = 8


def review(scope: Scope, config: TargetConfig, access: Callable[[], Access]) -> str:
    """Check that a cluster meets the requirements of a target. Nothing is changed.

    Returns:
        The cluster and the address of the Gateway, or of mlship's own load balancer.

    Raises:
        ConfigError: the access cannot be made of the settings.
        NotFoundError: there is no such namespace, or no such Gateway.
        UnavailableError: the cluster does not answer; or it denies something, with all of that;
            or it has no Gateway API; or mlship's own load balancer has no ready replica.
    """
    with connected(access, config.kubernetes.namespace) as api:
        return of(api, scope, config)


def review_all(scope: Scope, members: Sequence[Member], parent: str) -> str:
    """Check each cluster of a target that has several; see `review`.

    Only the parent's needs the rights and the state of the load balancer.

    Raises:
        ConfigError: two names are of the same cluster.
        and as `review`.
    """
    check_different(members)
    found = []
    for member in members:
        with member.connected() as api:
            is_parent = member.name == parent
            found.append(of(api, scope, member.config, balances=is_parent, several=True))
    return "; ".join(found)


def of(
    api: Api,
    scope: Scope,
    config: TargetConfig,
    *,
    balances: bool = True,
    several: bool = False,
) -> str:
    """Check a connected cluster, and the load balancer if it has one; see `review`.

    Args:
        api: of the target's namespace there.
        scope: of the target.
        config: of the target, in this cluster.
        balances: whether the load balancer is there.
        several: whether the load balancer is that of several clusters.
    """
    settings = config.kubernetes
    checked = "HealthCheckPolicy" in kinds(config)
    own = _ROUTER if settings.gateway is None else _GATEWAY
    own = own | entries.RIGHTS if several and settings.gateway is not None else own
    own = own | network_policy.RIGHTS if settings.network_policy else own
    own = own if balances else {}
    gateways = (settings.gateway or "").partition("/")[0]
    secret = settings.tls_secret or "" if balances else ""
    _check_rights(api, gateways, _RIGHTS | own | (_CHECKS if checked else {}), secret)
    # A dry run shows whether the namespace exists, without the right to read namespaces.
    api.apply(new("Service", {"name": scope.name}, {"ports": [{"port": 80}]}), dry_run=True)
    allowed = f"{api.cluster} allows deployments to namespace {api.namespace}"
    if not balances:
        return allowed
    if settings.gateway is not None:
        traffic = gateway.Traffic(api, scope, settings, {} if several else None)
        if not several:
            return f"{allowed}; Gateway {traffic.endpoint()}"
        traffic.check()
        return f"{allowed}; Gateway {traffic.endpoint()}, {gateway.LIMITS}"
    return f"{allowed}; load balancer {router.Traffic(api, scope, config).state()}"


def _check_rights(
    api: Api, gateways: str, rights: Mapping[Kind, tuple[str, ...]], secret: str
) -> None:
    """Check each right.

    Args:
        api: of the target's namespace.
        gateways: the namespace of the Gateway; empty without one.
        rights: verbs by kind.
        secret: the one of a certificate; empty without one.
    """
    wanted: list[tuple[Kind, str, str, str]] = [
        (kind, verb, api.namespace, "") for kind, verbs in rights.items() for verb in verbs
    ]
    if gateways:
        wanted.append(("Gateway", "get", gateways, ""))
    if secret:
        # The Role names it, so that no other Secret can be read.
        wanted += [("Secret", verb, api.namespace, secret) for verb in router_tls.RIGHTS["Secret"]]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        allowed = list(pool.map(lambda right: api.may(*right), wanted))
    denied: dict[str, list[str]] = {}
    for (kind, verb, namespace, name), is_allowed in zip(wanted, allowed, strict=True):
        if not is_allowed:
            what = f"{PLACES[kind].plural} {name}".strip()
            denied.setdefault(f"{what} in {namespace}", []).append(verb)
    if denied:
        listed = "; ".join(f"{', '.join(verbs)} {what}" for what, verbs in denied.items())
        message = f"{api.cluster} forbids: {listed}"
        hint = "have its administrator apply the Roles of `mlship guide kubernetes`"
        hint += " and `mlship guide gke`" if "HealthCheckPolicy" in rights else ""
        hint += "; `kubectl auth can-i --list` shows what is allowed"
        raise UnavailableError(message, hint=hint)
