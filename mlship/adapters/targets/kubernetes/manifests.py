"""The objects of one slot: Service, PodDisruptionBudget, HorizontalPodAutoscaler, Deployment.

For Google's Gateways a HealthCheckPolicy comes before them.

Pure functions; the same arguments give the same objects, so that applying them again changes
nothing.
"""

import math
import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec
import yaml

from mlship.adapters.targets.kubernetes import health
from mlship.adapters.targets.kubernetes.api import Kind, Manifest, new
from mlship.config.project import TargetConfig
from mlship.config.targets import AutoscaleConfig
from mlship.domain import api_keys, digests
from mlship.domain.deployment import Artifact, Slot
from mlship.domain.release import Release
from mlship.errors import ConfigError

RELEASE: Final = "mlship.dev/release"
"""The label has the short id of the release, the annotation the full id."""
SLOT: Final = "mlship.dev/slot"
TARGET: Final = "mlship.dev/target"
NEG: Final = "cloud.google.com/neg"
"""An annotation: GKE makes network endpoint groups for the Service, one in each zone.

Source: https://docs.cloud.google.com/kubernetes-engine/docs/how-to/standalone-neg
"""
HOME: Final = "mlship.dev/home"
CLUSTER: Final = "mlship.dev/cluster"
"""An annotation: the name of the cluster that a slot was put into, if a target has several."""
"""An annotation with the home of the project."""
INSTANCE: Final = "app.kubernetes.io/instance"
CONTAINER: Final = "server"
METRICS: Final = "metrics"
"""The name of the port of metrics, by which a PodMonitor finds it."""
PORT: Final = 80
KINDS: tuple[Kind, ...] = (
    "Service",
    "PodDisruptionBudget",
    "HorizontalPodAutoscaler",
    "Deployment",
)
_POD_PORT = 8080
_NOBODY = 65532
_METRICS_PORT = 9090
_LOG = "/var/log/mlship"
_KEYS = "/etc/mlship/api-keys"
_SPOOL = "/var/spool/mlship"
_SPARE_MB = 32
"""A pod whose emptyDir grows beyond its limit is evicted; a full spool must stay below it."""
_SPARE_SECONDS = 5
_LONGEST_SCOPE = 49


class Scope(msgspec.Struct, frozen=True, kw_only=True):
    """The names and labels of one target of one project.

    Attributes:
        home: of the project, see `mlship.domain.home`.
    """

    project: str
    target: str
    home: str = ""

    @property
    def name(self) -> str:
        """The prefix of the objects' names; with a slot, it is still valid for a Service."""
        whole = f"{self.project}-{self.target}"
        if len(whole) <= _LONGEST_SCOPE:
            return whole
        digest = digests.short(digests.of_bytes(whole.encode()))
        return f"{whole[: _LONGEST_SCOPE - 9]}-{digest[:8]}"

    def object(self, slot: Slot) -> str:
        """Return the name of a slot's objects, `iris-staging-r3f9a0c12be77`."""
        return f"{self.name}-{slot}"

    @property
    def labels(self) -> dict[str, str]:
        """The labels of all objects of the target."""
        return {
            "app.kubernetes.io/name": self.project,
            INSTANCE: self.name,
            "app.kubernetes.io/part-of": self.project,
            "app.kubernetes.io/managed-by": "mlship",
            TARGET: self.target,
        }


def digest_of(image: str) -> str:
    """Return the digest in an image's reference; empty if it has none."""
    match = re.search(r"@(sha256:[0-9a-f]{64})$", image)
    return match[1] if match else ""


def kinds(config: TargetConfig) -> tuple[Kind, ...]:
    """Return the kinds of a slot's objects, in the order in which they are applied."""
    is_google = config.gke is not None and config.gke.health_check_policy
    checked = is_google and config.kubernetes.gateway is not None
    # A cluster without this kind rejects it before anything is written.
    return ("HealthCheckPolicy", *KINDS) if checked else KINDS


