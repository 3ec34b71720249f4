"""Builds in a Docker engine: from a folder with a Dockerfile to an image in a file."""

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mlship.adapters.images.build import dockerfile
from mlship.adapters.images.engine import client
from mlship.adapters.images.engine.client import faults
from mlship.domain.image import Platform
from mlship.domain.ports import Progress
from mlship.errors import MlshipError, ProjectError, UnavailableError

if TYPE_CHECKING:
    from docker import DockerClient

Make = Callable[[Path, Platform, Path], None]
"""Builds the Dockerfile in a folder for a platform, and writes the image to a file."""

_SILENT_SECONDS = 1800
"""An instruction that downloads or compiles may print nothing for a long time."""
_LINES = 15
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_OWN = re.compile(r" ---> |Removing intermediate container ")
"""The engine's own messages between the output of instructions."""
_STEP = re.compile(r"Step (\d+)/(\d+) : .*")
_STEP_IS_GONE: Final = re.compile("unknown parent image ID|No such image: sha256:")


class _StepRemovedError(Exception):
    """The image of an earlier step was removed meanwhile, as `docker image prune` does."""


class EngineBuild:
    """Builds in the engine at DOCKER_HOST, which may be on another machine.

    Args:
        environment: the environment variables, with DOCKER_HOST.
        progress: receives a note for each instruction.
    """

    def __init__(self, environment: Mapping[str, str], progress: Progress) -> None:
        self._environment = environment
        self._progress = progress

    def __call__(self, context: Path, platform: Platform, into: Path) -> None:
        """Build and export an image.

        Raises:
            ConfigError: the package `docker` is missing.
            ProjectError: an instruction of the user failed; the message has its last lines.
            UnavailableError: no engine answers, or it cannot pull the base or store the image.
            TimedOutError: the engine sent nothing for half an hour.
        """
        where = client.address(self._environment)
        with client.opened(self._environment, seconds=_SILENT_SECONDS) as opened, faults(where):
            image = self._built(opened, context, platform)
            with into.open("wb") as file:
                for piece in opened.api.get_image(image):
                    file.write(piece)

    def _built(self, opened: "DockerClient", context: Path, platform: Platform) -> str:
        with suppress(_StepRemovedError):
            return follow(_watched(self._build(opened, context, platform)), self._progress)
        return follow(self._build(opened, context, platform), self._progress)

    def _build(
        self, opened: "DockerClient", context: Path, platform: Platform
    ) -> Iterator[Mapping[str, Any]]:
        """Build, and yield what the engine says."""
        from docker.errors import APIError

        try:
            yield from opened.api.build(
                path=str(context),
                dockerfile=dockerfile.NAME,
                platform=platform,
                rm=True,
                forcerm=True,
                decode=True,
                timeout=_SILENT_SECONDS,
            )
        except APIError as error:
            if error.status_code != 400:
                raise
            raise _invalid(f"Docker rejected the Dockerfile: {error.explanation}") from error


def follow(events: Iterable[Mapping[str, Any]], progress: Progress) -> str:
    """Report the steps of a build, and return the id of the built image.

    Raises:
        ProjectError: an instruction of the user failed.
        UnavailableError: one of our instructions failed, or the build ended without an image.
    """
    lines: deque[str] = deque(maxlen=_LINES)
    is_users, image = False, ""
    for event in events:
        if "error" in event:
            raise _failure(str(event["error"]), lines, is_users=is_users)
        image = str(event.get("aux", {}).get("ID", image))
        for line in _lines(str(event.get("stream", ""))):
            if step := _STEP.fullmatch(line):
                lines.clear()
                is_users = 1 < int(step[1]) <= int(step[2]) - dockerfile.OWN_STEPS
                progress.note(line)
            lines.append(line)
    if not image:
        message = f"the Docker build ended without an image: {lines[-1] if lines else ''}"
        raise UnavailableError(message, hint="check the engine's log, then run it again")
    return image


def _watched(events: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    for event in events:
        if _STEP_IS_GONE.search(str(event.get("error", ""))):
            raise _StepRemovedError
        yield event


def _lines(stream: str) -> list[str]:
    plain = _COLOUR.sub("", stream).replace("\r", "\n")
    return [line.rstrip() for line in plain.split("\n") if line.strip() and not _OWN.match(line)]


def _failure(why: str, lines: Iterable[str], *, is_users: bool) -> MlshipError:
    message = f"Docker could not build the image: {why}"
    if is_users:
        return _invalid("\n".join([f"{message}; last lines of the build:", *lines]))
    hint = "check that the engine reaches the base's registry and has disk space, then run it again"
    return UnavailableError(message, hint=hint)


def _invalid(message: str) -> ProjectError:
    return ProjectError(message, hint="correct the file that image.extend names, then run it again")
