"""The repository in Artifact Registry that images are pushed to: looked up, and optionally created.

A push does not create a repository in Google's registry. So it is looked up first, by the name of
the image: `LOCATION-docker.pkg.dev/PROJECT/REPOSITORY/IMAGE`. An account that may push need not
have the permission to look it up: then the push itself shows what is missing.
https://cloud.google.com/artifact-registry/docs/docker/names
"""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from mlship.adapters.images.registry import google_credentials
from mlship.config import installation
from mlship.domain.image import Reference
from mlship.domain.ports import Progress
from mlship.errors import (
    ConfigError,
    MlshipError,
    NotFoundError,
    TimedOutError,
    UnavailableError,
)

if TYPE_CHECKING:
    from google.api_core.exceptions import GoogleAPIError
    from google.auth.credentials import Credentials
    from google.cloud.artifactregistry_v1 import ArtifactRegistryClient, Repository

_HOST = "-docker.pkg.dev"
_API = "artifactregistry.googleapis.com"
_SECONDS = 10.0
_CREATION_SECONDS = 120.0
_PAUSE = 1.0


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """The place of a repository in Google Cloud."""

    project: str
    location: str
    repository: str

    @property
    def parent(self) -> str:
        """The project and location, as in the API."""
        return f"projects/{self.project}/locations/{self.location}"

    def __str__(self) -> str:
        """Return the repository's name in the API."""
        return f"{self.parent}/repositories/{self.repository}"


def place(image: Reference) -> Place | None:
    """Return the place of an image's repository; `None` in other registries.

    Raises:
        ConfigError: the name lacks the repository or the image.
    """
    if not image.registry.endswith(_HOST):
        return None
    project, *rest = image.repository.split("/")
    if "." in project and rest:
        # A project of a domain, `example.com:iris`, cannot have its colon in an image's name.
        project = f"{project}:{rest.pop(0)}"
    if len(rest) < 2:
        message = f"image.repository {image.name} lacks the repository or the image"
        hint = f"set it to {image.registry}/PROJECT/REPOSITORY/IMAGE"
        raise ConfigError(message, hint=hint)
    location = image.registry.removesuffix(_HOST)
    return Place(project=project, location=location, repository=rest[0])


