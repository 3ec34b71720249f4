"""The test of an image in a container, in words for every way in which a report is shown."""

from mlship.domain.facts import Contained, Number
from mlship.reports.formatting import MISSING, number, seconds


def cells(tested: Contained) -> dict[str, str]:
    """Return what was measured, by the heading of its column."""
    most = f" of {tested.max_mb}" if tested.max_mb is not None else ""
    return {
        "ready in": seconds(tested.ready_seconds),
        "size": f"{_megabytes(tested.size)}{most} MB",
        "memory": tested.memory or MISSING,
        "requests": str(tested.requests),
        "errors": str(tested.errors),
        "mismatches": str(tested.mismatches),
        "p99 ms": number(tested.p99_ms),
    }


def told(digest: str, tested: Contained | None) -> str:
    """Return which image it is about, and whether it was tested at all."""
    name = digest.removeprefix("sha256:")[:12]
    return f"image {name}" + ("" if tested else ": not tested in a container")


def _megabytes(size: Number) -> str:
    return f"{size / 1e6:.0f}" if isinstance(size, float | int) else number(size)
