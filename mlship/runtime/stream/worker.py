"""A worker of a stream: it reads messages, has them answered, and commits both together."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

import msgspec

from mlship.domain import stream
from mlship.domain.stream import Plan, Settings, Side, prediction_id
from mlship.errors import IntegrityError, NotFoundError
from mlship.runtime.stream.brokers import Brokers, Headers, Received, Sent
from mlship.runtime.stream.link import Results, Values
from mlship.runtime.stream.sides import Choice

_LONGEST_REASON: Final = 1000


class Computing(Protocol):
    """What `models.Models` does for a worker."""

    def want(self, plan: Plan) -> None:
        """Begin to load what a plan needs and is not loaded."""

    def arrived(self, *, wait: bool = False) -> Plan | None:
        """Return the plan that was wanted, once, when all that it needs is loaded."""

    def compute(self, asked: Mapping[str, tuple[Side, Values]]) -> dict[str, Results]:
        """Return the results of batches, each by a model of its own."""


class Worker:
    """Answers messages by the plan in a file, until it is stopped.

    Args:
        settings: of the stream.
        plan: the file; a new one is put in its place when the route changes.
        brokers: where messages are read and written.
        models: what computes.
        note: shows a line to the operator.
    """

    def __init__(
        self,
        settings: Settings,
        plan: Path,
        brokers: Brokers,
        models: Computing,
        note: Callable[[str], None],
    ) -> None:
        self.is_stopped = False
        self._settings = settings
        self._file = plan
        self._seen: tuple[int, int] | None = None
        self._brokers = brokers
        self._models = models
        self._note = note
        self._plan: Plan | None = None
        self._choice: Choice | None = None

    def load(self) -> None:
        """Load the models of the plan, before messages are read.

        Raises:
            MlshipError: there is no plan, or a model cannot be loaded.
        """
        self._look()
        arrived = self._models.arrived(wait=True)
        if arrived is None:
            message = f"{self._file} has no plan"
            raise NotFoundError(message, hint="start the worker by `mlship stream run`")
        self._follow(arrived)

    def run(self) -> None:
        """Answer messages until `is_stopped` is set; a transaction that has begun is finished.

        Raises:
            MlshipError: see `Brokers` and `Computing`; messages without a commit are read again.
        """
        seconds = self._settings.max_ms / 1000
        while not self.is_stopped:
            self.turn(seconds)

    def turn(self, seconds: float) -> int:
        """Answer what arrives within some time; return how many messages it was."""
        self._look()
        arrived = self._models.arrived()
        if arrived is not None:
            self._follow(arrived)
        received = self._brokers.poll(self._settings.max_rows, seconds)
        if received:
            self._brokers.commit(list(self._answered(received)), received)
        return len(received)

    def _look(self) -> None:
        """Want the plan in the file, if it is another one than before."""
        try:
            status = self._file.stat()
            seen = (status.st_mtime_ns, status.st_ino)
            if seen == self._seen:
                return
            plan = msgspec.json.decode(self._file.read_bytes(), type=Plan)
        except FileNotFoundError:
            return
        except msgspec.DecodeError as error:
            message = f"{self._file} is damaged: {error}"
            raise IntegrityError(message, hint="run `mlship stream run` again") from error
        self._seen = seen
        if self._plan is None or plan.revision != self._plan.revision:
            self._models.want(plan)

    def _follow(self, plan: Plan) -> None:
        """Answer by a plan from the next transaction on."""
        self._plan = plan
        self._choice = Choice(plan.sides)
        shares = ", ".join(f"{side.name} {side.weight} %" for side in plan.sides if side.weight)
        self._note(f"follows route {plan.revision}: {shares}")

    def _answered(self, received: Sequence[Received]) -> Iterator[Sent]:
        """Return the outputs and the dead letters for messages, in their order."""
        plan, choice, topic = self._plan, self._choice, self._settings.input
        assert plan is not None  # noqa: S101 (load has set both)
        assert choice is not None  # noqa: S101
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
                yield self._dead(each, side, *result.faults[place])
            else:
                yield _output(self._settings.output, each, value, side, id_)
        yield from copies

    def _computed(
        self, received: Sequence[Received], ids: Sequence[str], sides: Sequence[Side]
    ) -> dict[str, Results]:
        asked: dict[str, tuple[Side, Values]] = {}
        for id_, each, side in zip(ids, received, sides, strict=True):
            values = asked.setdefault(side.slot, (side, Values([], [])))[1]
            values.ids.append(id_)
            values.values.append(each.value)
        return self._models.compute(asked)

    def _copied(
        self, plan: Plan, received: Sequence[Received], ids: Sequence[str], sides: Sequence[Side]
    ) -> list[Sent]:
        """Return what the shadow answers to copies; what it refuses is dropped, as over HTTP."""
        shadow = next((side for side in plan.sides if side.slot == plan.shadow), None)
        if shadow is None:
            return []
        pairs = zip(ids, received, sides, strict=True)
        copied = [(id_, each) for id_, each, side in pairs if side is not shadow]
        if not copied:
            return []
        values = Values([id_ for id_, _ in copied], [each.value for _, each in copied], shadow=True)
        result = self._models.compute({shadow.slot: (shadow, values)})[shadow.slot]
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


def _output(topic: str, message: Received, value: bytes, side: Side, id_: str) -> Sent:
    own: Headers = [(stream.RELEASE, side.name.encode()), (stream.PREDICTION, id_.encode())]
    return Sent(topic, message.key, value, [*message.headers, *own], message.timestamp)
