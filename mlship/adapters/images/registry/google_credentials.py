"""Credentials for Google's Artifact Registry, by Application Default Credentials.

These are a person's (`gcloud auth application-default login`), a service account's where code runs
on Google's machines, or, in a GitHub job, workload identity: no key is kept anywhere. Docker's own
credentials and MLSHIP_REGISTRY_USER come first where they are set.
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
        ConfigError: there are no Application Default Credentials, or no library for them.
        UnavailableError: Google did not exchange them for a token.
    """
    return Credential(user=_USER, password=str(application_default(host).token))


def denied(action: str) -> str:
    """Return the hint for a denied `pull` or `push`."""
    role = "roles/artifactregistry." + ("writer" if action == "push" else "reader")
    return f"grant {role} on the repository to the account in use, check that it exists, or {LOGIN}"


def application_default(host: str) -> "Credentials":
    """Return Application Default Credentials with a new access token.

    Raises:
        ConfigError: there are no Application Default Credentials, or no library for them.
        UnavailableError: Google did not exchange them for a token.
    """
    try:
        import google.auth
        from google.auth import exceptions
        from google.auth.transport.requests import Request
    except ImportError as error:
        message = f"{host} is Google's, and the library for its credentials is not installed"
        raise ConfigError(message, hint=installation.hint("gcp")) from error
    try:
        found: Credentials = google.auth.default(scopes=[_SCOPE])[0]
        found.refresh(Request())  # type: ignore[no-untyped-call]
    except exceptions.DefaultCredentialsError as error:
        message = f"there are no Application Default Credentials for {host}"
        raise ConfigError(message, hint=LOGIN) from error
    except exceptions.GoogleAuthError as error:
        message = f"Google gave no token for {host}: {str(error)[:200]}"
        raise UnavailableError(
            message, hint="log in again, or check the workload's identity"
        ) from error
    return found
