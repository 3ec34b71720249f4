"""Failures of a registry as errors of mlship."""

from typing import Any

import httpx

from mlship.adapters.http.door import NoAnswerError
from mlship.errors import ConflictError, MlshipError, NotFoundError, UnavailableError


def unreachable(error: NoAnswerError, host: str, url: str) -> UnavailableError:
    """Return the error for a registry that does not answer."""
    if error.untrusted is not None or "SSL" in str(error):
        message = f"no trusted connection to registry {host}: {error}"
        hint = "set SSL_CERT_FILE to its certificate authority; "
        hint += f"where it speaks no TLS at all, image.insecure: [{host}]"
        return UnavailableError(message, hint=hint)
    message = f"registry {host} does not answer at {url}: {error}"
    return UnavailableError(message, hint="start it, or check its address and the network")


def failure(answer: httpx.Response, host: str, what: str) -> MlshipError:
    """Return the error for a response that is not a success.

    Args:
        answer: is read to its end.
        host: the registry.
        what: the object of the request, `repository team/iris`.
    """
    code, told = words(answer)
    if code in ("NAME_UNKNOWN", "NAME_INVALID") or answer.status_code == 404:
        message = f"{host} has no {what}{told}"
        return NotFoundError(message, hint="create the repository there, or correct its name")
    if answer.status_code in (409, 412) or "immutable" in told.lower():
        message = f"{host} does not allow {what} to be changed{told}"
        hint = "let the repository's tags be overwritten, or set image.repository to another"
        return ConflictError(message, hint=hint)
    if answer.status_code == 429 or answer.headers.get("Retry-After"):
        wait = answer.headers.get("Retry-After", "some time")
        wait += " s" if wait.isdigit() else ""
        message = f"{host} is busy with {what}: {answer.status_code}{told}"
        return UnavailableError(message, hint=f"retry after {wait}")
    message = f"{host} answered {answer.status_code} for {what}{told}"
    hint = "check the registry's log, then try again"
    if answer.status_code == 413:
        hint = "a proxy in front of the registry limits the size of a request; raise that limit"
    return UnavailableError(message, hint=hint)


def words(answer: httpx.Response) -> tuple[str, str]:
    """Return the code of a registry's error, and its words to be put after a message."""
    answer.read()
    errors = decoded(answer).get("errors")
    first = errors[0] if isinstance(errors, list) and errors else {}
    if not isinstance(first, dict) or not first:
        return "", ""
    code, told = str(first.get("code", "")), str(first.get("message", ""))
    return code, f" ({code}: {told[:200]})"


def decoded(answer: httpx.Response) -> dict[str, Any]:
    """Return the JSON of an answer, empty where it has none."""
    try:
        found = answer.json()
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
