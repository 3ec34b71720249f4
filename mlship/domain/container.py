"""Values for the container test."""

import msgspec

from mlship.domain.digests import Digest


class Local(msgspec.Struct, frozen=True, kw_only=True):
    """An image in a Docker engine: the id to run it by, and its unpacked size in bytes."""

    id: Digest
    size: int


class Container(msgspec.Struct, frozen=True, kw_only=True):
    """A started container, and its endpoint, which responds once the container is ready."""

    id: str
    endpoint: str


class Observed(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a container.

    Attributes:
        exit_code: of the process; meaningful only if it is not running.
        out_of_memory: whether the process was killed at the memory limit.
        lines: the last lines of its log.
    """

    running: bool
    exit_code: int = 0
    out_of_memory: bool = False
    lines: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return how it ended, with the last lines of its log, for people."""
        if self.running:
            return "it is running"
        reason = " (out of memory)" if self.out_of_memory else ""
        log = "\n".join(["; last lines of its log:", *self.lines]) if self.lines else "; no log"
        return f"it exited with code {self.exit_code}{reason}{log}"
