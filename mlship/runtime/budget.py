"""Room in memory for large bodies, which all connections share."""

from collections import deque
from collections.abc import Callable


class Room:
    """Room for one body.

    Attributes:
        size: in bytes.
        is_granted: whether it is there; until then, whoever asked for it waits.
    """

    __slots__ = ("granted", "is_granted", "size")

    def __init__(self, size: int, granted: Callable[[], None]) -> None:
        self.size = size
        self.granted = granted
        self.is_granted = False


class Budget:
    """Grants room in the order in which it was asked for.

    Args:
        size: the room in bytes. A single body gets more if there is no other.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._used = 0
        self._waiting: deque[Room] = deque()

    def take(self, size: int, granted: Callable[[], None]) -> Room:
        """Take room; if it is not granted at once, `granted` is called when it is."""
        room = Room(size, granted)
        if not self._waiting and self._fits(size):
            self._grant(room)
        else:
            self._waiting.append(room)
        return room

    def give(self, room: Room) -> None:
        """Give room back, or give up the place of one that waits."""
        if room.is_granted:
            self._used -= room.size
        else:
            self._waiting.remove(room)
        while self._waiting and self._fits(self._waiting[0].size):
            following = self._waiting.popleft()
            self._grant(following)
            following.granted()

    def _grant(self, room: Room) -> None:
        room.is_granted = True
        self._used += room.size

    def _fits(self, size: int) -> bool:
        return self._used == 0 or self._used + size <= self._size
