"""A worker of a stream on fakes of the brokers and the models, and answers of a real model."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mlship.domain import stream
from mlship.domain.digests import Digest
from mlship.domain.stream import Plan, Settings, Side, prediction_id
from mlship.errors import IntegrityError, NotFoundError, ProjectError, UnavailableError
from mlship.runtime.model import Model
from mlship.runtime.stream import child
from mlship.runtime.stream.answering import Answering
from mlship.runtime.stream.brokers import Received
from mlship.runtime.stream.formats import Json
from mlship.runtime.stream.link import Results, Start, Values
from mlship.runtime.stream.sides import Choice
from mlship.runtime.stream.transactions import Sent, UnfitError
from mlship.runtime.stream.worker import Worker
from tests.harness.bundles import SETOSA, VIRGINICA, iris_bundle
from tests.harness.served import Memory

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
SETTINGS = Settings(
    brokers="none:1", group="g", input="in", output="out", dead_letter="dead", shadow="copies"
)


def side(slot: str, weight: int = 100) -> Side:
    return Side(
        slot=slot,
        release=Digest(f"sha256:{slot}"),
        name=f"iris@{slot}",
        bundle="/bundle",
        digest=Digest("sha256:0"),
        weight=weight,
    )


def message(offset: int, value: bytes | None = b"{}", key: bytes | None = None) -> Received:
    return Received(0, offset, 1000 + offset, key, value, [("trace", b"t")])


class Brokers:
    """Gives batches, and keeps what is committed; aborts where it is told to."""

    def __init__(self, *batches: Sequence[Received]) -> None:
        self.batches = list(batches)
        self.sent: list[Sent] = []
        self.offsets: list[int] = []
        self.aborts = 0
        self.most = 1_000_000
        self.latest = 1_000_000
        self.compacted: set[str] = set()

    def poll(self, limit: int, seconds: float) -> Sequence[Received]:
        return self.batches.pop(0) if self.batches else []

    def commit(self, sent: Sequence[Sent], received: Sequence[Received]) -> bool:
        written = list(sent)
        for place, each in enumerate(written):
            if len(each.value or b"") > self.most:
                raise UnfitError(place, each)
            if each.key is None and each.topic in self.compacted:
                raise UnfitError(place, each, "INVALID_RECORD")
            if each.timestamp > self.latest:
                raise UnfitError(place, each, "INVALID_TIMESTAMP")
        if self.aborts:
            self.aborts -= 1
            self.batches.insert(0, received)
            return False
        self.sent += written
        self.offsets += [each.offset for each in received]
        return True

    def close(self) -> None:
        pass


class Models:
    """Answers with the name of the release; refuses the value `bad`."""

    def __init__(self) -> None:
        self.wanted: Plan | None = None
        self.is_loaded = True
        self.refused: bytes | None = b"bad"

    def want(self, plan: Plan) -> None:
        self.wanted = plan

    def arrived(self, *, wait: bool = False) -> Plan | None:
        plan, self.wanted = (self.wanted, None) if self.is_loaded else (None, self.wanted)
        return plan

    def compute(self, asked: Mapping[str, tuple[Side, Values]]) -> dict[str, Results]:
        return {
            slot: Results(
                [None if value == self.refused else side.name.encode() for value in values.values],
                {
                    n: ("no row", "x")
                    for n, value in enumerate(values.values)
                    if value == self.refused
                },
            )
            for slot, (side, values) in asked.items()
        }


def write(file: Path, revision: str, *sides: Side, shadow: str = "") -> None:
    plan = Plan(revision=revision, sides=sides, shadow=shadow)
    beside = file.with_name("new")
    beside.write_bytes(msgspec.json.encode(plan))
    beside.rename(file)


def worker(folder: Path, brokers: Brokers, models: Models | None = None) -> Worker:
    made = Worker(SETTINGS, folder / "plan.json", brokers, models or Models(), lambda _: None)
    made.load()
    return made


def test_a_message_gets_an_output_with_its_key_headers_and_time(tmp_path: Path) -> None:
    write(tmp_path / "plan.json", "1", side("a"))
    brokers = Brokers([message(7, key=b"k")])
    assert worker(tmp_path, brokers).turn(0) == 1
    (sent,) = brokers.sent
    own = [
        (stream.RELEASE, b"iris@a"),
        (stream.PREDICTION, prediction_id("in", 0, 7, 1007).encode()),
    ]
    assert sent == Sent("out", b"k", b"iris@a", [("trace", b"t"), *own], 1007)
    assert brokers.offsets == [7]


def test_a_message_without_an_answer_is_a_dead_letter_as_it_came(tmp_path: Path) -> None:
    write(tmp_path / "plan.json", "1", side("a"))
    brokers = Brokers([message(1), message(2, b"bad", b"k"), message(3)])
    worker(tmp_path, brokers).turn(0)
    assert [each.topic for each in brokers.sent] == ["out", "dead", "out"]
    dead = brokers.sent[1]
    assert (dead.key, dead.value, dead.timestamp) == (b"k", b"bad", 1002)
    assert dict(dead.headers) == {
        "trace": b"t",
        stream.TOPIC: b"in",
        stream.PARTITION: b"0",
        stream.OFFSET: b"2",
        stream.DEAD_RELEASE: b"iris@a",
        stream.REASON: b"no row",
        stream.FIELD: b"x",
    }
    assert brokers.offsets == [1, 2, 3]


def test_a_message_with_a_fault_is_a_dead_letter_and_asks_no_model(tmp_path: Path) -> None:
    write(tmp_path / "plan.json", "1", side("a", 100), side("b", 0), shadow="b")
    brokers, models = Brokers([message(1)._replace(fault="a header is wrong")]), Models()
    models.refused = None
    worker(tmp_path, brokers, models).turn(0)
    (dead,) = brokers.sent
    assert (dead.topic, dead.value) == ("dead", b"{}")
    assert dict(dead.headers)[stream.REASON] == b"a header is wrong"


def test_what_was_aborted_is_answered_again_and_written_once(tmp_path: Path) -> None:
    write(tmp_path / "plan.json", "1", side("a"))
    brokers = Brokers([message(1), message(2)])
    brokers.aborts = 2
    running = worker(tmp_path, brokers)
    for _ in range(4):
        running.turn(0)
    assert brokers.offsets == [1, 2]
    assert len(brokers.sent) == 2


def test_what_does_not_fit_into_its_topic_is_set_aside_and_stops_nothing(tmp_path: Path) -> None:
    write(tmp_path / "plan.json", "1", side("a", 100), side("b", 0), shadow="b")
    large = message(2, b"bad" * 10)
    brokers = Brokers([message(1), large, message(3)])
    brokers.most = len(b"iris@a")
    models = Models()
    models.refused = large.value
    worker(tmp_path, brokers, models).turn(0)
    assert [each.topic for each in brokers.sent[:3]] == ["out", "dead", "out"]
    assert brokers.sent[1].value is None
    reason = dict(brokers.sent[1].headers)[stream.REASON]
    assert reason == b"no row (without its value of 30 bytes, which does not fit)"
    brokers.batches, brokers.sent, brokers.most = [[message(4)]], [], 5
    worker(tmp_path, brokers).turn(0)
    (dead,) = brokers.sent
    assert (dead.topic, dead.value) == ("dead", b"{}")
    reason = dict(dead.headers)[stream.REASON]
    assert reason == b"its output of 6 bytes does not fit into out"
    assert brokers.offsets == [1, 2, 3, 4]


def test_what_its_topic_never_takes_is_set_aside_and_stops_nothing(tmp_path: Path) -> None:
    write(tmp_path / "plan.json", "1", side("a"))
    brokers = Brokers([message(1, key=b"k"), message(2), message(3, key=b"k")])
    brokers.compacted = {"out"}
    worker(tmp_path, brokers).turn(0)
    assert [each.topic for each in brokers.sent] == ["out", "dead", "out"]
    reason = dict(brokers.sent[1].headers)[stream.REASON]
    assert reason == b"its output has no key, without which out does not take it: it is compacted"

    brokers.batches, brokers.sent, brokers.latest = [[message(4, key=b"k")]], [], 1003
    worker(tmp_path, brokers).turn(0)
    (dead,) = brokers.sent
    assert (dead.topic, dead.timestamp, dead.value) == ("dead", 0, b"{}")
    reason = dict(dead.headers)[stream.REASON] or b""
    assert reason.startswith(b"its output has a time that out does not take (with another time")

    brokers.batches, brokers.latest, brokers.compacted = [[message(5)]], 2000, {"out", "dead"}
    with pytest.raises(
        UnavailableError, match="offset 5 of partition 0 of in has no key"
    ) as caught:
        worker(tmp_path, brokers).turn(0)
    assert caught.value.hint == "set cleanup.policy=delete on that topic"


def test_a_new_route_is_followed_between_two_transactions(tmp_path: Path) -> None:
    write(tmp_path / "plan.json", "1", side("a"))
    brokers, models = Brokers([message(1)], [message(2)], [message(3)]), Models()
    running = worker(tmp_path, brokers, models)
    running.turn(0)
    write(tmp_path / "plan.json", "2", side("b"))
    models.is_loaded = False  # the old one answers while the new one is loaded
    running.turn(0)
    models.is_loaded = True
    running.turn(0)
    assert [each.value for each in brokers.sent] == [b"iris@a", b"iris@a", b"iris@b"]


def test_a_slow_model_gets_fewer_messages_so_that_a_new_route_does_not_wait(
    tmp_path: Path,
) -> None:
    limits: list[int] = []
    now = 0.0

    class Waiting(Brokers):
        """Gives as many messages as are asked for."""

        def poll(self, limit: int, seconds: float) -> Sequence[Received]:
            limits.append(limit)
            return [message(number) for number in range(limit)]

        def commit(self, sent: Sequence[Sent], received: Sequence[Received]) -> bool:
            nonlocal now
            now += len(received) * pace
            return super().commit(sent, received)

    write(tmp_path / "plan.json", "1", side("ra"))
    file, brokers = tmp_path / "plan.json", Waiting()
    made = Worker(SETTINGS, file, brokers, Models(), lambda _: None, lambda: now)
    made.load()
    pace = 0.01
    for _ in range(3):
        made.turn(0.0)
    assert limits == [5000, 100, 100], "a transaction takes a second"
    pace = 0.0001
    for _ in range(8):
        made.turn(0.0)
    assert limits[-3:] == [3200, 5000, 5000], "as many as before, when it is fast again"


def test_a_key_stays_on_its_side_and_shares_are_as_the_weights(tmp_path: Path) -> None:
    choice = Choice([side("a", 10), side("b", 0), side("c", 90)])
    chosen = [choice.of(f"user-{number}".encode()).slot for number in range(10_000)]
    assert 900 < chosen.count("a") < 1100
    assert "b" not in chosen
    assert chosen == [choice.of(f"user-{number}".encode()).slot for number in range(10_000)]


def test_the_answers_of_a_shadow_go_to_a_topic_of_their_own(tmp_path: Path) -> None:
    write(tmp_path / "plan.json", "1", side("a"), side("b", 0), shadow="b")
    brokers = Brokers([message(1), message(2, b"bad")])
    worker(tmp_path, brokers).turn(0)
    assert [(each.topic, each.value) for each in brokers.sent] == [
        ("out", b"iris@a"),
        ("dead", b"bad"),
        ("copies", b"iris@b"),
    ]


def test_without_a_plan_nothing_is_read(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="has no plan"):
        worker(tmp_path, Brokers([message(1)]))
    (tmp_path / "plan.json").write_text("{")
    with pytest.raises(IntegrityError, match="is damaged"):
        worker(tmp_path, Brokers([message(1)]))


def test_a_bundle_that_is_gone_is_an_error_that_says_how_it_comes_back(tmp_path: Path) -> None:
    gone = msgspec.structs.replace(side("a"), bundle=str(tmp_path / "bundle"))
    with pytest.raises(NotFoundError, match="the bundle of iris@a is no longer in") as caught:
        child._load(Start(gone, SETTINGS))
    assert "mlship stream run" in caught.value.hint


def test_an_id_is_the_same_each_time_and_of_the_form_of_others() -> None:
    first = prediction_id("in", 0, 1, 5)
    assert first == prediction_id("in", 0, 1, 5)
    places = [("in", 0, 1, 5), ("in2", 0, 1, 5), ("in", 1, 1, 5), ("in", 0, 2, 5), ("in", 0, 1, 6)]
    assert len({prediction_id(*place) for place in places}) == len(places)
    uuid, _, row = first.partition(".")
    assert [len(part) for part in uuid.split("-")] == [8, 4, 4, 4, 12]
    assert row == "0"


def answering(folder: Path, memory: Memory | None = None, **hooks: str) -> Answering:
    iris_bundle(folder, **hooks)  # type: ignore[arg-type]  # the hooks are texts
    model = Model.load(folder, None)
    return Answering(model, Json("iris@1"), side("a"), memory, lambda: NOON)


def asked(*values: Any, shadow: bool = False) -> Values:
    data = [
        each if isinstance(each, bytes | None) else json.dumps(each).encode() for each in values
    ]
    return Values([f"id-{number}" for number in range(len(data))], data, shadow)


def test_values_get_what_the_model_answers_and_poison_is_told_apart(tmp_path: Path) -> None:
    memory = Memory()
    rows = (SETOSA, b"{", VIRGINICA, None, {**SETOSA, "sepal_width": "wide"}, b"[1]", SETOSA)
    results = answering(tmp_path / "bundle", memory).answer(asked(*rows))
    outputs = [None if value is None else json.loads(value) for value in results.values]
    expected = Model.load(tmp_path / "bundle", None).predict([SETOSA, VIRGINICA, SETOSA])
    for number, row in zip((0, 2, 6), expected, strict=True):
        own = {"prediction_id": f"id-{number}", "release": "iris@1"}
        assert outputs[number] == own | row
    assert sorted(results.faults) == [1, 3, 4, 5]
    assert results.faults[4] == ('sepal_width must be a number, not "wide"', "sepal_width")
    assert results.faults[3] == ("the message has no value", "")
    assert [each.id for each in memory.kept] == ["id-0", "id-2", "id-6"]
    assert memory.kept[1].inputs == VIRGINICA
    assert not memory.kept[1].shadow


def test_a_row_on_which_a_hook_fails_is_the_only_one_refused(tmp_path: Path) -> None:
    hook = "def preprocess(rows):\n    assert (rows.sepal_length < 50).all()\n    return rows\n"
    answers = answering(tmp_path / "bundle", preprocess=hook)
    results = answers.answer(asked(SETOSA, {**SETOSA, "sepal_length": 66.0}, VIRGINICA))
    assert [value is None for value in results.values] == [False, True, False]
    assert results.faults[1][1] == "sepal_length"


def test_a_model_that_fails_on_every_row_blames_no_message(tmp_path: Path) -> None:
    hook = "def preprocess(rows):\n    raise ValueError('gone')\n"
    with pytest.raises(ProjectError, match="gone"):
        answering(tmp_path / "bundle", preprocess=hook).answer(asked(SETOSA, VIRGINICA))


def test_nothing_is_answered_that_is_not_logged(tmp_path: Path) -> None:
    memory = Memory()
    memory.is_full = True
    with pytest.raises(UnavailableError, match="disk is full"):
        answering(tmp_path / "bundle", memory).answer(asked(SETOSA))


def test_copies_are_logged_as_such(tmp_path: Path) -> None:
    memory = Memory()
    answering(tmp_path / "bundle", memory).answer(asked(SETOSA, shadow=True))
    assert [each.shadow for each in memory.kept] == [True]
