"""Regressions that answer with quantiles."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics

from mlship.adapters.checkout import code
from mlship.adapters.checkout.children import ScoreRequest
from mlship.config import layers
from mlship.config.project import Config
from mlship.domain import bundle as bundles
from mlship.domain import gates
from mlship.domain.bundle import Bundle, Head, Row
from mlship.errors import ConfigError, ProjectError
from mlship.training import baseline
from mlship.training.columns import rows_of
from mlship.training.data import read
from mlship.training.scoring import plots, quantiles, several
from mlship.training.scoring.score import score
from mlship.training.scoring.scorers import Scorers
from mlship.training.train import train
from tests.harness.projects import InProcess, project, request

ALPHAS = [0.1, 0.5, 0.9]
BOOSTER = """
from xgboost import XGBRegressor
def train(data, params):
    model = XGBRegressor(objective="reg:quantileerror", quantile_alpha=[0.1, 0.5, 0.9],
                         n_estimators=30, max_depth=2, n_jobs=1)
    return model.fit(data[["a", "b"]], data["delay"])
"""
OWN = """
import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.ensemble import GradientBoostingRegressor

class Quantiles(RegressorMixin, BaseEstimator):
    def fit(self, X, y):
        self.models_ = [
            GradientBoostingRegressor(loss="quantile", alpha=alpha, n_estimators=20).fit(X, y)
            for alpha in (0.1, 0.5, 0.9)
        ]
        self.feature_names_in_ = self.models_[0].feature_names_in_
        self.n_features_in_ = X.shape[1]
        return self

    def predict(self, X):
        return np.column_stack([model.predict(X) for model in self.models_])

def train(data, params):
    return Quantiles().fit(data[["a", "b"]], data["delay"])
