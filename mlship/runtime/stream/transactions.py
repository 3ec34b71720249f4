"""Transactions of a worker: messages and the offsets of what they answer, all or nothing."""

import time
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

from mlship.errors import MlshipError

COMMIT_SECONDS: Final = 60.0
_SIZE: Final = "MSG_SIZE_TOO_LARGE"
_TIME: Final = "INVALID_TIMESTAMP"
_KEY: Final = "INVALID_RECORD"
_UNFIT: Final = (_SIZE, _TIME, _KEY)
"""What a broker says of a batch with a message that its topic never takes."""
_SINGLY: Final = 4
"""Attempts to write messages one by one after a batch was refused."""

Headers: TypeAlias = list[tuple[str, bytes | None]]


class Sent(NamedTuple):
    """A message to write; the key and the time are those of what it answers."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers
    timestamp: int


class UnfitError(Exception):
    """A topic does not take a message; nothing was written, and nothing is read again.

    Attributes:
        place: of the message among those that were to be written.
        sent: the message.
        name: of the broker's error.
    """

    def __init__(self, place: int, sent: Sent, name: str = _SIZE) -> None:
        super().__init__(place, sent.topic, name)
        self.place = place
        self.sent = sent
        self.name = name

    @property
    def is_size(self) -> bool:
        """Whether it is too large."""
        return self.name == _SIZE

    @property
    def is_time(self) -> bool:
        """Whether its time is too far from now."""
        return self.name == _TIME

    @property
    def reason(self) -> str:
        """Why, for people, after what the message is."""
        topic = self.sent.topic
        if self.is_size:
            return f"of {len(self.sent.value or b'')} bytes does not fit into {topic}"
        if self.is_time:
            return f"has a time that {topic} does not take"
        if self.sent.key is None:
            return f"has no key, without which {topic} does not take it: it is compacted"
        return f"is not taken by {topic}"


class Transactions:
    """Writes through a producer of librdkafka.

    Args:
        group: the consumer group.
        exception: the client's.
        named: returns the error of the tree for one of the client, and what was done with what.
        metadata: returns that of the consumer now, by which the brokers fence a former one.

    Attributes:
        producer: set before the first commit.
        properties: that the producer needs.
    """

    producer: Any

    def __init__(
        self,
        group: str,
        exception: type[Exception],
        named: Callable[[Any, str], MlshipError],
        metadata: Callable[[], Any],
    ) -> None:
        self._subject = f"the transaction of stream {group}"
        self._exception = exception
        self._named = named
        self._metadata = metadata
        self._undelivered: list[str] = []
        self._is_unfit = False
        self.properties = {"on_delivery": self._deliver, "delivery.report.only.error": True}

    def commit(self, sent: Sequence[Sent], offsets: Sequence[Any]) -> Any:
        """Write messages and offsets.

        Returns:
            The error for which the transaction was aborted; `None` if it was committed.

        Raises:
            UnfitError: a topic does not take a message; the transaction was aborted.
            MlshipError: it is not known whether it was committed, or this worker is fenced.
        """
        fault = self._once(sent, offsets)
        for _ in range(_SINGLY):
            if fault is None or not self._is_unfit:
                break
            fault = self._once(sent, offsets, singly=True)
        if fault is None:
            self._is_unfit = False
        return fault

    def write(self, message: Sent) -> None:
        """Hand a message to the producer; wait while its queue is full."""
        while True:
            try:
                self.producer.produce(
                    message.topic,
                    message.value,
                    message.key,
                    timestamp=message.timestamp,
                    headers=message.headers,
                )
            except BufferError:
                self.producer.poll(0.1)
            else:
                return

    def _once(self, sent: Sequence[Sent], offsets: Sequence[Any], *, singly: bool = False) -> Any:
        """Commit or abort, as `commit` does.

        Args:
            sent: messages to write.
            offsets: of what was read.
            singly: write each message in a batch of its own. The brokers refuse batches, with all
                that is in them.
        """
        producer, place = self.producer, 0
        self._undelivered.clear()
        try:
            producer.begin_transaction()
            while place < len(sent):
                self.write(sent[place])
                if singly and (producer.flush(COMMIT_SECONDS) or self._undelivered):
                    break
                place += 1
            group = self._metadata()
            self._repeated(lambda: producer.send_offsets_to_transaction(offsets, group, 10.0))
            self._repeated(lambda: producer.commit_transaction(10.0))
        except self._exception as error:
            fault = error.args[0]
            producer.poll(0)
            name = next((n for n in (fault.name(), *self._undelivered) if n in _UNFIT), "")
            if not name and not fault.txn_requires_abort():
                raise self._named(error, self._subject) from error
            self._abort()
            # The client's next transaction fails, too: it numbers messages as if all had arrived.
            self._is_unfit = self._is_unfit or bool(name)
            if name and singly:
                raise UnfitError(place, sent[place], name) from error
            return fault
        return None

    def _deliver(self, error: Any, _: Any) -> None:
        """Hear that a message was not delivered."""
        if error is not None:
            self._undelivered.append(error.name())

    def _repeated(self, call: Callable[[], Any]) -> None:
        """Call until it succeeds, within the time limit of a commit."""
        deadline = time.monotonic() + COMMIT_SECONDS
        while True:
            try:
                call()
            except self._exception as error:
                if not error.args[0].retriable() or time.monotonic() > deadline:
                    raise
            else:
                return

    def _abort(self) -> None:
        try:
            self._repeated(lambda: self.producer.abort_transaction(10.0))
        except self._exception as error:
            raise self._named(error, self._subject) from error