def render(
    scope: Scope,
    config: TargetConfig,
    release: Release,
    artifact: Artifact,
    slot: Slot,
    replicas: int,
    *,
    entry: Mapping[str, str] | None = None,
    spool_mb: int | None = None,
) -> list[Manifest]:
    """Return the objects of a slot, in the order in which they are applied.

    Args:
        scope: of the target.
        config: of the target.
        release: that runs there.
        artifact: its image.
        slot: its slot.
        replicas: how many pods.
        entry: annotations of the Service, if it is reached from other clusters.
        spool_mb: the size of a volume for predictions while the database is away; `None` for none.

    Raises:
        ConfigError: the artifact is no image by digest, or there is no replica.
    """
    if artifact.kind != "image" or not digest_of(artifact.location):
        message = f"target {scope.target} runs images by digest, not {artifact.location}"
        hint = "set image.repository, then run `mlship containerize` and `mlship push-to-registry`"
        raise ConfigError(message, hint=hint)
    if replicas < 1:
        message = f"target {scope.target}: replicas is {replicas}"
        raise ConfigError(message, hint="set replicas to 1 or more")
    metadata = {
        "name": scope.object(slot),
        "namespace": config.kubernetes.namespace,
        "labels": _labels(scope, release, slot),
        "annotations": _annotations(release),
    }
    selector = {INSTANCE: scope.name, SLOT: slot}
    template = {
        "metadata": {"labels": metadata["labels"], "annotations": metadata["annotations"]},
        "spec": _pod(config, artifact, slot, selector, spool_mb),
    }
    specs = {
        "HealthCheckPolicy": health.policy(scope.object(slot)),
        "Service": _service(selector, entry),
        "PodDisruptionBudget": budget(selector),
        "HorizontalPodAutoscaler": _autoscaler(scope.object(slot), config, replicas),
        "Deployment": deployment(config, selector, template, replicas),
    }
    objects = [new(kind, metadata, specs[kind]) for kind in kinds(config)]
    return _annotated(objects, "Service", entry or {})


def in_cluster(objects: list[Manifest], cluster: str) -> list[Manifest]:
    """Return the objects of a slot, with the name of its cluster if the target has several."""
    return _annotated(objects, "Deployment", {CLUSTER: cluster} if cluster else {})


def files(manifests: list[Manifest]) -> dict[str, str]:
    """Return manifests as YAML by file name, in the order in which `kubectl apply -f` reads."""
    # Copies: shared parts would become YAML anchors.
    copies = msgspec.json.decode(msgspec.json.encode(manifests))
    return {
        f"{number}-{manifest['kind'].lower()}-{manifest['metadata']['name']}.yaml": yaml.safe_dump(
            manifest, sort_keys=False
        )
        for number, manifest in enumerate(copies, 1)
    }


def _labels(scope: Scope, release: Release, slot: Slot) -> dict[str, str]:
    short = digests.short(release.id)
    return {
        **scope.labels,
        "app.kubernetes.io/version": short,
        "app.kubernetes.io/component": "model",
        SLOT: slot,
        RELEASE: short,
    }


def _annotations(release: Release) -> dict[str, str]:
    return {
        RELEASE: release.id,
        "mlship.dev/release-name": str(release),
        "mlship.dev/commit": release.commit,
    }


def _annotated(objects: list[Manifest], kind: Kind, more: Mapping[str, str]) -> list[Manifest]:
    def annotated(manifest: Manifest) -> Manifest:
        metadata = manifest["metadata"]
        annotations = {**metadata["annotations"], **more}
        return {**manifest, "metadata": {**metadata, "annotations": annotations}}

    return [annotated(each) if each["kind"] == kind else each for each in objects]


def _service(selector: dict[str, str], entry: Mapping[str, str] | None) -> Manifest:
    port = {"name": "http", "port": PORT, "targetPort": "http", "protocol": "TCP"}
    kind = "ClusterIP" if entry is None or NEG in entry else "LoadBalancer"
    return {"type": kind, "selector": selector, "ports": [port]}


def budget(selector: dict[str, str]) -> Manifest:
    """Return the spec of a PodDisruptionBudget."""
    # One at a time, so that a node can be drained with any number of replicas.
    return {
        "maxUnavailable": 1,
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
        "selector": {"matchLabels": selector},
    }


def _autoscaler(name: str, config: TargetConfig, replicas: int) -> Manifest:
    return {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
        # With equal numbers, it never changes the Deployment.
        "minReplicas": replicas,
        "maxReplicas": max(replicas, config.kubernetes.max_replicas or replicas),
        "metrics": [_measure(config.kubernetes.autoscale)],
    }


def _measure(autoscale: AutoscaleConfig) -> Manifest:
    if autoscale.metric is None:
        cpu = {"type": "Utilization", "averageUtilization": autoscale.cpu_percent}
        return {"type": "Resource", "resource": {"name": "cpu", "target": cpu}}
    # A quantity is text.
    mean = {"type": "AverageValue", "averageValue": str(autoscale.in_flight)}
    return {"type": "Pods", "pods": {"metric": {"name": autoscale.metric}, "target": mean}}


def deployment(
    config: TargetConfig, selector: dict[str, str], template: Manifest, replicas: int
) -> Manifest:
    """Return the spec of a Deployment, which replaces a pod only after another is ready."""
    return {
        "replicas": replicas,
        "selector": {"matchLabels": selector},
        "strategy": {
            "type": "RollingUpdate",
            "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1},
        },
        "progressDeadlineSeconds": max(2, math.ceil(config.ready_seconds)),
        "revisionHistoryLimit": 2,
        "template": template,
    }


