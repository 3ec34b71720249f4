"""The one door to a cluster: requests to its API server, and the paths of each kind of object."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import httpx
import msgspec

from mlship.adapters.http.clients import Reach, open_client
from mlship.adapters.http.door import Door, NoAnswerError, Terms
from mlship.adapters.http.retries import Patience, Repeat, Timing
from mlship.adapters.targets.kubernetes import answers, faults
from mlship.adapters.targets.kubernetes.access import Access
from mlship.errors import UnavailableError, shown

Kind = Literal[
    "Deployment",
    "Event",
    "Gateway",
    "HealthCheckPolicy",
    "HorizontalPodAutoscaler",
    "HTTPRoute",
    "Lease",
    "Pod",
    "PodDisruptionBudget",
    "Service",
]
Manifest = dict[str, Any]
"""An object of the API, as JSON has it."""


class Place(NamedTuple):
    """The API version of a kind and its plural, as they stand in paths."""

    version: str
    plural: str


PLACES: dict[Kind, Place] = {
    "Deployment": Place("apps/v1", "deployments"),
    "Event": Place("v1", "events"),
    "Gateway": Place("gateway.networking.k8s.io/v1", "gateways"),
    "HealthCheckPolicy": Place("networking.gke.io/v1", "healthcheckpolicies"),
    "HorizontalPodAutoscaler": Place("autoscaling/v2", "horizontalpodautoscalers"),
    "HTTPRoute": Place("gateway.networking.k8s.io/v1", "httproutes"),
    "Lease": Place("coordination.k8s.io/v1", "leases"),
    "Pod": Place("v1", "pods"),
    "PodDisruptionBudget": Place("policy/v1", "poddisruptionbudgets"),
    "Service": Place("v1", "services"),
}


def path(kind: Kind, namespace: str, name: str = "", part: str = "") -> str:
    """Return the path of a kind's objects in a namespace, of one object, or of a part of it."""
    place = PLACES[kind]
    root = "apis" if "/" in place.version else "api"
    parts = [root, place.version, "namespaces", namespace, place.plural, name, part]
    return "/" + "/".join(one for one in parts if one)


def new(kind: Kind, metadata: Manifest, spec: Manifest) -> Manifest:
    """Return an object of a kind, with the version that the table gives."""
    return {
        "apiVersion": PLACES[kind].version,
        "kind": kind,
        "metadata": metadata,
        "spec": spec,
    }


MANAGER = "mlship"
_SILENCE = httpx.Timeout(20, connect=4)
_PATIENCE = Patience(deadline=60, attempts=4, first=0.5, longest=4, longest_asked=30)
_REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


