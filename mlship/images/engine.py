"""Containers in a Docker engine, each with as little as a served model needs."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from mlship import digests
from mlship.container import Container, Local, Observed
from mlship.errors import ConfigError, IntegrityError, MlshipError, NotFoundError, UnavailableError

if TYPE_CHECKING:
    from docker import DockerClient

LABEL: Final = "mlship.dev/test"
"""On each container that is made here; with its age it tells what a killed run left behind."""

SOCKET: Final = "unix:///var/run/docker.sock"
_LEFT_SECONDS = 3600
_PORT = "8080/tcp"
_LINES = 15


@contextmanager
def connect(
    environment: Mapping[str, str], clock: Callable[[], datetime]
) -> Iterator["DockerEngine"]:
    """Give the engine that DOCKER_HOST names, by default the one behind Docker's socket.

    Raises:
        ConfigError: the package `docker` is missing, or the engine is on another machine.
        UnavailableError: no engine answers there, or it may not be used.
    """
    address = environment.get("DOCKER_HOST") or SOCKET
    try:
        import docker  # noqa: PLC0415 (most commands need no engine)
    except ImportError as error:
        message = "the package docker is not installed"
        raise ConfigError(message, hint="pip install 'mlship[docker]'") from error
    _check_near(address)
    with _faults(address):
        client = docker.from_env(environment=dict(environment))
    with contextlib.closing(client):
        engine = DockerEngine(client, address, clock)
        engine.sweep()
        yield engine


class DockerEngine:
    """Brings images into the engine and runs containers of them: `mlship.container.Engine`."""

    def __init__(self, client: "DockerClient", address: str, clock: Callable[[], datetime]) -> None:
        self._client = client
        self._address = address
        self._clock = clock

    def pull(self, reference: str) -> Local:
        """Return the image of a reference by digest; it is pulled where it is not there."""
        from docker.errors import ImageNotFound, NotFound  # noqa: PLC0415 (see `connect`)

        with _faults(self._address):
            try:
                return _local(self._client.images.get(reference))
            except ImageNotFound:
                pass
            try:
                return _local(self._client.images.pull(reference))
            except NotFound as error:
                message = f"neither the engine nor the registry has {reference}"
                raise NotFoundError(message, hint="`mlship push-to-registry` brings it") from error

    def load(self, archive: Path) -> Local:
        """Return the image of a file that `Images.save` wrote, loaded into the engine."""
        with _faults(self._address), archive.open("rb") as file:
            found = self._client.images.load(file)
            if len(found) != 1:
                message = f"the engine found {len(found)} images in {archive.name}"
                raise IntegrityError(message, hint="`mlship containerize` makes the image again")
            return _local(found[0])

    @contextmanager
    def run(self, image: Local, *, memory: str) -> Iterator[Container]:
        """Run a container of an image; it is removed at the end, whatever happened."""
        with _faults(self._address):
            made = self._client.containers.create(
                image.id,
                labels={LABEL: "container"},
                read_only=True,
                tmpfs={"/tmp": "rw,nosuid,nodev,noexec,size=64m"},  # noqa: S108 (in a container)
                cap_drop=["ALL"],
                security_opt=["no-new-privileges"],
                mem_limit=memory,
                memswap_limit=memory,
                user="65532:65532",
                ports={_PORT: ("127.0.0.1", None)},
            )
        try:
            with _faults(self._address):
                made.start()
                made.reload()
            yield Container(id=made.id, endpoint=_endpoint(made.ports))
        finally:
            with _faults(self._address):
                _remove(made)

    def observe(self, container: Container) -> Observed:
        """Return how a container is, with its last lines."""
        with _faults(self._address):
            return _observed(self._client.containers.get(container.id))

    def stop(self, container: Container, seconds: float) -> Observed:
        """Send SIGTERM, and SIGKILL if it has not ended after so long; return how it ended."""
        with _faults(self._address):
            found = self._client.containers.get(container.id)
            found.stop(timeout=round(seconds))
            return _observed(found)

    def sweep(self) -> None:
        """Remove the containers of runs that were killed: ours, and older than an hour."""
        with _faults(self._address):
            for one in self._client.api.containers(all=True, filters={"label": LABEL}):
                if self._clock().timestamp() - one["Created"] > _LEFT_SECONDS:
                    _remove(self._client.containers.get(one["Id"]))


def _check_near(address: str) -> None:
    parts = urlsplit(address)
    if parts.scheme in ("unix", "npipe", "fd") or parts.hostname in ("localhost", "127.0.0.1"):
        return
    message = f"the engine at {address} is on another machine, whose loopback is out of reach"
    raise ConfigError(message, hint="set DOCKER_HOST to an engine of this machine")


def _local(image: Any) -> Local:
    return Local(id=digests.parse(image.id), size=int(image.attrs["Size"]))


def _endpoint(ports: Mapping[str, Any]) -> str:
    """Return where a container answers; one that ended at once has no port, nor answers."""
    found = ports.get(_PORT) or [{"HostPort": "9"}]
    return f"http://127.0.0.1:{found[0]['HostPort']}"


def _observed(container: Any) -> Observed:
    container.reload()
    state = container.attrs["State"]
    said = container.logs(tail=_LINES).decode("utf-8", "replace")
    return Observed(
        running=bool(state["Running"]),
        exit_code=int(state["ExitCode"]),
        out_of_memory=bool(state["OOMKilled"]),
        lines=tuple(said.splitlines()),
    )


def _remove(container: Any) -> None:
    from docker.errors import APIError, NotFound  # noqa: PLC0415 (see `connect`)

    with contextlib.suppress(NotFound):
        try:
            container.remove(force=True, v=True)
        except APIError as error:
            if error.status_code != 409:  # somebody else is removing it
                raise


@contextmanager
def _faults(address: str) -> Iterator[None]:
    """Turn what the package raises into errors of mlship."""
    from docker.errors import APIError, DockerException  # noqa: PLC0415 (see `connect`)
    from requests.exceptions import RequestException  # noqa: PLC0415 (the same)

    try:
        yield
    except MlshipError:
        raise
    except APIError as error:
        message = f"the Docker engine at {address} refused: {error.explanation or error}"
        raise UnavailableError(message, hint="correct what it names, and run it again") from error
    except (DockerException, RequestException) as error:
        message = f"no Docker engine answers at {address}: {_reason(error)}"
        hint = "start Docker, or set DOCKER_HOST to where it listens (`docker context ls` tells)"
        raise UnavailableError(message, hint=hint) from error


def _reason(error: BaseException) -> str:
    """Return the system's own word in a chain of wrapped errors."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, OSError) and found.strerror:
            return found.strerror
        found = found.__cause__ or found.__context__
    return str(error)
