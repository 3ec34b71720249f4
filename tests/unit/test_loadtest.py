"""The step and the report of `mlship loadtest`, and the plans for other load generators."""

import ast
import json
import re
from datetime import datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import msgspec
import pytest

from mlship.cli.load_view import LoadLines, LoadView, chart
from mlship.domain.deployment import Split, slot_of
from mlship.domain.load import LoadResult, Measured
from mlship.domain.load_report import Limits, LoadReport, Population, Subject
from mlship.domain.workload import Reply, Request
from mlship.errors import (
    ConfigError,
    NotFoundError,
    ProjectError,
    RefusedError,
    TimedOutError,
    UnavailableError,
)
from mlship.reports import load as reports
from mlship.steps import load_subject, loadtest, replay
from mlship.templates import load_plans
from tests.fakes.load import FakeGenerator
from tests.fakes.ports import World
from tests.fakes.target import FakeTarget
from tests.harness.samples import NOON
from tests.unit.test_steps import here, made

__all__ = ["here"]

LIMITS = Limits(rate=50, seconds=4, users=10, timeout=10, processes=1, p99_ms=50)
POPULATION = Population(users=10_000, user_rate=0.1)
SUBJECT = Subject(
    name="staging",
    endpoint="http://127.0.0.1:9",
    release="iris@3f9a0c12be77",
    replicas=2,
    user_header="x-user",
    source="workload.jsonl",
    bodies=('{"name":"a \\"b\\" ${c} \'d\' é"}', '[{"x":1},{"x":2}]'),
)


class Quiet:
    """Shows nothing, and counts what it is asked to show."""

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.looks = 0

    def started(self, rate: float) -> None:
        self.rates.append(rate)

    def watch(self, result: LoadResult) -> None:
        self.looks += 1


def noon() -> datetime:
    return NOON


def run(generator: FakeGenerator, **limits: Any) -> LoadReport:
    given = msgspec.structs.replace(LIMITS, **limits)
    return loadtest.run(SUBJECT, given, generator, Quiet(), noon)


def search(generator: FakeGenerator, **limits: Any) -> LoadReport:
    given = msgspec.structs.replace(LIMITS, **limits)
    return loadtest.search(SUBJECT, given, POPULATION, generator, Quiet(), noon)


@pytest.fixture
def _answering(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "replay", lambda *_, **__: [Reply(status=200, latency_ms=1)])
    monkeypatch.setattr(load_subject, "golden_requests", golden)


def golden(_: Path) -> list[Request]:
    return [Request(name="golden 1", body={"x": 1.0})]


@pytest.mark.usefixtures("_answering")
def test_a_target_is_loaded_with_the_golden_examples_of_its_release(here: World) -> None:
    release = made(here)
    subject = load_subject.of_target(here.pipeline, "staging", None, None)
    assert (subject.release, subject.replicas) == (str(release), 1)
    assert subject.source == f"the golden examples of {release}"
    assert subject.bodies == ('{"x":1.0}',)


@pytest.mark.usefixtures("_answering")
def test_a_file_of_requests_wins(here: World, tmp_path: Path) -> None:
    made(here)
    file = tmp_path / "requests.jsonl"
    file.write_text('{"request": {"x": 5}}\n{"request": [{"x": 6}, {"x": 7}]}\n')
    subject = load_subject.of_target(here.pipeline, "staging", file, None)
    assert subject.bodies == ('{"x":5}', '[{"x":6},{"x":7}]')


def test_a_target_without_a_release_has_no_endpoint(here: World) -> None:
    with pytest.raises(NotFoundError, match="target production has no endpoint") as caught:
        load_subject.of_target(here.pipeline, "production", None, None)
    assert "mlship deploy-production" in caught.value.hint


@pytest.mark.usefixtures("_answering")
def test_a_target_elsewhere_is_loaded_only_if_its_host_is_named(here: World) -> None:
    release = made(here)
    elsewhere = FakeTarget("http://10.0.0.7:80")
    slot, artifact = (
        slot_of(release),
        here.pipeline.artifact(release, "staging", here.pipeline.read()),
    )
    elsewhere.deploy(release, artifact, slot, replicas=2)
    elsewhere.route(Split(weights={slot: 100}), expected=elsewhere.routes().revision)
    here.targets["staging"] = elsewhere
    for host in (None, "10.0.0.8", "localhost"):
        with pytest.raises(RefusedError, match=r"target staging is on host 10\.0\.0\.7") as caught:
            load_subject.of_target(here.pipeline, "staging", None, host)
        assert "--host 10.0.0.7" in caught.value.hint
    assert load_subject.of_target(here.pipeline, "staging", None, "10.0.0.7").replicas == 2


