"""Failures of the Compute Engine API as errors of mlship.

A request that is refused and an operation that fails have the same shape: a code, and a list of
errors with a reason and a message each.
"""

import re
from typing import Final

import httpx
import msgspec

from mlship.adapters.http.bodies import decoded
from mlship.adapters.http.door import NoAnswerError, tried
from mlship.adapters.http.retries import PUT_OFF
from mlship.errors import (
    ConfigError,
    ConflictError,
    MlshipError,
    NotFoundError,
    UnavailableError,
)

GUIDE: Final = "`mlship guide clusters`"
_PERMISSION = re.compile(r"'(compute\.[A-Za-z]+\.[A-Za-z]+)'")
_DISABLED: Final = ("accessNotConfigured", "SERVICE_DISABLED")
_QUOTA: Final = ("quotaExceeded", "QUOTA_EXCEEDED")
_RATE: Final = ("rateLimitExceeded", "userRateLimitExceeded")
_BUSY: Final = (
    "resourceNotReady",
    "RESOURCE_NOT_READY",
    "resourceInUseByAnotherResource",
    "RESOURCE_IN_USE_BY_ANOTHER_RESOURCE",
)


class Problem(msgspec.Struct, frozen=True):
    """One error of a list. Requests call its kind a reason, operations a code."""

    reason: str = ""
    code: str | int = ""
    message: str = ""

    @property
    def kind(self) -> str:
        """Its kind, such as `quotaExceeded` or `QUOTA_EXCEEDED`."""
        return self.reason or str(self.code)


class Failure(msgspec.Struct, frozen=True):
    """The body of a failure: of a request in `error`, of an operation by itself."""

    code: int = 0
    message: str = ""
    errors: list[Problem] = []
    attempts: str = ""

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds of its errors."""
        return frozenset(problem.kind for problem in self.errors)

    @property
    def text(self) -> str:
        """What Google says."""
        texts = [problem.message for problem in self.errors if problem.message]
        return f"{'; '.join(dict.fromkeys(texts)) or self.message}{self.attempts}"

    @property
    def is_busy(self) -> bool:
        """Whether another operation holds the object, so that a later attempt may succeed."""
        return not self.kinds.isdisjoint(_BUSY)


class _Body(msgspec.Struct, frozen=True):
    error: Failure = Failure()


def failure(response: httpx.Response) -> Failure:
    """Return what a response that is not a success says."""
    try:
        said = decoded(response.content, _Body).error
    except msgspec.DecodeError:
        said = Failure()
    code = response.status_code
    text = said.message or f"answered {code}"
    return Failure(code=code, message=text, errors=said.errors, attempts=tried(response))


def is_put_off(response: httpx.Response) -> bool:
    """Return whether Google defers a request without acting on it; 403 may say that too."""
    if response.status_code in PUT_OFF:
        return True
    return response.status_code == 403 and not failure(response).kinds.isdisjoint(_RATE)


def error_of(found: Failure, what: str, project: str) -> MlshipError:
    """Return the error for a failure.

    Args:
        found: what Google says.
        what: the object, `URL map iris`.
        project: the ID of the Google Cloud project.
    """
    message = f"Google Cloud project {project}: {what}: {found.text}"
    if not found.kinds.isdisjoint(_DISABLED):
        hint = f"`gcloud services enable compute.googleapis.com --project {project}`, then wait a "
        return UnavailableError(message, hint=f"{hint}minute")
    if not found.kinds.isdisjoint(_QUOTA):
        hint = "retire a release that is not needed, or ask for more in IAM & Admin > Quotas"
        return UnavailableError(message, hint=hint)
    if found.is_busy or not found.kinds.isdisjoint(_RATE):
        return UnavailableError(message, hint="wait a minute, then run the command again")
    return _by_code(found, message, project)


def _by_code(found: Failure, message: str, project: str) -> MlshipError:
    match found.code:
        case 400:
            return ConfigError(message, hint=f"compare load_balancer in mlship.yaml with {GUIDE}")
        case 401:
            hint = "log in again: `gcloud auth application-default login`"
            return UnavailableError(message, hint=hint)
        case 403:
            missing = _PERMISSION.search(found.text)
            right = f"the permission {missing[1]}" if missing else "the role of the guide"
            hint = f"grant {right} in project {project} to the account that deploys; see {GUIDE}"
            return UnavailableError(message, hint=hint)
        case 404:
            return NotFoundError(message, hint=f"make it with the commands of {GUIDE}")
        case 409 | 412:
            hint = "look at `mlship status`, then run the command again"
            return ConflictError(message, hint=hint)
    return UnavailableError(message, hint="wait a little, then run the command again")


def unreachable(error: NoAnswerError, project: str) -> MlshipError:
    """Return the error for an API that does not answer."""
    message = f"Google Cloud project {project}: the Compute Engine API does not answer: {error}"
    return UnavailableError(message, hint="check the network, then run the command again")
