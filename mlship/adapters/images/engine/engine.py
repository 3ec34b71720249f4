"""Containers in a Docker engine, with only the privileges that a served model needs."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from mlship.adapters.images.engine import client
from mlship.adapters.images.engine.client import faults
from mlship.domain import digests
from mlship.domain.container import Container, Local, Observed
from mlship.errors import ConfigError, IntegrityError, NotFoundError

if TYPE_CHECKING:
    from docker import DockerClient

LABEL: Final = "mlship.dev/test"
"""Label of each container of mlship, which identifies leftovers of killed runs."""

_LEFT_SECONDS = 3600
_PORT = "8080/tcp"
_LINES = 15


@contextmanager
def connect(
    environment: Mapping[str, str], clock: Callable[[], datetime]
) -> Iterator["DockerEngine"]:
    """Connect to the engine at DOCKER_HOST, by default at Docker's socket.

    Raises:
        ConfigError: the package `docker` is missing, or the engine is on another machine.
        UnavailableError: no engine answers there, or access is denied.
    """
    address = client.address(environment)
    _check_near(address)
    with client.opened(environment) as opened:
        engine = DockerEngine(opened, address, clock)
        engine.sweep()
        yield engine


def look(environment: Mapping[str, str]) -> str:
    """Return the version and the address of the engine. Starts and removes nothing.

    Raises:
        ConfigError: the package `docker` is missing, or the engine is on another machine.
        UnavailableError: no engine answers, or access is denied.
    """
    address = client.address(environment)
    _check_near(address)
    with client.opened(environment) as opened, faults(address):
        return f"Docker {opened.version()['Version']} at {address}"


class DockerEngine:
    """Loads images into the engine and runs containers: `ports.Engine`."""

    def __init__(self, client: "DockerClient", address: str, clock: Callable[[], datetime]) -> None:
        self._client = client
        self._address = address
        self._clock = clock

    def pull(self, reference: str) -> Local:
        """Return the image of a reference by digest; pull it if the engine does not have it."""
        from docker.errors import ImageNotFound, NotFound

        with faults(self._address):
            try:
                return _local(self._client.images.get(reference))
            except ImageNotFound:
                pass
            try:
                return _local(self._client.images.pull(reference))
            except NotFound as error:
                message = f"image {reference} not found, neither in the engine nor in the registry"
                hint = "run `mlship push-to-registry` to push it"
                raise NotFoundError(message, hint=hint) from error

    def load(self, archive: Path) -> Local:
        """Load the image in a file that `Images.save` wrote into the engine."""
        with faults(self._address), archive.open("rb") as file:
            images = self._client.images.load(file)
            if len(images) != 1:
                message = f"{archive.name} contains {len(images)} images, expected one"
                raise IntegrityError(message, hint="run `mlship containerize` again")
            return _local(images[0])

    @contextmanager
    def run(self, image: Local, *, memory: str) -> Iterator[Container]:
        """Run a container of an image; it is always removed at the end."""
        with faults(self._address):
            container = self._client.containers.create(
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
            with faults(self._address):
                container.start()
                container.reload()
            yield Container(id=container.id, endpoint=_endpoint(container.ports))
        finally:
            with faults(self._address):
                _remove(container)

    def observe(self, container: Container) -> Observed:
        """Return the state of a container, with the last lines of its log."""
        with faults(self._address):
            return _observed(self._client.containers.get(container.id))

    def stop(self, container: Container, seconds: float) -> Observed:
        """Send SIGTERM, and SIGKILL after `seconds`; return how the container ended."""
        with faults(self._address):
            running = self._client.containers.get(container.id)
            running.stop(timeout=round(seconds))
            return _observed(running)

    def sweep(self) -> None:
        """Remove leftovers of killed runs: containers of mlship that are older than an hour."""
        with faults(self._address):
            for leftover in self._client.api.containers(all=True, filters={"label": LABEL}):
                if self._clock().timestamp() - leftover["Created"] > _LEFT_SECONDS:
                    _remove(self._client.containers.get(leftover["Id"]))


def _check_near(address: str) -> None:
    parts = urlsplit(address)
    if parts.scheme in ("unix", "npipe", "fd") or parts.hostname in ("localhost", "127.0.0.1"):
        return
    message = f"the Docker engine at {address} is not on this machine; its ports are not reachable"
    raise ConfigError(message, hint="set DOCKER_HOST to an engine on this machine")


def _local(image: Any) -> Local:
    return Local(id=digests.parse(image.id), size=int(image.attrs["Size"]))


def _endpoint(ports: Mapping[str, Any]) -> str:
    """Return the endpoint of a container. If it exited at once, nothing listens there."""
    bindings = ports.get(_PORT) or [{"HostPort": "9"}]
    return f"http://127.0.0.1:{bindings[0]['HostPort']}"


def _observed(container: Any) -> Observed:
    container.reload()
    state = container.attrs["State"]
    log = container.logs(tail=_LINES).decode("utf-8", "replace")
    return Observed(
        running=bool(state["Running"]),
        exit_code=int(state["ExitCode"]),
        out_of_memory=bool(state["OOMKilled"]),
        lines=tuple(log.splitlines()),
    )


def _remove(container: Any) -> None:
    from docker.errors import APIError, NotFound

    with contextlib.suppress(NotFound):
        try:
            container.remove(force=True, v=True)
        except APIError as error:
            if error.status_code != 409:  # another process is removing it
                raise
