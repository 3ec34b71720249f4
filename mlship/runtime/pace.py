"""How long a worker takes for rows: each of many takes less time than one alone."""

from typing import Final

MANY: Final = 64
"""A request of so many rows is a large one."""
_WEIGHT: Final = 0.2
"""Of the latest message in the mean time of a row."""


class Pace:
    """The mean seconds of a row, of small requests and of large ones.

    One mean for both would be wrong for both: what a message costs beside its rows is most of the
    time of a small one, and nothing of a large one.

    Args:
        small: the seconds of a row in a small request.
        large: those in a large one, until one has been computed.
    """

    def __init__(self, small: float = 0.0, large: float = 0.0) -> None:
        self._small = small
        self._large = large
        self._is_guessed = True

    def of(self, rows: int) -> float:
        """Return the seconds that a request of so many rows takes."""
        return rows * (self._small if rows < MANY else self._large)

    def total(self, rows: int, large: int) -> float:
        """Return the seconds that requests take together.

        Args:
            rows: of all of them.
            large: those of large ones.
        """
        return (rows - large) * self._small + large * self._large

    def learn(self, rows: int, large: int, seconds: float) -> None:
        """Take a message into account that took so long; a large request in it took most of it."""
        each = seconds / max(1, rows)
        if large and self._is_guessed:
            self._large, self._is_guessed = each, False
        elif large:
            self._large += _WEIGHT * (each - self._large)
        else:
            self._small += _WEIGHT * (each - self._small)
