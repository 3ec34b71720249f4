"""Streams on a real broker: each message gets one output, whatever ends meanwhile."""

import io
import json
import os
import secrets
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import fastavro
import msgspec
import pytest
from confluent_kafka import Consumer

from mlship.adapters.streams.backlog import KafkaBacklog
from mlship.adapters.streams.clients import Clients
from mlship.adapters.streams.dead_letters import KafkaDeadLetters
from mlship.adapters.streams.workers import LocalWorkers
from mlship.domain import stream
from mlship.domain.stream import Plan, Settings
from mlship.domain.streaming import Selection
from mlship.errors import (
    ConfigError,
    ConflictError,
    CredentialsError,
    NotFoundError,
    UnavailableError,
)
from mlship.runtime.model import Model
from mlship.runtime.stream.brokers import KafkaBrokers, Received
from mlship.runtime.stream.registry import Registry, framed, unframed
from tests.harness import kafka, streams
from tests.harness.bundles import SETOSA
from tests.harness.kafka import Broker
from tests.harness.sockets import unused_port
from tests.harness.streams import (
    Notes,
    is_answer,
    keys,
    messages,
    row,
    running,
    settings,
    side,
    until,
)
from tests.stand_ins.schema_registry import schema_registry

pytestmark = [pytest.mark.service("kafka"), pytest.mark.cold]


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    with kafka.broker() as made:
        yield made


def of(broker: Broker, name: str, **changed: object) -> Settings:
    """Make the topics of a stream, whose names no other run of the test has."""
    told = settings(broker, f"{name}-{secrets.token_hex(3)}", **changed)
    broker.create(told.input, told.output, told.dead_letter)
    return told


def processes(workers: LocalWorkers) -> list[int]:
    found = [each.process for each in workers._workers]
    return [each._popen.pid for each in found if each is not None and each.is_alive]


