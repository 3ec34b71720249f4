"""How far the group of a stream is behind, asked within a time limit."""

import time
from collections.abc import Callable
from types import MappingProxyType
from typing import Any, Final, TypeVar

from mlship.adapters.streams.clients import Clients
from mlship.domain.stream import Settings
from mlship.domain.streaming import Backlog
from mlship.errors import MlshipError

SECONDS: Final = 3.0
"""For all questions together: `mlship status` has other things to show."""

_PAUSE: Final = 0.2
_MOVING: Final = frozenset(
    ("NOT_COORDINATOR", "COORDINATOR_LOAD_IN_PROGRESS", "COORDINATOR_NOT_AVAILABLE", "_WAIT_COORD")
)
"""Another broker takes over the group, or it is the first group of all: soon there is an answer."""

_ONE: Final = MappingProxyType({"queued.min.messages": "1", "fetch.wait.max.ms": "50"})
"""Properties of a consumer that looks whether there is a message at all."""

_T = TypeVar("_T")


class KafkaBacklog:
    """The group of a stream: the port `Backlogs`.

    Args:
        clients: make the connections.
        settings: of the stream.
        seconds: the time limit.
    """

    def __init__(
        self, clients: Callable[[], Clients], settings: Settings, seconds: float = SECONDS
    ) -> None:
        self._clients = clients
        self._settings = settings
        self._seconds = seconds

    def backlog(self) -> Backlog:
        """Return how many messages wait, and how many workers there are; or why it is not known.

        Messages are counted by offsets, which what ends a transaction, an aborted message and one
        that compaction removed have, too: of a partition with messages, the count is the most that
        may wait. A partition in which no message follows has none.
        """
        try:
            return _Question(self._clients(), self._settings, self._seconds).answer()
        except MlshipError as error:
            return Backlog(fault=error.message)


class _Question:
    """Asks the brokers; all calls share one deadline."""

    def __init__(self, clients: Clients, settings: Settings, seconds: float) -> None:
        self._clients = clients
        self._settings = settings
        self._seconds = seconds
        self._deadline = time.monotonic() + seconds
        self._admin = clients.admin()

    def answer(self) -> Backlog:
        from confluent_kafka import admin

        group, topic = self._settings.group, self._settings.input
        place, subject = self._clients.library.TopicPartition, f"topic {topic}"
        known = self._asked(subject, lambda left: self._admin.list_topics(topic, timeout=left))
        error = known.topics[topic].error
        if error is not None:
            raise self._clients.named(error, subject, self._seconds)
        places = [place(topic, number) for number in known.topics[topic].partitions]
        committed_only = self._clients.library.IsolationLevel.READ_COMMITTED

        def offsets(spec: Any) -> dict[int, int]:
            futures = self._asked(
                subject,
                lambda left: self._admin.list_offsets(
                    dict.fromkeys(places, spec),
                    isolation_level=committed_only,
                    request_timeout=left,
                ),
            )
            return {
                each.partition: self._asked(subject, future.result).offset
                for each, future in futures.items()
            }

        starts = self._committed(group, places)
        ends = offsets(admin.OffsetSpec.latest())
        if starts.keys() != ends.keys():
            # A new group begins with the first message.
            starts = offsets(admin.OffsetSpec.earliest()) | starts
        behind = {number: end - starts[number] for number, end in sorted(ends.items())}
        behind = {number: count for number, count in behind.items() if count > 0}
        # Asked first: to look for messages may take all the time that is left.
        members = self._members(group)
        workers = sum((each or "").startswith(f"{group}-") for each in members)
        for number in self._without_messages([place(topic, each, starts[each]) for each in behind]):
            del behind[number]
        return Backlog(
            behind=sum(behind.values()),
            partitions=behind,
            workers=workers,
            others=len(members) - workers,
        )

    def _without_messages(self, places: list[Any]) -> set[int]:
        """Return the partitions in which no message follows the offset, as far as time allows."""
        if not places:
            return set()
        consumer = self._clients.consumer(self._settings.group, _ONE)
        is_open, empty = {each.partition for each in places}, set()
        try:
            consumer.assign(places)
            while is_open and self._left() > _PAUSE:
                for message in consumer.consume(len(is_open), _PAUSE):
                    error, number = message.error(), message.partition()
                    if error is None:
                        is_open.discard(number)
                    elif error.name() == "_PARTITION_EOF" and number in is_open:
                        is_open.discard(number)
                        empty.add(number)
        finally:
            consumer.close()
        return empty

    def _committed(self, group: str, places: list[Any]) -> dict[int, int]:
        """Return the committed offsets of a group.

        By a consumer: the call of librdkafka's admin client ends the process if the coordinator
        moves meanwhile (https://github.com/confluentinc/confluent-kafka-javascript/issues/374).
        """
        consumer = self._clients.consumer(group)
        try:
            known = self._asked(
                f"group {group}", lambda left: consumer.committed(places, timeout=left)
            )
        finally:
            consumer.close()
        for each in known:
            if each.error is not None:
                raise self._clients.named(each.error, f"group {group}", self._seconds)
        return {each.partition: each.offset for each in known if each.offset >= 0}

    def _members(self, group: str) -> list[str | None]:
        """Return the name of each member, which workers of a stream have."""
        unknown = self._clients.library.KafkaError.GROUP_ID_NOT_FOUND
        exception = self._clients.library.KafkaException

        def members(left: float) -> list[str | None]:
            futures = self._admin.describe_consumer_groups([group], request_timeout=left)
            try:
                return [each.group_instance_id for each in futures[group].result(left).members]
            except exception as error:
                if error.args[0].code() == unknown:
                    return []
                raise

        return self._asked(f"group {group}", members)

    def _asked(self, subject: str, call: Callable[[float], _T]) -> _T:
        """Call with the seconds that are left.

        Raises:
            MlshipError: the brokers do not answer, or refuse.
        """
        while True:
            try:
                return call(self._left())
            except self._clients.library.KafkaException as error:
                fault = error.args[0]
                if fault.name() not in _MOVING or self._left() < 2 * _PAUSE:
                    raise self._clients.named(fault, subject, self._seconds) from error
                time.sleep(_PAUSE)
            except TimeoutError as error:
                raise self._clients.silent(self._seconds) from error

    def _left(self) -> float:
        return max(0.1, self._deadline - time.monotonic())
