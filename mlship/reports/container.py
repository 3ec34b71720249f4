"""The text of the container test in a report, for all formats."""

from collections.abc import Sequence

from mlship.domain.facts import Contained
from mlship.reports.formatting import MISSING, megabytes, number, seconds


def cells(tested: Contained) -> dict[str, str]:
    """Return the measured values by column heading."""
    limit = f" of {tested.max_mb}" if tested.max_mb is not None else ""
    return {
        "ready in": seconds(tested.ready_seconds),
        "size": f"{megabytes(tested.size)}{limit} MB",
        "memory": tested.memory or MISSING,
        "requests": str(tested.requests),
        "errors": str(tested.errors),
        "mismatches": str(tested.mismatches),
        "p99 ms": number(tested.p99_ms),
    }


def title(digest: str, tested: Contained | None) -> str:
    """Return the name of the image, and whether it was tested."""
    name = digest.removeprefix("sha256:")[:12]
    return f"image {name}" + ("" if tested else ": not tested in a container")


def attached(names: Sequence[str]) -> str:
    """Return which documents the registry has with an image; empty if there are none."""
    return f"Attached to the image: {', '.join(names)}" if names else ""
