"""A project whose production is a namespace of the tests' cluster: its releases and its stream.

The images are those that `containerize` makes of bundles that serve.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import yaml

from mlship import wire
from mlship.adapters.checkout import lock
from mlship.adapters.targets.kubernetes.api import Manifest
from mlship.config.backends import StoreConfig
from mlship.config.project import GatesConfig, ImageConfig
from mlship.domain import bundle as bundles
from mlship.domain.evidence import Step
from mlship.domain.release import Release
from mlship.domain.versions import Run
from mlship.errors import MlshipError
from mlship.steps.containerize import containerize
from mlship.steps.deploy import deploy_production
from mlship.steps.pipeline import Pipeline
from mlship.steps.push import push
from tests.fakes.ports import CONFIG
from tests.harness import clusters
from tests.harness.base import compiled
from tests.harness.bundles import iris_bundle
from tests.harness.clusters import REGISTRY, Cluster
from tests.harness.places import Notes
from tests.harness.samples import nothing
from tests.harness.samples import release as sample

PINS = ("msgspec", "numpy", "onnxruntime")
"""Packages of an image that serves the bundle of iris."""
_PATHS = {
    "ConfigMap": "/api/v1/namespaces/{}/configmaps",
    "ServiceAccount": "/api/v1/namespaces/{}/serviceaccounts",
    "Role": "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/roles",
    "RoleBinding": "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/rolebindings",
    "StatefulSet": "/apis/apps/v1/namespaces/{}/statefulsets",
    "HorizontalPodAutoscaler": "/apis/autoscaling/v2/namespaces/{}/horizontalpodautoscalers",
}


def pipeline(
    root: Path,
    place: Cluster,
    environment: Mapping[str, str] = os.environ,
    *,
    secret: str | None = None,
    **sections: Any,
) -> Pipeline:
    """Return a pipeline whose production is a namespace of the cluster.

    Args:
        root: of the project.
        place: the namespace.
        environment: the variables.
        secret: whose entries are variables of the pods.
        sections: of mlship.yaml, such as `stream`.
    """
    own = msgspec.structs.replace(place.kubernetes, env_from_secret=secret)
    production = msgspec.structs.replace(
        place.config, kubernetes=own, challenger_weight=50, ready_seconds=200
    )
    image = ImageConfig(
        repository=f"{REGISTRY}/mlship-tests/iris",
        base=compiled(),
        attach="off",
    )
    given = {"gates": GatesConfig(container=False), **sections}
    config = msgspec.structs.replace(
        CONFIG,
        image=image,
        targets={"production": production},
        store=StoreConfig(kind="directory"),
        **given,
    )
    return wire.assemble(config, root, Notes(), {**environment, "GITHUB_ACTOR": "ada"})


def running(pipeline: Pipeline, accuracy: float, pins: Sequence[str] = PINS) -> Release:
    """Run a release in production, whose bundle serves and whose image is in the registry."""
    folder = pipeline.root / f"bundle-{accuracy}"
    iris_bundle(folder)
    draft = msgspec.structs.replace(
        bundles.read(folder),
        requirements=lock.closure(list(pins)),
        metrics={"accuracy": accuracy},
        files={},
    )
    release = msgspec.structs.replace(sample(str(accuracy)), bundle=bundles.seal(folder, draft))
    pipeline.store.record(Run(release=release, bundle=folder))
    steps: tuple[Step, ...] = ("train", "test", "verify-staging-workload")
    for step in steps:
        pipeline.learn(release, step, "passed", nothing(step))
    containerize(pipeline, release)
    push(pipeline, release)
    deploy_production(pipeline, release)
    return release


def applied(place: Cluster, texts: Mapping[str, str]) -> None:
    """Apply files as `kubectl apply` does, to a namespace in which none of them is."""
    for text in texts.values():
        manifest: Manifest = yaml.safe_load(text)
        place.kubectl("POST", _PATHS[manifest["kind"]].format(place.namespace), json=manifest)


def workers(place: Cluster) -> list[Manifest]:
    """Return the pods of a stream's workers."""
    with place.api() as api:
        return api.list("Pod", {"app.kubernetes.io/component": "stream"})


def log(place: Cluster, pod: Manifest, what: str = "log") -> str:
    """Return what a worker has written."""
    try:
        with place.api() as api:
            return api.text(pod["metadata"]["name"], what)
    except MlshipError as error:
        return error.message


def are_ready(place: Cluster, count: int) -> bool:
    """Tell whether so many workers are ready, as the cluster sees it."""
    pods = [pod.get("status", {}).get("conditions", ()) for pod in workers(place)]
    told = [{each["type"]: each["status"] for each in conditions} for conditions in pods]
    return [each.get("Ready") for each in told].count("True") == count


def until(place: Cluster, condition: Callable[[Sequence[str]], bool], seconds: float = 240) -> None:
    """Wait for a condition of the logs of the workers; if it does not come true, say why."""
    try:
        clusters.until(
            lambda: condition([log(place, pod) for pod in workers(place)] or [""]), seconds=seconds
        )
    except AssertionError as error:
        raise AssertionError(described(place)) from error


def described(place: Cluster) -> str:
    """Return the state, the log and the events of the workers, for the message of a failure."""
    lines = []
    for pod in workers(place):
        states = json.dumps(pod["status"].get("containerStatuses", []), indent=1)
        lines += [pod["metadata"]["name"], states, log(place, pod)]
    events = place.kubectl("GET", f"/api/v1/namespaces/{place.namespace}/events")["items"]
    for event in events:
        name, text = event["involvedObject"]["name"], event.get("message", "")
        lines.append(f"{event.get('lastTimestamp')} {name}: {event['reason']}: {text}")
    return "\n".join(lines)
