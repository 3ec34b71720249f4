"""Whether more is asked of the workers than they can do, for longer than a burst.

A queue that is as long as the deadlines allow answers a burst. Under a standing overload it only
lets everybody wait: the workers would do as much with a short one. As with CoDel (RFC 8289) and the
adaptive queues of folly, what counts is not how long the queue is, but for how long it has not been
short.
"""

from math import exp
from typing import Final

BURST_SECONDS: Final = 0.1
"""What arrives within this time may wait until its deadline."""
_LONG_SECONDS: Final = 0.25
"""A queue that is shorter may be chance: requests do not arrive evenly."""
_MEAN_SECONDS: Final = 1.0
"""Over about this time, the work that is asked for is compared with the time that passes."""
_TOO_MUCH: Final = 1.25
"""Clients who ask again when they have been answered ask for as much as can be done, not more."""


class Pressure:
    """Compares the work that is asked for with what can be done."""

    def __init__(self) -> None:
        self._load = 0.0
        self._at = 0.0
        self._long_since = 0.0
        self._is_standing = False

    def refuses(self, work: float, wait: float, short: float, now: float) -> bool:
        """Take a request into account; return whether it must not wait, since the queue stands.

        Args:
            work: the seconds that the workers together take for it.
            wait: the seconds that they take for what waits before it.
            short: as long a queue as keeps all of them busy.
            now: the monotonic time.
        """
        self._load = self._load * exp((self._at - now) / _MEAN_SECONDS) + work / _MEAN_SECONDS
        self._at = now
        if self._load < _TOO_MUCH:
            self._is_standing = False
        if wait <= short:
            self._long_since = now
        elif wait >= _LONG_SECONDS and now - self._long_since >= BURST_SECONDS:
            self._is_standing = self._load >= _TOO_MUCH
        return self._is_standing and wait > short
