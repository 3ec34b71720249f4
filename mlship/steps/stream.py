"""stream: answer the messages of a topic by the releases that the route of production names."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from mlship.config.stream import StreamConfig
from mlship.domain import bundle as bundles
from mlship.domain.deployment import Route, slot_of
from mlship.domain.stream import Plan, Side
from mlship.domain.streaming import Backlog, Backlogs, Given, OutcomeMessages, Selection, Workers
from mlship.errors import (
    ConfigError,
    ConflictError,
    MlshipError,
    NotFoundError,
    ProjectError,
    UnavailableError,
)
from mlship.steps import feedback
from mlship.steps.outcome_files import Received, outcome_of
from mlship.steps.pipeline import PRODUCTION, Pipeline

_LOOK_SECONDS = 0.25
_OUTCOMES = 1000
CLIENT = ("confluent-kafka", "xxhash")
"""Packages that an image needs for the workers of a stream."""


class Streamed(msgspec.Struct, frozen=True, kw_only=True):
    """A stream and how far it is behind.

    Attributes:
        input: the topic that is read.
        output: the topic of predictions.
        backlog: of its group.
    """

    input: str
    output: str
    backlog: Backlog

    @property
    def sentence(self) -> str:
        """What people are told."""
        name, told = f"stream {self.input} -> {self.output}", self.backlog
        if told.behind is None:
            return f"{name}: how far it is behind is unknown: {told.fault}"
        count = f"{told.behind:,} message{'' if told.behind == 1 else 's'} behind"
        workers = f"{told.workers} worker{'' if told.workers == 1 else 's'}"
        if told.others:
            is_one = told.others == 1
            workers += f", and {told.others} other client{'' if is_one else 's'} of its group, "
            workers += "which takes messages away" if is_one else "which take messages away"
        elif not told.workers:
            workers = "no worker"
            if told.behind:
                workers += ": the log of `mlship stream run`, or `kubectl logs`, says why"
        return f"{name}: {count}, {workers}"


def streamed(pipeline: Pipeline, backlogs: Backlogs | None) -> Streamed | None:
    """Return how far the stream of a project is behind; `None` if it has none."""
    config = pipeline.config.stream
    if config is None or backlogs is None:
        return None
    return Streamed(input=config.input, output=config.output, backlog=backlogs.backlog())


def section(pipeline: Pipeline) -> StreamConfig:
    """Return the settings of the stream.

    Raises:
        ConfigError: mlship.yaml has none.
    """
    if pipeline.config.stream is None:
        message = "mlship.yaml has no section stream"
        raise ConfigError(message, hint="add stream.brokers, stream.input and stream.output")
    return pipeline.config.stream


def image_with_client(pipeline: Pipeline) -> str:
    """Return the image of the champion, by digest, which has the client of Kafka.

    Raises:
        NotFoundError: there is no champion, or it has no image in a registry.
        ConfigError: its image does not have the client.
    """
    records = pipeline.read()
    champion = records.history.champion
    if champion is None:
        message = "there is no champion yet, whose image the workers of the stream run"
        raise NotFoundError(message, hint="run `mlship deploy-production` first")
    artifact = pipeline.artifact(champion, PRODUCTION, records)
    pins = bundles.read(pipeline.bundle(champion)).requirements
    missing = [name for name in CLIENT if not any(pin.startswith(f"{name}==") for pin in pins)]
    if missing:
        message = f"the image of {champion} does not have {' and '.join(missing)}"
        hint = f"add {', '.join(missing)} to requirements.txt, and promote a release with it"
        raise ConfigError(message, hint=hint)
    return artifact.location


def selection(partition: int | None, first: int | None, last: int | None) -> Selection:
    """Return the dead letters that options select.

    Raises:
        ConfigError: offsets are given without a partition.
    """
    if partition is None and (first is not None or last is not None):
        message = "--from and --to are offsets in a partition, and --partition is missing"
        raise ConfigError(message, hint="add --partition, or omit both to send all again")
    return Selection(partition=partition, first=first or 0, last=last)


def plan_of(pipeline: Pipeline, route: Route) -> Plan:
    """Return what a route means for a stream; bundles are fetched.

    Raises:
        NotFoundError: no release gets traffic, or one of the route is not in the ledger.
    """
    if not route.split.weights:
        message = "no release gets traffic in production yet"
        raise NotFoundError(message, hint="run `mlship deploy-production` first")
    releases = {slot_of(release): release for release in pipeline.read().releases}
    sides = []
    # In the order in which the load balancer has them: a key stays on its side.
    for slot in sorted(route.split.slots):
        release = releases.get(slot)
        if release is None:
            message = f"the release in slot {slot} of production is not in the ledger"
            raise NotFoundError(message, hint="use the ledger of the project that deployed it")
        sides.append(
            Side(
                slot=slot,
                release=release.id,
                name=str(release),
                bundle=str(pipeline.bundle(release).absolute()),
                digest=release.bundle,
                weight=route.split.share(slot),
            )
        )
    return Plan(revision=route.revision, sides=tuple(sides), shadow=route.split.shadow or "")


def run(
    pipeline: Pipeline,
    workers: Workers,
    outcomes: OutcomeMessages | None = None,
    *,
    count: int | None = None,
    ready: Callable[[], None] = lambda: None,
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Run a stream until an exception such as KeyboardInterrupt ends it; workers are stopped then.

    Args:
        pipeline: the project.
        workers: answer the messages.
        outcomes: of the predictions, which are recorded as by `feedback`; `None` for none.
        count: of workers, instead of the configured number.
        ready: is called when all workers answer messages.
        pause: waits between two looks at the route and the workers.

    Raises:
        MlshipError: the stream cannot begin, or another one with its name runs.
    """
    config = section(pipeline)
    plan = plan_of(pipeline, pipeline.target(PRODUCTION).routes())
    follower = _Follower(pipeline, workers, plan)
    count = count or config.workers
    try:
        workers.start(plan, count)
        pipeline.progress.note(f"stream {config.input} -> {config.output}: {count} ready")
        ready()
        while True:
            pause(_LOOK_SECONDS)
            follower.look()
            workers.look()
            if outcomes is not None:
                _record(pipeline, outcomes)
    finally:
        workers.stop()
        if outcomes is not None:
            outcomes.close()


