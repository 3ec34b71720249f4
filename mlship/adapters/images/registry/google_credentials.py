"""Credentials for Google's Artifact Registry, by Application Default Credentials.

These are a user's (`gcloud auth application-default login`), a service account's on Google's
machines, or workload identity in a GitHub job: no key is stored. Docker's own credentials and
MLSHIP_REGISTRY_USER take precedence.
https://cloud.google.com/artifact-registry/docs/docker/authentication
"""

from typing import TYPE_CHECKING, Final

from mlship.adapters.images.registry.credentials import Credential
from mlship.config import installation
from mlship.errors import ConfigError, UnavailableError

if TYPE_CHECKING:
    from google.auth.credentials import Credentials

LOGIN: Final = "`gcloud auth application-default login`, or google-github-actions/auth in a job"
_USER = "oauth2accesstoken"
_SCOPE = "https://www.googleapis.com/auth/cloud-platform"


def credential(host: str) -> Credential:
    """Return an access token as the password that Artifact Registry takes.

    Raises:
        ConfigError: Application Default Credentials or their library are missing.
        UnavailableError: Google did not return a token for them.
    """
    return Credential(user=_USER, password=str(application_default(host).token))


def denied(action: str) -> str:
    """Return the hint for a denied `pull` or `push`."""
    role = "roles/artifactregistry." + ("writer" if action == "push" else "reader")
    return f"grant {role} on the repository to the account in use, check that it exists, or {LOGIN}"


def application_default(host: str) -> "Credentials":
    """Return Application Default Credentials with a new access token.

    Raises:
        ConfigError: Application Default Credentials or their library are missing.
        UnavailableError: Google did not return a token for them.
    """
    try:
        import google.auth
        from google.auth import exceptions
        from google.auth.transport.requests import Request
    except ImportError as error:
        message = f"the library for Google's credentials, which {host} needs, is not installed"
        raise ConfigError(message, hint=installation.hint("gcp")) from error
    try:
        credentials: Credentials = google.auth.default(scopes=[_SCOPE])[0]
        credentials.refresh(Request())  # type: ignore[no-untyped-call]
    except exceptions.DefaultCredentialsError as error:
        message = f"no Application Default Credentials for {host}"
        raise ConfigError(message, hint=LOGIN) from error
    except exceptions.GoogleAuthError as error:
        message = f"Google returned no token for {host}: {str(error)[:200]}"
        raise UnavailableError(
            message, hint="log in again, or check the workload's identity"
        ) from error
    return credentials
