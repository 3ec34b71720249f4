"""Outcomes that arrive in a topic."""

from collections.abc import Sequence
from typing import Any, Final

from mlship.adapters.streams.clients import SECONDS, Clients
from mlship.domain import stream
from mlship.domain.stream import Settings
from mlship.domain.streaming import Given

_COMMIT_SECONDS: Final = 30.0


class KafkaOutcomes:
    """The outcomes topic of a stream: the port `OutcomeMessages`.

    Args:
        clients: make the connections.
        settings: of the stream.
        topic: of outcomes.
    """

    def __init__(self, clients: Clients, settings: Settings, topic: str) -> None:
        self._clients = clients
        self._settings = settings
        self._topic = topic
        self._consumer: Any = None
        self._producer: Any = None
        self._pending: list[Any] = []

    def receive(self, limit: int) -> Sequence[Given]:
        """Return the next messages, or those again that were not accepted.

        Raises:
            MlshipError: the topic cannot be read.
        """
        if self._consumer is None:
            self._open()
        if not self._pending:
            with self._clients.mapped(f"topic {self._topic}"):
                messages = self._consumer.consume(limit, 0.05)
            self._pending = [message for message in messages if message.error() is None]
        return [Given(_place(each), each.value()) for each in self._pending]

    def accept(self, refused: Sequence[tuple[Given, str]]) -> None:
        """Commit the offsets of what was received; refused ones are dead letters before.

        Raises:
            UnavailableError: they cannot be written; the messages are received again.
        """
        reasons = {given.place: reason for given, reason in refused}
        ends = {message.partition(): message.offset() + 1 for message in self._pending}
        place = self._clients.library.TopicPartition
        offsets = [place(self._topic, number, end) for number, end in ends.items()]
        subject = f"topic {self._settings.dead_letter}"
        with self._clients.mapped(subject):
            if not reasons:
                self._consumer.commit(offsets=offsets, asynchronous=False)
            else:
                if self._producer is None:
                    self._producer = self._clients.producer(f"{self._settings.group}.outcomes")
                self._producer.begin_transaction()
                for message in self._pending:
                    if (reason := reasons.get(_place(message))) is not None:
                        self._bury(message, reason)
                group = self._consumer.consumer_group_metadata()
                self._producer.send_offsets_to_transaction(offsets, group, SECONDS)
                self._producer.commit_transaction(_COMMIT_SECONDS)
        self._pending = []

    def close(self) -> None:
        """Leave the group."""
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None

    def _open(self) -> None:
        consumer = self._clients.consumer(f"{self._settings.group}.outcomes")
        self._clients.partitions(consumer, self._topic)
        with self._clients.mapped(f"topic {self._topic}"):
            consumer.subscribe([self._topic])
        self._consumer = consumer

    def _bury(self, message: Any, reason: str) -> None:
        added = [
            (stream.TOPIC, self._topic),
            (stream.PARTITION, str(message.partition())),
            (stream.OFFSET, str(message.offset())),
            (stream.REASON, reason),
        ]
        self._producer.produce(
            self._settings.dead_letter,
            message.value(),
            message.key(),
            timestamp=message.timestamp()[1],
            headers=[*(stream.headers_of(message) or ()), *added],
        )


def _place(message: Any) -> str:
    topic, partition = message.topic(), message.partition()
    return f"{topic}[{partition}] offset {message.offset()}"
