"""The objects of a router, the parent load balancer of a target that names no Gateway.

Service, PodDisruptionBudget and Deployment, on request a NetworkPolicy. Its pods read the route
from a ConfigMap, see `router_routing`. Pure functions.
"""

import math
from pathlib import Path, PurePosixPath
from typing import Any, Final

from mlship.adapters.targets.envoy import limits, resources, statistics
from mlship.adapters.targets.kubernetes import (
    manifests,
    network_policy,
    router_drain,
    router_tls,
)
from mlship.adapters.targets.kubernetes.api import Kind, Manifest, new
from mlship.adapters.targets.kubernetes.manifests import INSTANCE, PORT, SLOT, Scope
from mlship.config.project import TargetConfig
from mlship.domain.deployment import Artifact, Slot
from mlship.errors import NotFoundError

ROUTER: Final = Slot("router")
"""Objects of a router are named like those of a slot of this name; no release has it."""
KINDS: tuple[Kind, ...] = ("Service", "PodDisruptionBudget", "Deployment")
REPLICAS: Final = 2
FILES: Final = PurePosixPath("/etc/mlship/router")
ROUTES: Final = "routes.json"
CLUSTERS: Final = "clusters.json"
_ADMIN_CLUSTER = "admin"
_ADMIN = "/tmp/admin.sock"  # noqa: S108 (in the pod, a volume of its own)
_PORT = 8080
_TLS_PORT = 8443
PROBE_PORT: Final = 8081
_START = "start"
_START_PORT = 8082
HTTPS_PORT: Final = 443
_ANSWER: Final = {"match": {"prefix": "/"}, "direct_response": {"status": 200}}
_EVERYWHERE = "0.0.0.0"  # noqa: S104 (in a pod)
_CPU = "100m"
_MEMORY = "128Mi"
_MEMORY_LIMIT = "512Mi"


def name_of(scope: Scope) -> str:
    """Return the name of a router's objects, `iris-staging-router`."""
    return scope.object(ROUTER)


def instance_of(scope: Scope) -> str:
    """Return the label of a router's objects: it has a dot, as no slot's instance has."""
    return f"{scope.name}.{ROUTER}"


def kinds(config: TargetConfig) -> tuple[Kind, ...]:
    """Return the kinds of a router's objects, in the order in which they are applied."""
    # The pods of releases are closed when the router that reaches them is there.
    return (*KINDS, network_policy.KIND) if config.kubernetes.network_policy else KINDS


def selector_of(scope: Scope) -> dict[str, str]:
    """Return the labels by which a router's pods are found."""
    return {INSTANCE: instance_of(scope), SLOT: ROUTER}


def labels_of(scope: Scope) -> dict[str, str]:
    """Return the labels of all objects of a router."""
    return {**scope.labels, **selector_of(scope), "app.kubernetes.io/component": ROUTER}


def render(scope: Scope, config: TargetConfig, artifact: Artifact) -> list[Manifest]:
    """Return the objects of a router without its ConfigMap, in the order of their application.

    Raises:
        NotFoundError: the registry has no image of a router.
    """
    if not artifact.router:
        message = f"target {scope.target} names no Gateway, and the registry has no router image"
        hint = "run `mlship push-to-registry`, which pushes it beside the image of the release; "
        raise NotFoundError(message, hint=hint + "or set kubernetes.gateway")
    selector = selector_of(scope)
    metadata = _metadata(scope, config)
    template = {
        "metadata": {"labels": metadata["labels"]},
        "spec": _pod(scope, config, artifact.router, selector),
    }
    if (secret := config.kubernetes.tls_secret) is not None:
        template = router_tls.mounted(template, secret)
    specs: dict[str, Manifest] = {
        "PodDisruptionBudget": manifests.budget(selector),
        "Deployment": manifests.deployment(config, selector, template, REPLICAS),
        network_policy.KIND: network_policy.spec(scope, selector),
    }
    others = [new(kind, metadata, specs[kind]) for kind in kinds(config) if kind in specs]
    return [service(scope, config), *others]


def service(scope: Scope, config: TargetConfig) -> Manifest:
    """Return the Service of a router. A client that speaks the other scheme finds no port."""
    own = config.kubernetes
    port = {"name": router_tls.HTTP, "port": PORT}
    if own.tls_secret is not None:
        port = {"name": router_tls.HTTPS, "port": HTTPS_PORT}
    port |= {"targetPort": port["name"], "protocol": "TCP"}
    spec = {"type": own.service, "selector": selector_of(scope), "ports": [port]}
    return new("Service", _metadata(scope, config), spec)


def _metadata(scope: Scope, config: TargetConfig) -> Manifest:
    namespace = config.kubernetes.namespace
    return {"name": name_of(scope), "namespace": namespace, "labels": labels_of(scope)}


