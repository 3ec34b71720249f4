"""Ports of a stream: its workers, the dead letters and the outcomes of its topics."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import msgspec

from mlship.domain.stream import Plan


class Workers(Protocol):
    """Processes that answer messages. Errors are those of `mlship.errors`."""

    def start(self, plan: Plan, count: int) -> None:
        """Start workers and return when all are ready.

        Raises:
            MlshipError: one ended before it was ready; the others are stopped.
        """

    def follow(self, plan: Plan) -> None:
        """Have them answer by another plan, from a transaction on.

        Raises:
            UnavailableError: they cannot be told now.
        """

    def look(self) -> None:
        """Start those again that have ended.

        Raises:
            ConflictError: others with their names take over from them again and again.
        """

    def stop(self) -> None:
        """Stop them, each after its transaction."""


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """Which dead letters are sent again.

    Attributes:
        partition: of the dead-letter topic; `None` for all that were not sent again yet.
        first: the first offset in the partition.
        last: the last one.
    """

    partition: int | None = None
    first: int = 0
    last: int | None = None


class Replayed(msgspec.Struct, frozen=True, kw_only=True):
    """What a replay did.

    Attributes:
        count: of messages that were sent to the input topic again.
        left_out: dead letters of other topics, which stay where they are.
        reasons: how often each reason was the one, for people.
    """

    count: int
    left_out: int = 0
    reasons: dict[str, int] = {}


class DeadLetters(Protocol):
    """The dead-letter topic of a stream."""

    def replay(self, selection: Selection, *, dry_run: bool = False) -> Replayed:
        """Send dead letters to the input topic again, each once.

        Raises:
            MlshipError: the brokers cannot be used; what was not counted stays to be sent.
        """


class Backlog(msgspec.Struct, frozen=True, kw_only=True):
    """What a stream has not answered yet.

    Attributes:
        behind: messages after the committed offsets of the group; `None` if no broker told.
        partitions: messages behind in each partition that has any, by its number.
        workers: members of the group; `None` if no broker told.
        others: members that are no workers of a stream, and take messages away from it.
        fault: why it is not known; empty if it is.
    """

    behind: int | None = None
    partitions: dict[int, int] = {}
    workers: int | None = None
    others: int = 0
    fault: str = ""


class Backlogs(Protocol):
    """The consumer group of a stream."""

    def backlog(self) -> Backlog:
        """Return how far it is behind, within some seconds; it raises nothing."""


class Given(NamedTuple):
    """A message of the outcomes topic."""

    place: str
    value: bytes | None


class OutcomeMessages(Protocol):
    """The outcomes topic of a stream."""

    def receive(self, limit: int) -> Sequence[Given]:
        """Return the next messages, or those again that were not accepted, without waiting."""

    def accept(self, refused: Sequence[tuple[Given, str]]) -> None:
        """Never return again what was received; write refused ones to the dead-letter topic."""

    def close(self) -> None:
        """Leave the group."""
