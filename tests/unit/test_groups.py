"""Models without a target: clusterings, and detectors of anomalies without labelled data."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
import sklearn.metrics

from mlship.adapters.checkout.children import ScoreRequest
from mlship.config import layers
from mlship.config.project import Config
from mlship.domain import bundle as bundles
from mlship.domain import checks, gates
from mlship.domain.bundle import Bundle, Row
from mlship.domain.history import fold
from mlship.domain.policy import PromotePolicy
from mlship.errors import ConfigError, ProjectError
from mlship.steps.evaluate import evaluate
from mlship.steps.feedback import feedback
from mlship.steps.outcome_files import Received
from mlship.training.columns import rows_of
from mlship.training.data import read
from mlship.training.scoring import groups, plots
from mlship.training.scoring.score import score
from mlship.training.train import train
from tests.fakes.ports import CONFIG, world
from tests.harness.projects import InProcess, project, request

PROMOTE = {"promote": {"metric": "none"}}


def customers(rows: int = 240) -> pd.DataFrame:
    """Return three groups of customers, apart from each other, with a colour that means nothing."""
    generator = np.random.default_rng(4)
    kind = np.arange(rows) % 3
    return pd.DataFrame(
        {
            "spent": np.round(kind * 60 + generator.normal(100, 6, rows), 2),
            "visits": np.round(kind * -8 + generator.normal(30, 2, rows), 2),
        }
    )


def setting(module: str, task: str = "clustering", **more: Any) -> Config:
    data = {"train": "data.csv", "split": {"fraction": 0.3, "seed": 1}, **more.pop("data", {})}
    values: dict[str, Any] = {
        "name": "customers",
        "data": data,
        "model": {"train": f"{module}:train", "task": task, **more.pop("model", {})},
        "gates": PROMOTE,
        **more,
    }
    return layers.resolve([layers.Layer(name="mlship.yaml", values=values)]).config


def code_of(line: str, call: str) -> str:
    return f"{line}\ndef train(data, params):\n    return {call}.fit(data)\n"


def sealed(root: Path, source: str, task: str = "clustering") -> tuple[Config, Bundle, Path]:
    config = setting(project(root, source, customers()), task)
    asked = request(root, config)
    made = train(asked, InProcess())
    return config, bundles.read(asked.into, expected=made.bundle), asked.into


CLUSTERINGS = {
    "means": ("from sklearn.cluster import KMeans as M", "M(3, n_init=2, random_state=0)"),
    "pipeline": (
        (
            "from sklearn.cluster import MiniBatchKMeans\n"
            "from sklearn.pipeline import make_pipeline\n"
            "from sklearn.preprocessing import StandardScaler"
        ),
        "make_pipeline(StandardScaler(), MiniBatchKMeans(3, n_init=2, random_state=0))",
    ),
    "mixture": ("from sklearn.mixture import GaussianMixture as M", "M(3, random_state=0)"),
}


@pytest.mark.fits
@pytest.mark.parametrize("name", CLUSTERINGS)
def test_a_clustering_serves_the_clusters_of_new_rows(name: str, tmp_path: Path) -> None:
    line, call = CLUSTERINGS[name]
    config, bundle, folder = sealed(tmp_path, code_of(line, call))
    assert (bundle.task, bundle.names) == ("clustering", ("cluster",))
    data = read(tmp_path, config.data)
    served = pd.DataFrame(InProcess().predict(folder, rows_of(data.test)))
    scope: dict[str, Any] = {}
    exec(code_of(line, call), scope)  # noqa: S102 (the code is of this module)
    model = scope["train"](data.train, {})
    assert served["cluster"].tolist() == model.predict(data.test).tolist()
    shares = [f"probability_{number}" for number in range(3)]
    if name == "mixture":
        assert list(served) == ["cluster", *shares]
        assert np.allclose(served[shares], model.predict_proba(data.test), atol=1e-4)
    else:
        assert list(served) == ["cluster"]
    assert bundle.metrics["clusters"] == 3
    assert float(bundle.metrics["silhouette"]) > 0.6


def test_a_clustering_that_knows_only_its_own_rows_is_refused(tmp_path: Path) -> None:
    source = code_of("from sklearn.cluster import DBSCAN as M", "M()")
    with pytest.raises(ProjectError, match="DBSCAN, which cannot predict rows that it was not"):
        sealed(tmp_path, source)


def test_a_clustering_of_columns_without_names_is_refused(tmp_path: Path) -> None:
    line, call = CLUSTERINGS["means"]
    source = code_of(line, call).replace(".fit(data)", ".fit(data.to_numpy())")
    with pytest.raises(ProjectError, match="the order of its columns is not that of") as caught:
        sealed(tmp_path, source)
    assert "fit it on a DataFrame" in caught.value.hint


@pytest.mark.fits
def test_a_detector_serves_labels_and_scores(tmp_path: Path) -> None:
    line = "from sklearn.ensemble import IsolationForest as M"
    call = "M(n_estimators=20, contamination=0.1, random_state=0)"
    config, bundle, folder = sealed(tmp_path, code_of(line, call), "anomaly")
    assert (bundle.task, bundle.names, bundle.model.classes) == ("anomaly", ("label",), (-1, 1))
    data = read(tmp_path, config.data)
    served = pd.DataFrame(InProcess().predict(folder, rows_of(data.test)))
    assert list(served) == ["label", "score"]
    assert ((served["score"] < 0) == (served["label"] == -1)).all()
    assert set(served["label"]) == {-1, 1}
    assert bundle.metrics == {"anomalies": pytest.approx((served["label"] == -1).mean())}
    asked = ScoreRequest(
        root=tmp_path, config=config, bundle=folder, champion=None, plots=tmp_path / "plots"
    )
    assert gates.on_groups("anomaly", score(asked, InProcess()).metrics).holds


def test_a_model_that_is_no_detector_is_refused(tmp_path: Path) -> None:
    line, call = CLUSTERINGS["means"]
    with pytest.raises(ProjectError, match="no detector of outliers"):
        sealed(tmp_path, code_of(line, call), "anomaly")


@pytest.mark.slow
def test_release_and_champion_are_measured_in_the_same_space(tmp_path: Path) -> None:
    line, call = CLUSTERINGS["means"]
    _, _, good = sealed(tmp_path / "good", code_of(line, call))
    config, _, one = sealed(tmp_path / "one", code_of(line, call.replace("M(3", "M(1")))
    asked = ScoreRequest(
        root=tmp_path / "one", config=config, bundle=one, champion=good, plots=tmp_path / "plots"
    )
    found = score(asked, InProcess())
    assert found.metrics["silhouette"] == "nan"
    assert found.metrics["largest_share"] == 1.0
    assert float(found.champion["silhouette"]) > 0.6
    assert (found.baseline, found.differences, found.slices) == ({}, {}, None)
    assert found.plots == (plots.SHARES,)
    check = gates.on_groups("clustering", found.metrics)
    assert not check.holds
    assert "1 clusters among the held-out rows" in check.text


def test_metrics_of_clusters_are_those_of_scikit_learn() -> None:
    generator = np.random.default_rng(1)
    space = generator.normal(size=(60, 2))
    labels = (space[:, 0] > 0).astype(int)
    outputs: list[Row] = [{"cluster": int(label)} for label in labels]
    found = groups.measure("clustering", space, outputs)
    assert found["silhouette"] == pytest.approx(sklearn.metrics.silhouette_score(space, labels))
    assert found["davies_bouldin"] == pytest.approx(
        sklearn.metrics.davies_bouldin_score(space, labels)
    )
    assert found["largest_share"] == max(labels.mean(), 1 - labels.mean())
    assert set(groups.measure("clustering", space[:, :0], outputs)) == {"clusters", "largest_share"}


def test_space_is_scaled_by_training_rows_and_has_no_holes(tmp_path: Path) -> None:
    frame = customers().assign(name="x", same=1.0)
    frame.loc[::7, "visits"] = np.nan
    config = setting(project(tmp_path, "", frame))
    data = read(tmp_path, config.data)
    space = groups.space_of(tmp_path, data, None)
    assert space.shape == (len(data.test), 3)
    assert np.isfinite(space).all()
    assert 0.7 < space[:, 0].std() < 1.3


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"gates": {}}, "there are no outcomes to compare"),
        ({"gates": {"promote": {"metric": "none", "approvals": 0}}}, "at least one approval"),
        ({"data": {"target": "spent"}}, "a clustering has no data.target"),
        ({"metrics": {"auc": "roc_auc"}}, r"metrics\.auc needs true values"),
    ],
)
def test_settings_that_a_clustering_cannot_have(more: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        setting("pipeline", **more)


def test_a_target_without_outcomes_needs_an_approval_too() -> None:
    promote = {"metric": "none", "approvals": 0}
    with pytest.raises(ConfigError, match="at least one approval"):
        setting("pipeline", "anomaly", data={"target": "spent"}, gates={"promote": promote})
    assert setting("pipeline", "anomaly", data={"target": "spent"}).data.target == "spent"
    assert setting("pipeline", "auto", gates={}).data.target == "target"


def test_without_outcomes_approvals_alone_decide(tmp_path: Path) -> None:
    promote = PromotePolicy(metric="none")
    config = msgspec.structs.replace(
        CONFIG,
        data=msgspec.structs.replace(CONFIG.data, target=None),
        gates=msgspec.structs.replace(CONFIG.gates, promote=promote),
    )
    here = world(tmp_path, config)
    with pytest.raises(ConfigError, match="no outcomes are compared"):
        evaluate(here.pipeline)
    with pytest.raises(ProjectError, match="no outcomes"):
        feedback(here.pipeline, [Received("a.0", 1)])
    release = train_one(here)
    records = here.pipeline.read()
    decision = gates.for_promotion(
        release, records, fold(records), promote, here.clock() + timedelta(hours=1), "no image"
    )
    lines = [checks.line(check) for check in decision.checks]
    assert any("nothing was compared" in line for line in lines)
    assert [check.name for check in decision.failed] == [
        "test",
        "verify-staging-workload",
        "approvals",
    ]


def train_one(here: Any) -> Any:
    from mlship.steps.train import train as step

    return step(here.pipeline).evidence.release
