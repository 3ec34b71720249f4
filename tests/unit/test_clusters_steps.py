"""What commands say about a target with several clusters."""

from collections.abc import Mapping, Sequence

import httpx
import msgspec
import pytest

from mlship.cli import status_view
from mlship.domain.clusters import Cluster
from mlship.domain.deployment import Artifact, Deployment, Revision, Slot, Split, slot_of
from mlship.domain.release import Release
from mlship.errors import UnavailableError
from mlship.steps import doctor as doctors
from mlship.steps.deploy import deploy_production
from mlship.steps.replay import answering
from mlship.steps.retire import retire
from mlship.steps.rollback import rollback
from mlship.steps.status import status
from tests.fakes.ports import World
from tests.fakes.target import FakeTarget
from tests.unit.test_steps import duel, here, preferred

__all__ = ["here"]


class TwoClusters(FakeTarget):
    """A target in memory whose slots are in blue and green, by turns; `gone` does not answer."""

    def __init__(self) -> None:
        super().__init__()
        self.gone = ""
        self.unreached: set[Slot] = set()
        self._places: dict[Slot, str] = {}

    def deploy(
        self, release: Release, artifact: Artifact, slot: Slot, *, replicas: int
    ) -> Deployment:
        self._places.setdefault(slot, ("blue", "green")[len(self._places) % 2])
        return super().deploy(release, artifact, slot, replicas=replicas)

    def inspect(self) -> Mapping[Slot, Deployment]:
        return {slot: self._placed(slot, found) for slot, found in super().inspect().items()}

    def clusters(self) -> Sequence[Cluster]:
        places = {slot: found.cluster for slot, found in self.inspect().items()}
        return [
            Cluster(
                name=name,
                place=f"context {name}",
                is_parent=name == "blue",
                fault="timed out" if name == self.gone else "",
                slots=tuple(slot for slot, place in places.items() if place == name),
                command=f"gcloud container clusters resize {name}",
            )
            for name in ("blue", "green")
        ]

    def reached(self) -> Mapping[Slot, bool]:
        return {slot: slot not in self.unreached for slot in super().inspect()}

    def _placed(self, slot: Slot, found: Deployment) -> Deployment:
        cluster = self._places.get(slot, "blue")
        found = msgspec.structs.replace(found, cluster=cluster)
        if cluster != self.gone:
            return found
        return msgspec.structs.replace(found, ready=0, observed=False, detail="unknown: timed out")


@pytest.fixture
def target(here: World) -> TwoClusters:
    found = TwoClusters()
    here.targets["production"] = found
    return found


def test_status_shows_where_each_release_runs(here: World, target: TwoClusters) -> None:
    duel(here)
    found = status(here.pipeline)
    production = [seen for seen in found.seen if seen.target == "production"]
    assert [(seen.role, seen.cluster, seen.weight) for seen in production] == [
        ("champion", "blue", 90),
        ("challenger", "green", 10),
    ]
    assert [cluster.name for cluster in found.clusters["production"]] == ["blue", "green"]
    assert found.drift == ()


def test_status_tells_a_cluster_that_does_not_answer(here: World, target: TwoClusters) -> None:
    _, second = duel(here)
    target.gone = "green"
    found = status(here.pipeline)
    shown = {row[2]: row[-2] for row in status_view.running(found)[1]}
    assert shown[str(second)] == "unknown"
    drift = found.drift
    assert "cluster green of production cannot be inspected: timed out" in drift
    assert f"challenger {second} in cluster green: unknown: timed out" in drift
    assert not any("deploy-production" in line for line in drift)


def test_status_tells_a_slot_that_the_parent_does_not_reach(
    here: World, target: TwoClusters
) -> None:
    _, second = duel(here)
    target.unreached = {slot_of(second)}
    (line,) = status(here.pipeline).drift
    assert f"does not reach {slot_of(second)} in green" in line


def test_the_deployment_of_a_slot_that_is_not_reached_writes_the_route_again(
    here: World, target: TwoClusters, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, challenger = duel(here)
    written: list[Split] = []

    def route(split: Split, *, expected: Revision) -> Revision:
        written.append(split)
        target.unreached.clear()
        return expected

    monkeypatch.setattr(target, "route", route)
    before = target.routes().split
    deploy_production(here.pipeline, challenger)
    assert written == []
    target.unreached = {slot_of(challenger)}
    deploy_production(here.pipeline, challenger)
    assert written == [before]


def test_a_rollback_leaves_a_cluster_that_is_gone_alone(here: World, target: TwoClusters) -> None:
    first, second = duel(here)
    preferred(here, second, first)
    target.gone = "green"
    rollback(here.pipeline)
    assert target.routes().split.weights == {slot_of(first): 100}


def test_retire_names_the_cluster_that_runs_nothing(here: World, target: TwoClusters) -> None:
    _, second = duel(here)
    retire(here.pipeline, second)
    said = " ".join(here.progress.notes)
    assert "cluster green (context green) runs no release: it may be scaled down" in said
    assert "gcloud container clusters resize green" in said


def test_retire_keeps_the_cluster_of_the_load_balancer(here: World, target: TwoClusters) -> None:
    first, second = duel(here)
    preferred(here, second, first)
    retire(here.pipeline, early=True)
    said = " ".join(here.progress.notes)
    assert "cluster blue (context blue) runs no release, but the load balancer: keep it" in said


def test_doctor_finds_a_slot_that_the_parent_does_not_reach(target: TwoClusters) -> None:
    slot = Slot("r1")
    target._slots[slot] = Deployment(slot=slot, release="r", artifact="a", ready=1, wanted=1)  # type: ignore[arg-type]
    assert "reaches 1 slots" in doctors._reached("production", target)
    target.unreached = {slot}
    with pytest.raises(UnavailableError, match="does not reach r1"):
        doctors._reached("production", target)


def test_answers_are_counted_by_the_release_that_gives_them() -> None:
    names = iter(["iris@a", "iris@b", "iris@a", "", "iris@a"])

    def respond(request: httpx.Request) -> httpx.Response:
        assert request.url.path == "/v2/health/live", "it is no prediction"
        name = next(names)
        return (
            httpx.Response(200, headers={"mlship-release": name}) if name else httpx.Response(503)
        )

    counted = answering("http://a", 5, httpx.MockTransport(respond))
    assert counted == {"": 1, "iris@a": 3, "iris@b": 1}
