"""Workers and the timeout of a local target: each replica gets them, and a change replaces it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from mlship.domain.deployment import Slot
from tests.harness.load import load
from tests.harness.places import CONFIG, Place, place
from tests.harness.samples import release

ONE, TWO = release("one"), release("two")


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Place]:
    with place(tmp_path) as found:
        yield found


def deploy(
    local: Place, name: str, replicas: int = 1, check_seconds: float = 0.0, **settings: Any
) -> Slot:
    local.target = local.again(msgspec.structs.replace(CONFIG, **settings))
    return local.deploy(release(name), replicas=replicas, check_seconds=check_seconds)


def told(local: Place, count: int = 30) -> set[tuple[str, str, str]]:
    """Return slot, workers and timeout of each replica that answers."""
    with httpx.Client() as client:
        answers = [client.post(local.target.routes().endpoint, json={}) for _ in range(count)]
    return {
        (each.json()["slot"], each.json()["workers"], each.json()["timeout"]) for each in answers
    }


def test_replicas_have_the_settings_and_are_replaced_without_a_failure(local: Place) -> None:
    slot = deploy(local, "one", replicas=2)
    local.route({slot: 100})
    assert told(local) == {(slot, "1", "30")}
    with load(local.target.routes().endpoint) as requests:
        deploy(local, "one", replicas=2, workers=2, timeout_seconds=2.5)
        assert told(local) == {(slot, "2", "2.5")}
    assert requests.failed == {}
    before = {replica.process for replica in local.running.replicas}
    deploy(local, "one", replicas=2, workers=2, timeout_seconds=2.5)
    assert {replica.process for replica in local.running.replicas} == before
    deploy(local, "one", replicas=2, workers=2, timeout_seconds=2.5, cache_rows=9)
    assert not {replica.process for replica in local.running.replicas} & before


def test_a_replica_stays_until_envoy_has_checked_the_one_in_its_place(local: Place) -> None:
    slot = deploy(local, "one", check_seconds=0.3)
    local.route({slot: 100})
    with load(local.target.routes().endpoint) as requests:
        deploy(local, "one", check_seconds=0.3, workers=2)
        assert told(local, 1) == {(slot, "2", "30")}
    assert requests.failed == {}


def test_a_slot_keeps_its_replicas_until_it_is_deployed_itself(local: Place) -> None:
    one = deploy(local, "one")
    (former,) = local.running.replicas
    two = deploy(local, "two", workers=3)
    local.route({one: 50, two: 50})
    assert told(local) == {(one, "1", "30"), (two, "3", "30")}
    assert former.process in {replica.process for replica in local.running.replicas}
    deploy(local, "one", workers=3)
    assert told(local) == {(one, "3", "30"), (two, "3", "30")}
