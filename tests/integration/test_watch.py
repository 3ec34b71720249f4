"""watch on a local target: Envoy counts real requests, and a bad challenger loses its traffic."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from mlship.adapters.targets.local import supervision
from mlship.config.project import TargetConfig
from mlship.domain import shapes
from mlship.domain.counts import grown
from mlship.domain.deployment import slot_of
from mlship.domain.policy import ChallengerBounds
from mlship.domain.watch import Watched
from mlship.errors import UnavailableError
from mlship.steps.status import status
from mlship.steps.traffic import traffic
from tests.harness import asking, clusters
from tests.harness.duels import Duel, InCluster, Local
from tests.harness.load import load
from tests.harness.places import Place, accepts, place

BOUNDS = ChallengerBounds(min_requests=40)
PRODUCTION = TargetConfig(
    ready_seconds=20, drain_seconds=3, challenger_weight=30, challenger_bounds=BOUNDS
)


def duel_on(local: Place, config: TargetConfig = PRODUCTION, **behaviour: dict[str, Any]) -> Duel:
    """Give a champion and a challenger on a local target, which behave as told."""
    return Duel(local.folder, config, Local(local, config), **behaviour)


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Place]:
    with place(tmp_path) as found:
        yield found


BAD = {"failing_of_ten": 3}
SLOW = {"answer_seconds": 0.25}
ENOUGH = 50
"""Requests a second of which a challenger gets 300 while it is watched; 40 decide."""


@pytest.mark.parametrize(
    ("challenger", "reason"),
    [(BAD, "failed or were answered by another release"), (SLOW, "its p99 is")],
    ids=["failing", "slow"],
)
def test_a_bad_challenger_is_taken_off_and_costs_nobody_anything_then(
    local: Place, challenger: dict[str, Any], reason: str
) -> None:
    duel = duel_on(local, challenger=challenger)
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
    duel = duel_on(local, config, challenger=BAD)
    with load(duel.endpoint, ENOUGH) as requests:
        result = duel.watch(seconds=20)
    assert (result.verdict, result.record) == ("passed", None)
    assert duel.weights[slot_of(duel.challenger)] == 30
    assert requests.failed["500"] > 20


@pytest.mark.parametrize("champion", [BAD, SLOW], ids=["failing", "slow"])
def test_a_bad_champion_takes_nobody_off(local: Place, champion: dict[str, Any]) -> None:
    duel = duel_on(local, champion=champion)
    with load(duel.endpoint, ENOUGH):
        result = duel.watch(seconds=20)
    assert result.verdict == "passed"
    assert duel.weights == {slot_of(duel.champion): 70, slot_of(duel.challenger): 30}


def test_a_challenger_for_which_clients_do_not_wait_is_taken_off(local: Place) -> None:
    duel = duel_on(local, challenger={"answer_seconds": 30})
    with load(duel.endpoint, patience=0.3) as requests:
        result = duel.watch(seconds=60)
    assert (result.verdict, duel.weights) == ("failed", {slot_of(duel.champion): 100})
    assert requests.failed.keys() == {"ReadTimeout"}
    with load(duel.endpoint, patience=5) as requests:
        supervision.until(lambda: len(requests.acknowledged) > 50, seconds=20, what="answers")
    assert requests.failed == {}


def test_a_challenger_without_a_replica_is_taken_off_though_no_request_fails(local: Place) -> None:
    duel = duel_on(local)
    slot = slot_of(duel.challenger)
    (local.folder / "bundles" / slot / "stand-in.json").write_text('{"fail": "no memory"}')
    ended = [each for each in local.running.replicas if each.slot == slot]
    for each in ended:
        os.kill(each.process.pid, signal.SIGKILL)
    # What one that ends has accepted is lost.
    supervision.until(lambda: not any(map(accepts, ended)), seconds=20, what="their end")
    with load(duel.endpoint) as requests:
        result = duel.watch(seconds=60)
    assert (result.verdict, duel.weights) == ("failed", {slot_of(duel.champion): 100})
    assert result.challenger_side.elsewhere > 30
    assert requests.failed == {}


def test_copies_of_requests_are_not_counted(local: Place) -> None:
    duel = duel_on(local, challenger=BAD)
    traffic(duel.here.pipeline, {"challenger": 1}, shadow=True)
    before = duel.target.counts()
    with httpx.Client(verify=asking.TRUST) as client:
        for _ in range(100):
            client.post(duel.endpoint, json={})
    after = duel.target.counts()
    answers = [grown(before, after, slot_of(each)) for each in (duel.champion, duel.challenger)]
    assert sum(growth.requests for growth in answers) == 100


def test_a_router_that_was_killed_counts_from_zero_under_another_name(local: Place) -> None:
    duel = duel_on(local)
    with httpx.Client(verify=asking.TRUST) as client:
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
        return asking.post(endpoint, json={}).is_success
    except httpx.HTTPError:
        return False


def test_a_target_that_is_down_is_not_healthy(local: Place) -> None:
    duel = duel_on(local)
    local.target.down()
    with pytest.raises(UnavailableError, match="nothing is known"):
        duel.watch(seconds=2)
    assert duel.weights[slot_of(duel.challenger)] == 30


@pytest.mark.service("cluster")
def test_a_bad_challenger_is_taken_off_in_a_cluster(tmp_path: Path) -> None:
    with clusters.cluster(is_plain=True) as found:
        duel = Duel(tmp_path, PRODUCTION, InCluster(found), challenger=BAD)
        with load(duel.endpoint) as requests:
            result = duel.watch(seconds=60)
        assert (result.verdict, duel.weights) == ("failed", {slot_of(duel.champion): 100})
        assert requests.failed["500"] > 5
        with load(duel.endpoint) as later:
            supervision.until(lambda: len(later.acknowledged) > 50, seconds=20, what="answers")
        assert later.failed == {}
        assert status(duel.here.pipeline).drift == ()