def secured_pod(config: TargetConfig, selector: dict[str, str]) -> Manifest:
    """Return the spec of an unprivileged pod with time to end, without containers and volumes."""
    own = config.kubernetes
    grace = own.prestop_seconds + math.ceil(config.drain_seconds) + _SPARE_SECONDS
    pod: Manifest = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": grace if grace > _SPARE_SECONDS else 1,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _NOBODY,
            "runAsGroup": _NOBODY,
            "fsGroup": _NOBODY,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": selector},
            }
        ],
    }
    if own.image_pull_secret:
        pod["imagePullSecrets"] = [{"name": own.image_pull_secret}]
    return pod


def secured_container() -> Manifest:
    """Return the security context of a container without any privilege."""
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def _pod(
    config: TargetConfig,
    artifact: Artifact,
    slot: Slot,
    selector: dict[str, str],
    spool_mb: int | None,
) -> Manifest:
    pod = secured_pod(config, selector)
    container = _container(config, artifact, slot)
    pod["containers"] = [container]
    pod["volumes"] = [{"name": "tmp", "emptyDir": {}}, {"name": "log", "emptyDir": {}}]
    if config.kubernetes.api_keys_secret is not None:
        # Optional: without the Secret a pod would wait for ever, and mlship could not say why. So
        # the server does, which accepts no request without its file.
        secret = {"secretName": config.kubernetes.api_keys_secret, "optional": True}
        pod["volumes"].append({"name": "api-keys", "secret": secret})
        mount = {"name": "api-keys", "mountPath": _KEYS, "readOnly": True}
        container["volumeMounts"].append(mount)
        # As an argument: a server of a former version, which knows no keys, does not start.
        container["args"] = ["--api-keys", f"{_KEYS}/{api_keys.FILE}"]
    if spool_mb is not None:
        pod["volumes"].append({"name": "spool", **_spool(config.kubernetes.spool_claim, spool_mb)})
        container["volumeMounts"].append({"name": "spool", "mountPath": _SPOOL})
        variables = {"MLSHIP_SPOOL": _SPOOL, "MLSHIP_SPOOL_MB": str(spool_mb)}
        container["env"] += [{"name": name, "value": value} for name, value in variables.items()]
    return pod


def _spool(claim: str | None, spool_mb: int) -> Manifest:
    if claim is not None:
        return {"persistentVolumeClaim": {"claimName": claim}}
    return {"emptyDir": {"sizeLimit": f"{spool_mb + _SPARE_MB}M"}}


def _container(config: TargetConfig, artifact: Artifact, slot: Slot) -> Manifest:
    own = config.kubernetes
    container: dict[str, Any] = {
        "name": CONTAINER,
        "image": artifact.location,
        "imagePullPolicy": "IfNotPresent",
        # Without permission to read logs, the status has the end of the log.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "ports": [
            {"name": "http", "containerPort": _POD_PORT, "protocol": "TCP"},
            {"name": METRICS, "containerPort": _METRICS_PORT, "protocol": "TCP"},
        ],
        "env": [{"name": name, "value": value} for name, value in _env(config, slot).items()],
        "resources": _resources(own.cpu, own.memory),
        "securityContext": secured_container(),
        "volumeMounts": [
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 (in the pod, a volume of its own)
            {"name": "log", "mountPath": _LOG},
        ],
        **health.probes(config.ready_seconds),
    }
    if own.env_from_secret:
        container["envFrom"] = [{"secretRef": {"name": own.env_from_secret}}]
    if own.prestop_seconds:
        # Requests arrive until every proxy has removed the pod.
        container["lifecycle"] = {"preStop": {"sleep": {"seconds": own.prestop_seconds}}}
    return container


def _env(config: TargetConfig, slot: Slot) -> dict[str, str]:
    # A Secret may set MLSHIP_LOG; `env` would override it.
    log = {} if config.kubernetes.env_from_secret else {"MLSHIP_LOG": _LOG}
    if config.access_log == "json":
        log["MLSHIP_ACCESS_LOG"] = "json"
    own = {"MLSHIP_METRICS_PORT": str(_METRICS_PORT), "MLSHIP_SLOT": slot}
    # Only where it is set: a pod of an earlier version is not replaced for the defaults.
    usual = TargetConfig()
    if config.workers != usual.workers:
        own["MLSHIP_WORKERS"] = str(config.workers)
    if config.timeout_seconds != usual.timeout_seconds:
        own["MLSHIP_TIMEOUT"] = f"{config.timeout_seconds:g}"
    if config.cache_rows != usual.cache_rows:
        own["MLSHIP_CACHE_ROWS"] = str(config.cache_rows)
    return {**log, **dict(sorted(config.kubernetes.env.items())), **own}


def _resources(cpu: str | None, memory: str | None) -> Manifest:
    # No CPU limit: a pod may use the spare CPU of its node.
    wanted = {"cpu": cpu, "memory": memory}
    requests = {name: amount for name, amount in wanted.items() if amount is not None}
    resources = {"requests": requests, "limits": {"memory": memory} if memory else {}}
    return {name: amounts for name, amounts in resources.items() if amounts}
