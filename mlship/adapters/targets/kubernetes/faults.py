"""Failures of the API server as errors of mlship."""

import re

import httpx
import msgspec

from mlship.adapters.http.bodies import decoded
from mlship.adapters.http.door import NoAnswerError
from mlship.errors import (
    ConfigError,
    ConflictError,
    CredentialsError,
    MlshipError,
    NotFoundError,
    UnavailableError,
    shown,
)

_CLASSES: dict[int, type[MlshipError]] = {
    400: ConfigError,
    404: NotFoundError,
    409: ConflictError,
    422: ConfigError,
}
_HINTS = {
    409: "look at `mlship status`, then run the command again",
    422: "correct the target's section `kubernetes` in mlship.yaml",
    429: "wait a little, then run the command again",
}
_CAN = re.compile(
    r'User "(?P<user>[^"]*)" cannot (?P<verb>\w+) resource "(?P<resource>[^"]+)"'
    r'(?: in API group "(?P<group>[^"]*)")?(?:.* in the namespace "(?P<namespace>[^"]*)")?'
)
_ENDING = re.compile(r"new content in namespace (\S+) because it is being terminated")


class Status(msgspec.Struct, frozen=True):
    """The API's own message for a failure; a server without the path has none."""

    message: str = ""
    reason: str = ""


def status(answer: httpx.Response) -> Status | None:
    """Return the Status in a response; `None` for another body."""
    try:
        return decoded(answer.content, Status)
    except msgspec.DecodeError:
        return None


def refused(response: httpx.Response, cluster: str, what: str, kind: str = "") -> MlshipError:
    """Return the error for a response that is not a success.

    Args:
        response: with its body read.
        cluster: for people, `context staging`.
        what: the object of the request, `HTTPRoute iris-staging`.
        kind: of the object; a cluster may lack the kinds of an extension.
    """
    problem = status(response)
    details = problem.message if problem else response.text.strip()[:300]
    code = response.status_code
    if code == 401 or (code == 403 and "system:anonymous" in details):
        message = f"{cluster} does not accept the credentials"
        hint = "log in again; `kubectl auth whoami` with the same context shows more; of users "
        hint += "with one name in several files of KUBECONFIG, the first counts; a service account "
        hint += "ends with its namespace, see `kubectl get namespace`"
        return CredentialsError(message, hint=hint)
    if code == 403:
        return _forbidden(details, cluster, what)
    missing = re.match(r'namespaces "([^"]+)" not found', details)
    if missing:
        message = f"{cluster} has no namespace {missing[1]}"
        hint = f"`kubectl create namespace {missing[1]}`, or correct kubernetes.namespace"
        return NotFoundError(message, hint=hint)
    if code == 404 and problem is None and kind in ("HTTPRoute", "Gateway"):
        return no_gateway_api(cluster)
    if code == 404 and problem is None and kind == "HealthCheckPolicy":
        return _no_health_checks(cluster)
    message = f"{cluster}: {what}: {details or f'answered {code}'}"
    hint = _HINTS.get(code, "look at the cluster's state, then run the command again")
    return _CLASSES.get(code, UnavailableError)(message, hint=hint)


def is_ending(response: httpx.Response) -> bool:
    """Return whether a new object was refused because its namespace is being deleted."""
    problem = status(response)
    return problem is not None and _ENDING.search(problem.message) is not None


def no_gateway_api(cluster: str) -> MlshipError:
    """Return the error for a cluster without the kinds of the Gateway API."""
    message = f"{cluster} has no Gateway API (gateway.networking.k8s.io/v1)"
    hint = "remove kubernetes.gateway, and mlship runs its own load balancer; or install it with "
    hint += "an implementation, https://gateway-api.sigs.k8s.io; on GKE enable it: "
    hint += "`gcloud container clusters update NAME --gateway-api=standard`"
    return UnavailableError(message, hint=hint)


def _no_health_checks(cluster: str) -> MlshipError:
    message = f"{cluster} has no HealthCheckPolicy (networking.gke.io/v1)"
    hint = "for Google's Gateway classes: `gcloud container clusters update NAME "
    hint += "--gateway-api=standard`; with another Gateway set gke.health_check_policy: false"
    return UnavailableError(message, hint=hint)


def unreachable(error: NoAnswerError, cluster: str, server: str) -> MlshipError:
    """Return the error for a server that does not answer."""
    server = shown(server)
    if error.untrusted is not None:
        message = f"{cluster}: no trusted connection to {server}: {error.untrusted}"
        hint = "fetch the kubeconfig again; the cluster's certificates may have changed"
        return UnavailableError(message, hint=hint)
    message = f"{cluster}: {server} does not answer: {error}"
    hint = "check that the cluster runs and that this machine reaches it (network, VPN, firewall)"
    return UnavailableError(message, hint=hint)


def _forbidden(said: str, cluster: str, what: str) -> MlshipError:
    ending = _ENDING.search(said)
    if ending:
        message = f"{cluster}: namespace {ending[1]} is being deleted"
        hint = f"wait until it is gone, `kubectl create namespace {ending[1]}` with its Role, then "
        return UnavailableError(message, hint=f"{hint}run the command again")
    match = _CAN.search(said)
    if match is None:
        message = f"{cluster} forbids {what}: {said}"
        return UnavailableError(message, hint="ask the cluster's administrator, then try again")
    resource = ".".join(part for part in (match["resource"], match["group"]) if part)
    where = f" in namespace {match['namespace']}" if match["namespace"] else ""
    message = f"{cluster} forbids {match['user']} to {match['verb']} {resource}{where}"
    hint = f"ask for a Role with the verb {match['verb']} on {resource}; see the guide's Role"
    return UnavailableError(message, hint=hint)