class Api:
    """Objects of one namespace of one cluster. Every method raises errors of mlship only."""

    def __init__(self, door: Door, access: Access, namespace: str) -> None:
        self._door = door
        self._access = access
        self.namespace = namespace

    @property
    def cluster(self) -> str:
        """The cluster for people, `context staging`."""
        return self._access.name

    def get(self, kind: Kind, name: str, namespace: str = "") -> Manifest | None:
        """Return an object, `None` where there is none."""
        answer = self._send("GET", path(kind, namespace or self.namespace, name))
        if answer.status_code == 404 and faults.status(answer) is not None:
            return None
        return self._decoded(answer, f"{kind} {name}", kind)

    def list(self, kind: Kind, labels: Mapping[str, str], **selectors: str) -> list[Manifest]:
        """Return the objects of a kind that have all these labels."""
        wanted = ",".join(f"{name}={value}" for name, value in labels.items())
        params = {"labelSelector": wanted, **selectors}
        answer = self._send("GET", path(kind, self.namespace), params=params)
        found = self._decoded(answer, f"{kind}s", kind, answers.Objects)
        items: list[Manifest] = found.get("items") or []
        return items

    def apply(self, manifest: Manifest, *, dry_run: bool = False) -> Manifest:
        """Make an object have these fields, by server-side apply; return it.

        Fields that others set are left alone; who set one of these gives it up.
        """
        name = manifest["metadata"]["name"]
        answer = self._send(
            "PATCH",
            path(manifest["kind"], self.namespace, name),
            params={**_written(dry_run), "force": "true"},
            body=manifest,
            kind="application/apply-patch+yaml",
            repeat="always",
        )
        return self._decoded(answer, f"{manifest['kind']} {name}", manifest["kind"])

    def create(self, manifest: Manifest, *, dry_run: bool = False) -> Manifest:
        """Make an object that does not exist.

        Raises:
            ConflictError: it exists.
        """
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        where = path(kind, self.namespace)
        answer = self._send("POST", where, params=_written(dry_run), body=manifest)
        return self._decoded(answer, f"{kind} {name}", kind)

    def replace(self, manifest: Manifest, *, dry_run: bool = False) -> Manifest:
        """Write an object that was read and changed, if nobody wrote it since.

        Raises:
            ConflictError: its resourceVersion is not the cluster's.
        """
        name = manifest["metadata"]["name"]
        where = path(manifest["kind"], self.namespace, name)
        answer = self._send("PUT", where, params=_written(dry_run), body=manifest)
        return self._decoded(answer, f"{manifest['kind']} {name}", manifest["kind"])

    def delete(self, kind: Kind, name: str, *, grace: int | None = None) -> None:
        """Take an object away; a Deployment stays until its pods are gone, and says that it goes.

        One that does not exist is no error.
        """
        body: Manifest = {"kind": "DeleteOptions", "apiVersion": "v1"}
        # Others go at once: what lingered could be applied again, and go after that.
        body["propagationPolicy"] = "Foreground" if kind == "Deployment" else "Background"
        if grace is not None:
            body["gracePeriodSeconds"] = grace
        answer = self._send("DELETE", path(kind, self.namespace, name), body=body)
        if answer.status_code != 404 or faults.status(answer) is None:
            self._decoded(answer, f"{kind} {name}", kind, answers.Answer)

    def may(self, kind: Kind, verb: str, namespace: str) -> bool:
        """Tell whether we may do something to all objects of a kind. Nothing is written."""
        place = PLACES[kind]
        asked = {"verb": verb, "resource": place.plural, "namespace": namespace}
        asked["group"] = place.version.rpartition("/")[0]
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": asked},
        }
        answer = self._send("POST", _REVIEWS, body=body, repeat="always")
        found = self._decoded(answer, "access review", "", answers.Review)
        return bool(found["status"]["allowed"])

    def text(self, name: str, part: str, **params: str) -> str:
        """Return a part of a pod as text, `log` or what it answers; empty where there is none."""
        answer = self._send("GET", path("Pod", self.namespace, name, part), params=params)
        found = faults.status(answer) if answer.is_error else None
        return "" if found is not None and found.reason else answer.text.strip()

    def _decoded(
        self,
        answer: httpx.Response,
        what: str,
        kind: str,
        shape: type[answers.Answer] = answers.Object,
    ) -> Manifest:
        if answer.is_error:
            raise faults.refused(answer, self.cluster, what, kind)
        try:
            return answers.read(answer, shape)
        except msgspec.DecodeError as error:
            server = shown(self._access.server)
            message = f"{self.cluster}: {server} is not a Kubernetes API server"
            raise UnavailableError(message, hint="correct the server in the kubeconfig") from error

    def _send(
        self,
        method: str,
        where: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Any = None,
        kind: str = "application/json",
        repeat: Repeat = "idempotent",
    ) -> httpx.Response:
        content = None if body is None else msgspec.json.encode(body)
        request = self._door.client.build_request(
            method, where, params=params, content=content, headers={"Content-Type": kind}
        )
        try:
            return self._door.send(request, repeat=repeat)
        except NoAnswerError as error:
            raise faults.unreachable(error, self.cluster, self._access.server) from error


def _written(dry_run: bool) -> dict[str, str]:  # noqa: FBT001 (it is named by its callers)
    """Return the parameters of a write; a dry run is checked and completed, and not kept."""
    return {"fieldManager": MANAGER, **({"dryRun": "All"} if dry_run else {})}


def _is_of_a_pod(answer: httpx.Response) -> bool:
    """Tell whether a pod answers, not the API server: its 503 is what we want to hear."""
    return "/proxy/" in answer.request.url.path


@contextmanager
def connected(access: Callable[[], Access], namespace: str) -> Iterator[Api]:
    """Open the door; nothing is asked yet.

    Raises:
        ConfigError: the access cannot be made of the settings.
    """
    found = access()
    with open_client(
        Reach(trust=lambda: found.trust, proxy=found.proxy),
        base_url=found.server,
        auth=found.auth,
        timeout=_SILENCE,
    ) as client:
        yield Api(door(client, found.name), found, namespace)


def door(client: httpx.Client, name: str, timing: Timing | None = None) -> Door:
    """Return the door to an API server."""
    terms = Terms(name=name, patience=_PATIENCE, timing=timing or Timing(), is_final=_is_of_a_pod)
    return Door(client, terms)