@pytest.mark.usefixtures("_answering")
def test_another_server_is_loaded_with_a_file(here: World, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there are no requests"):
        load_subject.of_endpoint(here.pipeline, "http://127.0.0.1:80", None, None)
    file = tmp_path / "requests.jsonl"
    file.write_text('{"request": {"x": 5}}\n')
    subject = load_subject.of_endpoint(here.pipeline, "http://127.0.0.1:80/", file, None)
    assert (subject.endpoint, subject.name, subject.replicas) == ("http://127.0.0.1:80", "", 1)
    for endpoint in ("127.0.0.1:80", "http://", "http://a:99999", "ftp://a"):
        with pytest.raises(ConfigError, match="invalid URL for --endpoint"):
            load_subject.of_endpoint(here.pipeline, endpoint, file, None)
    with pytest.raises(RefusedError, match=r"on host example\.org"):
        load_subject.of_endpoint(here.pipeline, "http://example.org", file, None)


def test_requests_that_the_target_refuses_are_no_load(
    here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = made(here)
    with pytest.raises(ProjectError, match=f"{release} has no golden examples to send"):
        load_subject.of_target(here.pipeline, "staging", None, None)
    monkeypatch.setattr(load_subject, "golden_requests", golden)
    reply = Reply(status=422, latency_ms=1, error="HTTP 422: x is missing")
    monkeypatch.setattr(replay, "replay", lambda *_, **__: [reply])
    with pytest.raises(ProjectError, match=r"golden 1 of .* is answered with HTTP 422"):
        load_subject.of_target(here.pipeline, "staging", None, None)


@pytest.mark.parametrize(
    "limits", [{"rate": 0}, {"rate": -1}, {"rate": float("nan")}, {"seconds": 0}, {"users": 0}]
)
def test_numbers_that_are_not_positive_are_refused(limits: dict[str, Any]) -> None:
    (name,) = limits
    with pytest.raises(ConfigError, match=f"--{name} is"):
        loadtest.check(msgspec.structs.replace(LIMITS, **limits), POPULATION, searches=False)
    with pytest.raises(ConfigError, match="--processes 11 is more than --users 10"):
        loadtest.check(msgspec.structs.replace(LIMITS, processes=11), POPULATION, searches=False)


def test_a_bound_is_held_or_refused() -> None:
    held = run(FakeGenerator(100))
    loadtest.check_verdict(held)
    assert held.verdict == "held"
    missed = run(FakeGenerator(40))
    with pytest.raises(RefusedError, match="at 50 requests/s the p99 is") as caught:
        loadtest.check_verdict(missed)
    assert caught.value.facts["verdict"] == "missed"
    assert run(FakeGenerator(40), p99_ms=None).verdict is None


@pytest.mark.parametrize("p99_ms", [50, None])
def test_a_generator_that_is_the_bottleneck_gives_no_verdict(p99_ms: float | None) -> None:
    with pytest.raises(TimedOutError, match="the load generator itself was late") as caught:
        run(FakeGenerator(1000, fastest=30), p99_ms=p99_ms)
    assert caught.value.exit_code == 6


def test_a_target_that_answers_nothing_is_unavailable() -> None:
    class Failing(FakeGenerator):
        def run(self, plan: Any, watch: Any) -> LoadResult:
            result = super().run(plan, watch)
            count = result.total.requests
            total = msgspec.structs.replace(result.total, errors=count)
            return msgspec.structs.replace(result, total=total, errors={"HTTP 503": count})

    with pytest.raises(UnavailableError, match=r"none of 200 .*: HTTP 503 \(200\)"):
        run(Failing(100))


def test_a_search_says_how_many_replicas_the_users_need() -> None:
    report = search(FakeGenerator(200))
    assert report.capacity == pytest.approx(200, rel=0.05)
    assert report.replicas is not None
    # Two replicas have 200 requests/s: 1,000 / (100 x 0.7) is 14.3.
    assert report.replicas.needed == 15
    assert any("10,000 users need 15 replicas" in line for line in reports.sentences(report))
    without = msgspec.structs.replace(LIMITS, p99_ms=None)
    with pytest.raises(ConfigError, match="--find-rate needs a bound"):
        loadtest.check(without, POPULATION, searches=True)


def test_the_report_has_all_that_was_measured() -> None:
    report = search(FakeGenerator(200))
    text = reports.markdown(report)
    for words in ("# Load test", "| p99.9 |", "## Search", "## By second", reports.PICTURE):
        assert words in text
    assert "| 0 |" in text
    again = msgspec.json.decode(msgspec.json.encode(report), type=LoadReport)
    assert again == report


def test_a_long_run_is_shortened_in_the_page_only() -> None:
    report = run(FakeGenerator(100), seconds=90)
    assert "30 more seconds are in report.json." in reports.markdown(report)


def second(number: int, p99: float) -> Measured:
    return Measured(
        second=number,
        requests=10,
        errors=0,
        mean_ms=p99,
        latency_ms={"p50": p99, "p99": p99, "p100": p99},
    )


def test_the_chart_shows_a_slow_second_higher() -> None:
    rows = chart([second(0, 2), second(1, 2), second(2, 900), second(3, 2)], width=60)
    columns = [sum(row[12 + place] != " " for row in rows[1:]) for place in range(4)]
    assert columns[0] == columns[1] == columns[3] < columns[2]
    assert all(len(row) <= 60 for row in chart([second(n, 5) for n in range(500)], width=60))
    assert chart([second(0, 0)], width=60) == []


def test_a_log_has_a_line_for_each_second(capsys: pytest.CaptureFixture[str]) -> None:
    with LoadLines() as view:
        view.started(50)
        for upto in (1, 2, 3):
            series = tuple(second(number, 5) for number in range(upto))
            view.watch(result_of(series))
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0].strip() for line in lines] == [
        "sending 50 requests/s",
        "second 0",
        "second 1",
    ]