def bootstrap(*, is_encrypted: bool = False) -> Manifest:
    """Return the configuration that Envoy starts with.

    It serves the route's requests, and on a port of its own the kubelet's probe: that listens
    when the first route and its clusters are loaded. That port, which the Service does not have,
    also answers what Envoy has counted. No other part of the admin interface is open there.

    With TLS, one more port answers the startup probe, with the same certificate. If Envoy cannot
    use that, it opens all ports nevertheless, and closes each connection to those with TLS.
    """
    routes = [*map(_counted, (statistics.ADDRESSES, statistics.TIMES)), _ANSWER]
    probe = _manager("probe", routes)
    return {
        "node": {"id": "mlship", "cluster": "mlship"},
        "admin": {"address": {"pipe": {"path": _ADMIN, "mode": 0o600}}},
        "overload_manager": limits.overload(),
        "static_resources": {
            "listeners": [
                *_of_requests(is_encrypted=is_encrypted),
                resources.listener("probe", _EVERYWHERE, PROBE_PORT, probe),
            ],
            "clusters": [_admin_cluster()],
        },
        "dynamic_resources": {"cds_config": resources.file_source(FILES / CLUSTERS)},
    }


def _of_requests(*, is_encrypted: bool) -> list[Manifest]:
    """Return the listener of requests, and with TLS that of the startup probe."""
    routing = resources.routing(FILES / ROUTES)
    if not is_encrypted:
        return [resources.listener("router", _EVERYWHERE, _PORT, routing)]
    start = _manager("start", [_ANSWER])
    return [
        router_tls.encrypted(resources.listener("router", _EVERYWHERE, _TLS_PORT, routing)),
        router_tls.encrypted(resources.listener("start", _EVERYWHERE, _START_PORT, start)),
    ]


def _manager(name: str, routes: list[Manifest]) -> Manifest:
    """Return what answers a listener of Envoy's own, that of a probe, by some routes."""
    host = {"name": name, "domains": ["*"], "routes": routes}
    return {
        "route_config": {"name": name, "virtual_hosts": [host]},
        "http_filters": [resources.router_filter()],
    }


def _counted(path: str) -> Manifest:
    """Return the route to a page of the admin interface, for reading it."""
    is_read = {"name": ":method", "string_match": {"exact": "GET"}}
    return {
        "match": {"path": path, "headers": [is_read]},
        "route": {"cluster": _ADMIN_CLUSTER, "timeout": "5s"},
    }


def _admin_cluster() -> Manifest:
    endpoint = {"endpoint": {"address": {"pipe": {"path": _ADMIN}}}}
    return {
        "name": _ADMIN_CLUSTER,
        "connect_timeout": "1s",
        "type": "STATIC",
        "load_assignment": {
            "cluster_name": _ADMIN_CLUSTER,
            "endpoints": [{"lb_endpoints": [endpoint]}],
        },
    }


def _pod(scope: Scope, config: TargetConfig, image: str, selector: dict[str, str]) -> Manifest:
    pod = manifests.secured_pod(config, selector)
    pod["containers"] = [_container(config, image)]
    files = {"name": "route", "configMap": {"name": name_of(scope)}}
    pod["volumes"] = [{"name": "tmp", "emptyDir": {}}, files]
    return pod


def _container(config: TargetConfig, image: str) -> Manifest:
    own = config.kubernetes
    is_encrypted = own.tls_secret is not None
    container: dict[str, Any] = {
        "name": ROUTER,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "args": [
            "--config-yaml",
            resources.text(bootstrap(is_encrypted=is_encrypted)).decode(),
            "--disable-hot-restart",
            "--concurrency",
            "2",
            "--log-level",
            "warning",
        ],
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "ports": [
            {"name": name, "containerPort": port, "protocol": "TCP"}
            for name, port in _ports(is_encrypted=is_encrypted).items()
        ],
        "resources": _resources(config),
        "securityContext": manifests.secured_container(),
        "volumeMounts": [
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 (in the pod, a volume of its own)
            {"name": "route", "mountPath": str(FILES), "readOnly": True},
        ],
        "startupProbe": _probe(
            1, max(1, math.ceil(config.ready_seconds)), is_encrypted=is_encrypted
        ),
        "readinessProbe": _probe(1, 2),
        "livenessProbe": _probe(10, 3),
    }
    if own.prestop_seconds or config.drain_seconds:
        seconds = [str(own.prestop_seconds), f"{config.drain_seconds:g}"]
        script = Path(router_drain.__file__).read_text(encoding="utf-8")
        command = ["python3", "-c", script, _ADMIN, *seconds]
        container["lifecycle"] = {"preStop": {"exec": {"command": command}}}
    return container


def _ports(*, is_encrypted: bool) -> dict[str, int]:
    if is_encrypted:
        return {router_tls.HTTPS: _TLS_PORT, _START: _START_PORT, "probe": PROBE_PORT}
    return {router_tls.HTTP: _PORT, "probe": PROBE_PORT}


def _probe(every: int, failures: int, *, is_encrypted: bool = False) -> Manifest:
    """Return a probe; by TLS, the kubelet accepts any certificate that works."""
    port, scheme = (_START, "HTTPS") if is_encrypted else ("probe", "HTTP")
    return {
        "httpGet": {"path": "/", "port": port, "scheme": scheme},
        "periodSeconds": every,
        "timeoutSeconds": 2,
        "failureThreshold": failures,
    }


def _resources(config: TargetConfig) -> Manifest:
    """Return what a router's pod requests, unless pods of the target request nothing."""
    own = config.kubernetes
    requests = {
        **({"cpu": _CPU} if own.cpu else {}),
        **({"memory": _MEMORY} if own.memory else {}),
    }
    limits = {"memory": _MEMORY_LIMIT} if own.memory else {}
    both = {"requests": requests, "limits": limits}
    return {name: amounts for name, amounts in both.items() if amounts}