class _Follower:
    """Has the workers follow the route of production.

    A route that cannot be read or followed changes nothing: messages are answered as before.
    """

    def __init__(self, pipeline: Pipeline, workers: Workers, plan: Plan) -> None:
        self._pipeline = pipeline
        self._workers = workers
        self._target = pipeline.target(PRODUCTION)
        self._plan = plan
        self._failure = ""

    def look(self) -> None:
        """Tell the workers of a new route; note once why that fails."""
        try:
            route = self._target.routes()
            if route.revision != self._plan.revision:
                plan = plan_of(self._pipeline, route)
                self._workers.follow(plan)
                self._plan = plan
            failure = ""
        except MlshipError as error:
            failure = error.message
            if failure != self._failure:
                self._pipeline.progress.note(f"the stream stays as it was: {failure}")
        self._failure = failure


def _record(pipeline: Pipeline, outcomes: OutcomeMessages) -> None:
    """Record outcomes that arrived; their offsets are committed afterwards.

    An outcome that is received again is known already. Those that cannot be recorded go to the
    dead-letter topic. While the store of outcomes is away, they stay in their topic.
    """
    given = outcomes.receive(_OUTCOMES)
    if not given:
        return
    read, refused = _read(given, pipeline.config.data.targets)
    try:
        refused += _taken(pipeline, read)
    except UnavailableError as error:
        # They are received again, because they are not accepted.
        pipeline.progress.note(f"outcomes wait in their topic: {error.message}")
        return
    outcomes.accept(refused)
    for each, reason in refused:
        pipeline.progress.note(f"{each.place}: {reason}")


def _read(
    given: Sequence[Given], targets: Sequence[str]
) -> tuple[list[tuple[Given, Received]], list[tuple[Given, str]]]:
    read, refused = [], []
    for each in given:
        try:
            row: Any = msgspec.json.decode(each.value or b"")
            if not isinstance(row, dict):
                row = {}
            read.append((each, outcome_of(row, each.place, targets)))
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            refused.append((each, f"not JSON: {error}"))
        except ProjectError as error:
            refused.append((each, error.message))
    return read, refused


def _taken(pipeline: Pipeline, read: Sequence[tuple[Given, Received]]) -> list[tuple[Given, str]]:
    """Record outcomes; return those that were refused: if any is, each is tried alone."""
    if not read:
        return []
    try:
        taken = feedback.feedback(pipeline, [received for _, received in read])
    except (ProjectError, NotFoundError, ConflictError) as error:
        if len(read) == 1:
            return [(read[0][0], error.message)]
        middle = len(read) // 2
        return [*_taken(pipeline, read[:middle]), *_taken(pipeline, read[middle:])]
    unknown = set(taken.unknown)
    return [
        (each, f"no prediction {received.name[:60]} is in the log")
        for each, received in read
        if received.name in unknown
    ]
