"""Models that MLflow itself logged and registered are found by their address, and trained with."""

import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlship.adapters.mlflow import library
from mlship.config import layers
from mlship.errors import MlshipError
from mlship.training.train import train
from tests.harness.bystander import Bystander
from tests.harness.projects import InProcess, flowers, project, request

# Its process with MLflow is that of the tests of what MLflow makes of models.
pytestmark = pytest.mark.xdist_group("test_store_mlflow_model.py")

LOG = """
import mlflow, pandas, xgboost
from sklearn.linear_model import LinearRegression

uri, artifacts, data = given
mlflow.set_tracking_uri(uri)
mlflow.set_experiment(experiment_id=mlflow.create_experiment("e", artifact_location=artifacts))
frame = pandas.read_csv(data)
numbers = frame[["length", "width", "leaves"]]
with mlflow.start_run() as run:
    booster = xgboost.train({"nthread": 1}, xgboost.DMatrix(numbers, frame.price), 5)
    # With requirements of their own, no model is loaded in a further process to infer them.
    needs = {"pip_requirements": ["scikit-learn", "xgboost"]}
    one = mlflow.xgboost.log_model(booster, name="booster", registered_model_name="houses", **needs)
    line = LinearRegression().fit(numbers, frame.price)
    mlflow.sklearn.log_model(line, name="line", serialization_format="cloudpickle",
                             registered_model_name="lines", **needs)
answer = one.model_id
"""


@pytest.fixture
def uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Give a database of MLflow; what a training sets for its process is taken back."""
    library.create_database(tmp_path / "mlflow.db", tmp_path / "artifacts", {})
    monkeypatch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    import mlflow

    yield f"sqlite:///{tmp_path}/mlflow.db"
    mlflow.set_tracking_uri(None)


def trained(root: Path, uri: str, address: str) -> str:
    """Train a project with the model of an address; return its format, or the error."""
    code = f"def train(data, params):\n    return {address!r}\n"
    module = project(root, code, flowers()[["length", "width", "leaves", "price"]])
    values = {
        "name": "houses",
        "data": {"train": "data.csv", "split": {"fraction": 0.3}, "target": "price"},
        "model": {"train": f"{module}:train"},
        "store": {"kind": "mlflow", "uri": uri},
    }
    config = layers.resolve([layers.Layer(name="mlship.yaml", values=values)]).config
    try:
        return train(request(root, config, into=module), InProcess()).format
    except MlshipError as error:
        return f"{type(error).__name__}: {error.message}"


def test_addresses_of_fixed_models_are_trained_with(
    uri: str, bystander: Bystander, tmp_path: Path
) -> None:
    flowers().to_csv(tmp_path / "logged.csv", index=False)
    given = (uri, str(tmp_path / "artifacts"), str(tmp_path / "logged.csv"))
    version, model = "models:/houses/1", f"models:/{bystander.run(LOG, given, tmp_path)}"
    pickled, moving, missing = "models:/lines/1", "models:/houses/latest", "models:/houses/7"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of MLflow's libraries
        addresses = (version, model, pickled, moving, missing)
        answers = {address: trained(tmp_path, uri, address) for address in addresses}
    assert (answers[version], answers[model]) == ("xgboost", "xgboost")
    assert "loading a pickle runs its code" in answers[pickled]
    assert "may mean another model tomorrow" in answers[moving]
    assert answers[missing].startswith("NotFoundError: the model models:/houses/7 cannot be")
