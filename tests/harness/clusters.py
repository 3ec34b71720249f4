"""A real cluster for tests: a namespace of its own, and images that behave as told.

TEST_KUBECONFIG names the kubeconfig of a cluster that tests may fill and empty: never one's own by
default. Its Gateway is `gateway` in the namespace `gateway`, and its nodes pull from REGISTRY.
TEST_KUBECONFIG_PRODUCTION names that of another one, for what needs two.
"""

import functools
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import msgspec

from mlship.adapters.images.registry.registries import Registries
from mlship.adapters.targets.kubernetes import Access, KubernetesTarget, LeaseLocks, find
from mlship.adapters.targets.kubernetes.api import Api, Kind, Manifest, connected
from mlship.adapters.targets.kubernetes.manifests import SLOT, Scope
from mlship.adapters.targets.kubernetes.pauses import growing
from mlship.config.project import ImageConfig, TargetConfig
from mlship.config.targets import KubernetesConfig
from mlship.domain import digests
from mlship.domain.deployment import Artifact, Slot, Split, slot_of
from mlship.domain.digests import Digest
from mlship.domain.image import reference
from mlship.domain.release import Release
from mlship.errors import MlshipError
from tests.harness.base import compiled
from tests.harness.images import oci_images
from tests.harness.places import Notes
from tests.harness.services import require

REGISTRY = "localhost:5000"
GATEWAY = "gateway/gateway"
_STAND_INS = Path(__file__).parents[1] / "stand_ins"
_DOCKERFILE = """
COPY runtime.py pod.py /app/tests/stand_ins/
WORKDIR /app
USER 65532
ENTRYPOINT ["python", "-B", "-m", "tests.stand_ins.pod"]
ENV PYTHONUNBUFFERED=1
"""


def kubeconfig(variable: str = "TEST_KUBECONFIG", *, is_plain: bool = False) -> Path:
    """Return the kubeconfig of a cluster of the tests', or skip the test."""
    given = os.environ.get(variable, "")
    require("a cluster", bool(given), f"set {variable} to the kubeconfig of one for tests")
    path = Path(given)
    config = KubernetesConfig(kubeconfig=str(path))
    try:
        with connected(lambda: find(config, {}), "default") as api:
            answers = is_plain or api.get("Gateway", "gateway", "gateway") is not None
            api.list("Pod", {})
    except MlshipError as error:
        require("the cluster", False, error.message)
    require("the cluster", answers, "it has no Gateway `gateway` in the namespace `gateway`")
    return path


def run(*command: str) -> str:
    """Run a program of the test's own and return what it printed."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout.strip()


@functools.cache
def image(name: str, behaviour: str = "{}") -> str:
    """Build and push an image of the stand-in; return its reference by digest."""
    require("Docker", shutil.which("docker") is not None, "install it")
    # Tests that run at the same time may use one name with two behaviours.
    variant = digests.of_bytes(behaviour.encode()).partition(":")[2][:12]
    tag = f"{REGISTRY}/mlship-tests/stand-in:{name}-{variant}"
    with tempfile.TemporaryDirectory() as folder:
        for file in ("runtime.py", "pod.py"):
            shutil.copy(_STAND_INS / file, folder)
        told = behaviour.replace("\\", "\\\\").replace('"', '\\"')
        text = f'FROM {compiled()}{_DOCKERFILE}ENV NAME={name}\nENV BEHAVIOUR="{told}"\n'
        (Path(folder) / "Dockerfile").write_text(text)
        return built(tag, Path(folder))


@functools.cache
def router_image() -> str:
    """Build and push the image of a router as mlship does; return its reference by digest."""
    config = ImageConfig(repository=f"{REGISTRY}/mlship-tests/router", base=compiled())
    with tempfile.TemporaryDirectory() as folder, ExitStack() as held:
        registries = held.enter_context(closing(Registries(config, os.environ)))
        images = oci_images(config, Path(folder), registries, Notes())
        base = registries.base(reference(config.base), config.platforms)
        digest = next(iter(base.values())).reference.digest
        assert digest is not None
        return images.push(images.router(base=digest)).reference


def built(tag: str, folder: Path) -> str:
    """Build and push the image of a folder's Dockerfile; return its reference by digest."""
    run("docker", "build", "--quiet", "--tag", tag, str(folder))
    run("docker", "push", "--quiet", tag)
    return run("docker", "inspect", "--format", "{{index .RepoDigests 0}}", tag)


def artifact(name: str, **behaviour: Any) -> Artifact:
    """Return an image of the stand-in, which behaves as told."""
    location = image(name, json.dumps(behaviour, sort_keys=True))
    digest = Digest(location.partition("@")[2])
    return Artifact(kind="image", digest=digest, location=location)


