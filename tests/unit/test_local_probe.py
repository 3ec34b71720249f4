"""What targets read of a replica's readiness, as the runtime writes it."""

from pathlib import Path
from typing import cast

import msgspec

from mlship.adapters.targets.kubernetes.api import Api
from mlship.adapters.targets.kubernetes.pod_status import Trouble
from mlship.adapters.targets.kubernetes.waiting import Rollout
from mlship.adapters.targets.local.observation import restarts_of
from mlship.adapters.targets.replica import Answer
from mlship.config.project import TargetConfig
from mlship.domain.deployment import Slot
from tests.fakes.cluster import SCOPE
from tests.harness.bundles import iris_bundle
from tests.harness.places import Notes
from tests.harness.served import Memory, caller, service_of


def test_the_reason_of_a_replica_that_will_not_be_ready_is_read(tmp_path: Path) -> None:
    iris_bundle(tmp_path)
    service = service_of(tmp_path, Memory())
    service.settle("row 0 differs")
    response = caller(service)("GET", "/v2/health/ready")
    answer = msgspec.json.decode(response.body, type=Answer)
    assert (response.status, answer.ready, answer.state) == (503, False, "failed")
    assert answer.problem.startswith("row 0 differs")
    assert (answer.restarts, answer.hung, answer.last_restart) == (0, 0, "")


class Pods:
    """An API server that has one pod."""

    def __init__(self, body: bytes) -> None:
        self.body = body

    def text(self, pod: str, part: str) -> str:
        assert (pod, part) == ("iris-1", "proxy/v2/health/ready")
        return self.body.decode()


def test_the_reason_of_a_pod_that_will_not_be_ready_is_read(tmp_path: Path) -> None:
    iris_bundle(tmp_path)
    service = service_of(tmp_path, Memory())

    def told() -> Trouble:
        pods = Pods(caller(service)("GET", "/v2/health/ready").body)
        rollout = Rollout(cast("Api", pods), SCOPE, TargetConfig(), Slot("r1"), Notes())
        return rollout._asked(Trouble(pod="iris-1", fault="probe", text=""), is_over=False)

    assert (told().text, told().is_final) == ("it is starting", False)
    service.settle("row 0 differs")
    assert told().text.startswith("it is failed: row 0 differs")
    assert told().is_final


def test_the_reason_of_an_older_replica_is_read_too() -> None:
    body = b'{"ready": false, "state": "failed", "error": {"message": "row 0 differs"}}'
    answer = msgspec.json.decode(body, type=Answer)
    assert answer.problem == "row 0 differs"
    assert answer.restarts is None


def test_restarts_of_a_slot_are_those_of_its_replicas() -> None:
    restarts = restarts_of(
        {
            2: Answer(restarts=1, hung=1, last_restart="did not answer"),
            1: Answer(restarts=2, hung=0, last_restart="ended by signal SIGKILL"),
        }
    )
    assert restarts is not None
    assert (restarts.workers, restarts.hung, restarts.unknown) == (3, 1, "")
    assert restarts.reasons == (
        "a worker of replica 1 ended by signal SIGKILL",
        "a worker of replica 2 did not answer",
    )


def test_a_replica_that_does_not_answer_is_said_to_be_unknown() -> None:
    restarts = restarts_of({1: Answer(restarts=0, hung=0), 2: None, 3: Answer()})
    assert restarts is not None
    assert (restarts.workers, restarts.unknown) == (0, "restarts of workers in 2 of 3 replicas")
    silent = restarts_of({1: None})
    assert silent is not None
    assert silent.workers is None
    assert restarts_of({}) is None
