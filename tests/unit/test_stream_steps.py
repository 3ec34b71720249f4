"""The step of streams on fakes: the plan follows the route, and outcomes become feedback."""

import dataclasses
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mlship.adapters.observations.directory import DirectoryObservations
from mlship.config.layers import Layer, resolve
from mlship.config.stream import StreamConfig
from mlship.domain import stream_faults
from mlship.domain.deployment import Slot, Split, slot_of
from mlship.domain.lines import lines_of
from mlship.domain.prediction import Prediction
from mlship.domain.release import Release
from mlship.domain.stream import REGISTRY, Plan
from mlship.domain.streaming import Backlog, Given, Selection
from mlship.errors import (
    ConfigError,
    ConflictError,
    CredentialsError,
    MlshipError,
    NotFoundError,
    UnavailableError,
)
from mlship.steps import stream
from mlship.steps.status import status
from mlship.steps.train import train
from mlship.wire import streams
from tests.fakes.ports import CONFIG, World, world
from tests.harness.samples import nothing

STREAM = StreamConfig(brokers="one:9092", input="in", output="out")
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


class EndError(Exception):
    """Ends a stream, as Ctrl-C does."""


class Workers:
    """Keeps the plans."""

    def __init__(self) -> None:
        self.plans: list[Plan] = []
        self.calls: list[str] = []
        self.is_full = False

    def start(self, plan: Plan, count: int) -> None:
        self.plans.append(plan)
        self.calls.append(f"start {count}")

    def follow(self, plan: Plan) -> None:
        if self.is_full:
            raise UnavailableError("the disk is full", hint="free it")
        self.plans.append(plan)

    def look(self) -> None:
        pass

    def stop(self) -> None:
        self.calls.append("stop")


class Outcomes:
    """Gives messages until they are accepted."""

    def __init__(self, *values: bytes) -> None:
        self.waiting = [Given(f"outcomes[0] offset {n}", each) for n, each in enumerate(values)]
        self.refused: list[tuple[str, str]] = []

    def receive(self, limit: int) -> Sequence[Given]:
        return self.waiting[:limit]

    def accept(self, refused: Sequence[tuple[Given, str]]) -> None:
        self.refused += [(given.place, reason) for given, reason in refused]
        self.waiting = []

    def close(self) -> None:
        pass


@pytest.fixture
def here(tmp_path: Path) -> World:
    made = world(tmp_path, msgspec.structs.replace(CONFIG, stream=STREAM))
    made.pipeline.root.mkdir(exist_ok=True)
    return made


def released(here: World) -> Release:
    """Train a release, and give it all the traffic of production."""
    train(here.pipeline)
    chosen = here.pipeline.read().releases[-1]
    give(here, {slot_of(chosen): 100}, chosen)
    return chosen


def give(here: World, weights: dict[Slot, int], *releases: Release) -> None:
    target = here.targets["production"]
    for each in releases:
        artifact = here.pipeline.artifact(each, "production", here.pipeline.read())
        target.deploy(each, artifact, slot_of(each), replicas=1)
    target.route(Split(weights=weights), expected=target.routes().revision)


def run(here: World, workers: Workers, *turns: Any, outcomes: Outcomes | None = None) -> None:
    """Run a stream; each turn does something, and the last one ends it."""
    left = list(turns)

    def pause(_: float) -> None:
        if not left:
            raise EndError
        left.pop(0)()

    with pytest.raises(EndError):
        stream.run(here.pipeline, workers, outcomes, pause=pause)


def test_a_plan_has_the_releases_of_the_route_and_is_replaced_with_it(here: World) -> None:
    first = released(here)
    workers = Workers()

    def change() -> None:
        here.trainer.params = "C=2"
        here.source.sha = "b" * 40
        train(here.pipeline, anew=True)
        second = here.pipeline.read().releases[-1]
        give(here, {slot_of(first): 90, slot_of(second): 10}, second)

    run(here, workers, change, lambda: None)
    before, after = workers.plans
    assert [(side.release, side.weight) for side in before.sides] == [(first.id, 100)]
    assert before.sides[0].digest == first.bundle
    assert Path(before.sides[0].bundle).is_dir()
    assert {side.slot: side.weight for side in after.sides}[slot_of(first)] == 90
    assert [side.slot for side in after.sides] == sorted(side.slot for side in after.sides)
    assert before.revision != after.revision
    assert workers.calls == ["start 1", "stop"]


def test_a_route_that_cannot_be_read_changes_nothing(here: World) -> None:
    released(here)
    workers, target = Workers(), here.targets["production"]

    def fail() -> None:
        def routes() -> Any:
            raise UnavailableError("the cluster is away", hint="wait")

        target.routes = routes  # type: ignore[method-assign]

    run(here, workers, fail, lambda: None)
    assert len(workers.plans) == 1
    notes = [note for note in here.progress.notes if "stays as it was" in note]
    assert notes == ["the stream stays as it was: the cluster is away"]


