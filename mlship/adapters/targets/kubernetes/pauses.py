"""The pauses between looks at a cluster that brings something about."""

from collections.abc import Iterator

_LONGEST = 1.0
_GROWTH = 1.25


def growing(first: float) -> Iterator[float]:
    """Yield the seconds before each next look: what has taken long may take longer.

    Each is a quarter longer than the one before, up to a second: an API server that many commands
    ask is not asked more often than helps.
    """
    pause = first
    while True:
        yield pause
        pause = min(pause * _GROWTH, _LONGEST)
