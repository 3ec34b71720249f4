"""A command reads the ledger once; where it changes production, once more under the lock."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from mlship.cli.main import app
from mlship.cli.session import Session
from mlship.config.project import TargetConfig
from mlship.domain.digests import Digest
from mlship.domain.evidence import Evidence, Record, Step
from mlship.domain.policy import PromotePolicy
from mlship.domain.prediction import Prediction
from mlship.domain.release import Release
from mlship.steps.approve import approve
from mlship.steps.containerize import containerize
from mlship.steps.deploy import deploy_production
from mlship.steps.evaluate import evaluate
from mlship.steps.pipeline import Pipeline
from mlship.steps.push import push
from mlship.steps.train import train
from tests.fakes.ports import CONFIG, World, world
from tests.fakes.store import FakeLedger
from tests.harness.samples import NOON, better, nothing

CLUSTER = {name: TargetConfig(kind="kubernetes") for name in ("staging", "production")}


class CountedLedger:
    """Counts how often all records are read, also by an append that is not told its heads."""

    def __init__(self, ledger: FakeLedger) -> None:
        self._ledger = ledger
        self.reads = 0
        self.appends = 0

    def append(self, evidence: Evidence, *, after: Sequence[Digest] | None = None) -> Record:
        self.appends += 1
        self.reads += after is None
        return self._ledger.append(evidence, after=after)

    def records(self) -> Sequence[Record]:
        self.reads += 1
        return self._ledger.records()


def proven(here: World, params: str) -> Release:
    """Train a release, say that it passed everything, and push its image."""
    here.trainer.params = params
    release = train(here.pipeline).evidence.release
    containerize(here.pipeline, release)
    record = push(here.pipeline, release)
    steps: tuple[Step, ...] = ("test", "test-container", "verify-staging-workload")
    for step in steps:
        here.pipeline.learn(release, step, "passed", nothing(step), record.evidence.saw)
    return release


@pytest.fixture
def here(tmp_path: Path) -> World:
    """Give a cluster with a champion, and a challenger that has won and was approved of."""
    gates = msgspec.structs.replace(CONFIG.gates, promote=PromotePolicy(min_labels=50))
    config = msgspec.structs.replace(CONFIG, gates=gates, targets=CLUSTER)
    made = world(tmp_path, config)
    champion, challenger = proven(made, "C=1"), proven(made, "C=2")
    deploy_production(made.pipeline, champion)
    deploy_production(made.pipeline, challenger)
    saw = evaluate(made.pipeline).evidence.saw
    made.pipeline.learn(challenger, "evaluate", "passed", better(), saw)
    approve(made.pipeline, challenger, "grace@example.org")
    made.observations.made.append(
        Prediction(
            id="one.0",
            release=champion.id,
            slot="r1",
            time=NOON,
            inputs={"x": 1.0},
            outputs={"species": "setosa"},
            latency_ms=0.5,
        )
    )
    return made


Commands = Callable[..., CountedLedger]


@pytest.fixture
def run(here: World, monkeypatch: pytest.MonkeyPatch) -> Commands:
    """Give a function that runs a command line and returns how often the ledger was read."""

    def command(*arguments: str) -> CountedLedger:
        counted = CountedLedger(here.ledger)
        pipeline = dataclasses.replace(here.pipeline, ledger=counted)

        def composed(_session: Session, **_options: object) -> Pipeline:
            return pipeline

        monkeypatch.setattr(Session, "pipeline", composed)
        result = CliRunner().invoke(app, [*arguments], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return counted

    return command


@pytest.mark.parametrize(
    "command",
    [
        ("status",),
        ("status", "--all"),
        ("report", "champion"),
        ("report", "challenger", "--markdown"),
        ("trace", "one.0"),
        ("traffic",),
        ("approve", "challenger", "--by", "lin@example.org"),
        ("evaluate",),
    ],
    ids=" ".join,
)
def test_a_command_reads_the_ledger_once(run: Commands, command: tuple[str, ...]) -> None:
    assert run(*command).reads == 1


def test_a_promotion_and_the_way_back_read_it_twice_however_many_records_they_add(
    run: Commands, here: World
) -> None:
    promoted = run("promote", "challenger")
    assert (promoted.reads, promoted.appends) == (2, 6)
    back = run("rollback")
    assert (back.reads, back.appends) == (2, 5)
    assert run("promote", "challenger").reads == 2
    retired = run("retire", "--early")
    assert (retired.reads, retired.appends) == (2, 5)
    assert here.pipeline.read().heads == (here.ledger.records()[-1].digest,)


def test_a_deployment_reads_it_twice(run: Commands, here: World) -> None:
    third = proven(here, "C=3")
    deployed = run("deploy-production", str(third), "--replace")
    assert (deployed.reads, deployed.appends) == (2, 5)
    again = run("deploy-production", str(third))
    assert (again.reads, again.appends) == (2, 0)
    assert run("deploy-staging", str(third)).reads <= 2


def test_a_split_that_is_set_reads_it_twice(run: Commands) -> None:
    assert run("traffic", "challenger=30").reads <= 2
