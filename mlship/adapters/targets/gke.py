"""The target `gke`: a Kubernetes target with the address, certificate and token from Google.

Credentials are Application Default Credentials: workload identity in a job, the account of
`gcloud auth application-default login` on a laptop.
"""

import base64
import ssl
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

import httpx

from mlship.adapters.targets.kubernetes import Access
from mlship.config import installation
from mlship.config.targets import GkeConfig
from mlship.errors import ConfigError, MlshipError, NotFoundError, UnavailableError

if TYPE_CHECKING:
    from google.auth.credentials import Credentials
    from google.cloud.container_v1 import ClusterManagerClient

_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_SECONDS = 20.0
_LOGIN = "in a job use google-github-actions/auth, on a laptop "
_LOGIN += "`gcloud auth application-default login`"


class GoogleToken(httpx.Auth):
    """A Google access token, renewed before it expires."""

    def __init__(self, credentials: "Credentials") -> None:
        self._credentials = credentials

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response]:
        """Add a valid token.

        Raises:
            UnavailableError: Google returns none.
        """
        from google.auth.exceptions import GoogleAuthError
        from google.auth.transport.requests import Request

        try:
            if not self._credentials.valid:
                self._credentials.refresh(Request())  # type: ignore[no-untyped-call]
        except GoogleAuthError as error:
            message = f"cannot get an access token from Google: {error}"
            raise UnavailableError(message, hint=_LOGIN) from error
        request.headers["Authorization"] = f"Bearer {self._credentials.token}"
        yield request


def find(
    config: GkeConfig,
    *,
    credentials: "Callable[[], Credentials] | None" = None,
    client: "Callable[[Credentials], ClusterManagerClient] | None" = None,
) -> Access:
    """Return the access to a GKE cluster.

    Args:
        config: project, location and name of the cluster.
        credentials: returns credentials; by default Application Default Credentials.
        client: returns a client of the API; by default Google's.

    Raises:
        ConfigError: google-cloud-container is not installed, or there are no credentials.
        NotFoundError: the cluster does not exist.
        UnavailableError: Google does not answer or denies access, or the cluster has no address
            yet.
    """
    try:
        from google.api_core import exceptions
        from google.auth.exceptions import GoogleAuthError
        from google.cloud import container_v1
    except ImportError as error:
        message = f"a target of kind gke needs the package {error.name}, which is not installed"
        raise ConfigError(message, hint=installation.hint("gcp")) from error
    name = f"projects/{config.project}/locations/{config.location}/clusters/{config.cluster}"
    try:
        own_credentials = (credentials or _default)()
        clusters = (
            client(own_credentials)
            if client
            else container_v1.ClusterManagerClient(credentials=own_credentials)
        )
        # The client itself retries within this time.
        cluster = clusters.get_cluster(name=name, timeout=_SECONDS)
    except GoogleAuthError as error:
        message = f"no credentials for Google Cloud: {error}"
        raise ConfigError(message, hint=_LOGIN) from error
    except exceptions.GoogleAPIError as error:
        raise _fault(error, name) from error
    return _access(cluster, config, own_credentials)


def token(credentials: "Callable[[], Credentials] | None" = None) -> GoogleToken:
    """Return the token for requests to Google's APIs.

    Args:
        credentials: returns credentials; by default Application Default Credentials.

    Raises:
        ConfigError: google-auth is not installed, or there are no credentials.
    """
    try:
        from google.auth.exceptions import GoogleAuthError
    except ImportError as error:
        message = f"Google's APIs need the package {error.name}, which is not installed"
        raise ConfigError(message, hint=installation.hint("gcp")) from error
    try:
        return GoogleToken((credentials or _default)())
    except GoogleAuthError as error:
        message = f"no credentials for Google Cloud: {error}"
        raise ConfigError(message, hint=_LOGIN) from error


def _default() -> "Credentials":
    import google.auth

    credentials, _ = google.auth.default(scopes=[_SCOPE])
    return credentials


def _access(cluster: Any, config: GkeConfig, credentials: "Credentials") -> Access:
    if not cluster.endpoint:
        message = f"cluster {config.cluster} of {config.project} has no address yet"
        raise UnavailableError(message, hint="wait until it is created, then run the command again")
    authority = base64.b64decode(cluster.master_auth.cluster_ca_certificate).decode()
    return Access(
        name=f"cluster {config.cluster} of {config.project}",
        server=f"https://{cluster.endpoint}",
        trust=ssl.create_default_context(cadata=authority),
        auth=GoogleToken(credentials),
    )


def _fault(error: Exception, name: str) -> MlshipError:
    from google.api_core import exceptions

    details = getattr(error, "message", "") or str(error)
    if isinstance(error, exceptions.NotFound):
        message = f"Google has no cluster {name}: {details}"
        hint = "`gcloud container clusters list` lists them; correct the target's section gke"
        return NotFoundError(message, hint=hint)
    if isinstance(error, exceptions.Forbidden | exceptions.Unauthorized):
        message = f"no permission to read {name}: {details}"
        hint = "grant roles/container.clusterViewer to the account that deploys; its rights within "
        return UnavailableError(message, hint=f"{hint}the cluster are a Role, see the guide")
    message = f"Google's cluster API does not answer for {name}: {details}"
    return UnavailableError(message, hint="run the command again")
