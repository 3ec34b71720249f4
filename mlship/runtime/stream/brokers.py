"""The consumer and the producer of a worker, which commit offsets and outputs as one transaction.

Exactly once: outputs, dead letters and the offsets of what was read are one transaction, which
readers with `isolation.level=read_committed` see as a whole or not at all. A worker that lost its
partitions, or was replaced, is fenced by the group's generation (KIP-447) and by its transactional
id: its transaction aborts.
"""

import contextlib
import hashlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

from mlship.domain import stream_faults
from mlship.domain.stream import Settings, headers_of
from mlship.errors import MlshipError, TimedOutError, UnavailableError
from mlship.runtime.stream.transactions import COMMIT_SECONDS, Headers, Sent, Transactions

_FIRST_SECONDS: Final = 15.0
_LOOK_SECONDS: Final = 5.0
_UNREAD: Final = "the name of a header is not UTF-8 (without its headers, which cannot be read)"
_INCONSISTENT: Final = "INCONSISTENT_GROUP_PROTOCOL"


class Received(NamedTuple):
    """A message that was read; with a fault, it is a dead letter."""

    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    fault: str = ""


class Brokers(Protocol):
    """What a worker reads from and writes to."""

    def poll(self, limit: int, seconds: float) -> Sequence[Received]:
        """Return messages of partitions that are this worker's, in order for each partition."""

    def commit(self, sent: Sequence[Sent], received: Sequence[Received]) -> bool:
        """Write messages and the offsets of what was read, together.

        Returns:
            False if nothing was written: what was read will be read again, here or elsewhere.

        Raises:
            UnfitError: a topic does not take a message; commit others in its place.
        """

    def close(self) -> None:
        """Leave the group."""