def test_a_route_that_the_workers_cannot_be_told_of_is_told_again(here: World) -> None:
    chosen = released(here)
    workers = Workers()

    def change() -> None:
        here.trainer.params = "C=2"
        here.source.sha = "b" * 40
        train(here.pipeline, anew=True)
        second = here.pipeline.read().releases[-1]
        give(here, {slot_of(chosen): 90, slot_of(second): 10}, second)
        workers.is_full = True

    def free() -> None:
        workers.is_full = False

    run(here, workers, change, lambda: None, free)
    assert [len(plan.sides) for plan in workers.plans] == [1, 2]
    notes = [note for note in here.progress.notes if "stays as it was" in note]
    assert notes == ["the stream stays as it was: the disk is full"]


def test_without_traffic_or_a_section_no_stream_begins(here: World, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no release gets traffic"):
        stream.run(here.pipeline, Workers())
    with pytest.raises(ConfigError, match="no section stream"):
        stream.section(world(tmp_path).pipeline)


def logging(here: World, release: Release, *ids: str) -> World:
    """Return the world with predictions in files."""
    folder = here.pipeline.root / "log"
    folder.mkdir()
    predictions = [
        Prediction(
            id=each,
            release=release.id,
            slot="r",
            time=NOON,
            inputs={},
            outputs={"species": "setosa"},
            latency_ms=1.0,
        )
        for each in ids
    ]
    (folder / "r-1.jsonl").write_bytes(lines_of(predictions))
    observations = DirectoryObservations([folder], here.pipeline.root / "outcomes.jsonl")
    changed = dataclasses.replace(here.pipeline, observations=observations)
    return dataclasses.replace(here, pipeline=changed)


def test_outcomes_are_recorded_and_others_are_set_aside(here: World) -> None:
    chosen = released(here)
    here = logging(here, chosen, "a.0", "b.0")
    outcomes = Outcomes(
        b'{"prediction_id": "a.0", "outcome": "setosa"}',
        b"no",
        b'{"prediction_id": "nobody.0", "outcome": "setosa"}',
        b'{"outcome": "setosa"}',
        b'{"prediction_id": "b.0", "outcome": "setosa"}',
    )
    run(here, Workers(), lambda: None, outcomes=outcomes)
    taken = here.pipeline.observations.outcomes([chosen.id])
    assert [each.prediction for each in taken] == ["a.0", "b.0"]
    places = [place for place, _ in outcomes.refused]
    assert sorted(places) == [f"outcomes[0] offset {number}" for number in (1, 2, 3)]
    assert not outcomes.waiting


def test_offsets_of_a_replay_need_a_partition() -> None:
    assert stream.selection(None, None, None) == Selection()
    assert stream.selection(2, 5, 9) == Selection(partition=2, first=5, last=9)
    with pytest.raises(ConfigError, match="--partition is missing"):
        stream.selection(None, 5, None)


def test_settings_hold_no_secret_and_refuse_what_is_mlships(tmp_path: Path) -> None:
    told = msgspec.structs.replace(
        STREAM,
        options={"security.protocol": "SASL_SSL"},
        variables={"sasl.password": "KAFKA_PASSWORD", f"{REGISTRY}basic.auth.user.info": "LOGIN"},
    )
    made = streams.settings(CONFIG, told, tmp_path)
    assert made.group == "iris.stream"
    assert made.dead_letter == "out.dead-letter"
    assert made.properties({"KAFKA_PASSWORD": "x", "LOGIN": "y"}) == {
        "security.protocol": "SASL_SSL",
        "sasl.password": "x",
        "bootstrap.servers": "one:9092",
    }
    own = msgspec.structs.replace(STREAM, options={"group.id": "other"})
    with pytest.raises(ConfigError, match=r"group\.id in stream is mlship's own"):
        streams.settings(CONFIG, own, tmp_path)
    avro = msgspec.structs.replace(STREAM, format="avro")
    with pytest.raises(ConfigError, match="needs a schema registry"):
        streams.settings(CONFIG, avro, tmp_path)
    with pytest.raises(ConfigError, match="KAFKA_PASSWORD is not set"):
        streams._secrets(told, {"LOGIN": "y"})


def test_options_may_be_numbers_and_booleans_which_are_written_as_kafka_does() -> None:
    values = {"name": "iris", "data": {"train": "t", "test": "u"}, "model": {"train": "p:t"}}
    section: dict[str, Any] = {"brokers": "one:9092", "input": "in", "output": "out"}
    section["options"] = {
        "linger.ms": 5,
        "a": 1e6,
        "b": 0.5,
        "socket.keepalive.enable": True,
        "c": False,
        "d": "x",
    }
    read = resolve([Layer(name="mlship.yaml", values={**values, "stream": section})]).config
    assert read.stream is not None
    assert read.stream.properties == {
        "linger.ms": "5",
        "a": "1000000",
        "b": "0.5",
        "socket.keepalive.enable": "true",
        "c": "false",
        "d": "x",
    }
    section["options"]["ssl.ca.location"] = ["a", "b"]
    with pytest.raises(ConfigError, match=r"stream\.options\.ssl\.ca\.location: expected a string"):
        resolve([Layer(name="mlship.yaml", values={**values, "stream": section})])


def test_a_topic_is_one_that_kafka_takes() -> None:
    values = {"name": "iris", "data": {"train": "t"}, "model": {"train": "p:t"}}
    section = {"brokers": "one:9092", "input": "in put", "output": "out"}
    with pytest.raises(ConfigError, match=r"stream\.input"):
        resolve([Layer(name="mlship.yaml", values={**values, "stream": section})])


@pytest.mark.parametrize("key", ["dead_letter", "shadow", "outcomes", "output"])
def test_what_a_stream_writes_never_comes_back_to_it(key: str) -> None:
    values = {"name": "iris", "data": {"train": "t", "test": "u"}, "model": {"train": "p:t"}}
    section = {"brokers": "one:9092", "input": "in", "output": "out", key: "in"}
    with pytest.raises(ConfigError, match=rf"stream\.input and stream\.{key} are both topic in"):
        resolve([Layer(name="mlship.yaml", values={**values, "stream": section})])


@pytest.mark.parametrize(
    ("name", "kind", "says"),
    [
        ("UNKNOWN_TOPIC_OR_PART", NotFoundError, "topic in does not exist at one:9092"),
        ("_FENCED", ConflictError, "another worker has taken over"),
        ("FENCED_INSTANCE_ID", ConflictError, "another worker has taken over"),
        ("INCONSISTENT_GROUP_PROTOCOL", ConflictError, "topic in at one:9092 has another client"),
        ("_AUTHENTICATION", CredentialsError, "refuses the login"),
        ("TOPIC_AUTHORIZATION_FAILED", CredentialsError, "does not authorize topic in"),
        ("GROUP_AUTHORIZATION_FAILED", CredentialsError, "does not authorize topic in"),
        ("_INVALID_ARG", ConfigError, "refuses a setting"),
        ("NOT_ENOUGH_REPLICAS", UnavailableError, "topic in at one:9092: why"),
    ],
)
def test_a_fault_of_kafka_names_its_object_and_a_next_step(
    name: str, kind: type[MlshipError], says: str
) -> None:
    error = stream_faults.of_broker(name, "why", "one:9092", "topic in")
    assert type(error) is kind
    assert says in error.message
    assert error.hint


def test_workers_in_a_cluster_need_an_image_with_the_client(here: World) -> None:
    with pytest.raises(NotFoundError, match="no champion yet"):
        stream.image_with_client(here.pipeline)
    chosen = released(here)
    here.pipeline.learn(chosen, "promote", "passed", nothing("promote"))
    with pytest.raises(ConfigError, match="does not have confluent-kafka and xxhash") as caught:
        stream.image_with_client(here.pipeline)
    assert caught.value.hint.startswith("add confluent-kafka, xxhash to requirements.txt")
    with pytest.raises(ConfigError, match="target production is local"):
        streams.stream_files(here.pipeline)


_LOGS = "the log of `mlship stream run`, or `kubectl logs`, says why"
_FOREIGN = ", and 1 other client of its group, which takes messages away"


class Backlogs:
    """Tells what it was made with."""

    def __init__(self, backlog: Backlog) -> None:
        self._backlog = backlog

    def backlog(self) -> Backlog:
        return self._backlog


@pytest.mark.parametrize(
    ("backlog", "expected"),
    [
        (Backlog(behind=1234, workers=2), "1,234 messages behind, 2 workers"),
        (
            Backlog(behind=1, workers=0),
            f"1 message behind, no worker: {_LOGS}",
        ),
        (Backlog(behind=0, workers=0), "0 messages behind, no worker"),
        (
            Backlog(behind=5, workers=0, others=1),
            f"5 messages behind, 0 workers{_FOREIGN}",
        ),
        (Backlog(behind=0, workers=1), "0 messages behind, 1 worker"),
        (
            Backlog(fault="no broker answered"),
            "how far it is behind is unknown: no broker answered",
        ),
    ],
)
def test_status_tells_how_far_a_stream_is_behind(
    tmp_path: Path, backlog: Backlog, expected: str
) -> None:
    pipeline = world(tmp_path).pipeline
    assert status(pipeline, backlogs=Backlogs(backlog)).stream is None, "the project has no stream"
    config = msgspec.structs.replace(pipeline.config, stream=STREAM)
    found = status(dataclasses.replace(pipeline, config=config), backlogs=Backlogs(backlog)).stream
    assert found is not None
    assert found.sentence == f"stream in -> out: {expected}"
