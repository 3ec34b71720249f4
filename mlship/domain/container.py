"""Values of containers that are run for a test."""

import msgspec

from mlship.domain.digests import Digest


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
