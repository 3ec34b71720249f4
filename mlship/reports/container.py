"""The test of an image in a container, in words for every way in which a report is shown."""

from mlship.domain.facts import Contained
from mlship.reports.formatting import MISSING, megabytes, number, seconds


def cells(tested: Contained) -> dict[str, str]:
    """Return what was measured, by the heading of its column."""
    most = f" of {tested.max_mb}" if tested.max_mb is not None else ""
    return {
        "ready in": seconds(tested.ready_seconds),
        "size": f"{megabytes(tested.size)}{most} MB",
        "memory": tested.memory or MISSING,
        "requests": str(tested.requests),
        "errors": str(tested.errors),
        "mismatches": str(tested.mismatches),
        "p99 ms": number(tested.p99_ms),
    }


def title(digest: str, tested: Contained | None) -> str:
    """Return which image it is about, and whether it was tested at all."""
    name = digest.removeprefix("sha256:")[:12]
    return f"image {name}" + ("" if tested else ": not tested in a container")
