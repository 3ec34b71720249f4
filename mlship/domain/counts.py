"""What routers count of the requests to each slot, and how much it grew between two looks."""

import math
from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import msgspec

from mlship.domain.deployment import Slot


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """What one replica did with the requests that one router sent it, since both started.

    Attributes:
        answered: with a status below 500.
        failed: with a status from 500 on, without an answer in time, or by a broken connection.
        ended: all requests that are over, also those that the client gave up before an answer;
            those that failed because no connection was made are not among them.
    """

    answered: int = 0
    failed: int = 0
    ended: int = 0

    @property
    def given_up(self) -> int:
        """Requests that ended without an answer or a failure: their clients did not wait."""
        return max(0, self.ended - self.answered - self.failed)


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """What one router counted of the share of one slot since it started.

    Attributes:
        own: what the replicas of the slot did, by address.
        elsewhere: requests that replicas of other slots got in its place, by address.
        times: how many requests took how long, by milliseconds rounded down to two digits.
    """

    own: dict[str, Tally] = {}
    elsewhere: dict[str, int] = {}
    times: dict[float, int] = {}


Look = Mapping[str, Mapping[Slot, Counts]]
"""What all routers of a target have counted, by router and slot.

A router that was started again has another name: its counts began at 0.
"""


@runtime_checkable
class Counted(Protocol):
    """A target whose routers count requests."""

    def counts(self) -> Look:
        """Return what they have counted. Changes nothing.

        Raises:
            UnavailableError: a router does not answer, so that requests would be missing.
            ConfigError: the load balancer is not mlship's, and its counts cannot be read.
        """


class Growth(msgspec.Struct, frozen=True, kw_only=True):
    """The requests of the share of one slot in a period.

    Attributes:
        answered: by its replicas, with a status below 500.
        failed: by its replicas, or given up by the client before they answered.
        elsewhere: requests that replicas of other slots got in its place.
        times: how many requests took how long, by milliseconds rounded down to two digits.
    """

    answered: int = 0
    failed: int = 0
    elsewhere: int = 0
    times: dict[float, int] = {}

    @property
    def lost(self) -> int:
        """Requests that its replicas did not answer."""
        return self.failed + self.elsewhere

    @property
    def requests(self) -> int:
        """All requests."""
        return self.answered + self.lost

    def plus(self, other: "Growth") -> "Growth":
        """Return both periods together."""
        return Growth(
            answered=self.answered + other.answered,
            failed=self.failed + other.failed,
            elsewhere=self.elsewhere + other.elsewhere,
            times={
                time: self.times.get(time, 0) + other.times.get(time, 0)
                for time in sorted({*self.times, *other.times})
            },
        )

    def without_worst(self, share: float) -> "Growth":
        """Return the period without the worst share of its requests: lost ones, the slowest."""
        count, slow = math.ceil(self.requests * share), math.ceil(self.timed * share)
        left = []
        for part in (self.failed, self.elsewhere, self.answered):
            left.append(part - min(part, count))
            count -= min(part, count)
        times = {}
        for time in sorted(self.times, reverse=True):
            times[time] = self.times[time] - min(self.times[time], slow)
            slow -= min(self.times[time], slow)
        return Growth(failed=left[0], elsewhere=left[1], answered=left[2], times=times)

    def slower_than(self, milliseconds: float) -> int:
        """Return how many requests took at least so long."""
        return sum(count for time, count in self.times.items() if time >= milliseconds)

    @property
    def timed(self) -> int:
        """Requests whose time is known."""
        return sum(self.times.values())

    def quantile(self, share: float) -> float:
        """Return the time within which a share of the requests was answered; 0 without requests."""
        left = self.timed * share
        for time in sorted(self.times):
            left -= self.times[time]
            if left <= 0:
                return time
        return 0.0


def grown(before: Look, after: Look, slot: Slot) -> Growth:
    """Return the requests of a slot's share between two looks; no number is negative.

    A router counts if both looks have it: one that is new may have counted before the first look.
    A replica that is gone is left out, and what one that was started again has counted is new.
    """
    total = Growth()
    for router in after.keys() & before.keys():
        old, new = before[router].get(slot, Counts()), after[router].get(slot, Counts())
        tallies = [_since(old.own.get(name, Tally()), tally) for name, tally in new.own.items()]
        one = Growth(
            answered=sum(tally.answered for tally in tallies),
            failed=sum(tally.failed + tally.given_up for tally in tallies),
            elsewhere=sum(_more(old.elsewhere, new.elsewhere).values()),
            times=dict(_times(old.times, new.times)),
        )
        total = total.plus(one)
    return total


def _since(old: Tally, new: Tally) -> Tally:
    """Return the requests since a look.

    `ended` is the difference of two numbers of the router that are read one after the other, so it
    may be less than before by a few: only the others tell that a replica was started again.
    """
    if new.answered < old.answered or new.failed < old.failed:
        return new
    return Tally(
        answered=new.answered - old.answered,
        failed=new.failed - old.failed,
        ended=new.ended - old.ended,
    )


def _more(old: Mapping[str, int], new: Mapping[str, int]) -> dict[str, int]:
    return {
        key: count - old.get(key, 0) if count >= old.get(key, 0) else count
        for key, count in new.items()
    }


def _times(old: Mapping[float, int], new: Mapping[float, int]) -> Mapping[float, int]:
    """Return the requests of each time. Counts that have become less began at 0 again, all."""
    if any(new.get(milliseconds, 0) < count for milliseconds, count in old.items()):
        return new
    return {milliseconds: count - old.get(milliseconds, 0) for milliseconds, count in new.items()}
