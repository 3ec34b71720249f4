"""run: the whole pipeline, up to promotion. Steps that passed for the release are skipped."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from mlship.domain import shapes
from mlship.domain.evidence import Record, Step
from mlship.domain.facts import Checked, Containerized
from mlship.domain.policy import Occupied
from mlship.domain.ports import Listener
from mlship.domain.records import Records
from mlship.domain.release import Release
from mlship.steps.container import STEP as TEST_CONTAINER
from mlship.steps.container import check_container
from mlship.steps.containerize import STEP as CONTAINERIZE
from mlship.steps.containerize import containerize
from mlship.steps.deploy import deploy_production, deploy_staging
from mlship.steps.pipeline import PRODUCTION, STAGING, Pipeline
from mlship.steps.push import STEP as PUSH
from mlship.steps.push import push
from mlship.steps.restore import Standing, standing
from mlship.steps.test import test
from mlship.steps.train import train
from mlship.steps.verify import verify


class _Stage(NamedTuple):
    step: Step
    proven: Callable[[Pipeline, Release, Records], Record | None]
    act: Callable[[Pipeline, Release], Record]
    left_out: str = ""


def run(
    pipeline: Pipeline, listener: Listener, *, replace: bool = False, older: bool = False
) -> tuple[Record, Standing | None]:
    """Train, test, deploy to staging, verify there, deploy to production.

    If a target runs images, an image is built, tested in a container and pushed before staging.

    Args:
        pipeline: the project.
        listener: notified of each step.
        replace: retire the running challenger, if there is one.
        older: deploy the release although a later one was deployed since.

    Returns:
        The last record, of `deploy-production`, or of the first step that did not pass. With what
        the release has in production, if it was there before.
    """
    listener.started("train")
    records = pipeline.read()
    record = train(pipeline)
    listener.finished(record, reused=record in records)
    found: Standing | None = None
    release = record.evidence.release
    for stage in _stages(pipeline, replace=replace, older=older):
        if stage.left_out:
            listener.skipped(stage.step, stage.left_out)
            continue
        listener.started(stage.step)
        records = pipeline.read()
        proven = stage.proven(pipeline, release, records)
        record = proven or stage.act(pipeline, release)
        if stage.step == "deploy-production":
            found = standing(pipeline, record, records)
        if found is not None:
            listener.skipped(stage.step, str(found))
        else:
            listener.finished(record, reused=proven is not None)
        if record.evidence.verdict != "passed":
            break
    return record, found


def names(pipeline: Pipeline) -> tuple[str, ...]:
    """Return the steps of a run, in order."""
    return ("train", *(stage.step for stage in _stages(pipeline, replace=False, older=False)))


def _stages(pipeline: Pipeline, *, replace: bool, older: bool) -> list[_Stage]:
    occupied: Occupied = "replace" if replace else "refuse"
    production = partial(deploy_production, occupied=occupied, older=older)
    staging = partial(deploy_staging, older=older)

    container_test = pipeline.container_test(STAGING, PRODUCTION)
    reason = "" if container_test == "asked for" else "gates.container is false"
    image = [
        _Stage(CONTAINERIZE, _never, containerize),
        _Stage(TEST_CONTAINER, _contained, check_container, left_out=reason),
        _Stage(PUSH, _never, push),
    ]
    return [
        _Stage("test", _tested, test),
        *(image if container_test != "no image" else []),
        _Stage("deploy-staging", _never, staging),
        _Stage("verify-staging-workload", _verified, verify),
        _Stage("deploy-production", _never, production),
    ]


def _never(*_: object) -> None:
    """Return no record: the step itself detects completed work."""


def _tested(pipeline: Pipeline, release: Release, records: Records) -> Record | None:
    """Return a test that passed against the current champion, with the current gates."""
    record = records.latest("test", release)
    if record is None or record.evidence.verdict != "passed":
        return None
    champion = records.history.champion
    expected = None if champion in (None, release) else champion.id
    saw = record.evidence.saw
    is_current = saw.champion == expected and saw.policy == pipeline.policy("test")
    return record if is_current and not shapes.of(record, Checked).differs else None


def _contained(pipeline: Pipeline, release: Release, records: Records) -> Record | None:
    """Return a container test that passed with the same image and the current bounds."""
    built = records.latest(CONTAINERIZE, release)
    tested = records.latest(TEST_CONTAINER, release)
    if built is None or tested is None or tested.evidence.verdict != "passed":
        return None
    saw = tested.evidence.saw
    same = saw.image == shapes.of(built, Containerized).digest
    same = same and not shapes.of(tested, Checked).differs
    return tested if same and saw.policy == pipeline.policy("container") else None


def _verified(pipeline: Pipeline, release: Release, records: Records) -> Record | None:
    """Return a verification that passed on the current deployment of staging."""
    deployed = records.latest("deploy-staging")
    verified = records.latest("verify-staging-workload")
    if deployed is None or verified is None or verified.evidence.release != release:
        return None
    after = records.index(verified) > records.index(deployed)
    passed = verified.evidence.verdict == "passed"
    same = verified.evidence.saw.policy == pipeline.policy(STAGING)
    same = same and not shapes.of(verified, Checked).differs
    return verified if after and passed and same else None
