"""The one door to a cluster: requests to its API server, and the paths of each kind of object."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import httpx
import msgspec

from mlship.adapters.http.clients import Reach, open_client
from mlship.adapters.http.door import Door, NoAnswerError, Terms, tried
from mlship.adapters.http.retries import Patience, Repeat, Timing
from mlship.adapters.targets.kubernetes import answers, faults
from mlship.adapters.targets.kubernetes.access import Access
from mlship.errors import UnavailableError, shown

Kind = Literal[
    "ConfigMap",
    "Deployment",
    "EndpointSlice",
    "Event",
    "Gateway",
    "HealthCheckPolicy",
    "HorizontalPodAutoscaler",
    "HTTPRoute",
    "Lease",
    "NetworkPolicy",
    "Pod",
    "PodDisruptionBudget",
    "Secret",
    "Service",
]
Manifest = dict[str, Any]
"""An object of the API in JSON."""


class Place(NamedTuple):
    """The API version of a kind and its plural, as in paths."""

    version: str
    plural: str


PLACES: dict[Kind, Place] = {
    "ConfigMap": Place("v1", "configmaps"),
    "Deployment": Place("apps/v1", "deployments"),
    "EndpointSlice": Place("discovery.k8s.io/v1", "endpointslices"),
    "Event": Place("v1", "events"),
    "Gateway": Place("gateway.networking.k8s.io/v1", "gateways"),
    "HealthCheckPolicy": Place("networking.gke.io/v1", "healthcheckpolicies"),
    "HorizontalPodAutoscaler": Place("autoscaling/v2", "horizontalpodautoscalers"),
    "HTTPRoute": Place("gateway.networking.k8s.io/v1", "httproutes"),
    "Lease": Place("coordination.k8s.io/v1", "leases"),
    "NetworkPolicy": Place("networking.k8s.io/v1", "networkpolicies"),
    "Pod": Place("v1", "pods"),
    "PodDisruptionBudget": Place("policy/v1", "poddisruptionbudgets"),
    "Secret": Place("v1", "secrets"),
    "Service": Place("v1", "services"),
}


def path(kind: Kind, namespace: str, name: str = "", part: str = "") -> str:
    """Return the path of a kind's objects in a namespace, of one object, or of a part of it."""
    place = PLACES[kind]
    root = "apis" if "/" in place.version else "api"
    parts = [root, place.version, "namespaces", namespace, place.plural, name, part]
    return "/" + "/".join(part for part in parts if part)


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
        self._base = str(door.client.base_url).rstrip("/")
        self.namespace = namespace

    @property
    def cluster(self) -> str:
        """The cluster for people, `context staging`."""
        return self._access.name

    def get(self, kind: Kind, name: str, namespace: str = "") -> Manifest | None:
        """Return an object, `None` if it does not exist."""
        response = self._send("GET", path(kind, namespace or self.namespace, name))
        if response.status_code == 404 and faults.status(response) is not None:
            return None
        return self._decoded(response, f"{kind} {name}", kind)

    def list(self, kind: Kind, labels: Mapping[str, str], **selectors: str) -> list[Manifest]:
        """Return the objects of a kind that have all these labels."""
        wanted = ",".join(f"{name}={value}" for name, value in labels.items())
        params = {"labelSelector": wanted, **selectors}
        response = self._send("GET", path(kind, self.namespace), params=params)
        document = self._decoded(response, f"{kind}s", kind, answers.Objects)
        items: list[Manifest] = document.get("items") or []
        return items

    def apply(self, manifest: Manifest, *, dry_run: bool = False) -> Manifest:
        """Set fields of an object by server-side apply; return the object.

        Other fields keep their values; these fields become ours.
        """
        name = manifest["metadata"]["name"]
        response = self._send(
            "PATCH",
            path(manifest["kind"], self.namespace, name),
            params={**_written(dry_run), "force": "true"},
            body=manifest,
            kind="application/apply-patch+yaml",
            repeat="always",
        )
        return self._decoded(response, f"{manifest['kind']} {name}", manifest["kind"])

    def create(self, manifest: Manifest, *, dry_run: bool = False) -> Manifest:
        """Create an object.

        Raises:
            ConflictError: it exists.
        """
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        where = path(kind, self.namespace)
        response = self._send("POST", where, params=_written(dry_run), body=manifest)
        return self._decoded(response, f"{kind} {name}", kind)

    def replace(self, manifest: Manifest, *, dry_run: bool = False) -> Manifest:
        """Write an object that was read and changed, unless it was changed since.

        If the response to an attempt is lost, the next one conflicts with it: then the object is
        as it was to be, and nothing is wrong.

        Raises:
            ConflictError: its resourceVersion is not the cluster's.
        """
        name = manifest["metadata"]["name"]
        where = path(manifest["kind"], self.namespace, name)
        response = self._send("PUT", where, params=_written(dry_run), body=manifest)
        if response.status_code == 409 and tried(response):
            current = self.get(manifest["kind"], name)
            if current is not None and answers.has(current, manifest):
                return current
        return self._decoded(response, f"{manifest['kind']} {name}", manifest["kind"])

    def annotate(
        self, kind: Kind, name: str, annotations: Mapping[str, str], *, version: str = ""
    ) -> None:
        """Set annotations of an object; one that does not exist is not an error.

        Raises:
            ConflictError: `version` is not its resourceVersion.
        """
        metadata: Manifest = {"annotations": dict(annotations)}
        response = self._send(
            "PATCH",
            path(kind, self.namespace, name),
            params=_written(dry_run=False),
            body={"metadata": {**metadata, "resourceVersion": version} if version else metadata},
            kind="application/merge-patch+json",
            repeat="always",
        )
        if response.status_code != 404 or faults.status(response) is None:
            self._decoded(response, f"{kind} {name}", kind)

    def delete(self, kind: Kind, name: str, *, grace: int | None = None, version: str = "") -> None:
        """Delete an object; a Deployment stays, marked as deleted, until its pods are gone.

        An object that does not exist is not an error.

        Raises:
            ConflictError: `version` is not its resourceVersion.
        """
        body: Manifest = {"kind": "DeleteOptions", "apiVersion": "v1"}
        # Others are deleted at once: a lingering one could be applied again and then vanish.
        body["propagationPolicy"] = "Foreground" if kind == "Deployment" else "Background"
        if grace is not None:
            body["gracePeriodSeconds"] = grace
        if version:
            body["preconditions"] = {"resourceVersion": version}
        response = self._send("DELETE", path(kind, self.namespace, name), body=body)
        if response.status_code != 404 or faults.status(response) is None:
            self._decoded(response, f"{kind} {name}", kind, answers.Answer)

    def may(self, kind: Kind, verb: str, namespace: str, name: str = "") -> bool:
        """Return whether a verb is allowed for an object of a kind, or for all without a name.

        Nothing is written.
        """
        place = PLACES[kind]
        attributes = {"verb": verb, "resource": place.plural, "namespace": namespace}
        attributes["group"] = place.version.rpartition("/")[0]
        attributes |= {"name": name} if name else {}
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        response = self._send("POST", _REVIEWS, body=body, repeat="always")
        review = self._decoded(response, "access review", "", answers.Review)
        return bool(review["status"]["allowed"])

    def is_ending(self) -> bool:
        """Return whether the namespace is being deleted: it takes no new object.

        It is not read, which needs a right outside of it. Nothing is written.
        """
        manifest = new("Service", {"name": MANAGER}, {"ports": [{"port": 80}]})
        where, params = path("Service", self.namespace), _written(dry_run=True)
        return faults.is_ending(self._send("POST", where, params=params, body=manifest))

    def text(self, name: str, part: str, **params: str) -> str:
        """Return a subresource of a pod as text, such as `log`; empty if there is none."""
        response = self._send("GET", path("Pod", self.namespace, name, part), params=params)
        status = faults.status(response) if response.is_error else None
        return "" if status is not None and status.reason else response.text.strip()

    def _decoded(
        self,
        response: httpx.Response,
        what: str,
        kind: str,
        shape: type[answers.Answer] = answers.Object,
    ) -> Manifest:
        if response.is_error:
            raise faults.refused(response, self.cluster, what, kind)
        try:
            return answers.read(response, shape)
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
            method,
            _url(self._base + where),
            params=params,
            content=content,
            headers={"Content-Type": kind},
        )
        try:
            return self._door.send(request, repeat=repeat)
        except NoAnswerError as error:
            raise faults.unreachable(error, self.cluster, self._access.server) from error


