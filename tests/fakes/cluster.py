"""A small API server in memory: objects that are written are rolled out at once.

A Deployment gets ready pods, a Service of type LoadBalancer an address. Without `answers`, nothing
is answered, as by a cluster that is gone.
"""

import itertools
import json
import pickle
import ssl
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import httpx
import pytest

from mlship.adapters.http.clients import Reach, open_client
from mlship.adapters.http.retries import Patience
from mlship.adapters.targets.kubernetes import (
    ClustersTarget,
    applied,
    gateway,
    reach,
    router,
    router_pods,
)
from mlship.adapters.targets.kubernetes.access import Access
from mlship.adapters.targets.kubernetes.api import PLACES, Api, door
from mlship.adapters.targets.kubernetes.manifests import Scope
from mlship.adapters.targets.kubernetes.members import Member
from mlship.config.placement import ClusterConfig
from mlship.config.project import TargetConfig
from mlship.config.targets import KubernetesConfig
from mlship.domain.deployment import Artifact, Deployment, Slot, Split, slot_of
from mlship.domain.digests import Digest
from mlship.domain.release import Release
from tests.harness.places import Notes

_KINDS = {place.plural: kind for kind, place in PLACES.items()}
_EXITED = {"state": {"terminated": {"exitCode": 1}}, "restartCount": 9}
"""The state of a container that keeps exiting; it counts for pods only that are not ready."""
_ENDING = (
    'services "mlship" is forbidden: unable to create new content in namespace iris because it is '
    "being terminated"
)
_QUICKLY = Patience(deadline=1, attempts=1)


class KilledError(BaseException):
    """The process that writes is killed."""


