"""Dead letters that are sent to the input topic again, each once."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from mlship.adapters.streams.clients import SECONDS, Clients
from mlship.domain import stream
from mlship.domain.stream import Settings
from mlship.domain.streaming import Replayed, Selection
from mlship.errors import NotFoundError, TimedOutError

_BATCH: Final = 1000
_TURNS: Final = 30
_COMMIT_SECONDS: Final = 60.0


class KafkaDeadLetters:
    """The dead-letter topic of a stream: the port `DeadLetters`.

    Args:
        clients: make the connections.
        settings: of the stream.
    """

    def __init__(self, clients: Clients, settings: Settings) -> None:
        self._clients = clients
        self._settings = settings
        self._group = f"{settings.group}.replay"

    def replay(self, selection: Selection, *, dry_run: bool = False) -> Replayed:
        """Send dead letters to the input topic again, each once.

        Those that are not selected by offset are sent with the offsets of the group `...replay`,
        in transactions: after a crash, the next replay continues. Those of a selection are one
        transaction, and are sent again each time.

        Raises:
            NotFoundError: the topic, the partition or the offset does not exist.
            UnavailableError: no broker answers.
            TimedOutError: what is in the topic does not arrive.
        """
        consumer = self._clients.consumer(self._group)
        producer = None if dry_run else self._clients.producer(self._group)
        try:
            ends = self._begin(consumer, selection)
            total, left_out, reasons = 0, 0, Counter[str]()
            while ends:
                batch = self._batch(consumer, ends, is_whole=selection.partition is not None)
                own = [message for message in batch if self._is_own(message)]
                total, left_out = total + len(own), left_out + len(batch) - len(own)
                reasons.update(_header(message, stream.REASON) for message in own)
                if producer is not None:
                    is_group = selection.partition is None
                    self._send(producer, consumer, own, batch if is_group else ())
            return Replayed(count=total, left_out=left_out, reasons=dict(reasons.most_common(10)))
        finally:
            consumer.close()

    def _begin(self, consumer: Any, selection: Selection) -> dict[int, int]:
        """Read from the first dead letter that is selected; return the ends by partition."""
        topic = self._settings.dead_letter
        place = self._clients.library.TopicPartition
        numbers = self._clients.partitions(consumer, topic)
        if selection.partition is not None and selection.partition not in numbers:
            message = f"topic {topic} has no partition {selection.partition}"
            raise NotFoundError(message, hint=f"its partitions are {numbers[0]} to {numbers[-1]}")
        chosen = numbers if selection.partition is None else [selection.partition]
        with self._clients.mapped(f"topic {topic}"):
            bounds = {
                number: consumer.get_watermark_offsets(place(topic, number), timeout=SECONDS)
                for number in chosen
            }
            asked = [place(topic, number) for number in chosen]
            known = consumer.committed(asked, timeout=SECONDS)
            starts = {each.partition: max(each.offset, bounds[each.partition][0]) for each in known}
            if selection.partition is not None:
                low, high = bounds[selection.partition]
                last = high - 1 if selection.last is None else selection.last
                if not low <= selection.first <= last < high:
                    message = f"partition {selection.partition} of {topic} has no offsets "
                    message += f"{selection.first} to {last}"
                    hint = f"it has {low} to {high - 1}"
                    raise NotFoundError(message, hint=hint)
                starts = {selection.partition: selection.first}
                bounds = {selection.partition: (low, last + 1)}
            ends = {number: high for number, (_, high) in bounds.items() if starts[number] < high}
            consumer.assign([place(topic, number, starts[number]) for number in ends])
        return ends

    def _batch(self, consumer: Any, ends: dict[int, int], *, is_whole: bool) -> list[Any]:
        """Return the next dead letters, or all of them; partitions that are read leave `ends`."""
        batch: list[Any] = []
        for _ in range(_TURNS):
            with self._clients.mapped(f"topic {self._settings.dead_letter}"):
                messages = consumer.consume(_BATCH, 0.5)
            for message in messages:
                error, partition = message.error(), message.partition()
                if error is not None and error.name() != "_PARTITION_EOF":
                    raise self._clients.named(error, f"topic {self._settings.dead_letter}")
                if error is None and message.offset() < ends.get(partition, 0):
                    batch.append(message)
                # After the last message may come what ends a transaction, which is none.
                if error is not None or message.offset() + 1 >= ends.get(partition, 0):
                    ends.pop(partition, None)
            if not ends or (batch and not is_whole):
                return batch
        text = f"the dead letters of {self._settings.dead_letter} did not arrive"
        raise TimedOutError(text, hint="a transaction may be open: try again in a minute")

    def _is_own(self, message: Any) -> bool:
        return _header(message, stream.TOPIC) == self._settings.input

    def _send(
        self, producer: Any, consumer: Any, letters: Sequence[Any], read: Sequence[Any]
    ) -> None:
        """Send letters, with the offsets of what was read, in one transaction."""
        place = self._clients.library.TopicPartition
        ends = {message.partition(): message.offset() + 1 for message in read}
        topic = self._settings.dead_letter
        with self._clients.mapped(f"the replay to topic {self._settings.input}"):
            producer.begin_transaction()
            for message in letters:
                headers = [
                    (name, value)
                    for name, value in stream.headers_of(message) or ()
                    if not name.startswith(stream.DEAD)
                ]
                producer.produce(
                    self._settings.input,
                    message.value(),
                    message.key(),
                    timestamp=message.timestamp()[1],
                    headers=headers,
                )
                producer.poll(0)
            if ends:
                offsets = [place(topic, number, end) for number, end in ends.items()]
                group = consumer.consumer_group_metadata()
                producer.send_offsets_to_transaction(offsets, group, SECONDS)
            producer.commit_transaction(_COMMIT_SECONDS)


def _header(message: Any, name: str) -> str:
    values = [value for key, value in stream.headers_of(message) or () if key == name]
    return (values[-1] or b"").decode(errors="replace") if values else ""
