"""Containers that are run for a test: their values, and the port of what runs them."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import msgspec

from mlship.digests import Digest


class Local(msgspec.Struct, frozen=True, kw_only=True):
    """An image as an engine holds it: the id that it is run by, and its bytes, unpacked."""

    id: Digest
    size: int


class Container(msgspec.Struct, frozen=True, kw_only=True):
    """A container that was started, and where it answers once it is ready."""

    id: str
    endpoint: str


class Observed(msgspec.Struct, frozen=True, kw_only=True):
    """How a container is.

    Attributes:
        exit_code: of the process; it counts only once it is not running.
        out_of_memory: the memory limit ended it.
        lines: the last ones that it wrote.
    """

    running: bool
    exit_code: int = 0
    out_of_memory: bool = False
    lines: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return for people how it ended, with its last lines."""
        if self.running:
            return "it runs"
        why = " (out of memory)" if self.out_of_memory else ""
        said = "\n".join(["; its last lines:", *self.lines]) if self.lines else ", and said nothing"
        return f"it ended with exit code {self.exit_code}{why}{said}"


class Engine(Protocol):
    """Runs containers on this machine, to see an image work before others depend on it.

    Every method raises UnavailableError where the engine does not answer, or refuses.
    """

    def pull(self, reference: str) -> Local:
        """Return the image of a reference by digest; it is pulled where it is not there.

        Raises:
            NotFoundError: neither the engine nor the registry has it.
        """

    def load(self, archive: Path) -> Local:
        """Return the image of a tarball that `Images.save` wrote.

        Raises:
            IntegrityError: the file does not hold one image.
        """

    def run(self, image: Local, *, memory: str) -> AbstractContextManager[Container]:
        """Run a container of an image with no rights and so much memory; remove it at the end.

        Its root is read-only, /tmp apart; it answers at a loopback port of its own.
        """

    def observe(self, container: Container) -> Observed:
        """Return how a container is, with its last lines."""

    def stop(self, container: Container, seconds: float) -> Observed:
        """Send SIGTERM, SIGKILL after so many seconds; return how it ended."""
