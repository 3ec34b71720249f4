"""The connection to a Docker engine with the package `docker`, whose errors are mapped here."""

import contextlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from mlship.config import installation
from mlship.errors import ConfigError, MlshipError, TimedOutError, UnavailableError

if TYPE_CHECKING:
    from docker import DockerClient

SOCKET: Final = "unix:///var/run/docker.sock"
_SECONDS = 60
_DENIED = ("no basic auth credentials", "unauthorized", "access denied")


def address(environment: Mapping[str, str]) -> str:
    """Return the address of the engine: DOCKER_HOST, or Docker's default socket."""
    return environment.get("DOCKER_HOST") or SOCKET


@contextmanager
def opened(environment: Mapping[str, str], *, seconds: int = _SECONDS) -> Iterator["DockerClient"]:
    """Open a client of the engine at DOCKER_HOST.

    Args:
        environment: the environment variables, with DOCKER_HOST.
        seconds: how long to wait for more data from the engine.

    Raises:
        ConfigError: the package `docker` is missing.
        UnavailableError: no engine answers there, or access is denied.
    """
    try:
        import docker
    except ImportError as error:
        message = "the Python package docker is not installed"
        raise ConfigError(message, hint=installation.hint("docker")) from error
    with faults(address(environment)):
        client = docker.from_env(environment=dict(environment), timeout=seconds)
    with contextlib.closing(client):
        yield client


@contextmanager
def faults(where: str) -> Iterator[None]:
    """Map errors of the package `docker` to errors of mlship, for the engine at an address."""
    from docker.errors import APIError, DockerException
    from requests.exceptions import RequestException, Timeout
    from urllib3.exceptions import HTTPError, TimeoutError  # noqa: A004 (the same)

    try:
        yield
    except MlshipError:
        raise
    except APIError as error:
        message = f"the Docker engine at {where} refused: {error.explanation or error}"
        is_denied = any(words in message for words in _DENIED)
        hint = "fix the problem that the engine reports, then run it again"
        hint = "run `docker login REGISTRY` with an account that may pull" if is_denied else hint
        raise UnavailableError(message, hint=hint) from error
    except (Timeout, TimeoutError) as error:
        message = f"the Docker engine at {where} stopped responding: {_reason(error)}"
        raise TimedOutError(message, hint="check its log, then run it again") from error
    except (DockerException, RequestException, HTTPError) as error:
        message = f"cannot connect to the Docker engine at {where}: {_reason(error)}"
        hint = "start Docker, or set DOCKER_HOST to its address (see `docker context ls`)"
        raise UnavailableError(message, hint=hint) from error


def _reason(error: BaseException) -> str:
    """Return the operating system's message in a chain of wrapped errors."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return str(error)