class FakeApiServer:
    """The objects of one namespace, by plural and name.

    Its namespace takes no new object if it `is_ending`; `forbidden` has rights: `patch pods`.
    Pods of the images in `broken` keep exiting. `limit` is called for each write, and once more
    after it; it may raise `KilledError`.
    """

    def __init__(self, name: str, address: str = "") -> None:
        self.name = name
        self.answers = True
        self.gives_addresses = True
        self.is_ending = False
        self.forbidden: set[str] = set()
        self.objects: dict[tuple[str, str], dict[str, Any]] = {}
        self.writes: list[str] = []
        self.access = Access(
            name=f"context {name}",
            server=f"https://{address or name}",
            trust=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
        )
        self.broken: set[str] = set()
        self.limit: Callable[[], None] = lambda: None
        self._version = 0

    @contextmanager
    def connected(self) -> Iterator[Api]:
        transport = httpx.MockTransport(self._respond)
        with open_client(Reach(transport=transport), base_url=self.access.server) as client:
            yield Api(door(client, self.name, patience=_QUICKLY), self.access, "iris")

    def install_gateway(self, gateway_class: str = "contour") -> None:
        """Add the Gateway `iris/gateway`."""
        self.objects["gateways", "gateway"] = {
            "kind": "Gateway",
            "apiVersion": PLACES["Gateway"].version,
            "metadata": {"name": "gateway"},
            "spec": {
                "gatewayClassName": gateway_class,
                "listeners": [{"protocol": "HTTP", "port": 80}],
            },
            "status": {"addresses": [{"value": "10.0.1.1"}]},
        }

    def keep_certificate(self, folder: Path, name: str, kind: str = "kubernetes.io/tls") -> None:
        """Add a Secret with the certificate and the key in a folder; see `harness.certificates`."""
        files = {"tls.crt": folder / "certificate.pem", "tls.key": folder / "key.pem"}
        data = {key: b64encode(file.read_bytes()).decode() for key, file in files.items()}
        self.objects["secrets", name] = {
            "kind": "Secret",
            "apiVersion": "v1",
            "type": kind,
            "metadata": {"name": name},
            "data": data,
        }

    def names(self, plural: str) -> set[str]:
        """Return the names of all objects of a kind."""
        return {name for kind, name in self.objects if kind == plural}

    def _respond(self, request: httpx.Request) -> httpx.Response:
        if not self.answers:
            raise httpx.ConnectTimeout("timed out", request=request)
        if request.url.path.endswith("selfsubjectaccessreviews"):
            return self._reviewed(json.loads(request.content)["spec"]["resourceAttributes"])
        _, _, rest = request.url.path.partition("/namespaces/iris/")
        plural, _, name = rest.partition("/")
        body = json.loads(request.content) if request.content else {}
        if request.method == "GET":
            return self._read(plural, name, request.url.params.get("labelSelector", ""))
        is_merge = request.headers["content-type"] == "application/merge-patch+json"
        name = name or body["metadata"]["name"]
        if self.is_ending and request.method == "POST":
            return self._refused(403, "Forbidden", _ENDING)
        if "dryRun" in request.url.params:
            kept, made = self._version, self._filled(plural, body)
            self._version = kept
            return self._of(made)
        # A command makes kubelets read the route again by changing an annotation of pods.
        self.writes += [f"{request.method} {plural}/{name}"] if plural != "pods" else []
        self.limit()
        response = self._write(request.method, plural, name, body, is_merge=is_merge)
        self.limit()
        return response

    def _read(self, plural: str, name: str, selector: str) -> httpx.Response:
        if name:
            found = self.objects.get((plural, name))
            return self._of(found) if found else self._refused(404, "NotFound")
        wanted = dict(pair.split("=") for pair in selector.split(",") if pair)
        items = [
            each
            for (kind, _), each in sorted(self.objects.items())
            if kind == plural and wanted.items() <= each["metadata"].get("labels", {}).items()
        ]
        return self._of(
            {"kind": f"{_KINDS[plural]}List", "apiVersion": "v1", "metadata": {}, "items": items}
        )

    def _write(
        self, method: str, plural: str, name: str, body: Any, *, is_merge: bool
    ) -> httpx.Response:
        found = self.objects.get((plural, name))
        if method == "DELETE":
            self.objects.pop((plural, name), None)
            self._pods(name, {})
            return self._of(found) if found else self._refused(404, "NotFound")
        if method == "POST" and found:
            return self._refused(409, "AlreadyExists")
        versions = (found or {}).get("metadata", {}), body.get("metadata", {})
        if method == "PUT" and len({each.get("resourceVersion") for each in versions}) > 1:
            return self._refused(409, "Conflict")
        if is_merge and found:
            marks = {**found["metadata"].get("annotations", {}), **body["metadata"]["annotations"]}
            body = {**found, "metadata": {**found["metadata"], "annotations": marks}}
        self.objects[plural, name] = self._filled(plural, body)
        if plural == "deployments":
            self._pods(name, self.objects[plural, name])
        return self._of(self.objects[plural, name])

    def _filled(self, plural: str, body: Any) -> dict[str, Any]:
        """Return an object as the cluster completes it."""
        self._version += 1
        metadata = {"namespace": "iris", "uid": "0123456789", **body["metadata"]}
        metadata |= {"resourceVersion": str(self._version), "generation": self._version}
        status: dict[str, Any] = {}
        if plural == "deployments":
            counts = ("replicas", "updatedReplicas", "availableReplicas")
            status = dict.fromkeys(counts, body["spec"]["replicas"])
            status["observedGeneration"] = self._version
        is_balanced = plural == "services" and body["spec"].get("type") == "LoadBalancer"
        if is_balanced and self.gives_addresses:
            known = self.objects.get((plural, metadata["name"]), {}).get("status", {})
            given = {"loadBalancer": {"ingress": [{"ip": f"10.0.0.{self._version}"}]}}
            status = known if "loadBalancer" in known else given
        if plural == "httproutes":
            accepted = [
                {"type": kind, "status": "True", "observedGeneration": self._version}
                for kind in ("Accepted", "ResolvedRefs")
            ]
            (parent,) = body["spec"]["parentRefs"]
            status["parents"] = [{"parentRef": parent, "conditions": accepted}]
        return {**body, "metadata": metadata, "status": status}

    def _pods(self, name: str, deployment: dict[str, Any]) -> None:
        for key in [key for key in self.objects if key[0] == "pods" and key[1].startswith(name)]:
            del self.objects[key]
        for number in range(deployment.get("spec", {}).get("replicas", 0)):
            template = deployment["spec"]["template"]
            image = template["spec"]["containers"][0]["image"]
            self.objects["pods", f"{name}-{number}"] = {
                "kind": "Pod",
                "apiVersion": "v1",
                "metadata": {
                    "name": f"{name}-{number}",
                    "uid": f"{self._version}-{number}",
                    **template["metadata"],
                },
                "spec": {"terminationGracePeriodSeconds": 0},
                "status": {
                    "phase": "Running",
                    "conditions": [{"type": "Ready", "status": str(image not in self.broken)}],
                    "containerStatuses": [{**_EXITED, "imageID": image, "image": image}],
                },
            }

    def _of(self, document: dict[str, Any]) -> httpx.Response:
        return httpx.Response(200, json=document)

    def _refused(self, code: int, reason: str, message: str = "") -> httpx.Response:
        return httpx.Response(code, json={"message": message or reason.lower(), "reason": reason})

    def _reviewed(self, right: dict[str, str]) -> httpx.Response:
        allowed = f"{right['verb']} {right['resource']}" not in self.forbidden
        return self._of({"kind": "Review", "apiVersion": "v1", "status": {"allowed": allowed}})


class FakeMember(Member):
    """A cluster of a target, in memory."""

    def __init__(self, server: FakeApiServer, target: TargetConfig) -> None:
        super().__init__(server.name, target, lambda: server.access)
        self.server = server

    @contextmanager
    def connected(self, *, quickly: bool = False) -> Iterator[Api]:
        del quickly
        with self.server.connected() as api:
            yield api