def prepare(
    image: Reference,
    *,
    create: bool,
    progress: Progress,
    client: "Callable[[Credentials], ArtifactRegistryClient] | None" = None,
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Ensure that an image's repository exists. Nothing is done for other registries than Google's.

    Args:
        image: the image to push.
        create: create the repository if it does not exist.
        progress: receives progress notes.
        client: returns a client of the API; by default Google's.
        pause: waits a number of seconds.

    Raises:
        NotFoundError: the repository does not exist, and is not to be created.
        ConfigError: it is not for images; or it is to be created, and there are no credentials.
        UnavailableError: the API does not answer, is not enabled, or denies the creation.
        TimedOutError: it was not created within two minutes.
    """
    wanted = place(image)
    if wanted is None:
        return
    try:
        make = client or _client()
        credentials = google_credentials.application_default(image.registry)
    except (ConfigError, UnavailableError) as error:
        if create:
            raise
        # Docker's credentials may suffice for the push.
        progress.note(f"{wanted} is not looked up: {error.message}")
        return
    with make(credentials) as api:
        repositories = _Repositories(api, wanted, progress, pause)
        repository = repositories.find(instead=create) or (
            repositories.create() if create else None
        )
    if repository is not None:
        _check(repository, wanted)


def _client() -> "Callable[[Credentials], ArtifactRegistryClient]":
    try:
        from google.cloud import artifactregistry_v1
    except ImportError as error:
        message = f"Artifact Registry needs the package {error.name}, which is not installed"
        raise ConfigError(message, hint=installation.hint("gcp")) from error
    return lambda credentials: artifactregistry_v1.ArtifactRegistryClient(credentials=credentials)


class _Repositories:
    """Requests to the API for one repository."""

    def __init__(
        self,
        api: "ArtifactRegistryClient",
        wanted: Place,
        progress: Progress,
        pause: Callable[[float], None],
    ) -> None:
        from google.api_core import exceptions, retry

        self._api = api
        self._wanted = wanted
        self._progress = progress
        self._pause = pause
        self._errors = exceptions
        # A repeated creation fails with AlreadyExists.
        self._retry = retry.Retry(timeout=_SECONDS)

    def find(self, *, instead: bool) -> "Repository | None":
        """Return the repository; `None` without permission, or if it can be created instead."""
        try:
            return self._api.get_repository(
                name=str(self._wanted), retry=self._retry, timeout=_SECONDS
            )
        except self._errors.NotFound as error:
            if instead:
                return None
            raise _missing(self._wanted) from error
        except self._errors.PermissionDenied as error:
            if error.reason == "SERVICE_DISABLED":
                raise self._fault(error) from error
            self._progress.note(f"no permission to look up {self._wanted}")
            return None
        except self._errors.GoogleAPIError as error:
            raise self._fault(error) from error

    def create(self) -> "Repository | None":
        """Create the repository; `None` if it exists now and may not be looked up."""
        from google.cloud import artifactregistry_v1

        described = artifactregistry_v1.Repository(
            format_=artifactregistry_v1.Repository.Format.DOCKER,
            description="Images of models, pushed by mlship",
        )
        try:
            operation = self._api.create_repository(
                parent=self._wanted.parent,
                repository=described,
                repository_id=self._wanted.repository,
                retry=self._retry,
                timeout=_SECONDS,
            )
            waited = 0.0
            while not operation.done():  # type: ignore[no-untyped-call]
                if waited >= _CREATION_SECONDS:
                    message = f"{self._wanted} is not created after {waited:.0f} s"
                    raise TimedOutError(message, hint="push again; the creation goes on")
                self._progress.note(f"creating {self._wanted}: {waited:.0f} s")
                self._pause(_PAUSE)
                waited += _PAUSE
            created: Repository = operation.result()  # type: ignore[no-untyped-call]
        except self._errors.AlreadyExists:
            return self.find(instead=True)
        except self._errors.GoogleAPIError as error:
            raise self._fault(error) from error
        self._progress.note(f"created {self._wanted}")
        return created

    def _fault(self, error: "GoogleAPIError") -> MlshipError:
        wanted, said = self._wanted, _said(error)
        if getattr(error, "reason", None) == "SERVICE_DISABLED":
            message = f"Artifact Registry is not enabled in project {wanted.project}: {said}"
            hint = f"`gcloud services enable {_API} --project {wanted.project}`, then push again"
            return UnavailableError(message, hint=hint)
        if isinstance(error, self._errors.Forbidden):
            message = f"Google denied the creation of {wanted}: {said}"
            hint = "grant roles/artifactregistry.admin in the project to the account in use, or "
            hint += f"ask an administrator to run `{_command(wanted)}`"
            return UnavailableError(message, hint=hint)
        if isinstance(error, self._errors.Unauthorized):
            message = f"Google rejected the credentials for {wanted}: {said}"
            return UnavailableError(message, hint=google_credentials.LOGIN)
        if isinstance(error, self._errors.InvalidArgument):
            message = f"{wanted} is not a valid repository of Artifact Registry: {said}"
            return ConfigError(message, hint="correct image.repository")
        message = f"Artifact Registry does not answer for {wanted}: {said}"
        return UnavailableError(message, hint="push again")


def _check(repository: "Repository", wanted: Place) -> None:
    """Refuse a repository that cannot take images.

    Raises:
        ConfigError: it has another format, or is virtual or remote.
    """
    kinds = type(repository)
    hint = "set image.repository to one of format DOCKER and mode STANDARD_REPOSITORY"
    if repository.format_ != kinds.Format.DOCKER:
        message = f"{wanted} has format {_name(repository.format_)} and cannot store images"
        raise ConfigError(message, hint=hint)
    if repository.mode in (kinds.Mode.VIRTUAL_REPOSITORY, kinds.Mode.REMOTE_REPOSITORY):
        message = f"{wanted} is a {_name(repository.mode)}: nothing can be pushed to it"
        raise ConfigError(message, hint=hint)


def _name(value: object) -> str:
    # A value that this client does not know is a number.
    return str(getattr(value, "name", value))


def _missing(wanted: Place) -> NotFoundError:
    message = f"Artifact Registry has no repository {wanted}"
    hint = f"`{_command(wanted)}`, or set image.create: true"
    return NotFoundError(message, hint=hint)


def _command(wanted: Place) -> str:
    return (
        f"gcloud artifacts repositories create {wanted.repository} --repository-format docker "
        f"--location {wanted.location} --project {wanted.project}"
    )


def _said(error: "GoogleAPIError") -> str:
    return str(getattr(error, "message", "") or error)[:300]