class Cluster:
    """A namespace of the tests' cluster, with a target in it and what tests do to it."""

    def __init__(self, path: Path, namespace: str, *, is_plain: bool = False) -> None:
        self.path = path
        self.namespace = namespace
        self.notes = Notes()
        self.scope = Scope(project="iris", target="staging")
        self.kubernetes = KubernetesConfig(
            kubeconfig=str(path),
            namespace=namespace,
            gateway=None if is_plain else GATEWAY,
            path=f"/{namespace}",
            cpu=None,
            memory=None,
            # A connection of the router lasts a second, and the nodes hear late that a pod ends:
            # what reaches a pod after its preStop hook is lost, because nothing is sent again.
            prestop_seconds=4 if is_plain else 2,
        )
        self.config = TargetConfig(
            kind="kubernetes", kubernetes=self.kubernetes, ready_seconds=60, drain_seconds=5
        )
        self.target = self.again()

    def access(self) -> Access:
        return find(self.kubernetes, {})

    def again(self, **changes: Any) -> KubernetesTarget:
        """Return the target as another command sees it, with other settings.

        Settings of a cluster's section have the prefix `kubernetes_`.
        """
        prefix = "kubernetes_"
        ours = {
            name.removeprefix(prefix): value
            for name, value in changes.items()
            if name.startswith(prefix)
        }
        own = {name: value for name, value in changes.items() if not name.startswith(prefix)}
        settings = msgspec.structs.replace(self.kubernetes, **ours)
        config = msgspec.structs.replace(self.config, kubernetes=settings, **own)
        return KubernetesTarget(self.scope, config, lambda: find(settings, {}), self.notes)

    def host(self) -> str:
        """Return this machine's address as pods know it: the one that asks the cluster."""
        server = urlsplit(self.access().server)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((str(server.hostname), server.port or 443))
            return str(probe.getsockname()[0])

    def secret(self, name: str, **values: str) -> None:
        """Make a Secret of these keys and values."""
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name},
            "stringData": values,
        }
        self.kubectl("POST", f"/api/v1/namespaces/{self.namespace}/secrets", json=secret)

    def locks(self, holder: str) -> LeaseLocks:
        route: Kind = "ConfigMap" if self.kubernetes.gateway is None else "HTTPRoute"
        return LeaseLocks("iris", self.namespace, self.access, holder, route=route)

    def deploy(self, release: Release, *, replicas: int = 1, **behaviour: Any) -> Slot:
        """Deploy a release in its slot."""
        slot = slot_of(release)
        self.target.deploy(release, self.artifact(slot, **behaviour), slot, replicas=replicas)
        return slot

    def artifact(self, name: str, **behaviour: Any) -> Artifact:
        """Return an image of the stand-in; on a plain cluster, a router comes with it."""
        found = artifact(name, **behaviour)
        is_plain = self.kubernetes.gateway is None
        return msgspec.structs.replace(found, router=router_image()) if is_plain else found

    def route(self, weights: dict[Slot, int], shadow: Slot | None = None) -> None:
        """Set the split from wherever it is."""
        split = Split(weights=weights, shadow=shadow)
        self.target.route(split, expected=self.target.routes().revision)

    @contextmanager
    def api(self) -> Iterator[Api]:
        with connected(self.access, self.namespace) as api:
            yield api

    def kubectl(self, method: str, where: str, **given: Any) -> Any:
        """Ask the API server directly, past the code under test."""
        access = self.access()
        with httpx.Client(base_url=access.server, verify=access.trust, auth=access.auth) as client:
            answer = client.request(method, where, timeout=20, **given)
            assert answer.is_success, answer.text
            return answer.json()

    def pods(self, slot: Slot) -> list[Manifest]:
        with self.api() as api:
            return api.list("Pod", {SLOT: slot})


@contextmanager
def cluster(variable: str = "TEST_KUBECONFIG", *, is_plain: bool = False) -> Iterator[Cluster]:
    """Give a new namespace, and take it away with all that is in it.

    In a plain one the target names no Gateway, and the cluster needs none.
    """
    path = kubeconfig(variable, is_plain=is_plain)
    found = Cluster(path, f"test-{uuid.uuid4().hex[:8]}", is_plain=is_plain)
    with new_namespace(found):
        yield found


@contextmanager
def new_namespace(place: Cluster) -> Iterator[None]:
    """Make the namespace of a cluster, and take it away with all that is in it."""
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": place.namespace}}
    place.kubectl("POST", "/api/v1/namespaces", json=namespace)
    try:
        yield
    finally:
        place.kubectl("DELETE", f"/api/v1/namespaces/{place.namespace}")


def until(condition: Callable[[], bool], *, seconds: float = 20) -> None:
    """Wait for a condition, which is looked at less and less often."""
    deadline, pauses = time.monotonic() + seconds, growing(0.1)
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(next(pauses))
