"""Builds in a Docker engine: a folder with a Dockerfile becomes an image in a file."""

import re
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlship.adapters.images.build import dockerfile
from mlship.adapters.images.engine import client
from mlship.adapters.images.engine.client import faults
from mlship.domain.image import Platform
from mlship.domain.ports import Progress
from mlship.errors import MlshipError, ProjectError, UnavailableError

if TYPE_CHECKING:
    from docker import DockerClient

Make = Callable[[Path, Platform, Path], None]
"""Builds the Dockerfile of a folder for a platform, and writes the image into a file."""

_SILENT_SECONDS = 1800
"""An instruction that downloads or compiles may say nothing for long."""
_LINES = 15
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_OWN = re.compile(r" ---> |Removing intermediate container ")
"""What the engine says of itself between the lines of an instruction."""
_STEP = re.compile(r"Step (\d+)/(\d+) : .*")


class EngineBuild:
    """Builds in the engine that DOCKER_HOST names; it may be on another machine.

    Args:
        environment: says where the engine is.
        progress: hears of each instruction.
    """

    def __init__(self, environment: Mapping[str, str], progress: Progress) -> None:
        self._environment = environment
        self._progress = progress

    def __call__(self, context: Path, platform: Platform, into: Path) -> None:
        """Build, and save what was built.

        Raises:
            ConfigError: the package `docker` is missing.
            ProjectError: an instruction of the user's failed; the message has its last lines.
            UnavailableError: no engine answers, or it cannot get the base or keep the image.
            TimedOutError: it said nothing for half an hour.
        """
        where = client.address(self._environment)
        with client.opened(self._environment, seconds=_SILENT_SECONDS) as opened, faults(where):
            image = self._built(opened, context, platform)
            with into.open("wb") as file:
                for piece in opened.api.get_image(image):
                    file.write(piece)

    def _built(self, opened: "DockerClient", context: Path, platform: Platform) -> str:
        from docker.errors import APIError  # noqa: PLC0415 (see `client.opened`)

        try:
            events = opened.api.build(
                path=str(context),
                dockerfile=dockerfile.NAME,
                platform=platform,
                rm=True,
                forcerm=True,
                decode=True,
                timeout=_SILENT_SECONDS,
            )
            return follow(events, self._progress)
        except APIError as error:
            if error.status_code != 400:
                raise
            raise _refused(f"Docker cannot read the Dockerfile: {error.explanation}") from error


def follow(events: Iterable[Mapping[str, Any]], progress: Progress) -> str:
    """Tell what a build says, and return the id of the image that it made.

    Raises:
        ProjectError: an instruction of the user's failed.
        UnavailableError: one of ours did, or the build ended without an image.
    """
    lines: deque[str] = deque(maxlen=_LINES)
    is_users, built = False, ""
    for event in events:
        if "error" in event:
            raise _failure(str(event["error"]), lines, is_users=is_users)
        built = str(event.get("aux", {}).get("ID", built))
        for line in _lines(str(event.get("stream", ""))):
            if found := _STEP.fullmatch(line):
                lines.clear()
                is_users = 1 < int(found[1]) <= int(found[2]) - dockerfile.OWN_STEPS
                progress.note(line)
            lines.append(line)
    if not built:
        message = f"the engine ended the build without an image: {lines[-1] if lines else ''}"
        raise UnavailableError(message, hint="look at the engine's log; then run it again")
    return built


def _lines(said: str) -> list[str]:
    plain = _COLOUR.sub("", said).replace("\r", "\n")
    return [line.rstrip() for line in plain.split("\n") if line.strip() and not _OWN.match(line)]


def _failure(why: str, lines: Iterable[str], *, is_users: bool) -> MlshipError:
    if is_users:
        said = "\n".join([f"Docker could not build the image: {why}; its last lines:", *lines])
        return _refused(said)
    message = f"Docker could not build the image: {why}"
    hint = "see that the engine reaches the base's registry and has room; then run it again"
    return UnavailableError(message, hint=hint)


def _refused(message: str) -> ProjectError:
    return ProjectError(message, hint="correct the file that image.extend names, and run it again")
