"""The objects of a stream in a cluster: its workers, what they may read, and how many there are.

Workers have no model: they ask the pods of releases, by the Services of their slots. They are a
StatefulSet, because a worker that is started again with its name ends the transaction of the former
one at once, and gets its partitions without a rebalance.
"""

from typing import Any, Final

import msgspec

from mlship.adapters.targets.kubernetes.api import Manifest
from mlship.adapters.targets.kubernetes.manifests import (
    INSTANCE,
    Scope,
    secured_container,
    secured_pod,
)
from mlship.adapters.targets.kubernetes.router_manifests import name_of
from mlship.config.project import TargetConfig
from mlship.config.stream import StreamConfig
from mlship.domain import digests, stream_cluster
from mlship.domain.stream import Settings
from mlship.domain.stream_cluster import Place
from mlship.errors import ConfigError

_FOLDER: Final = "/etc/mlship/stream"
_CONFIG: Final = "mlship.dev/stream"
"""An annotation of pods: the digest of their settings, so that another one replaces them."""
_MOST_ROWS: Final = 200
"""Of a transaction: a change of the route waits for it, and single requests take their time."""
_RBAC: Final = "rbac.authorization.k8s.io"


def place_of(scope: Scope, config: TargetConfig) -> Place:
    """Return where workers find the route of a target and its slots."""
    is_plain = config.kubernetes.gateway is None
    return Place(
        kind="ConfigMap" if is_plain else "HTTPRoute",
        name=name_of(scope) if is_plain else scope.name,
        namespace=config.kubernetes.namespace,
        prefix=scope.name,
        project=scope.project,
    )


def render(
    scope: Scope, config: TargetConfig, stream: StreamConfig, settings: Settings, image: str
) -> list[Manifest]:
    """Return the objects of a stream, in the order in which they are applied.

    Args:
        scope: of the target.
        config: of the target.
        stream: the section of mlship.yaml.
        settings: what workers are told.
        image: of a release, with the client of Kafka.

    Raises:
        ConfigError: the target or the format does not allow it.
    """
    _check(scope, config, stream)
    settings = msgspec.structs.replace(settings, max_rows=min(settings.max_rows, _MOST_ROWS))
    name, place = f"{scope.name}-stream", place_of(scope, config)
    selector = {INSTANCE: name}
    labels = {**scope.labels, **selector, "app.kubernetes.io/component": "stream"}
    metadata = {"name": name, "namespace": config.kubernetes.namespace, "labels": labels}
    data = {
        "settings.json": msgspec.json.format(msgspec.json.encode(settings)).decode(),
        "place.json": msgspec.json.format(msgspec.json.encode(place)).decode(),
    }
    group = "" if place.kind == "ConfigMap" else "gateway.networking.k8s.io"
    plural = "configmaps" if place.kind == "ConfigMap" else "httproutes"
    # This object, and nothing else of the cluster.
    rule = {"apiGroups": [group], "resources": [plural], "resourceNames": [place.name]}
    template = {
        "metadata": {"labels": labels, "annotations": {_CONFIG: digests.of_value(data)}},
        "spec": _pod(config, selector, name, image),
    }
    workers = {
        "serviceName": name,
        "replicas": stream.workers,
        "podManagementPolicy": "Parallel",
        "selector": {"matchLabels": selector},
        "template": template,
    }
    subject = {"kind": "ServiceAccount", "name": name, "namespace": config.kubernetes.namespace}
    role = {"apiGroup": _RBAC, "kind": "Role", "name": name}
    return [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
        {
            "apiVersion": f"{_RBAC}/v1",
            "kind": "Role",
            "metadata": metadata,
            "rules": [{**rule, "verbs": ["get"]}],
        },
        {
            "apiVersion": f"{_RBAC}/v1",
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": role,
            "subjects": [subject],
        },
        {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": metadata, "spec": workers},
        *_scaled(metadata, stream, settings),
    ]


def _check(scope: Scope, config: TargetConfig, stream: StreamConfig) -> None:
    """Check that the workers could do their work.

    Raises:
        ConfigError: they could not.
    """
    if config.clusters:
        message = f"target {scope.target} has several clusters"
        raise ConfigError(message, hint="run `mlship stream run` on a machine that reaches them")
    if config.kubernetes.network_policy:
        message = f"targets.{scope.target}.kubernetes.network_policy keeps workers from the pods"
        raise ConfigError(message, hint="set it to false")
    if stream.format != "json":
        message = f"workers in a cluster answer JSON, and stream.format is {stream.format}"
        raise ConfigError(message, hint="run `mlship stream run` on a machine")
    if stream.max_workers is not None and stream.max_workers < stream.workers:
        message = f"stream.max_workers is {stream.max_workers}, less than stream.workers"
        raise ConfigError(message, hint=f"set it to {stream.workers} or more")


def _pod(config: TargetConfig, selector: dict[str, str], name: str, image: str) -> Manifest:
    own = config.kubernetes
    pod = secured_pod(config, selector)
    container: dict[str, Any] = {
        "name": "worker",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "command": ["python3", "-P", "-m", "mlship.runtime.stream"],
        "args": ["pod", _FOLDER, "$(POD_NAME)"],
        "env": [
            {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        ],
        "readinessProbe": {
            # By what each image has: some have no shell.
            "exec": {"command": ["python3", "-I", "-S", "-c", f"open({stream_cluster.READY!r})"]},
            "periodSeconds": 5,
            "timeoutSeconds": 10,
        },
        "securityContext": secured_container(),
        "volumeMounts": [
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 (in the pod, a volume of its own)
            {"name": "settings", "mountPath": _FOLDER, "readOnly": True},
        ],
    }
    requests = {key: value for key, value in (("cpu", own.cpu), ("memory", own.memory)) if value}
    if requests:
        limits = {"memory": own.memory} if own.memory else {}
        container["resources"] = {"requests": requests, **({"limits": limits} if limits else {})}
    if own.env_from_secret:
        container["envFrom"] = [{"secretRef": {"name": own.env_from_secret}}]
    return {
        **pod,
        "serviceAccountName": name,
        # To read the route.
        "automountServiceAccountToken": True,
        "containers": [container],
        "volumes": [
            {"name": "tmp", "emptyDir": {}},
            {"name": "settings", "configMap": {"name": name}},
        ],
    }


def _scaled(metadata: Manifest, stream: StreamConfig, settings: Settings) -> list[Manifest]:
    """Return what scales the workers; nothing if their number is fixed."""
    if stream.max_workers is None:
        return []
    workers = {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": metadata["name"]}
    if stream.lag is None:
        cpu = {"type": "Utilization", "averageUtilization": 70}
        spec: Manifest = {
            "scaleTargetRef": workers,
            "minReplicas": stream.workers,
            "maxReplicas": stream.max_workers,
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": cpu}}],
        }
        kind = {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler"}
        return [{**kind, "metadata": metadata, "spec": spec}]
    # KEDA reads the group's offsets, gives them to the cluster as an external metric, and makes
    # the HorizontalPodAutoscaler. Source: https://keda.sh/docs/latest/scalers/apache-kafka/
    trigger = {
        "bootstrapServers": settings.brokers,
        "consumerGroup": settings.group,
        "topic": settings.input,
        "lagThreshold": str(stream.lag),
        "offsetResetPolicy": "earliest",
    }
    spec = {
        "scaleTargetRef": workers,
        "minReplicaCount": stream.workers,
        "maxReplicaCount": stream.max_workers,
        "triggers": [{"type": "kafka", "metadata": trigger}],
    }
    kind = {"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject"}
    return [{**kind, "metadata": metadata, "spec": spec}]