"""


def delays(rows: int = 300) -> pd.DataFrame:
    generator = np.random.default_rng(8)
    frame = pd.DataFrame({name: generator.normal(size=rows).round(3) for name in "ab"})
    spread = np.exp(frame.b / 2) * generator.normal(size=rows)
    return frame.assign(delay=(10 + 3 * frame.a + spread).round(3))


def setting(module: str, **model: Any) -> Config:
    values = {
        "name": "delays",
        "data": {"train": "data.csv", "split": {"fraction": 0.3, "seed": 1}, "target": "delay"},
        "model": {"train": f"{module}:train", "quantiles": ALPHAS, **model},
    }
    return layers.resolve([layers.Layer(name="mlship.yaml", values=values)]).config


def sealed(root: Path, source: str) -> tuple[Config, Bundle, Path]:
    config = setting(project(root, source, delays()))
    asked = request(root, config)
    made = train(asked, InProcess())
    return config, bundles.read(asked.into, expected=made.bundle), asked.into


@pytest.mark.slow
@pytest.mark.parametrize(("source", "form"), [(BOOSTER, "xgboost"), (OWN, "skops")])
def test_quantiles_are_outputs_and_the_middle_one_is_the_target(
    source: str, form: str, tmp_path: Path
) -> None:
    config, bundle, folder = sealed(tmp_path, source)
    assert bundle.model.format == form
    assert (bundle.target, bundle.targets, bundle.quantiles) == ("delay", (), tuple(ALPHAS))
    data = read(tmp_path, config.data)
    served = pd.DataFrame(InProcess().predict(folder, rows_of(data.test)))
    assert list(served) == ["delay", "delay_q0.1", "delay_q0.5", "delay_q0.9"]
    assert served["delay"].equals(served["delay_q0.5"])
    truth = data.targets[0].test
    for alpha in ALPHAS:
        loss = sklearn.metrics.mean_pinball_loss(truth, served[f"delay_q{alpha}"], alpha=alpha)
        assert bundle.metrics[f"pinball[{alpha}]"] == pytest.approx(loss)
    inside = (served["delay_q0.1"] <= truth) & (truth <= served["delay_q0.9"])
    assert bundle.metrics["coverage"] == pytest.approx(inside.mean())
    assert float(bundle.metrics["mae"]) == pytest.approx(
        float((served["delay"] - truth).abs().mean())
    )


@pytest.mark.fits
def test_quantiles_are_compared_with_the_champion_and_with_constant_ones(tmp_path: Path) -> None:
    config, _, folder = sealed(tmp_path, BOOSTER)
    asked = ScoreRequest(
        root=tmp_path, config=config, bundle=folder, champion=folder, plots=tmp_path / "plots"
    )
    found = score(asked, InProcess())
    assert found.differences["pinball"].estimate == 0
    assert found.plots == (plots.RESIDUALS,)
    assert float(found.metrics["pinball"]) < float(found.baseline["pinball"])
    check = gates.on_baseline(found.metrics, found.baseline)
    assert check.holds
    assert check.text.startswith("against a constant answer: pinball")
    assert not gates.on_baseline(found.baseline, found.baseline).holds


def test_crossing_and_coverage_are_counted() -> None:
    outputs: list[Row] = [
        {"y": 2.0, "y_q0.1": 1.0, "y_q0.5": 2.0, "y_q0.9": 3.0},
        {"y": 2.0, "y_q0.1": 2.5, "y_q0.5": 2.0, "y_q0.9": 3.0},
    ]
    columns = quantiles.losses(ALPHAS, "y", [3.0, 5.0], outputs)
    assert columns["crossing"].tolist() == [0.0, 1.0]
    assert columns["coverage"].tolist() == [1.0, 0.0]
    assert columns["pinball[0.9]"].tolist() == pytest.approx([0.0, 0.9 * 2])
    assert quantiles.losses(ALPHAS, "y", [3.0], [{"y": 1.0}]) == {}


def test_the_constant_answer_has_the_quantiles_of_training(tmp_path: Path) -> None:
    config = setting(project(tmp_path, BOOSTER, delays()))
    data = read(tmp_path, config.data)
    problem = several.Problem("regression", (Head(name="delay"),), tuple(ALPHAS))
    row = baseline.outputs(problem, data, 1)[0]
    assert row["delay_q0.9"] == pytest.approx(float(data.targets[0].train.quantile(0.9)))
    assert row["delay"] == row["delay_q0.5"]


def test_a_model_of_one_quantile_has_a_metric_for_it(tmp_path: Path) -> None:
    bundle = Bundle(
        name="delays",
        task="regression",
        target="delay",
        schema=bundles.Schema(inputs=(), outputs=()),
        model=bundles.Model(format="onnx", path="m", layout="matrix", columns=()),
        hooks=bundles.Hooks(),
        metrics={},
        requirements=(),
        python="3.11",
    )
    scorers = Scorers(root=tmp_path, named={"p90": "pinball[0.9]"})
    outputs: list[Row] = [{"delay": 4.0}, {"delay": 4.0}]
    assert scorers.measure(bundle, {"delay": [5.0, 2.0]}, outputs) == {
        "p90": pytest.approx((0.9 + 0.2) / 2)
    }


@pytest.mark.fits
def test_a_model_of_one_number_is_refused(tmp_path: Path) -> None:
    source = "from sklearn.linear_model import LinearRegression\ndef train(data, params):\n"
    source += "    return LinearRegression().fit(data[['a', 'b']], data['delay'])\n"
    with pytest.raises(ProjectError, match="not with 3 values"):
        sealed(tmp_path, source)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"quantiles": [0.9]}, "one quantile"),
        ({"quantiles": [0.9, 0.1]}, "not ascending"),
        ({"quantiles": ALPHAS, "task": "classification"}, "regression of one target"),
    ],
)
def test_quantiles_that_make_no_sense_are_refused(model: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        setting("pipeline", **model)


def test_quantiles_belong_to_a_release_and_their_absence_to_none_before() -> None:
    with_them, without = setting("pipeline"), setting("pipeline", quantiles=[])
    assert code.settings_of(with_them) != code.settings_of(without)