def test_the_view_on_a_terminal_names_rate_errors_and_lateness() -> None:
    view = LoadView()
    view.started(50)
    assert view._drawn(80).plain == "sending 50 requests/s"
    failed = msgspec.structs.replace(result_of((second(0, 5),)), errors={"timeout": 3})
    view.watch(failed)
    text = view._drawn(80).plain
    assert "50 requests/s, second 1 of 4" in text
    assert "3 failed: timeout" in text
    assert "late by 1 ms" in text


def result_of(series: tuple[Measured, ...]) -> LoadResult:
    return LoadResult(
        rate=50, seconds=4, started=0, total=series[-1], errors={}, series=series, late_ms=1
    )


def plans(tool: str, name: str) -> dict[Path, str]:
    plan = loadtest.plan_of(SUBJECT, msgspec.structs.replace(LIMITS, rate=12.5))
    return dict(load_plans.render(tool, plan, Path(name)))


def test_the_plan_of_jmeter_has_the_same_rate_requests_and_headers() -> None:
    files = plans("jmeter", "plan.jmx")
    assert files[Path("plan.requests")].splitlines() == list(SUBJECT.bodies)
    root = ET.fromstring(files[Path("plan.jmx")])  # noqa: S314 (written above)
    texts = {each.get("name"): each.text for each in root.iter("stringProp")}
    schedule = texts["OpenModelThreadGroup.schedule"]
    assert schedule == "rate(12.5/s) even_arrivals(4 s)"
    assert texts["filename"] == "plan.requests"
    assert texts["HTTPSampler.path"] == "/predict"
    assert texts["HTTPSampler.port"] == "9"
    assert {each.text for each in root.iter("stringProp") if each.get("name") == "Header.name"} == {
        "authorization",
        "content-type",
        "x-user",
    }


def test_the_script_of_k6_has_the_same_rate_and_requests() -> None:
    text = plans("k6", "load.js")[Path("load.js")]
    match = re.search(r"const bodies = (\[.*?\n\]);", text, re.DOTALL)
    assert match is not None
    assert tuple(json.loads(match[1])) == SUBJECT.bodies
    assert "rate: 750," in text  # a minute
    assert "timeUnit: '1m'" in text
    assert "duration: '4s'" in text
    assert '"x-user"' in text


def test_the_file_of_locust_has_the_same_rate_and_requests() -> None:
    tree = ast.parse(plans("locust", "locustfile.py")[Path("locustfile.py")])
    values = {
        node.targets[0].id: node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    assert tuple(ast.literal_eval(values["BODIES"])) == SUBJECT.bodies
    assert ast.unparse(values["wait_time"]) == "constant_throughput(1.25)"
    assert ast.literal_eval(values["host"]) == "http://127.0.0.1:9"
