"""A stream in a real cluster: its pods wait for their brokers, and answer each message once."""

import json
from pathlib import Path

import pytest

from mlship import wire
from mlship.config.stream import StreamConfig
from mlship.domain import stream
from mlship.runtime.stream.sides import Choice
from mlship.steps.pipeline import PRODUCTION
from mlship.steps.stream import CLIENT, plan_of
from tests.harness import clusters, in_cluster, kafka
from tests.harness.streams import keys, messages

pytestmark = [pytest.mark.service("cluster"), pytest.mark.service("kafka"), pytest.mark.cold]

COUNT = 60


def test_workers_wait_for_brokers_and_a_killed_one_repeats_and_loses_nothing(
    tmp_path: Path,
) -> None:
    with clusters.cluster() as place, kafka.broker(place.host()) as broker:
        broker.create("features", "predictions", "predictions.dead-letter", partitions=4)
        section = StreamConfig(
            brokers=broker.address, input="features", output="predictions", workers=2
        )
        project = in_cluster.pipeline(tmp_path, place, stream=section)
        for accuracy in (0.8, 0.9):
            in_cluster.running(project, accuracy, (*in_cluster.PINS, *CLIENT))
        plan = plan_of(project, project.target(PRODUCTION).routes())

        broker.pause()
        in_cluster.applied(place, wire.stream_files(project))
        in_cluster.until(place, lambda logs: all("waits for the brokers" in each for each in logs))
        assert not in_cluster.are_ready(place, 1)
        broker.resume()
        in_cluster.until(place, lambda _: in_cluster.are_ready(place, 2))
        restarts = [pod["status"]["containerStatuses"][0] for pod in in_cluster.workers(place)]
        assert [each["restartCount"] for each in restarts] == [0, 0]

        broker.send("features", [*messages(COUNT), {"key": "-1", "value": b"no"}])
        broker.read("predictions", COUNT // 2)
        with place.api() as api:
            api.delete("Pod", in_cluster.workers(place)[0]["metadata"]["name"], grace=0)
        broker.send("features", messages(COUNT, start=COUNT))
        outputs = broker.read("predictions", 2 * COUNT)
        assert keys(outputs) == list(range(2 * COUNT))
        choice = Choice(plan.sides)
        for each in outputs:
            answered_by = json.loads(each.value() or b"")["release"]
            assert answered_by == choice.of(each.key() or b"").name
        assert {choice.of(each.key() or b"").slot for each in outputs} == {
            side.slot for side in plan.sides
        }
        [dead] = broker.read("predictions.dead-letter", 1)
        reasons = dict(dead.headers() or ())
        assert b"not JSON" in (reasons[stream.REASON] or b"")
