"""Columns that are not logged, or only as a hash: what the log has, and who can use it no more."""

from concurrent.futures import Future
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mlship.config.backends import ObservationsConfig
from mlship.config.layers import from_yaml, resolve
from mlship.domain import private
from mlship.domain.bundle import Row, Value
from mlship.domain.environment import of_serving, of_supervisor
from mlship.domain.predicted import Batch
from mlship.domain.prediction import Prediction
from mlship.domain.private import Rule
from mlship.domain.release import Release
from mlship.domain.removal import Condition, Selection
from mlship.errors import ConfigError, RefusedError
from mlship.runtime.__main__ import main
from mlship.runtime.groups import Backlog, Written
from mlship.runtime.sinks import PrivateSink
from mlship.steps.removal import erase
from mlship.steps.trace import trace
from mlship.steps.verify import _recorded
from tests.fakes.ports import CONFIG, World, world
from tests.harness.samples import NOON
from tests.unit.test_resume import challenger

KEY = "a key of the project"
RULES: dict[str, Rule] = {"email": "never", "customer": "hash"}
INPUTS: Row = {"email": "ada@example.org", "customer": 7, "x": 1.5, "note": None}


def hidden(tmp_path: Path) -> World:
    settings = ObservationsConfig(columns=RULES)
    return world(tmp_path, msgspec.structs.replace(CONFIG, observations=settings))


def predicted(release: Release, inputs: Row, name: str = "a.0") -> Prediction:
    return Prediction(
        id=name,
        release=release.id,
        slot="r0",
        time=NOON,
        inputs=inputs,
        outputs={"species": "setosa", "score": 1.0},
        latency_ms=0.5,
    )


class Kept:
    """A log that keeps what it gets."""

    def __init__(self) -> None:
        self.predictions: list[Prediction] = []

    def append(self, predictions: Batch) -> Written:
        self.predictions += predictions
        written: Written = Future()
        written.set_result(None)
        return written

    def backlog(self) -> Backlog:
        return Backlog(rows=3)

    def close(self, deadline: float = 0.0) -> None:
        self.closed = deadline


def test_a_log_has_what_the_rules_leave_of_inputs_and_outputs(tmp_path: Path) -> None:
    challenger(here := world(tmp_path))(here.pipeline)
    made = predicted(here.pipeline.release("champion"), INPUTS)
    made = msgspec.structs.replace(made, outputs={"species": "setosa", "email": "b@example.org"})
    kept = Kept()
    sink = PrivateSink(kept, RULES, KEY)
    sink.append([made]).result(1)
    (logged,) = kept.predictions
    assert logged.inputs == {"customer": private.hashed(KEY, "customer", 7), "x": 1.5, "note": None}
    assert logged.outputs == {"species": "setosa"}
    assert (logged.id, logged.time) == (made.id, made.time)
    assert sink.backlog() == Backlog(rows=3)
    sink.close(2.0)
    assert kept.closed == 2.0


@pytest.mark.parametrize(
    ("value", "text"), [(7, "7"), (7.0, "7"), (0.1, "0.1"), (True, "true"), ("é\0", "é\0")]
)
def test_a_value_and_its_text_have_one_hash(value: Value, text: str) -> None:
    assert private.hashed(KEY, "customer", value) == private.hashed(KEY, "customer", text)


def test_a_hash_depends_on_key_and_column() -> None:
    hashes = {
        private.hashed(key, column, value)
        for key in (KEY, KEY + "s")
        for column in ("customer", "custom")
        for value in ("er7", "7")
    }
    assert len(hashes) == 8
    assert private.logged({"customer": None}, RULES, KEY) == {"customer": None}


@pytest.mark.parametrize(("key", "why"), [("", "is not set"), ("short", "fewer than 16")])
def test_without_a_key_nothing_is_logged_as_a_hash(key: str, why: str) -> None:
    with pytest.raises(ConfigError, match=f"column customer .* {why}"):
        PrivateSink(Kept(), RULES, key)
    PrivateSink(Kept(), {"email": "never"}, key)


def test_a_replica_gets_the_key_only_if_it_hashes() -> None:
    environment = {private.KEY: KEY, "PATH": "/bin"}
    assert private.KEY not in of_serving(environment)
    assert of_serving(environment, hashes=True)[private.KEY] == KEY
    assert of_supervisor(environment)[private.KEY] == KEY


def test_a_replica_refuses_columns_that_it_cannot_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["serve", "--bundle", str(tmp_path), "--release", "sha256:" + "0" * 64]
    arguments += ["--port", "1", "--slot", "r0", "--log", str(tmp_path)]
    assert main(arguments, {"MLSHIP_LOG_COLUMNS": '{"email": "often"}'}) == 2
    assert "invalid --log-columns" in capsys.readouterr().err
    assert main([*arguments, "--log-columns", '{"email": "hash"}'], {}) == 2
    assert f"{private.KEY} is not set" in capsys.readouterr().err


def test_a_target_must_be_logged() -> None:
    text = """
name: iris
data: {train: a.csv, test: b.csv, target: species}
model: {train: "pipeline:train"}
observations: {columns: {species: hash}}
"""
    with pytest.raises(ConfigError, match=r"observations\.columns: species is the target"):
        resolve([from_yaml(text, "mlship.yaml")])


@pytest.mark.parametrize(
    ("inputs", "lacking"),
    [
        ({}, "no x"),
        ({"x": private.hashed(KEY, "x", 1)}, "only a hash of x"),
    ],
)
def test_what_was_not_logged_cannot_be_reproduced(
    tmp_path: Path, inputs: dict[str, Any], lacking: str
) -> None:
    here = world(tmp_path)
    challenger(here)(here.pipeline)
    release = here.pipeline.release("champion")
    here.observations.made = [predicted(release, inputs), predicted(release, {"x": 1.5}, "b.0")]
    assert trace(here.pipeline, "a.0").prediction.inputs == inputs
    with pytest.raises(RefusedError, match=f"because its log has {lacking}$"):
        trace(here.pipeline, "a.0", reproduce=True)
    assert trace(here.pipeline, "b.0", reproduce=True).reproduced is not None


def test_recorded_requests_without_their_columns_are_not_replayed_and_that_is_said(
    tmp_path: Path,
) -> None:
    here = hidden(tmp_path)
    challenger(here)(here.pipeline)
    release = here.pipeline.release("champion")
    stripped = private.logged(INPUTS, RULES, KEY)
    here.observations.made = [predicted(release, stripped), predicted(release, INPUTS, "b.0")]
    (request,) = _recorded(here.pipeline, 2, here.pipeline.read())
    assert request.body == INPUTS
    assert "1 of 2 recorded requests can be replayed" in here.progress.notes[-1]


def test_a_person_is_found_by_the_hash_and_not_without_the_key(tmp_path: Path) -> None:
    here = hidden(tmp_path)
    challenger(here)(here.pipeline)
    release = here.pipeline.release("champion")
    here.observations.made = [predicted(release, private.logged(INPUTS, RULES, KEY))]
    bare = Condition(column="customer", text="7")
    with pytest.raises(ConfigError, match=f"{private.KEY} is not set"):
        erase(here.pipeline, Selection(where=(bare,)))
    hashed = private.hashed(KEY, "customer", "7")
    found = erase(here.pipeline, Selection(where=(msgspec.structs.replace(bare, hashed=hashed),)))
    assert sum(found.predictions.values()) == 1
    assert here.observations.made == []
