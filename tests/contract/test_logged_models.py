"""Models that MLflow itself logged and registered are found by their address, and trained with."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

LOG = """
import json, sys, warnings
warnings.simplefilter("ignore")
import mlflow, mlflow.sklearn, mlflow.xgboost, xgboost
from sklearn.linear_model import LinearRegression
from tests.harness.projects import flowers

mlflow.set_tracking_uri(sys.argv[1])
mlflow.set_experiment(experiment_id=mlflow.create_experiment("e", artifact_location=sys.argv[2]))
frame = flowers()
numbers = frame[["length", "width", "leaves"]]
with mlflow.start_run() as run:
    booster = xgboost.train({"nthread": 1}, xgboost.DMatrix(numbers, frame.price), 5)
    # With requirements of their own, no model is loaded in a further process to infer them.
    needs = {"pip_requirements": ["scikit-learn", "xgboost"]}
    one = mlflow.xgboost.log_model(booster, name="booster", registered_model_name="houses", **needs)
    line = LinearRegression().fit(numbers, frame.price)
    mlflow.sklearn.log_model(line, name="line", serialization_format="cloudpickle",
                             registered_model_name="lines", **needs)
print(json.dumps({"id": one.model_id, "run": run.info.run_id}))
"""
TRAIN = """
import json, sys, warnings
from pathlib import Path
warnings.simplefilter("ignore")
from mlship.config import layers
from mlship.errors import MlshipError
from mlship.training.train import train
from tests.harness.projects import InProcess, flowers, project, request

root, uri = Path(sys.argv[1]), sys.argv[2]
answers = {}
for address in sys.argv[3:]:
    code = f"def train(data, params):\\n    return {address!r}\\n"
    module = project(root, code, flowers()[["length", "width", "leaves", "price"]])
    values = {
        "name": "houses",
        "data": {"train": "data.csv", "split": {"fraction": 0.3}, "target": "price"},
        "model": {"train": f"{module}:train"},
        "store": {"kind": "mlflow", "uri": uri},
    }
    config = layers.resolve([layers.Layer(name="mlship.yaml", values=values)]).config
    try:
        answers[address] = train(request(root, config, into=module), InProcess()).format
    except MlshipError as error:
        answers[address] = f"{type(error).__name__}: {error.message}"
print(json.dumps(answers))
"""


def run(code: str, *arguments: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        stdout=subprocess.PIPE,
        check=True,
        cwd=Path(__file__).parents[2],
        env={
            **os.environ,
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        },
    )
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"


def test_addresses_of_fixed_models_are_trained_with(uri: str, tmp_path: Path) -> None:
    logged = run(LOG, uri, str(tmp_path / "artifacts"))
    version, model = "models:/houses/1", f"models:/{logged['id']}"
    pickled, moving, missing = "models:/lines/1", "models:/houses/latest", "models:/houses/7"
    answers = run(TRAIN, str(tmp_path), uri, version, model, pickled, moving, missing)
    assert (answers[version], answers[model]) == ("xgboost", "xgboost")
    assert "loading a pickle runs its code" in answers[pickled]
    assert "may mean another model tomorrow" in answers[moving]
    assert answers[missing].startswith("NotFoundError: the model models:/houses/7 cannot be")
