"""watch on a local target: Envoy counts real requests, and a bad challenger loses its traffic."""

import dataclasses
import os
import signal
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from mlship.adapters.targets.local import LocalTarget, supervision
from mlship.adapters.targets.local.state import Logging
from mlship.config.project import TargetConfig
from mlship.domain import shapes
from mlship.domain.counts import grown
from mlship.domain.deployment import Artifact, Deployment, Slot, slot_of
from mlship.domain.facts import Verified
from mlship.domain.policy import ChallengerBounds
from mlship.domain.release import Release
from mlship.domain.watch import Watched
from mlship.errors import UnavailableError
from mlship.steps import test as testing
from mlship.steps.deploy import deploy_production, deploy_staging
from mlship.steps.status import status
from mlship.steps.traffic import traffic
from mlship.steps.train import train
from mlship.steps.watch import Watch, watch
from tests.fakes.ports import CONFIG, World, world
from tests.harness.load import load
from tests.harness.places import STAND_IN, Place, place

BOUNDS = ChallengerBounds(min_requests=40)
PRODUCTION = TargetConfig(
    ready_seconds=20, drain_seconds=3, challenger_weight=30, challenger_bounds=BOUNDS
)


class Behaving(LocalTarget):
    """A local target whose next replicas behave as told."""

    def __init__(self, local: Place, config: TargetConfig) -> None:
        logs = Logging(place=str(local.folder / "log"))
        super().__init__(
            "production", local.folder / "target", config, logs, local.notes, runtime=STAND_IN
        )
        self._local = local
        self.behaviour: dict[str, Any] = {}

    def deploy(
        self, release: Release, artifact: Artifact, slot: Slot, *, replicas: int
    ) -> Deployment:
        location = self._local.artifact(slot, **self.behaviour).location
        behaving = msgspec.structs.replace(artifact, location=location)
        return super().deploy(release, behaving, slot, replicas=replicas)


class Duel:
    """A champion and a challenger on a local target, which behave as told."""

    def __init__(
        self,
        local: Place,
        config: TargetConfig,
        champion: dict[str, Any] | None = None,
        challenger: dict[str, Any] | None = None,
    ) -> None:
        targets = {**CONFIG.targets, "production": config}
        self.here: World = world(local.folder, msgspec.structs.replace(CONFIG, targets=targets))
        self.here.pipeline = dataclasses.replace(
            self.here.pipeline, clock=lambda: datetime.now(UTC)
        )
        self.target = Behaving(local, config)
        self.here.targets["production"] = self.target
        self.champion = self._deployed("C=1", champion or {})
        self.challenger = self._deployed("C=2", challenger or {})
        self.endpoint = self.target.routes().endpoint

    def _deployed(self, params: str, behaviour: dict[str, Any]) -> Release:
        here = self.here
        here.trainer.params = params
        release = train(here.pipeline).evidence.release
        testing.test(here.pipeline, release)
        deploy_staging(here.pipeline, release)
        here.pipeline.learn(release, "verify-staging-workload", "passed", Verified())
        self.target.behaviour = behaviour
        deploy_production(here.pipeline, release)
        return release

    def watch(self, seconds: float) -> Watch:
        return watch(self.here.pipeline, every=1, seconds=seconds)

    @property
    def weights(self) -> dict[Slot, int]:
        return self.target.routes().split.weights


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Place]:
    with place(tmp_path) as found:
        yield found


BAD = {"failing_of_ten": 3}
SLOW = {"answer_seconds": 0.25}


@pytest.mark.parametrize(
    ("challenger", "reason"),
    [(BAD, "failed or were answered by another release"), (SLOW, "its p99 is")],
    ids=["failing", "slow"],
)
def test_a_bad_challenger_is_taken_off_and_costs_nobody_anything_then(
    local: Place, challenger: dict[str, Any], reason: str
) -> None:
    duel = Duel(local, PRODUCTION, challenger=challenger)
    with load(duel.endpoint):
        result = duel.watch(seconds=60)
    assert (result.verdict, duel.weights) == ("failed", {slot_of(duel.champion): 100})
    assert reason in result.reason
    assert result.record is not None
    assert result.record.evidence.release == duel.challenger
    assert shapes.of(result.record, Watched).share == 30
    assert status(duel.here.pipeline).drift == ()
    with load(duel.endpoint) as requests:
        supervision.until(lambda: len(requests.acknowledged) > 50, seconds=20, what="answers")
    assert requests.failed == {}


