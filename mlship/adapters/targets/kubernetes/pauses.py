"""The pauses between looks at a cluster that brings something about."""

from collections.abc import Iterator

_GROWTH = 1.25


def growing(first: float, longest: float = 1.0) -> Iterator[float]:
    """Yield the seconds before each next look: what has taken long may take longer.

    Each is a quarter longer than the one before, so that an API server that many commands ask is
    not asked more often than helps.

    Args:
        first: of them.
        longest: that is never exceeded.
    """
    pause = first
    while True:
        yield pause
        pause = min(pause * _GROWTH, longest)