@lru_cache(maxsize=1024)
def _url(address: str) -> httpx.URL:
    """Return an address of the cluster as httpx parses it, which takes as long as a request."""
    return httpx.URL(address)


def _written(dry_run: bool) -> dict[str, str]:  # noqa: FBT001 (it is named by its callers)
    """Return the parameters of a write; a dry run is validated and not stored."""
    return {"fieldManager": MANAGER, **({"dryRun": "All"} if dry_run else {})}


def _is_of_a_pod(response: httpx.Response) -> bool:
    """Return whether a pod answers, not the API server: its 503 is not an error."""
    return "/proxy/" in response.request.url.path


@contextmanager
def connected(
    access: Callable[[], Access],
    namespace: str,
    patience: Patience | None = None,
    seconds: float | None = None,
) -> Iterator[Api]:
    """Open a client; nothing is requested yet.

    Args:
        access: how the cluster is reached.
        namespace: of the objects.
        patience: how long a server is waited for.
        seconds: how long it may be silent.

    Raises:
        ConfigError: the settings give no access.
    """
    cluster = access()
    with reached(cluster, seconds) as client:
        yield Api(door(client, cluster.name, patience=patience), cluster, namespace)


def reached(cluster: Access, seconds: float | None = None) -> httpx.Client:
    """Open a client for a cluster; nothing is requested yet."""
    return open_client(
        Reach(trust=lambda: cluster.trust, proxy=cluster.proxy),
        base_url=cluster.server,
        auth=cluster.auth,
        timeout=_SILENCE if seconds is None else httpx.Timeout(seconds),
    )


def door(
    client: httpx.Client,
    name: str,
    timing: Timing | None = None,
    patience: Patience | None = None,
) -> Door:
    """Return the door to an API server."""
    terms = Terms(
        name=name,
        patience=patience or _PATIENCE,
        timing=timing or Timing(),
        is_final=_is_of_a_pod,
    )
    return Door(client, terms)