def test_kills_and_a_restart_of_the_broker_lose_and_repeat_nothing(
    broker: Broker, tmp_path: Path
) -> None:
    told, count = of(broker, "kills", max_rows=50), 4000
    chosen = side(tmp_path)
    with running(tmp_path / "state", told, Plan(revision="1", sides=(chosen,)), 2) as workers:
        for part in range(4):
            broker.send(told.input, messages(count // 4, part * count // 4))
            if part == 2:
                broker.stop(signal.SIGKILL)
                broker.start()
                continue
            until(lambda: len(processes(workers)) == 2)
            os.kill(processes(workers)[part % 2], signal.SIGKILL)
            time.sleep(0.3)
        outputs = broker.read(told.output, count, 120)
    assert keys(outputs) == list(range(count)), "none is missing, and none is there twice"
    assert not broker.read(told.dead_letter, 0, 10)
    model = Model.load(Path(chosen.bundle), None)
    offline = model.predict([row(number) for number in range(count)])
    for each in outputs:
        assert is_answer(each.value(), offline[int((each.key() or b"").decode())])


def test_poison_is_set_aside_and_replayed_once(broker: Broker, tmp_path: Path) -> None:
    hook = "import os\ndef preprocess(rows):\n"
    hook += "    if (rows.sepal_length == 66.0).any():\n        os.abort()\n    return rows\n"
    told = of(broker, "poison")
    # Not older than the topic's retention: the broker deletes what is, 30 s after its start.
    an_hour_ago = int(time.time() * 1000) - 3_600_000
    plan = Plan(revision="1", sides=(side(tmp_path, preprocess=hook),))
    bad: list[dict[str, object]] = [
        {"value": b"no", "key": b"-1", "headers": [("own", b"1")], "timestamp": an_hour_ago},
        {"value": json.dumps({**row(1), "sepal_length": 66.0}).encode(), "key": b"-2"},
        {"value": None, "key": b"-3"},
    ]
    broker.send(told.input, [*messages(4), *bad, *messages(4, 4)])
    with running(tmp_path / "state", told, plan):
        assert keys(broker.read(told.output, 8)) == list(range(8))
        dead = broker.read(told.dead_letter, 3)
        reasons = {
            each.key(): dict(each.headers() or ())["mlship-dead-letter-reason"] for each in dead
        }
        assert b"not JSON" in (reasons[b"-1"] or b"")
        assert reasons[b"-2"] == b"the process of the model: it ended by signal 6"
        assert reasons[b"-3"] == b"the message has no value"
    # Nobody reads what is sent again until it was counted: it would come back as new letters.
    letters = KafkaDeadLetters(Clients(told, {}), told)
    assert letters.replay(Selection(), dry_run=True).count == 3
    assert letters.replay(Selection()).count == 3
    assert letters.replay(Selection()).count == 0
    with running(tmp_path / "state", told, plan):
        assert len(broker.read(told.dead_letter, 6)) == 6
    again = [each for each in broker.read(told.input) if each.key() == b"-1"]
    assert [each.value() for each in again] == [b"no", b"no"]
    assert again[0].headers() == again[1].headers() == [("own", b"1")]
    assert again[0].timestamp() == again[1].timestamp() == (1, an_hour_ago)
    place = next(each for each in dead if each.key() == b"-1")
    chosen = Selection(partition=place.partition(), first=place.offset(), last=place.offset())
    assert letters.replay(chosen).count == 1
    assert letters.replay(chosen).count == 1


def test_a_message_that_fits_into_no_topic_holds_up_no_other(
    broker: Broker, tmp_path: Path
) -> None:
    told = of(broker, "large")
    plan = Plan(revision="1", sides=(side(tmp_path),))
    padded = json.dumps(row(2)).encode() + b" " * 1_048_000
    large: list[dict[str, object]] = [
        {"value": b"x" * 999_900, "key": b"-1"},
        {"value": b"x" * 1_048_450, "key": b"-2"},
        {"value": padded, "key": b"2"},
    ]
    broker.send(told.input, [*messages(2), *large, *messages(2, 3)], "2000000")
    with running(tmp_path / "state", told, plan):
        assert keys(broker.read(told.output, 5)) == list(range(5))
        dead = {each.key(): each for each in broker.read(told.dead_letter, 2)}
    assert dead[b"-1"].value() == b"x" * 999_900
    assert dead[b"-2"].value() is None
    reason = dict(dead[b"-2"].headers() or ())["mlship-dead-letter-reason"] or b""
    assert reason.endswith(b"(without its value of 1048450 bytes, which does not fit)")


def test_a_message_that_no_topic_takes_or_no_client_reads_holds_up_no_other(
    broker: Broker, tmp_path: Path
) -> None:
    told = settings(broker, f"compacted-{secrets.token_hex(3)}")
    broker.create(told.input, told.dead_letter)
    broker.create(told.output, cleanup_policy="compact")
    without_key = {"value": json.dumps(row(9)), "headers": [("n", b"\xff\xfe")]}
    broker.send(told.input, [*messages(3), without_key, *messages(3, 3)])
    with running(tmp_path / "state", told, Plan(revision="1", sides=(side(tmp_path),))):
        assert keys(broker.read(told.output, 6)) == list(range(6))
        (dead,) = broker.read(told.dead_letter, 1)
        broker.send_with_name(told.input, json.dumps(row(6)).encode(), b"k", b"\xff\xfe")
        unread = next(m for m in broker.read(told.dead_letter, 2) if m.key() == b"k")
        reason = dict(unread.headers() or ())[stream.REASON] or b""
        assert reason.startswith(b"the name of a header is not UTF-8")
    headers = dict(dead.headers() or ())
    assert headers["n"] == b"\xff\xfe"
    assert b"it is compacted" in (headers[stream.REASON] or b"")


def test_another_client_in_the_group_is_told_apart_from_a_worker(
    broker: Broker, tmp_path: Path
) -> None:
    told = of(broker, "foreign")
    own = {"bootstrap.servers": broker.address, "group.id": told.group, "log_level": "2"}
    other = Consumer({**own, "partition.assignment.strategy": "range"})
    other.subscribe([told.input])
    backlogs = KafkaBacklog(lambda: Clients(told, {}), told)
    try:
        other.poll(1.0)
        until(lambda: other.poll(0.1) is None and bool(other.assignment()))
        broker.send(told.input, messages(2))
        found = backlogs.backlog()
        assert (found.behind, found.workers, found.others) == (2, 0, 1)
        brokers = KafkaBrokers(told, "here-1", {}, lambda _: None)
        brokers.open()
        with pytest.raises(ConflictError, match="has another client") as caught:
            until(lambda: bool(brokers.poll(1, 0.5)))
        assert "stream.group" in caught.value.hint
        brokers.close()
    finally:
        other.close()


def test_a_worker_whose_name_another_has_taken_ends(broker: Broker) -> None:
    told = of(broker, "twice")
    first, second = (KafkaBrokers(told, "host-1", os.environ, lambda _: None) for _ in range(2))
    first.open()
    until(lambda: bool(first.poll(1, 0.1) or first._owned))
    second.open()
    until(lambda: bool(second.poll(1, 0.1) or second._owned))
    with pytest.raises(ConflictError, match="another worker has taken over"):
        until(lambda: bool(first.poll(1, 0.1)))


def test_a_successor_with_another_topic_leaves_the_former_one_alone(broker: Broker) -> None:
    former, told = of(broker, "former"), of(broker, "latter")
    told = msgspec.structs.replace(told, group=former.group)
    broker.send(former.input, messages(9))
    broker.send(told.input, messages(4))
    first = KafkaBrokers(former, "host-1", os.environ, lambda _: None)
    first.open()
    until(lambda: bool(first.poll(1, 0.1) or first._owned))
    second = KafkaBrokers(told, "host-1", os.environ, lambda _: None)
    second.open()
    found: list[Received] = []

    def read() -> bool:
        first.poll(1, 0.0)
        found.extend(second.poll(10, 0.1))
        return len(found) >= 4

    until(read)
    assert sorted(int(each.key or b"") for each in found) == [0, 1, 2, 3]
    assert second.commit([], found)


def test_a_change_of_the_route_is_followed_while_messages_flow(
    broker: Broker, tmp_path: Path
) -> None:
    told, notes = of(broker, "route"), Notes()
    a, b = side(tmp_path, "a"), side(tmp_path, "b", 0)
    with running(tmp_path / "state", told, Plan(revision="1", sides=(a,)), 2, notes) as workers:
        broker.send(told.input, messages(200))
        broker.read(told.output, 200)
        flipped = (streams.side(tmp_path, "a", 0), streams.side(tmp_path, "b", 100))
        workers.follow(Plan(revision="2", sides=flipped))
        until(lambda: sum("follows route 2" in line for line in notes.lines) == 2)
        broker.send(told.input, messages(200, 200))
        broker.read(told.output, 400)
        workers.follow(Plan(revision="3", sides=(a, b)))
        changed = time.monotonic()
        until(lambda: sum("follows route 3" in line for line in notes.lines) == 2)
        assert time.monotonic() - changed < 2, "what was loaded is loaded still"
        broker.send(told.input, messages(200, 400))
        outputs = broker.read(told.output, 600)
    assert keys(outputs) == list(range(600))
    for each in outputs:
        release = dict(each.headers() or ())[stream.RELEASE]
        is_second = 200 <= int((each.key() or b"").decode()) < 400
        assert release == (b"iris@b" if is_second else b"iris@a")


def test_how_far_a_stream_is_behind_is_told_within_seconds(broker: Broker, tmp_path: Path) -> None:
    told = of(broker, "behind")
    backlogs = KafkaBacklog(lambda: Clients(told, {}), told)
    broker.send(told.input, messages(30))
    asked = backlogs.backlog()
    assert (asked.behind, sum(asked.partitions.values()), asked.workers) == (30, 30, 0)
    with running(tmp_path / "state", told, Plan(revision="1", sides=(side(tmp_path),))):
        broker.read(told.output, 30)
        until(lambda: backlogs.backlog().behind == 0)
        assert backlogs.backlog().workers == 1
        # What ends a transaction has an offset, too, and so have messages of an aborted one.
        broker.send_in_transactions(told.input, messages(5, start=30), aborted=messages(3))
        broker.read(told.output, 35)
        until(lambda: backlogs.backlog().behind == 0)
        broker.pause()
        started = time.monotonic()
        silent = backlogs.backlog()
        broker.resume()
        assert (silent.behind, silent.workers) == (None, None)
        assert silent.fault == f"no broker at {told.brokers} answered within 3 s"
        assert time.monotonic() - started < 6
    nowhere = settings(broker, "nowhere")
    fault = KafkaBacklog(lambda: Clients(nowhere, {}), nowhere).backlog().fault
    assert "topic nowhere-input does not exist" in fault


def test_what_is_wrong_at_the_brokers_ends_the_start(broker: Broker, tmp_path: Path) -> None:
    plan = Plan(revision="1", sides=(side(tmp_path),))
    told = settings(broker, "nowhere")
    with (
        pytest.raises(NotFoundError, match="topic nowhere-input does not exist"),
        running(tmp_path / "state", told, plan),
    ):
        pass
    silent = Settings(
        brokers=f"127.0.0.1:{unused_port()}", group="g", input="i", output="o", dead_letter="d"
    )
    with (
        pytest.raises(UnavailableError, match="no broker at"),
        running(tmp_path / "state", silent, plan),
    ):
        pass


def test_a_login_that_may_not_is_told_apart_from_a_wrong_one(
    broker: Broker, tmp_path: Path
) -> None:
    plan = Plan(revision="1", sides=(side(tmp_path),))
    told = of(broker, "guarded")
    told = msgspec.structs.replace(
        told,
        brokers=broker.guarded,
        options={"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN"},
        variables={"sasl.username": "KAFKA_USER", "sasl.password": "KAFKA_PASSWORD"},
    )
    login = {"KAFKA_USER": "ada", "KAFKA_PASSWORD": kafka.PASSWORD}
    with (
        pytest.raises(CredentialsError, match=f"does not authorize topic {told.input}"),
        running(tmp_path / "state", told, plan, variables=login),
    ):
        pass
    with pytest.raises(CredentialsError, match="does not authorize"):
        KafkaDeadLetters(Clients(told, login), told).replay(Selection())
    wrong = login | {"KAFKA_PASSWORD": "wrong"}
    with (
        pytest.raises(CredentialsError, match="refuses the login"),
        running(tmp_path / "state", told, plan, variables=wrong),
    ):
        pass
    assert "secret" not in (tmp_path / "state" / "settings.json").read_text()


def test_values_in_avro_have_schemas_of_the_registry(broker: Broker, tmp_path: Path) -> None:
    fields = [{"name": name, "type": "double"} for name in SETOSA]
    schema: dict[str, object] = {"type": "record", "name": "Flower", "fields": fields}
    with schema_registry() as registry:
        registry.login = "Basic YWRhOnNlY3JldA=="
        number = registry.register(json.dumps(schema), "AVRO")
        named = {"registry.basic.auth.user.info": "REGISTRY_LOGIN"}
        told = of(broker, "avro", format="avro", registry=registry.url, variables=named)
        told = msgspec.structs.replace(told, subject=f"{told.output}-value")
        data = io.BytesIO()
        fastavro.schemaless_writer(data, fastavro.parse_schema(schema), SETOSA)
        good = framed(number, data.getvalue())
        values = [good, framed(9, data.getvalue()), good]
        broker.send(told.input, [{"value": each, "key": b"k"} for each in values])
        plan = Plan(revision="1", sides=(side(tmp_path),))
        notes = Notes()
        login = {"REGISTRY_LOGIN": "ada:secret"}
        with running(tmp_path / "state", told, plan, notes=notes, variables=login):
            outputs = broker.read(told.output, 2)
            (dead,) = broker.read(told.dead_letter, 1)
            # While it is away, and a proxy answers for it, no message is to blame.
            other = registry.register(json.dumps({**schema, "doc": "new"}), "AVRO")
            registry.fault = 404
            broker.send(told.input, [{"value": framed(other, data.getvalue())}])
            until(lambda: any("with 404: <html>" in line for line in notes.lines))
            registry.fault = 0
            assert len(broker.read(told.output, 3)) == 3
            assert len(broker.read(told.dead_letter, 1)) == 1
        assert b"schema 9 is not in the registry" in (
            dict(dead.headers() or ())[stream.REASON] or b""
        )
        found, record = unframed(outputs[0].value() or b"")
        text = json.loads(registry.schemas[found]["schema"])
        read = fastavro.schemaless_reader(io.BytesIO(record), fastavro.parse_schema(text), None)
        expected = Model.load(Path(plan.sides[0].bundle), None).predict([SETOSA])[0]
        assert isinstance(read, dict)
        assert {name: read[name] for name in expected} == pytest.approx(expected)
        with pytest.raises(CredentialsError, match="answered /subjects"):
            Registry(registry.url, "ada:wrong").register("s", "{}", "AVRO")
        registry.refused.add("s")
        with pytest.raises(ConfigError, match="409"):
            Registry(registry.url, "ada:secret").register("s", "{}", "AVRO")
    with pytest.raises(UnavailableError, match="does not answer"):
        Registry(registry.url).schema(1)
