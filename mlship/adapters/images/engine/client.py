"""The connection to a Docker engine, through the package `docker`, with its faults named."""

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
    """Return where the engine listens: DOCKER_HOST, by default Docker's socket."""
    return environment.get("DOCKER_HOST") or SOCKET


@contextmanager
def opened(environment: Mapping[str, str], *, seconds: int = _SECONDS) -> Iterator["DockerClient"]:
    """Give a client of the engine that DOCKER_HOST names.

    Args:
        environment: has DOCKER_HOST and what belongs to it.
        seconds: that the engine may be silent in the midst of an answer.

    Raises:
        ConfigError: the package `docker` is missing.
        UnavailableError: no engine answers there, or it may not be used.
    """
    try:
        import docker  # noqa: PLC0415 (most commands need no engine)
    except ImportError as error:
        message = "the package docker is not installed"
        raise ConfigError(message, hint=installation.hint("docker")) from error
    with faults(address(environment)):
        client = docker.from_env(environment=dict(environment), timeout=seconds)
    with contextlib.closing(client):
        yield client


@contextmanager
def faults(where: str) -> Iterator[None]:
    """Turn what the package raises of the engine at an address into errors of mlship."""
    from docker.errors import APIError, DockerException  # noqa: PLC0415 (see `opened`)
    from requests.exceptions import RequestException, Timeout  # noqa: PLC0415 (the same)
    from urllib3.exceptions import HTTPError, TimeoutError  # noqa: A004, PLC0415 (the same)

    try:
        yield
    except MlshipError:
        raise
    except APIError as error:
        message = f"the Docker engine at {where} refused: {error.explanation or error}"
        is_denied = any(words in message for words in _DENIED)
        hint = "correct what it names, and run it again"
        hint = "`docker login` at that registry, as one who may pull" if is_denied else hint
        raise UnavailableError(message, hint=hint) from error
    except (Timeout, TimeoutError) as error:
        message = f"the Docker engine at {where} has gone silent: {_reason(error)}"
        raise TimedOutError(message, hint="look at its log; then run it again") from error
    except (DockerException, RequestException, HTTPError) as error:
        message = f"no Docker engine answers at {where}: {_reason(error)}"
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
