"""test --container on fakes: what an image must show, and what is told when it does not."""

import dataclasses
import json
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import pytest

from mlship.config.project import Config, ImageConfig, TargetConfig
from mlship.domain import checks, shapes
from mlship.domain.container import Observed
from mlship.domain.evidence import Record
from mlship.domain.facts import Contained
from mlship.domain.release import Release
from mlship.errors import IntegrityError, NotFoundError, UnavailableError
from mlship.steps.container import check_container
from mlship.steps.containerize import containerize
from mlship.steps.push import push
from mlship.steps.train import train
from tests.fakes.engine import Served
from tests.fakes.ports import CONFIG, World, world

GOLDEN = {"inputs": {"x": 1.5}, "outputs": {"species": "setosa", "score": 1.0}}
QUICK: Config = msgspec.structs.replace(
    CONFIG,
    image=ImageConfig(repository="localhost:5000/iris", memory="300m", max_mb=220),
    targets={"staging": TargetConfig(ready_seconds=2, drain_seconds=7)},
)


class Case:
    """A release with an image that was pushed, and what its container answers."""

    def __init__(self, root: Path) -> None:
        self.world: World = world(root, QUICK)
        self.world.trainer.golden = json.dumps(GOLDEN) + "\n"
        self.release: Release = train(self.world.pipeline).evidence.release
        self.made = containerize(self.world.pipeline, self.release)
        self.pushed = push(self.world.pipeline, self.release)
        self.served = Served(self.world.engine, str(self.release))

    def check(self) -> Record:
        return check_container(self.world.pipeline, self.release, self.served)

    def refused(self) -> str:
        record = self.check()
        assert record.evidence.verdict == "failed"
        assert not self.world.engine.running, "the container is left"
        failed = checks.failed(shapes.of(record, Contained).checks)
        return "\n".join(check.text for check in failed)


@pytest.fixture
def case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    monkeypatch.setattr("mlship.steps.replay._SETTLED", 0.01)
    return Case(tmp_path)


def test_an_image_that_shows_everything_passes_by_its_digest(case: Case) -> None:
    evidence = case.check().evidence
    facts = evidence.facts
    assert (evidence.step, evidence.verdict) == ("test-container", "passed"), facts["checks"]
    assert facts["reference"] == case.pushed.evidence.facts["reference"]
    assert case.world.engine.made == [(case.pushed.evidence.facts["digest"], "300m")]
    assert (facts["requests"], facts["errors"], facts["mismatches"]) == (1, 0, 0)
    assert facts["tests"][0]["passed"] == 3
    assert facts["ready_seconds"] > 0
    assert evidence.saw.image == case.pushed.evidence.facts["digest"]
    assert not case.world.engine.running


def test_before_a_push_the_image_that_was_made_is_loaded(case: Case) -> None:
    # Another tool makes another image: what was pushed is not what is to be tested.
    case.world.images.tool = "2"
    made = containerize(case.world.pipeline, case.release).evidence.facts["digest"]
    assert case.check().evidence.verdict == "passed"
    assert case.world.engine.made == [(made, "300m")]


def test_a_job_without_credentials_asks_no_registry_after_a_push(case: Case) -> None:
    image = msgspec.structs.replace(QUICK.image, repository=None)
    pipeline = dataclasses.replace(
        case.world.pipeline, config=msgspec.structs.replace(QUICK, image=image)
    )
    case.world.images.registry.clear()
    found = check_container(pipeline, case.release, case.served).evidence
    assert found.verdict == "passed"
    assert found.saw.image == case.pushed.evidence.facts["digest"]


def test_an_engine_that_loads_other_bytes_is_not_believed(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    case.world.images.tool = "2"
    containerize(case.world.pipeline, case.release)

    def another(image: Any, into: Path) -> None:
        into.write_text("sha256:" + "0" * 64)

    monkeypatch.setattr(case.world.images, "save", another)
    with pytest.raises(IntegrityError, match="does not belong to"):
        case.check()


def test_a_crash_shows_its_last_lines(case: Case) -> None:
    lines = ("Traceback", "ImportError: libgomp.so.1")
    case.world.engine.crashed = Observed(running=False, exit_code=1, lines=lines)
    said = case.refused()
    assert "exited with code 1" in said
    assert "ImportError: libgomp.so.1" in said


def test_one_that_dies_of_a_request_shows_its_last_lines(case: Case) -> None:
    case.served.dies_when_asked = True
    said = case.refused()
    assert "no response from http://container" in said
    assert "exited during the test: it exited with code 0" in said


def test_too_little_memory_is_named(case: Case) -> None:
    case.world.engine.crashed = Observed(running=False, exit_code=137, out_of_memory=True)
    assert "exited with code 137 (out of memory); no log" in case.refused()


def test_one_that_never_gets_ready_is_given_up_with_its_last_lines(case: Case) -> None:
    case.served.is_ready = False
    said = case.refused()
    assert "not ready after 2 s" in said
    assert "loading the model" in said


def test_other_outputs_than_offline_are_found(case: Case) -> None:
    case.served.score = 1.5
    assert "1 responses differ from offline predictions" in case.refused()
    assert case.world.ledger.records()[-1].evidence.facts["differences"]


def test_an_image_of_another_release_is_found(case: Case) -> None:
    case.served.release = "iris@000000000000"
    assert "answered by iris@000000000000" in case.refused()


def test_wrong_input_must_be_refused(case: Case) -> None:
    case.served.accepts_anything = True
    assert case.refused().count(": HTTP 200") == 3


def test_a_request_in_flight_must_be_answered(case: Case) -> None:
    case.served.drops_in_flight = True
    assert "request in flight at SIGTERM: no response" in case.refused()


def test_one_that_must_be_killed_fails(case: Case) -> None:
    case.world.engine.stopped = Observed(running=False, exit_code=137, lines=("still busy",))
    said = case.refused()
    assert "SIGTERM, with 7 s to exit: it exited with code 137" in said
    assert "still busy" in said


def test_failing_sanity_tests_and_too_large_an_image_fail(case: Case) -> None:
    case.world.tester.failed = 2
    case.world.engine.size = 221_000_000
    said = case.refused()
    assert "3 passed, 2 failed" in said
    assert "221 MB unpacked, allowed up to 220" in said


def test_without_golden_examples_nothing_is_proven(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlship.steps.replay._SETTLED", 0.01)
    case = Case(tmp_path)
    monkeypatch.setattr("mlship.steps.container.golden_requests", lambda _: [])
    assert "0 golden examples replayed" in case.refused()


def test_who_has_no_engine_learns_how_to_do_without(case: Case) -> None:
    def nothing() -> NoReturn:
        raise UnavailableError("no Docker engine answers", hint="start Docker")

    without = dataclasses.replace(case.world.pipeline, engine=nothing)
    with pytest.raises(UnavailableError) as caught:
        check_container(without, case.release, case.served)
    assert caught.value.hint == "start Docker; without an engine, set `gates.container: false`"


def test_an_image_that_the_registry_lost_is_named(case: Case) -> None:
    case.world.images.registry.clear()
    with pytest.raises(NotFoundError) as caught:
        case.check()
    assert "push-to-registry" in caught.value.hint


def test_a_release_without_an_image_is_told_to_make_one(tmp_path: Path) -> None:
    here = world(tmp_path, QUICK)
    release = train(here.pipeline).evidence.release
    with pytest.raises(NotFoundError, match="no image yet") as caught:
        check_container(here.pipeline, release)
    assert "mlship containerize" in caught.value.hint
