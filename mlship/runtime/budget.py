"""Room in memory for large bodies, which all connections share."""

from collections import deque
from typing import Protocol


class Taker(Protocol):
    """Waits for room."""

    def granted(self) -> None:
        """Go on: the room is there."""


class Budget:
    """Grants room in the order in which it was asked for.

    Args:
        size: the room in bytes. A single taker gets more if nobody else has any.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._used = 0
        self._waiting: deque[tuple[Taker, int]] = deque()

    def take(self, taker: Taker, size: int) -> bool:
        """Take room; if it returns false, `taker.granted` is called once there is room."""
        if not self._waiting and self._fits(size):
            self._used += size
            return True
        self._waiting.append((taker, size))
        return False

    def give(self, taker: Taker, size: int) -> None:
        """Give room back, or give up the place of one that waits."""
        for place, (other, _) in enumerate(self._waiting):
            if other is taker:
                del self._waiting[place]
                break
        else:
            self._used -= size
        while self._waiting and self._fits(self._waiting[0][1]):
            following, wanted = self._waiting.popleft()
            self._used += wanted
            following.granted()

    def _fits(self, size: int) -> bool:
        return self._used == 0 or self._used + size <= self._size