class KafkaBrokers:
    """Brokers of Kafka.

    Args:
        settings: of the stream.
        instance: the name of the worker, which no other has and its successor keeps.
        environment: has the variables with credentials.
        note: shows a line to the operator.
    """

    def __init__(
        self,
        settings: Settings,
        instance: str,
        environment: Mapping[str, str],
        note: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._note = note
        self._fault: MlshipError | None = None
        self._owned: dict[int, int | None] = {}
        self._revoked: set[int] = set()
        self._is_silent = False
        self._heard = self._looked = time.monotonic()
        confluent = _library()
        self._errors = confluent.KafkaError
        self._exception = confluent.KafkaException
        self._partition = confluent.TopicPartition
        self._transactions = Transactions(
            settings.group, confluent.KafkaException, self._of, self._group_now
        )
        # Its partitions are those of its topic: a worker that reads another one is no successor,
        # and would be given them.
        topic = hashlib.sha256(settings.input.encode()).hexdigest()[:8]
        common = {**settings.properties(environment), "error_cb": self._hear, "log_level": "2"}
        self._connect(confluent, common, f"{settings.group}-{instance}-{topic}")

    def _connect(self, confluent: Any, common: Mapping[str, Any], own: str) -> None:
        """Make the clients; `own` is the worker's name in the transactions and in the group."""
        settings = self._settings
        try:
            self._producer = confluent.Producer(
                {
                    "transaction.timeout.ms": "60000",
                    "message.timeout.ms": "30000",
                    # Not the client decides what is too large, but the topic.
                    "message.max.bytes": "1000000000",
                    **self._transactions.properties,
                    **common,
                    **({"transactional.id": own} if settings.is_transactional else {}),
                }
            )
            self._consumer = confluent.Consumer(
                {
                    "session.timeout.ms": "10000",
                    # To find the message on which a model hangs takes minutes.
                    "max.poll.interval.ms": "900000",
                    "auto.offset.reset": "earliest",
                    # A topic that was removed and made again is noticed only then.
                    "topic.metadata.refresh.interval.ms": "10000",
                    **common,
                    "group.id": settings.group,
                    "group.instance.id": own,
                    "enable.auto.commit": "false",
                    "isolation.level": "read_committed",
                    "partition.assignment.strategy": "cooperative-sticky",
                }
            )
        except self._exception as error:
            raise self._of(error, f"stream {settings.group}") from error
        self._transactions.producer = self._producer

    def open(self) -> None:
        """Join the group, and fence a former worker of this name.

        Raises:
            MlshipError: the brokers do not answer, refuse the login, or do not have a topic.
        """
        settings = self._settings
        topics = (settings.input, settings.output, settings.dead_letter, settings.shadow)
        try:
            for topic in filter(None, topics):
                # One by one: a list of all leaves out those that this login may not see.
                known = self._consumer.list_topics(topic, timeout=_FIRST_SECONDS).topics[topic]
                if known.error is not None:
                    raise self._named(known.error.name(), known.error.str(), f"topic {topic}")
            if settings.is_transactional:
                self._producer.init_transactions(_FIRST_SECONDS)
            self._consumer.subscribe(
                [settings.input],
                on_assign=self._assigned,
                on_revoke=self._taken,
                on_lost=self._taken,
            )
        except self._exception as error:
            # A call only says that nobody answered; why, `_hear` is told.
            with contextlib.suppress(self._exception):
                self._consumer.poll(0)
                self._producer.poll(0)
            raise self._fault or self._of(error, f"stream {settings.group}") from error
        self._heard = time.monotonic()

    def poll(self, limit: int, seconds: float) -> Sequence[Received]:
        """Return messages of partitions that are this worker's, in order for each partition.

        Raises:
            MlshipError: the brokers are silent for too long, or refuse to go on.
        """
        self._revoked.clear()
        messages = self._consumer.consume(limit, seconds)
        if not self._settings.is_transactional:
            self._producer.poll(0)
        if self._fault is not None:
            raise self._fault
        self._check_alive(is_heard=bool(messages))
        received = []
        for message in messages:
            error = message.error()
            if error is not None:
                self._check(error)
                continue
            partition, offset = message.partition(), message.offset()
            if not self._is_due(partition, offset):
                continue
            self._owned[partition] = offset + 1
            headers = headers_of(message)
            received.append(
                Received(
                    partition,
                    offset,
                    message.timestamp()[1],
                    message.key(),
                    message.value(),
                    headers or [],
                    _UNREAD if headers is None else "",
                )
            )
        if self._revoked:
            self._read_again(self._revoked & self._owned.keys())
        return received

    def commit(self, sent: Sequence[Sent], received: Sequence[Received]) -> bool:
        """Write messages and the offsets of what was read, in one transaction.

        Returns:
            False if the transaction was aborted: what was read will be read again.

        Raises:
            UnfitError: a topic does not take a message; the transaction was aborted.
            MlshipError: it is not known whether it was committed, or this worker is fenced. Only
                a new worker of its name can tell.
        """
        if not self._settings.is_transactional:
            return self._written_once_or_more(sent, received)
        ends = {message.partition: message.offset + 1 for message in received}
        topic = self._settings.input
        offsets = [self._partition(topic, partition, end) for partition, end in ends.items()]
        fault = self._transactions.commit(sent, offsets)
        if fault is not None:
            self._note(f"aborted a transaction of {len(received)} messages: {fault.str()}")
            self._rewind(received)
            return False
        self._heard = time.monotonic()
        return True

    def close(self) -> None:
        """Leave the group."""
        self._consumer.close()

    def _written_once_or_more(self, sent: Iterable[Sent], received: Sequence[Received]) -> bool:
        """Write, then commit the offsets: the control, which writes twice after a crash."""
        for message in sent:
            self._transactions.write(message)
        if self._producer.flush(COMMIT_SECONDS):
            raise TimedOutError("the outputs were not written", hint="check the brokers")
        ends = {message.partition: message.offset + 1 for message in received}
        topic = self._settings.input
        offsets = [self._partition(topic, partition, end) for partition, end in ends.items()]
        try:
            self._consumer.commit(offsets=offsets, asynchronous=False)
        except self._exception as error:
            self._note(f"did not commit offsets: {error.args[0].str()}")
        return True

    def _rewind(self, received: Sequence[Received]) -> None:
        """Read messages again that no transaction has, if their partitions are still here."""
        starts: dict[int, int] = {}
        for message in received:
            starts.setdefault(message.partition, message.offset)
        self._seek({part: at for part, at in starts.items() if part in self._owned})

    def _read_again(self, partitions: Iterable[int]) -> None:
        """Read partitions that went and came back from where the group is."""
        topic = self._settings.input
        asked = [self._partition(topic, partition) for partition in partitions]
        if asked:
            known = self._consumer.committed(asked, timeout=_FIRST_SECONDS)
            self._seek({each.partition: max(each.offset, -2) for each in known})

    def _seek(self, offsets: Mapping[int, int]) -> None:
        for partition, offset in offsets.items():
            start = offset if offset >= 0 else -2  # the beginning of the partition
            self._owned[partition] = None if offset < 0 else offset
            try:
                self._consumer.seek(self._partition(self._settings.input, partition, start))
            except self._exception as error:
                raise self._of(error, f"partition {partition}") from error

    def _is_due(self, partition: int, offset: int) -> bool:
        """Tell whether a message is this worker's, and was not read before."""
        # What came before a partition went to another worker is that worker's.
        expected = self._owned.get(partition, -1)
        if partition in self._revoked or expected == -1:
            return False
        if expected is None:
            self._check_removed(partition, offset)
        elif offset < expected:
            self._check_same(partition, offset)
            return False
        return True

    def _group_now(self) -> Any:
        return self._consumer.consumer_group_metadata()

    def _check_removed(self, partition: int, offset: int) -> None:
        """Tell of messages that the topic no longer had when it was their turn."""
        asked = self._partition(self._settings.input, partition)
        [known] = self._consumer.committed([asked], timeout=_FIRST_SECONDS)
        if 0 <= known.offset < offset:
            first, _ = self._consumer.get_watermark_offsets(asked, timeout=_FIRST_SECONDS)
            if first > known.offset:
                self._note(
                    f"partition {partition} of {self._settings.input} lost offsets {known.offset} "
                    f"to {first - 1} before they were read: raise its retention"
                )

    def _check_same(self, partition: int, offset: int) -> None:
        """Raise an error if a partition began anew: its topic was removed and made again."""
        if offset == 0:
            message = f"partition {partition} of {self._settings.input} begins anew"
            raise UnavailableError(message, hint="let a new worker read it from its first message")

    def _assigned(self, _: Any, partitions: Sequence[Any]) -> None:
        for each in partitions:
            self._owned[each.partition] = None

    def _taken(self, _: Any, partitions: Sequence[Any]) -> None:
        for each in partitions:
            self._owned.pop(each.partition, None)
            self._revoked.add(each.partition)

    def _hear(self, error: Any) -> None:
        """Hear of an error that belongs to no call."""
        if error.name() == "_ALL_BROKERS_DOWN":
            self._is_silent = True
        elif error.fatal() or error.name() in ("_AUTHENTICATION", "_SSL"):
            self._fault = self._named(error.name(), error.str(), f"stream {self._settings.group}")

    def _check(self, error: Any) -> None:
        """Raise what ends a worker; other errors pass by themselves."""
        names = ("UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_TOPIC", "FENCED_INSTANCE_ID")
        if error.name() == "_FATAL":
            # The only fatal error of a consumer, which hides its own name.
            raise self._named("FENCED_INSTANCE_ID", error.str(), "")
        if error.name() == _INCONSISTENT:
            raise self._named(_INCONSISTENT, error.str(), f"group {self._settings.group}")
        if error.fatal() or error.name() in names or "AUTHORIZATION" in error.name():
            raise self._named(error.name(), error.str(), f"topic {self._settings.input}")
        self._note(error.str())

    def _check_alive(self, *, is_heard: bool) -> None:
        """Ask silent brokers whether they are there, now and then."""
        now = time.monotonic()
        if is_heard:
            self._is_silent, self._heard = False, now
        if not self._is_silent:
            self._heard = now
            return
        if now - self._looked > _LOOK_SECONDS:
            self._looked = now
            try:
                self._consumer.list_topics(self._settings.input, timeout=2.0)
                self._is_silent, self._heard = False, time.monotonic()
            except self._exception:
                self._note(f"no broker at {self._settings.brokers} answers")
        if now - self._heard > self._settings.broker_seconds:
            raise stream_faults.silent(self._settings.brokers, self._settings.broker_seconds)

    def _of(self, error: Any, subject: str) -> MlshipError:
        fault = error.args[0]
        return self._named(fault.name(), fault.str(), subject)

    def _named(self, name: str, text: str, subject: str) -> MlshipError:
        if name in ("_TRANSPORT", "_TIMED_OUT", "_ALL_BROKERS_DOWN"):
            return stream_faults.silent(self._settings.brokers, _FIRST_SECONDS)
        return stream_faults.of_broker(name, text, self._settings.brokers, subject)


def _library() -> Any:
    try:
        import confluent_kafka
    except ImportError as error:
        raise stream_faults.not_installed() from error
    return confluent_kafka
