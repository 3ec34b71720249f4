"""Clients of Kafka for commands, with the vendor's errors mapped to the tree."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import MappingProxyType
from typing import Any, Final

from mlship.domain import stream_faults
from mlship.domain.stream import Settings
from mlship.errors import MlshipError

SECONDS: Final = 15.0


class Clients:
    """Makes clients for the brokers of a stream.

    Args:
        settings: of the stream.
        environment: has the variables with credentials.
    """

    def __init__(self, settings: Settings, environment: Mapping[str, str]) -> None:
        self._settings = settings
        self._properties = settings.properties(environment)
        self._fault: MlshipError | None = None
        try:
            import confluent_kafka
        except ImportError as error:
            raise stream_faults.not_installed() from error
        self.library: Any = confluent_kafka

    def consumer(self, group: str, properties: Mapping[str, str] = MappingProxyType({})) -> Any:
        """Return a consumer that commits no offsets by itself."""
        own = {
            "session.timeout.ms": "10000",
            "auto.offset.reset": "earliest",
            "group.id": group,
            "enable.auto.commit": "false",
            "enable.partition.eof": "true",
            "isolation.level": "read_committed",
            **properties,
        }
        with self.mapped(f"group {group}"):
            return self.library.Consumer({**self._common(), **own})

    def producer(self, transactional_id: str) -> Any:
        """Return a producer whose transactions fence those of a former one."""
        own = {"transactional.id": transactional_id, "transaction.timeout.ms": "300000"}
        subject = f"transactional id {transactional_id}"
        with self.mapped(subject):
            producer = self.library.Producer({**self._common(), **own})
        with self.mapped(subject, producer):
            producer.init_transactions(SECONDS)
        return producer

    def admin(self) -> Any:
        """Return a client that asks brokers what they know of groups and topics."""
        from confluent_kafka.admin import AdminClient

        with self.mapped(f"stream {self._settings.group}"):
            return AdminClient(self._common())

    def partitions(self, consumer: Any, topic: str) -> list[int]:
        """Return the numbers of a topic's partitions.

        Raises:
            NotFoundError: it does not exist.
            UnavailableError: no broker answers.
        """
        subject = f"topic {topic}"
        with self.mapped(subject, consumer):
            known = consumer.list_topics(topic, timeout=SECONDS).topics[topic]
            if known.error is not None:
                raise self.named(known.error, subject)
            return sorted(known.partitions)

    def look(self, topics: Sequence[str]) -> dict[str, int]:
        """Return how many partitions topics have.

        Raises:
            NotFoundError: one does not exist.
            CredentialsError: the login is refused, or may not see one.
            UnavailableError: no broker answers.
        """
        consumer = self.consumer(self._settings.group)
        try:
            return {topic: len(self.partitions(consumer, topic)) for topic in topics}
        finally:
            consumer.close()

    @contextmanager
    def mapped(self, subject: str, client: Any = None) -> Iterator[None]:
        """Raise faults of Kafka as errors of the tree.

        Args:
            subject: what was done with which object.
            client: is asked why nobody answers.
        """
        try:
            yield
        except self.library.KafkaException as error:
            with suppress(self.library.KafkaException):
                if client is not None:
                    client.poll(0)
            raise self._fault or self.named(error.args[0], subject) from error

    def _common(self) -> dict[str, Any]:
        return {**self._properties, "error_cb": self._hear, "log_level": "2"}

    def _hear(self, error: Any) -> None:
        """Keep an error that belongs to no call: a call only says that nobody answered."""
        if error.name() in ("_AUTHENTICATION", "_SSL"):
            self._fault = self.named(error, f"stream {self._settings.group}")

    def silent(self, seconds: float) -> MlshipError:
        """Return why no broker answered within some time: a refused login, if that was heard."""
        return self._fault or stream_faults.silent(self._settings.brokers, seconds)

    def named(self, error: Any, subject: str, seconds: float = SECONDS) -> MlshipError:
        """Return an error of the tree for one of the client."""
        brokers = self._settings.brokers
        if error.name() in ("_TRANSPORT", "_TIMED_OUT", "_ALL_BROKERS_DOWN"):
            return self.silent(seconds)
        return stream_faults.of_broker(error.name(), error.str(), brokers, subject)
