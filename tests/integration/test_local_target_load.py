"""No request is lost while slots change; without the safeguards, requests are."""

import os
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from mlship.adapters.targets.local import Safeguards
from mlship.domain.deployment import slot_of
from tests.harness.load import load
from tests.harness.places import Place, place
from tests.harness.samples import release

ONE = release("one")
TWO = release("two")
BEHAVIOUR: dict[str, Any] = {"start_seconds": 0.3, "answer_seconds": 0.03}


@pytest.mark.parametrize("is_guarded", [True, False])
def test_changes_under_load_fail_no_request_but_without_safeguards(
    tmp_path: Path, is_guarded: bool
) -> None:
    with place(tmp_path) as local:
        one = local.deploy(ONE, **BEHAVIOUR)
        local.route({one: 100})
        if not is_guarded:
            guards = Safeguards(readiness=False, draining=False)
            local.target = local.again(safeguards=guards)
        with load(local.target.routes().endpoint) as requests:
            time.sleep(0.3)
            change(local)
            # Without safeguards, it is a matter of luck whether a request is under way then.
            for _ in range(0 if is_guarded else 5):
                if requests.failed:
                    break
                local.target.deploy(ONE, local.artifact(one, **BEHAVIOUR), one, replicas=1)
                local.route({one: 100})
                change(local)
            time.sleep(0.3)
    assert sum(requests.answers.values()) > 100
    assert (requests.failed == {}) == is_guarded, requests.answers


def change(local: Place) -> None:
    """Scale up, shift the traffic in steps, scale down, remove: what a promotion does."""
    one = slot_of(ONE)
    two = slot_of(TWO)
    artifact = local.artifact(two, **BEHAVIOUR)
    local.target.deploy(TWO, artifact, two, replicas=1)
    local.route({one: 90, two: 10})
    time.sleep(0.2)
    local.target.deploy(TWO, artifact, two, replicas=3)
    local.route({two: 100})
    local.target.remove(one)
    local.target.deploy(TWO, artifact, two, replicas=1)


def test_no_acknowledged_request_is_lost_when_replicas_and_router_are_killed(
    tmp_path: Path,
) -> None:
    with place(tmp_path) as local:
        slot = local.deploy(ONE, replicas=2)
        local.route({slot: 100})
        with load(local.target.routes().endpoint) as requests:
            for turn in range(4):
                time.sleep(0.6)
                alive = local.processes()
                os.kill(alive[-1 if turn % 2 else 0].pid, signal.SIGKILL)
            time.sleep(1.5)
        logged = Counter(line["id"] for line in local.log())
        assert len(requests.acknowledged) > 100
        assert [each for each in requests.acknowledged if each not in logged] == []
