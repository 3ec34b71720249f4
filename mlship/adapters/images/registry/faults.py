"""Failures of a registry as errors of mlship."""

from typing import Any, Literal

import httpx

from mlship.adapters.http.door import NoAnswerError
from mlship.domain.image import DOCKER_HUB, GITHUB, is_google
from mlship.errors import ConflictError, MlshipError, NotFoundError, UnavailableError


def unreachable(error: NoAnswerError, host: str, url: str) -> UnavailableError:
    """Return the error for a registry that does not answer."""
    if error.untrusted is not None or "SSL" in str(error):
        message = f"no trusted connection to registry {host}: {error}"
        hint = "set SSL_CERT_FILE to its certificate authority; "
        hint += f"if it has no TLS, set image.insecure: [{host}]"
        return UnavailableError(message, hint=hint)
    message = f"registry {host} does not answer at {url}: {error}"
    hint = "check its address, the network and the proxy"
    if host == DOCKER_HUB:
        hint += "; `image.base` may name a copy in a registry of your own"
    return UnavailableError(message, hint=f"start it, or {hint}" if _may_be_own(host) else hint)


def _may_be_own(host: str) -> bool:
    """Return whether a reader may run a registry: others' are public services by their names."""
    return host not in (DOCKER_HUB, GITHUB) and not is_google(host)


def log_in(host: str, action: Literal["push", "pull"]) -> str:
    """Return the hint for a registry that denied access."""
    hint = f"`docker login {host}` with an account that has access, "
    hint += "or set MLSHIP_REGISTRY_USER and MLSHIP_REGISTRY_PASSWORD"
    if host == GITHUB:
        right = "write:packages" if action == "push" else "read:packages"
        hint += f"; its password is a token with {right}; a job needs the permission `packages`, "
        hint += "and the package must be connected with the repository: "
        hint += "`mlship guide without-a-server`"
    return hint


def failure(response: httpx.Response, host: str, what: str) -> MlshipError:
    """Return the error for a response that is not a success.

    Args:
        response: is read to its end.
        host: the registry.
        what: the object of the request, `repository team/iris`.
    """
    code, details = words(response)
    if code in ("NAME_UNKNOWN", "NAME_INVALID") or response.status_code == 404:
        message = f"{host} has no {what}{details}"
        return NotFoundError(message, hint="create the repository there, or correct its name")
    if response.status_code in (409, 412) or "immutable" in details.lower():
        message = f"{host} does not allow {what} to be changed{details}"
        hint = "allow tags of the repository to be overwritten, or set another image.repository"
        return ConflictError(message, hint=hint)
    if response.status_code == 429 or response.headers.get("Retry-After"):
        wait = response.headers.get("Retry-After", "some time")
        wait += " s" if wait.isdigit() else ""
        message = f"{host} is busy with {what}: {response.status_code}{details}"
        return UnavailableError(message, hint=f"retry after {wait}")
    message = f"{host} answered {response.status_code} for {what}{details}"
    hint = "check the registry's log, then try again"
    if response.status_code == 413:
        hint = "a proxy in front of the registry limits the size of a request; raise that limit"
    return UnavailableError(message, hint=hint)


def words(response: httpx.Response) -> tuple[str, str]:
    """Return the code of a registry's error, and its text to append to a message."""
    response.read()
    errors = decoded(response).get("errors")
    first = errors[0] if isinstance(errors, list) and errors else {}
    if not isinstance(first, dict) or not first:
        return "", ""
    code, text = str(first.get("code", "")), str(first.get("message", ""))
    return code, f" ({code}: {text[:200]})"


def decoded(response: httpx.Response) -> dict[str, Any]:
    """Return the JSON object of a response, empty if there is none."""
    try:
        document = response.json()
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}
