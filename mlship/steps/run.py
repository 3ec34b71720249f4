"""run: the whole pipeline, up to promotion. What was proven of the release is not done again."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

from mlship.evidence import Record
from mlship.history import latest
from mlship.release import Release
from mlship.steps.deploy import deploy_production, deploy_staging
from mlship.steps.pipeline import STAGING, Pipeline
from mlship.steps.test import test
from mlship.steps.train import train
from mlship.steps.verify import verify


class Listener(Protocol):
    """Hears of each step. It shows the run, or nothing."""

    def started(self, step: str) -> None:
        """Take in that a step begins."""

    def finished(self, record: Record, *, reused: bool) -> None:
        """Take in what a step learnt; `reused` where it was proven before."""


class _Stage(NamedTuple):
    step: str
    proven: Callable[[Pipeline, Release], Record | None]
    act: Callable[[Pipeline, Release], Record]


def run(pipeline: Pipeline, listener: Listener, *, replace: bool = False) -> Record:
    """Train, test, deploy to staging, verify there, deploy to production.

    Args:
        pipeline: the project.
        listener: hears of each step.
        replace: retire the challenger that runs, if there is one.

    Returns:
        The last record: of `deploy-production`, or of the first step that did not pass.
    """
    listener.started("train")
    before = pipeline.trained(pipeline.ledger.records())
    record = train(pipeline)
    listener.finished(record, reused=before is not None)
    release = record.evidence.release
    stages = [
        _Stage("test", _tested, test),
        _Stage("deploy-staging", lambda *_: None, deploy_staging),
        _Stage("verify-staging-workload", _verified, verify),
        _Stage(
            "deploy-production",
            lambda *_: None,
            lambda pipeline, release: deploy_production(pipeline, release, replace=replace),
        ),
    ]
    for stage in stages:
        listener.started(stage.step)
        proven = stage.proven(pipeline, release)
        record = proven or stage.act(pipeline, release)
        listener.finished(record, reused=proven is not None)
        if record.evidence.verdict != "passed":
            break
    return record


def _tested(pipeline: Pipeline, release: Release) -> Record | None:
    """Find a test that passed, against the champion of now and by the gates of now."""
    record = latest(pipeline.ledger.records(), "test", release)
    if record is None or record.evidence.verdict != "passed":
        return None
    champion = pipeline.history().champion
    rival = None if champion in (None, release) else champion.id
    same = record.evidence.saw.get("champion") == rival
    return record if same and record.evidence.saw.get("policy") == pipeline.policy("test") else None


def _verified(pipeline: Pipeline, release: Release) -> Record | None:
    """Find a verification that passed in the deployment that staging runs now."""
    records = pipeline.ledger.records()
    deployed, verified = (
        latest(records, "deploy-staging"),
        latest(records, "verify-staging-workload"),
    )
    if deployed is None or verified is None or verified.evidence.release != release:
        return None
    after = records.index(verified) > records.index(deployed)
    passed = verified.evidence.verdict == "passed"
    same = verified.evidence.saw.get("policy") == pipeline.policy(STAGING)
    return verified if after and passed and same else None