SCOPE = Scope(project="iris", target="production")
DIGEST = Digest(f"sha256:{'a' * 64}")
IMAGE = Artifact(
    kind="image",
    digest=DIGEST,
    location=f"registry.example/iris@{DIGEST}",
    router=f"registry.example/iris@sha256:{'b' * 64}",
)


class World:
    """Clusters in memory, and the target over them; `gateway` is that of the parent's cluster."""

    def __init__(self, *names: str, gateway: str | None = None, **settings: Any) -> None:
        self.servers = {name: FakeApiServer(name) for name in names or ("blue", "green")}
        self._gateway = gateway
        for server in self.servers.values():
            server.install_gateway()
        self.target = self.again(**settings)

    def again(self, **settings: Any) -> ClustersTarget:
        """Return the target with other settings; `edge` runs no releases."""
        clusters = {
            name: ClusterConfig(context=name, releases=name != "edge")
            for name in settings.pop("names", self.servers)
        }
        config = TargetConfig(
            kind="kubernetes",
            kubernetes=KubernetesConfig(
                namespace="iris",
                service=settings.pop("service", "ClusterIP"),
                gateway=self._gateway,
                tls_secret=settings.pop("tls_secret", None),
            ),
            clusters=clusters,
            **settings,
        )
        members = [FakeMember(self.servers[name], config) for name in clusters]
        return ClustersTarget(SCOPE, config, members, Notes())

    def saved(self) -> bytes:
        """Return what is in the clusters, for worlds that are made alike; see `restored`."""
        states = [(each.objects, each.writes, each._version) for each in self.servers.values()]
        return pickle.dumps(states)

    def restored(self, saved: bytes) -> Self:
        """Put what was saved into the clusters: quicker than to deploy it again for each test."""
        for server, state in zip(self.servers.values(), pickle.loads(saved), strict=True):  # noqa: S301
            server.objects, server.writes, server._version = state
        return self

    def deploy(self, made: Release, *, replicas: int = 1) -> Deployment:
        return self.target.deploy(made, IMAGE, slot_of(made), replicas=replicas)

    def route(self, *shares: tuple[Release, int], shadow: Slot | None = None) -> None:
        split = Split(weights={slot_of(made): share for made, share in shares}, shadow=shadow)
        self.target.route(split, expected=self.target.routes().revision)

    def addresses(self, made: Release) -> list[str]:
        """Return the addresses of a slot at the parent, the first priority first."""
        (found,) = [
            each["load_assignment"]["endpoints"]
            for each in self.parents_clusters()
            if each["name"] == slot_of(made)
        ]
        return [
            each["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]["address"]
            for each in sorted(found, key=lambda each: int(each.get("priority", 0)))
        ]

    def limit(self, before_write: Callable[[], None]) -> None:
        """Call something before and after each write, which may end the command there."""
        for server in self.servers.values():
            server.limit = before_write

    def parents_clusters(self) -> list[dict[str, Any]]:
        server = self.servers[self.target._parent.name]
        files = server.objects["configmaps", "iris-production-router"]["data"]
        found: list[dict[str, Any]] = json.loads(files["clusters.json"])["resources"]
        return found


def kill_at_every_write(world: World, act: Callable[[], object]) -> int:
    """Run something, killed one write later each time, until it completes; return the kills."""
    for kills in itertools.count():
        left = iter(range(kills))

        def limit(left: Iterator[int] = left) -> None:
            if next(left, None) is None:
                raise KilledError

        world.limit(limit)
        try:
            act()
        except KilledError:
            continue
        return kills
    raise AssertionError


def contested(made: World, champion: Release, challenger: Release, replicas: int = 2) -> bytes:
    """Deploy a champion, and a challenger with 10 %; return what that wrote.

    Tests begin with copies of it, which `World.restored` makes.
    """
    with pytest.MonkeyPatch.context() as patch:
        at_once(patch)
        made.deploy(champion, replicas=replicas)
        made.route((champion, 100))
        made.deploy(challenger)
        made.route((champion, 90), (challenger, 10))
        return made.saved()


def at_once(patch: pytest.MonkeyPatch) -> None:
    """Let a load balancer apply each route at once, and reach every slot.

    Args:
        patch: the one of the test: what it replaces too is put back in the opposite order.
    """
    patch.setattr(applied, "wait", lambda *_: True)
    patch.setattr(router.Traffic, "reaches", lambda *_: True)
    patch.setattr(gateway.Traffic, "reaches", lambda *_: True)
    patch.setattr(reach, "ARRIVE_SECONDS", 0.3)
    for pause in ("_WARM_SECONDS", "_PAUSE"):
        patch.setattr(router, pause, 0.0)
    for pause in ("_NUDGE_SECONDS", "_PAUSE"):
        patch.setattr(router_pods, pause, 0.0)
