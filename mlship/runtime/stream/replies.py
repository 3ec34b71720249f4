"""What is written for the messages of a batch: outputs, dead letters, and answers to copies."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Protocol

from mlship.domain import stream
from mlship.domain.stream import Plan, Settings, Side, prediction_id
from mlship.errors import UnavailableError
from mlship.runtime.stream.brokers import Received
from mlship.runtime.stream.link import Results, Values
from mlship.runtime.stream.sides import Choice
from mlship.runtime.stream.transactions import Headers, Sent, UnfitError

_LONGEST_REASON: Final = 1000
_DELETED: Final = "set cleanup.policy=delete on that topic"


class _Computing(Protocol):
    def compute(self, asked: Mapping[str, tuple[Side, Values]]) -> dict[str, Results]:
        """Return the results of batches, each by a model of its own."""


class Replies:
    """Answers batches of messages by one plan.

    Args:
        settings: of the stream.
        plan: whose releases answer.
        models: what computes.
    """

    def __init__(self, settings: Settings, plan: Plan, models: _Computing) -> None:
        self._settings = settings
        self._plan = plan
        self._choice = Choice(plan.sides)
        self._compute = models.compute

    def to(self, received: Sequence[Received]) -> Iterator[Sent]:
        """Return the outputs and the dead letters for messages, in their order.

        Raises:
            MlshipError: no message is to blame; see `Models.compute`.
        """
        plan, choice, topic = self._plan, self._choice, self._settings.input
        ids = [
            prediction_id(topic, each.partition, each.offset, each.timestamp) for each in received
        ]
        sides = [
            choice.of(id_.encode() if each.key is None else each.key)
            for id_, each in zip(ids, received, strict=True)
        ]
        results = self._computed(received, ids, sides)
        copies = self._copied(plan, received, ids, sides)
        nexts = {slot: iter(range(len(result.values))) for slot, result in results.items()}
        for id_, each, side in zip(ids, received, sides, strict=True):
            result = results[side.slot]
            place = next(nexts[side.slot])
            value = result.values[place]
            if value is None:
                reason, column = result.faults[place]
                yield self._dead(each, side, each.fault or reason, column)
            else:
                yield _output(self._settings.output, each, value, side, id_)
        yield from copies

    def instead(
        self, sent: Sequence[Sent], error: UnfitError, received: Sequence[Received]
    ) -> list[Sent]:
        """Return what is written instead of replies of which one is not taken by its topic.

        An output becomes a dead letter, a dead letter loses its value or its time, and a copy is
        left out.

        Args:
            sent: what `to` returned for `received`, or this method.
            error: names the one that is not taken.
            received: the messages.

        Raises:
            UnavailableError: a dead letter is not taken in any form.
        """
        replies, place, refused = list(sent), error.place, error.sent
        if place >= len(received):
            del replies[place]
            return replies
        message = received[place]
        if refused.topic == self._settings.output:
            id_ = prediction_id(
                self._settings.input, message.partition, message.offset, message.timestamp
            )
            side = self._choice.of(id_.encode() if message.key is None else message.key)
            replies[place] = self._dead(message, side, f"its output {error.reason}", "")
        elif error.is_time and refused.timestamp:
            note = b" (with another time than its own, which the topic does not take)"
            replies[place] = _noted(refused, note)._replace(timestamp=0)
        elif error.is_size and refused.value is not None:
            size = len(refused.value)
            note = f" (without its value of {size} bytes, which does not fit)".encode()
            replies[place] = _noted(refused, note)._replace(value=None)
        else:
            at = f"offset {message.offset} of partition {message.partition}"
            text = f"the dead letter for {at} of {self._settings.input} {error.reason}"
            hint = "raise max.message.bytes of that topic" if error.is_size else _DELETED
            raise UnavailableError(text, hint=hint)
        return replies

    def _computed(
        self, received: Sequence[Received], ids: Sequence[str], sides: Sequence[Side]
    ) -> dict[str, Results]:
        asked: dict[str, tuple[Side, Values]] = {}
        for id_, each, side in zip(ids, received, sides, strict=True):
            values = asked.setdefault(side.slot, (side, Values([], [])))[1]
            values.ids.append(id_)
            values.values.append(None if each.fault else each.value)
        return self._compute(asked)

    def _copied(
        self, plan: Plan, received: Sequence[Received], ids: Sequence[str], sides: Sequence[Side]
    ) -> list[Sent]:
        """Return what the shadow answers to copies; what it refuses is dropped, as over HTTP."""
        shadow = next((side for side in plan.sides if side.slot == plan.shadow), None)
        if shadow is None:
            return []
        pairs = zip(ids, received, sides, strict=True)
        copied = [(id_, each) for id_, each, side in pairs if side is not shadow and not each.fault]
        if not copied:
            return []
        values = Values([id_ for id_, _ in copied], [each.value for _, each in copied], shadow=True)
        result = self._compute({shadow.slot: (shadow, values)})[shadow.slot]
        topic = self._settings.shadow
        return [
            _output(topic, each, value, shadow, id_)
            for (id_, each), value in zip(copied, result.values, strict=True)
            if topic and value is not None
        ]

    def _dead(self, message: Received, side: Side, reason: str, column: str) -> Sent:
        added: Headers = [
            (stream.TOPIC, self._settings.input.encode()),
            (stream.PARTITION, b"%d" % message.partition),
            (stream.OFFSET, b"%d" % message.offset),
            (stream.DEAD_RELEASE, side.name.encode()),
            (stream.REASON, reason[:_LONGEST_REASON].encode(errors="replace")),
            (stream.FIELD, column.encode(errors="replace")),
        ]
        return Sent(
            self._settings.dead_letter,
            message.key,
            message.value,
            [*message.headers, *added],
            message.timestamp,
        )


def _noted(letter: Sent, note: bytes) -> Sent:
    """Return a dead letter with a note after its reason."""
    headers = [
        (name, (value or b"") + note) if name == stream.REASON else (name, value)
        for name, value in letter.headers
    ]
    return letter._replace(headers=headers)


def _output(topic: str, message: Received, value: bytes, side: Side, id_: str) -> Sent:
    own: Headers = [(stream.RELEASE, side.name.encode()), (stream.PREDICTION, id_.encode())]
    return Sent(topic, message.key, value, [*message.headers, *own], message.timestamp)
