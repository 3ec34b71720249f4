"""The metrics of a server, read by the parser of Prometheus' own client."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from mlship.domain.bundle import Bundle, Head, Hooks, Row
from mlship.domain.columns import Columns
from mlship.runtime import refusals
from mlship.runtime.counts import CLASSES, SECONDS
from mlship.runtime.metrics import Metrics
from tests.harness.bundles import SETOSA, VIRGINICA, iris_bundle, iris_draft
from tests.harness.served import Call, Memory, caller, service_of

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples_of(text: bytes) -> Samples:
    """Return the value of each sample by its name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float | None:
    """Return the sum of the samples that have these labels; `None` if there is none."""
    found = [
        number
        for (other, known), number in samples.items()
        if other == name and labels.items() <= dict(known).items()
    ]
    return sum(found) if found else None


def metrics_of(bundle: Bundle) -> Metrics:
    return Metrics(bundle, release="iris@abababababab", slot="rabababababab")


def classes_of(bundle: Bundle, rows: list[Row]) -> dict[tuple[str, str], float]:
    metrics = metrics_of(bundle)
    metrics.predicted(Columns.of_rows(rows), shadow=False, waited=0.0)
    return {
        (dict(labels)["output"], dict(labels)["class"]): number
        for (name, labels), number in samples_of(metrics.text()).items()
        if name == "mlship_predicted_classes_total"
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "iris"
    iris_bundle(folder)
    return folder


@pytest.fixture
def memory() -> Memory:
    return Memory()


@pytest.fixture
def call(folder: Path, memory: Memory) -> Call:
    service = service_of(folder, memory)
    service.warm_up(folder)
    return caller(service)


def counted(call: Call, name: str, **labels: str) -> float | None:
    return value(samples_of(call("GET", "/metrics").body), name, **labels)


def test_requests_are_counted_by_route_and_status(call: Call) -> None:
    for body in (SETOSA, [SETOSA, VIRGINICA], b"{"):
        call("POST", "/predict", body)
    call("GET", "/secret/path")
    assert counted(call, "mlship_requests_total", route="/predict", status="200") == 2
    assert counted(call, "mlship_requests_total", route="/predict", status="400") == 1
    assert counted(call, "mlship_requests_total", route="other", status="404") == 1
    assert counted(call, "mlship_request_seconds_count", route="/predict") == 3
    assert counted(call, "mlship_request_seconds_bucket", route="/predict", le="+Inf") == 3
    assert counted(call, "mlship_queue_seconds_count") == 2, "of those that were computed"


def test_predictions_are_counted_by_class_release_and_slot(call: Call) -> None:
    call("POST", "/predict", [SETOSA, VIRGINICA, SETOSA])
    call("POST", "/predict", SETOSA, host="iris-shadow")
    labels = {"release": "iris@abababababab", "slot": "rabababababab", "output": "species"}
    name = "mlship_predicted_classes_total"
    assert counted(call, name, **labels, **{"class": "setosa", "shadow": "false"}) == 2
    assert counted(call, name, **labels, **{"class": "setosa", "shadow": "true"}) == 1
    assert counted(call, name, **labels, **{"class": "virginica"}) == 1
    assert counted(call, name, output="probability_setosa") is None, "a number has no classes"
    assert counted(call, "mlship_predictions_total", slot="rabababababab", shadow="false") == 3


def test_a_prediction_that_is_not_logged_is_not_counted(call: Call, memory: Memory) -> None:
    memory.is_full = True
    assert call("POST", "/predict", SETOSA).status == 503
    assert counted(call, "mlship_predicted_classes_total") is None
    assert counted(call, "mlship_refused_total", reason="log") == 1


@pytest.mark.parametrize(
    ("body", "headers", "reason"),
    [
        (b"{", {}, "invalid"),
        ([], {}, "invalid"),
        (SETOSA, {"content_type": "text/html"}, "media_type"),
        ([SETOSA] * 100_001, {}, "too_large"),
    ],
)
def test_refusals_are_counted_by_reason(
    call: Call, body: Any, headers: dict[str, str], reason: str
) -> None:
    call("POST", "/predict", body, **headers)
    samples = samples_of(call("GET", "/metrics").body)
    counts = {
        word: value(samples, "mlship_refused_total", reason=word) for word in refusals.REASONS
    }
    assert counts == {word: float(word == reason) for word in refusals.REASONS}


def test_classes_are_bounded_and_the_rest_is_other() -> None:
    draft = iris_draft(Hooks())
    labels = tuple(f"label {number}" for number in range(CLASSES + 30))
    model = msgspec.structs.replace(draft.model, classes=labels)
    bundle = msgspec.structs.replace(draft, model=model)
    counts = classes_of(bundle, [{"species": label} for label in (*labels, "by a hook", None)])
    assert len(counts) == CLASSES + 1
    assert counts["species", "other"] == 32
    assert counts["species", "label 0"] == 1


def test_a_number_is_never_a_class() -> None:
    draft = iris_draft(Hooks())
    model = msgspec.structs.replace(draft.model, classes=())
    bundle = msgspec.structs.replace(draft, model=model, task="regression")
    assert classes_of(bundle, [{"species": 1.25}]) == {}


def test_heads_clusters_and_anomalies_have_classes() -> None:
    draft = iris_draft(Hooks())
    heads = (Head(name="is_late", classes=(True, False)), Head(name="price"))
    model = msgspec.structs.replace(draft.model, classes=(), heads=heads)
    several = msgspec.structs.replace(draft, model=model)
    assert classes_of(several, [{"is_late": True, "price": 2.5}]) == {("is_late", "true"): 1}
    clusters = msgspec.structs.replace(draft, task="clustering")
    assert classes_of(clusters, [{"cluster": -1}, {"cluster": 3}, {"cluster": 1_000}]) == {
        ("cluster", "-1"): 1,
        ("cluster", "3"): 1,
        ("cluster", "other"): 1,
    }
    anomalies = msgspec.structs.replace(draft, task="anomaly")
    assert classes_of(anomalies, [{"label": -1, "score": 0.5}]) == {("label", "-1"): 1}


def test_labels_that_need_quoting_are_read_as_they_are() -> None:
    draft = iris_draft(Hooks())
    hostile = 'a"b\\c\nmlship_requests_total 99'
    model = msgspec.structs.replace(draft.model, classes=(hostile,))
    bundle = msgspec.structs.replace(draft, model=model)
    assert classes_of(bundle, [{"species": hostile}]) == {("species", hostile): 1}


def test_a_wait_and_a_latency_are_in_the_bucket_that_holds_them(folder: Path) -> None:
    metrics = metrics_of(iris_draft(Hooks()))
    for seconds in (0.0004, 0.02, 29.0, 100.0):
        metrics.answered("/predict", 200, seconds)
        metrics.predicted(Columns(), shadow=False, waited=seconds)
    samples = samples_of(metrics.text())
    for name in ("mlship_request_seconds", "mlship_queue_seconds"):
        counts = [value(samples, f"{name}_bucket", le=str(bound)) for bound in SECONDS]
        assert counts == [sum(time <= bound for time in (0.0004, 0.02, 29.0)) for bound in SECONDS]
        assert value(samples, f"{name}_bucket", le="+Inf") == 4
        assert value(samples, f"{name}_sum") == pytest.approx(129.0204)


def test_rows_are_counted_by_the_batch_in_which_they_were_sent() -> None:
    metrics = metrics_of(iris_draft(Hooks()))
    for rows in (1, 3, 2_000):
        metrics.sent(rows)
    samples = samples_of(metrics.text())
    counts = {
        le: value(samples, "mlship_batch_rows_bucket", le=le) for le in ("1.0", "4.0", "+Inf")
    }
    assert counts == {"1.0": 1, "4.0": 2, "+Inf": 3}
    assert value(samples, "mlship_batch_rows_sum") == 2_004
    assert value(samples, "mlship_predictions_total", shadow="true") == 0, (
        "it is there from the start"
    )


def test_each_name_is_that_of_one_family_with_help(call: Call) -> None:
    call("POST", "/predict", SETOSA)
    families = list(text_string_to_metric_families(call("GET", "/metrics").body.decode()))
    names = [family.name for family in families]
    assert len(names) == len(set(names))
    assert all(family.documentation and family.type != "unknown" for family in families)
