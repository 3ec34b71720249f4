"""Failures of Cloud KMS as errors of mlship (https://google.aip.dev/193)."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import httpx
import msgspec

from mlship.adapters.http.bodies import decoded
from mlship.adapters.http.door import NoAnswerError, tried
from mlship.errors import ConfigError, MlshipError, NotFoundError, UnavailableError

_LATER: Final = UnavailableError, "wait a little, then run the command again"
_KINDS: Final[Mapping[int, tuple[type[MlshipError], str]]] = MappingProxyType(
    {
        400: (ConfigError, "check MLSHIP_SIGNING_KEY"),
        401: (UnavailableError, "log in again: `gcloud auth application-default login`"),
        403: (
            UnavailableError,
            "grant roles/cloudkms.signerVerifier on the key to the account that runs mlship",
        ),
        404: (NotFoundError, "name a version that exists: `gcloud kms keys versions list`"),
    }
)


class _Detail(msgspec.Struct, frozen=True):
    reason: str = ""


class _Failure(msgspec.Struct, frozen=True):
    message: str = ""
    status: str = ""
    details: list[_Detail] = []


class _Body(msgspec.Struct, frozen=True):
    error: _Failure = _Failure()


def error_of(response: httpx.Response, name: str, project: str) -> MlshipError:
    """Return the error for a response that is no success.

    Args:
        response: of the API.
        name: of the key version.
        project: the ID of the Google Cloud project.
    """
    try:
        found = decoded(response.content, _Body).error
    except msgspec.DecodeError:
        found = _Failure()
    said = found.message[:400] or f"answered {response.status_code}"
    message = f"key version {name}: {said}{tried(response)}"
    kind, hint = _KINDS.get(response.status_code, _LATER)
    if any(detail.reason == "SERVICE_DISABLED" for detail in found.details):
        enable = f"`gcloud services enable cloudkms.googleapis.com --project {project}`"
        kind, hint = UnavailableError, f"{enable}, then wait a minute"
    elif found.status == "FAILED_PRECONDITION":
        # Disabled, destroyed, not made yet, or of another purpose: the text says which.
        hint = "enable the version, or name another one in MLSHIP_SIGNING_KEY"
    return kind(message, hint=hint)


def unreachable(error: NoAnswerError, name: str) -> MlshipError:
    """Return the error for an API that does not answer."""
    message = f"key version {name}: Cloud KMS does not answer: {error}"
    return UnavailableError(message, hint="check the network, then run the command again")
