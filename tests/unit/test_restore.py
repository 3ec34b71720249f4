"""deploy-production of a release that is in production: what it says is what is."""

import functools
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from mlship.cli.main import app
from mlship.cli.session import Session
from mlship.domain.facts import Verified
from mlship.domain.policy import PromotePolicy
from mlship.domain.release import Release
from mlship.steps import test as testing
from mlship.steps.approve import approve
from mlship.steps.deploy import deploy_production, deploy_staging
from mlship.steps.pipeline import Pipeline
from mlship.steps.promote import promote
from mlship.steps.rollback import rollback
from mlship.steps.traffic import traffic
from mlship.steps.train import train
from tests.fakes.ports import CONFIG, World, world

ENDPOINT = "http://127.0.0.1:9"


@pytest.fixture
def here(tmp_path: Path) -> World:
    policy = PromotePolicy(metric="none", approvals=1)
    gates = msgspec.structs.replace(CONFIG.gates, promote=policy)
    return world(tmp_path, msgspec.structs.replace(CONFIG, gates=gates))


@pytest.fixture
def duel(here: World) -> tuple[Release, Release]:
    """A champion and a challenger."""
    return deployed(here, "C=1"), deployed(here, "C=2")


def deployed(here: World, params: str) -> Release:
    here.trainer.params = params
    release = train(here.pipeline).evidence.release
    testing.test(here.pipeline, release)
    deploy_staging(here.pipeline, release)
    here.pipeline.learn(release, "verify-staging-workload", "passed", Verified())
    deploy_production(here.pipeline, release)
    return release


@pytest.fixture
def run(here: World, monkeypatch: pytest.MonkeyPatch) -> Any:
    def composed(_session: Session, **_options: object) -> Pipeline:
        return here.pipeline

    monkeypatch.setattr(Session, "pipeline", composed)
    return functools.partial(CliRunner().invoke, app)


def said(run: Any, release: Release) -> str:
    result = run(["deploy-production", str(release)])
    assert result.exit_code == 0, result.output
    return str(result.output)


def test_a_new_challenger_is_told_by_its_record(here: World, run: Any) -> None:
    deployed(here, "C=1")
    here.trainer.params = "C=2"
    release = train(here.pipeline).evidence.release
    testing.test(here.pipeline, release)
    deploy_staging(here.pipeline, release)
    here.pipeline.learn(release, "verify-staging-workload", "passed", Verified())
    assert "passed. challenger, 10 %" in said(run, release)


@pytest.mark.parametrize("share", [0, 5])
def test_the_share_of_a_challenger_is_the_one_it_has(
    here: World, duel: tuple[Release, Release], run: Any, share: int
) -> None:
    _, second = duel
    traffic(here.pipeline, {"challenger": share})
    before = len(here.ledger.records())
    expected = f"challenger already, with {share} % of the traffic, {ENDPOINT}/docs"
    assert said(run, second) == f"deploy-production {second}: passed. {expected}\n"
    assert len(here.ledger.records()) == before
    traffic(here.pipeline, {}, shadow=True)
    assert f"with {share} % of the traffic and a copy of all of it" in said(run, second)


def test_a_champion_is_not_said_to_have_been_promoted_or_rolled_back_now(
    here: World, duel: tuple[Release, Release], run: Any
) -> None:
    first, second = duel
    expected = "passed. champion already, with 100 % of the traffic"
    approve(here.pipeline, second, "grace@example.org")
    promote(here.pipeline, second)
    assert f"deploy-production {second}: {expected}" in said(run, second)
    rollback(here.pipeline)
    assert f"deploy-production {first}: {expected}" in said(run, first)


def test_json_and_the_outputs_of_a_job_have_what_is(
    here: World,
    duel: tuple[Release, Release],
    run: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, second = duel
    outputs = tmp_path / "outputs"
    outputs.touch()
    monkeypatch.setenv("GITHUB_OUTPUT", str(outputs))
    approve(here.pipeline, second, "grace@example.org")
    promote(here.pipeline, second)
    rollback(here.pipeline)
    told = json.loads(run(["--json", "deploy-production", str(first)]).output)
    assert (told["release"], told["step"], told["verdict"]) == (
        str(first),
        "deploy-production",
        "passed",
    )
    assert told["facts"] == {
        "role": "champion",
        "weight": 100,
        "shadow": False,
        "endpoint": ENDPOINT,
    }
    lines = outputs.read_text().splitlines()
    assert [lines[place + 1] for place, line in enumerate(lines) if "<<" in line] == [
        str(first),
        "passed",
        ENDPOINT,
    ]
