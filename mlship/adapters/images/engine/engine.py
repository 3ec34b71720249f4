"""Containers in a Docker engine, each with as little as a served model needs."""

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
"""On each container that is made here; with its age it tells what a killed run left behind."""

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
    address = client.address(environment)
    _check_near(address)
    with client.opened(environment) as opened:
        engine = DockerEngine(opened, address, clock)
        engine.sweep()
        yield engine


def look(environment: Mapping[str, str]) -> str:
    """Tell which engine answers. Nothing is started, and nothing removed.

    Raises:
        ConfigError: the package `docker` is missing, or the engine is on another machine.
        UnavailableError: no engine answers, or it may not be used.
    """
    address = client.address(environment)
    _check_near(address)
    with client.opened(environment) as opened, faults(address):
        return f"Docker {opened.version()['Version']} at {address}"


class DockerEngine:
    """Brings images into the engine and runs containers of them: `ports.Engine`."""

    def __init__(self, client: "DockerClient", address: str, clock: Callable[[], datetime]) -> None:
        self._client = client
        self._address = address
        self._clock = clock

    def pull(self, reference: str) -> Local:
        """Return the image of a reference by digest; it is pulled where it is not there."""
        from docker.errors import ImageNotFound, NotFound  # noqa: PLC0415 (see `client.opened`)

        with faults(self._address):
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
        with faults(self._address), archive.open("rb") as file:
            found = self._client.images.load(file)
            if len(found) != 1:
                message = f"the engine found {len(found)} images in {archive.name}"
                raise IntegrityError(message, hint="`mlship containerize` makes the image again")
            return _local(found[0])

    @contextmanager
    def run(self, image: Local, *, memory: str) -> Iterator[Container]:
        """Run a container of an image; it is removed at the end, whatever happened."""
        with faults(self._address):
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
            with faults(self._address):
                made.start()
                made.reload()
            yield Container(id=made.id, endpoint=_endpoint(made.ports))
        finally:
            with faults(self._address):
                _remove(made)

    def observe(self, container: Container) -> Observed:
        """Return how a container is, with its last lines."""
        with faults(self._address):
            return _observed(self._client.containers.get(container.id))

    def stop(self, container: Container, seconds: float) -> Observed:
        """Send SIGTERM, and SIGKILL if it has not ended after so long; return how it ended."""
        with faults(self._address):
            found = self._client.containers.get(container.id)
            found.stop(timeout=round(seconds))
            return _observed(found)

    def sweep(self) -> None:
        """Remove the containers of runs that were killed: ours, and older than an hour."""
        with faults(self._address):
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
    from docker.errors import APIError, NotFound  # noqa: PLC0415 (see `client.opened`)

    with contextlib.suppress(NotFound):
        try:
            container.remove(force=True, v=True)
        except APIError as error:
            if error.status_code != 409:  # somebody else is removing it
                raise
