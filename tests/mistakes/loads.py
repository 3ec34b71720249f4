"""Mistakes with load tests."""

import socket

from tests.mistakes.mistake import Mistake
from tests.mistakes.project import Project
from tests.mistakes.training import SETTINGS, replaced


def _requests(project: Project) -> None:
    project.write("requests.jsonl", '{"request": {"x": 1}}\n')


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


LOADS = (
    Mistake(
        name="a load test at no rate",
        command=("loadtest", "--rate", "0"),
        code=2,
        says="--rate is 0",
        hints="a number above 0",
    ),
    Mistake(
        name="a load test with a bound without a unit",
        command=("loadtest", "--p99", "50"),
        code=2,
        says="invalid duration for --p99: '50'",
        hints="50ms",
    ),
    Mistake(
        name="a load test of a target that does not exist",
        command=("loadtest", "integration"),
        code=2,
        says="there is no target integration",
        hints="staging or production",
    ),
    Mistake(
        name="a load test where nothing runs",
        command=("loadtest", "staging"),
        code=5,
        says="target staging has no endpoint",
        hints="mlship deploy-staging",
    ),
    Mistake(
        name="a load test of a server that is not there",
        do=_requests,
        command=(
            *("loadtest", "--requests", "requests.jsonl"),
            *("--endpoint", f"http://127.0.0.1:{_free_port()}"),
        ),
        code=4,
        says="no response from http://127.0.0.1:",
        hints="correct --endpoint",
    ),
    Mistake(
        name="a load test with a file that is not there",
        command=(
            *("loadtest", "--requests", "requests.jsonl"),
            *("--endpoint", "http://127.0.0.1:8080"),
        ),
        code=2,
        says="requests.jsonl is not a file",
        hints="--requests",
    ),
    Mistake(
        name="a load test of another machine",
        do=_requests,
        command=(
            *("loadtest", "--requests", "requests.jsonl"),
            *("--endpoint", "http://example.org"),
        ),
        code=3,
        says="endpoint http://example.org is on host example.org, not on this machine",
        hints="--host example.org",
    ),
    Mistake(
        name="a load test without requests",
        do=replaced(SETTINGS, "workload: workload/staging.jsonl\n", ""),
        command=("loadtest", "--endpoint", "http://127.0.0.1:8080"),
        code=2,
        says="there are no requests for --endpoint",
        hints="--requests FILE",
    ),
    Mistake(
        name="a search for a rate without a bound",
        command=("loadtest", "--find-rate", "--endpoint", "http://127.0.0.1:8080"),
        code=2,
        says="--find-rate needs a bound",
        hints="--p99 50ms",
    ),
)