@pytest.mark.parametrize(
    "off",
    [
        ChallengerBounds(min_requests=40, errors=None),
        ChallengerBounds(min_requests=40, errors=0.9),
    ],
    ids=["no bound", "a high bound"],
)
def test_without_the_bound_the_same_challenger_goes_on_failing(
    local: Place, off: ChallengerBounds
) -> None:
    config = msgspec.structs.replace(PRODUCTION, challenger_bounds=off)
    duel = Duel(local, config, challenger=BAD)
    with load(duel.endpoint) as requests:
        result = duel.watch(seconds=20)
    assert (result.verdict, result.record) == ("passed", None)
    assert duel.weights[slot_of(duel.challenger)] == 30
    assert requests.failed["500"] > 20


@pytest.mark.parametrize("champion", [BAD, SLOW], ids=["failing", "slow"])
def test_a_bad_champion_takes_nobody_off(local: Place, champion: dict[str, Any]) -> None:
    duel = Duel(local, PRODUCTION, champion=champion)
    with load(duel.endpoint):
        result = duel.watch(seconds=20)
    assert result.verdict == "passed"
    assert duel.weights == {slot_of(duel.champion): 70, slot_of(duel.challenger): 30}


def test_a_challenger_without_a_replica_is_taken_off_though_no_request_fails(local: Place) -> None:
    duel = Duel(local, PRODUCTION)
    slot = slot_of(duel.challenger)
    (local.folder / "bundles" / slot / "stand-in.json").write_text('{"fail": "no memory"}')
    for replica in local.running.replicas:
        if replica.slot == slot:
            os.kill(replica.process.pid, signal.SIGKILL)
    with load(duel.endpoint) as requests:
        result = duel.watch(seconds=60)
    assert (result.verdict, duel.weights) == ("failed", {slot_of(duel.champion): 100})
    assert result.challenger_side.elsewhere > 30
    assert requests.failed == {}


def test_copies_of_requests_are_not_counted(local: Place) -> None:
    duel = Duel(local, PRODUCTION, challenger=BAD)
    traffic(duel.here.pipeline, {"challenger": 1}, shadow=True)
    before = duel.target.counts()
    with httpx.Client() as client:
        for _ in range(100):
            client.post(duel.endpoint, json={})
    after = duel.target.counts()
    answers = [grown(before, after, slot_of(each)) for each in (duel.champion, duel.challenger)]
    assert sum(growth.requests for growth in answers) == 100


def test_a_router_that_was_killed_counts_from_zero_under_another_name(local: Place) -> None:
    duel = Duel(local, PRODUCTION)
    with httpx.Client() as client:
        for _ in range(50):
            client.post(duel.endpoint, json={})
    before = duel.target.counts()
    former = local.router.process
    assert former is not None
    os.kill(former.pid, signal.SIGKILL)
    supervision.until(
        lambda: local.router.process not in (None, former) and answers(duel.endpoint),
        seconds=20,
        what="the router",
    )
    after = duel.target.counts()
    assert before.keys() & after.keys() == set()
    assert grown(before, after, slot_of(duel.champion)).requests == 0


def answers(endpoint: str) -> bool:
    try:
        return httpx.post(endpoint, json={}).is_success
    except httpx.HTTPError:
        return False


def test_a_target_that_is_down_is_not_healthy(local: Place) -> None:
    duel = Duel(local, PRODUCTION)
    duel.target.down()
    with pytest.raises(UnavailableError, match="nothing is known"):
        duel.watch(seconds=2)
    assert duel.weights[slot_of(duel.challenger)] == 30
