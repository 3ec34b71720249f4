"""What MLflow makes of a registered version: the answers that are served, and the same refusals."""

import math
import os
import shutil
import subprocess
import sys
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest
import yaml

from mlship.adapters.mlflow import loader
from mlship.adapters.mlflow import model as packaging
from mlship.adapters.mlflow.library import session
from mlship.adapters.stores import mlflow_runs
from mlship.adapters.stores.mlflow import MlflowStore
from mlship.domain import bundle as bundles
from mlship.domain import digests
from mlship.domain.bundle import Field, Row, Value
from mlship.domain.release import Release
from mlship.domain.versions import VERDICT, DataSet, Run
from mlship.runtime import golden
from mlship.runtime.faults import Fault
from mlship.runtime.model import Model
from mlship.training.train import train
from tests.fakes.store import tiny_bundle, tiny_release
from tests.harness import asking
from tests.harness.bundles import COLUMNS, SETOSA, iris_bundle
from tests.harness.bystander import Bystander
from tests.harness.projects import InProcess, config, project, request

HOOK = """
def preprocess(data):
    if (data["sepal_width"] > 100).any():
        raise ValueError("no flower is that wide")
    return data.assign(sepal_length=data["sepal_length"] * 1.01)
"""
NUMBERS = "data[['length', 'width', 'leaves']]"
MIXED = """
import numpy as np
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from sklearn.semi_supervised import LabelSpreading

def train(data, params):
    parts = make_column_transformer(
        (SimpleImputer(), ["length", "leaves"]),
        (OneHotEncoder(sparse_output=False), ["colour", "picked", "dry"]),
    )
    return make_pipeline(parts, LabelSpreading()).fit(data.drop(columns="y"), data["y"])
"""
BOOSTED = f"""
from {{0}} import {{1}} as M

def train(data, params):
    return M(n_estimators=5, n_jobs=1, {{2}}).fit({NUMBERS}, data["y"])
"""
CODE = {
    "onnx": "from sklearn.linear_model import Ridge\n\n"
    f"def train(data, params):\n    return Ridge().fit({NUMBERS}, data['y'])\n",
    "skops": MIXED,
    "xgboost": BOOSTED.format("xgboost", "XGBRegressor", ""),
    "lightgbm": BOOSTED.format("lightgbm", "LGBMRegressor", "min_child_samples=3, verbose=-1"),
    "catboost": "from catboost import CatBoostRegressor as M\n\n"
    "def train(data, params):\n"
    "    model = M(n_estimators=5, loss_function='Poisson', verbose=0, allow_writing_files=False)\n"
    f"    return model.fit({NUMBERS}, data['y'])\n",
}
KINDS = (*CODE, "hooks")
OWN = {
    "onnx": "ModelProto",
    "xgboost": "Booster",
    "lightgbm": "Booster",
    "catboost": "CatBoostRegressor",
}

ASK = """
import json, mlflow, pandas as pd
from mlflow.exceptions import MlflowException

def answered(model, rows):
    try:
        return json.loads(json.dumps(model.predict(pd.DataFrame(rows)).to_dict("records")))
    except MlflowException as error:
        return error.message

server, asked = given
mlflow.set_tracking_uri(server)
models = {uri: mlflow.pyfunc.load_model(uri) for uri in asked}
answers = {uri: [answered(models[uri], [row]) for row in rows] for uri, rows in asked.items()}
batches = {}
for uri, rows in asked.items():
    good = [row for row, own in zip(rows, answers[uri]) if isinstance(own, list)]
    batches[uri] = answered(models[uri], good)
own = {}
for uri in asked:
    for flavor in ("onnx", "xgboost", "lightgbm", "catboost"):
        if flavor in models[uri].metadata.flavors:
            own[uri] = type(getattr(mlflow, flavor).load_model(uri)).__name__
answer = [answers, batches, own]
"""
Ask = Callable[[str, dict[str, list[Row]], Path], Any]


@pytest.fixture
def ask(bystander: Bystander) -> Ask:
    """Load models where mlship is not installed; give answers, batches, own classes."""
    return lambda uri, rows, folder: bystander.run(ASK, (uri, rows), folder)


def flowers() -> pd.DataFrame:
    random = np.random.default_rng(7)
    kind = np.arange(120) % 3
    return pd.DataFrame(
        {
            "length": np.where(random.random(120) < 0.1, np.nan, kind * 2 + random.random(120)),
            "width": np.round(random.normal(3, 0.4, 120), 2),
            "leaves": np.where(random.random(120) < 0.1, np.nan, random.integers(2, 9, 120)),
            "colour": np.array(["blue", "pink", None])[kind],
            "picked": np.array(["2024-05-01", "2024-05-02"])[kind % 2],
            "dry": kind == 1,
            "y": np.array(["rose", "iris", "tulip"])[kind],
        }
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Give a bundle of each form, trained once."""
    folder = tmp_path_factory.mktemp("made")
    iris_bundle(folder / "hooks", preprocess=HOOK)
    folders = {"hooks": folder / "hooks"}
    for kind, code in CODE.items():
        frame = flowers()
        if kind != "skops":
            frame = frame[["length", "width", "leaves"]].assign(y=frame.width * 2 + 1)
        if kind == "onnx":
            frame = frame.fillna(4.0).astype({"leaves": int})
        asked = request(folder / kind, config("y", project(folder / kind, code, frame)))
        train(asked, InProcess())
        folders[kind] = asked.into
        assert bundles.read(asked.into).model.format == kind
    return folders


@pytest.fixture(params=["sqlite", "server"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/mlflow.db"
    else:
        yield request.getfixturevalue("mlflow_server")


@pytest.fixture
def open_store(uri: str, tmp_path: Path) -> Callable[[str], MlflowStore]:
    return lambda name: MlflowStore(uri, name, tmp_path / "art ifacts", {})


def release_of(folder: Path) -> Release:
    return tiny_release(digests.of_file(folder / bundles.MANIFEST))


def rows_of(folder: Path) -> list[Row]:
    """Return golden rows, and rows that change one column of the first to what may be refused."""
    examples = [example.inputs for example in golden.read(folder)]
    changed: list[Row] = []
    for field in bundles.read(folder).schema.inputs:
        values = (None, 7, 5.5, 2**53 + 1, 1e300, True, "", "unseen", "2024-05-01", 101.0)
        changed += [{**examples[0], field.name: value} for value in values]
    return [*examples, *changed]


def answers_of(folder: Path, rows: list[Row]) -> list[Row | Fault]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a replica only logs them
        return Model.load(folder, None).answers(rows)


@pytest.fixture(scope="module")
def served(made: dict[str, Path]) -> dict[str, list[Row | Fault]]:
    """Give the answers of mlship to the rows of each bundle."""
    return {kind: answers_of(folder, rows_of(folder)) for kind, folder in made.items()}


def same(answer: Row, expected: Row) -> bool:
    """Return whether outputs are equal, but for the order in which a batch is summed up."""
    return answer.keys() == expected.keys() and all(map(equal, answer.values(), expected.values()))


def equal(one: Value, other: Value) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-9)
    return one == other


def test_mlflow_gives_the_answers_that_are_served(
    uri: str,
    open_store: Callable[[str], MlflowStore],
    made: dict[str, Path],
    served: dict[str, list[Row | Fault]],
    ask: Ask,
    tmp_path: Path,
) -> None:
    names = {kind: f"{kind}-{uuid.uuid4().hex[:8]}" for kind in KINDS}
    for kind, folder in made.items():
        release = release_of(folder)
        store = open_store(names[kind])
        store.record(Run(release=release, bundle=folder))
        store.point("champion", release)
    uris = {kind: f"models:/{name}@champion" for kind, name in names.items()}
    asked = {uris[kind]: rows_of(folder) for kind, folder in made.items()}
    answers, batches, own = ask(uri, asked, tmp_path)
    refusals = 0
    for kind in made:
        accepted = [answer for answer in served[kind] if not isinstance(answer, Fault)]
        refusals += len(served[kind]) - len(accepted)
        for row, expected, answer in zip(
            asked[uris[kind]], served[kind], answers[uris[kind]], strict=True
        ):
            if isinstance(expected, Fault):
                assert f"{expected.field}: {expected.message}" in answer, (kind, row)
            else:
                assert same(answer[0], expected), (kind, row)
        assert len(accepted) > 5
        assert len(batches[uris[kind]]) == len(accepted)
        for expected, answer in zip(accepted, batches[uris[kind]], strict=True):
            assert same(answer, expected), kind
    assert refusals > 50
    assert own == {uris[kind]: name for kind, name in OWN.items()}


def test_what_people_see_of_a_version(
    uri: str, open_store: Callable[[str], MlflowStore], tmp_path: Path
) -> None:
    folder = tmp_path / "bundle"
    release = tiny_release(iris_bundle(folder))
    name = f"seen-{uuid.uuid4().hex[:8]}"
    data = (
        DataSet(name="data/train.csv", digest=release.data, use="training"),
        DataSet(name="https://data.org/test.csv", digest=release.data, use="testing"),
    )
    open_store(name).record(
        Run(release=release, bundle=folder, params={"C": "1.0"}, metrics={"f1": 0.9}, data=data)
    )
    metrics = {"accuracy": 0.97, "mae[heat]": 0.5}
    tested = Run(release=release, metrics=metrics, tags={VERDICT: "passed"}, data=data)
    for _ in range(2):
        open_store(name).record(tested)
        open_store(name).point("champion", release)
    with session(uri, {}) as client:
        (version,) = client.search_model_versions(f"name='{name}'")
        model = client.get_logged_model(version.source.removeprefix("models:/"))
        run = client.get_run(version.run_id)
    assert version.tags["mlship.release"] == release.id
    assert version.tags["mlship.commit"] == release.commit
    assert version.tags[VERDICT] == "passed"
    facts = (str(release), release.commit, release.data, "passed", "accuracy | 0.97")
    for text in (*facts, r"sepal\_length \(number\)"):
        assert text in version.description
    assert model.status == "READY"
    assert model.source_run_id == version.run_id
    assert model.params == {"C": "1.0"}
    measured = {metric.key: (metric.value, metric.dataset_name) for metric in model.metrics}
    held_out = "https://data.org/test.csv"
    values = {"accuracy": 0.97, "f1": 0.9, "mae.heat": 0.5}
    assert measured == {name: (value, held_out) for name, value in values.items()}
    assert name in model.tags["mlflow.modelVersions"]
    assert [output.model_id for output in run.outputs.model_outputs] == [model.model_id]
    inputs = {
        (one.dataset.name, one.dataset.digest, one.tags[0].value)
        for one in run.inputs.dataset_inputs
    }
    short = digests.short(release.data)
    assert inputs == {("data/train.csv", short, "training"), (held_out, short, "testing")}


def written(folder: Path, bundle: Path) -> Path:
    """Write the whole model of a bundle into a folder, as it is uploaded."""
    (folder / "draft").mkdir(parents=True)
    files = packaging.write(
        folder / "draft",
        bundle,
        bundles.read(bundle),
        release_of(bundle),
        run="1",
        model="m-1",
        created=datetime(2026, 1, 1, tzinfo=UTC),
    )
    for name, path in files.items():
        target = folder / "model" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    return folder / "model"


def test_a_model_is_whole_wherever_its_folder_is_copied(ask: Ask, tmp_path: Path) -> None:
    iris_bundle(tmp_path / "bundle")
    model = written(tmp_path / "one", tmp_path / "bundle")
    elsewhere = tmp_path / "a folder" / "elsewhere"
    shutil.copytree(model, elsewhere)
    shutil.rmtree(model)
    shutil.rmtree(tmp_path / "bundle")
    answers, _, _ = ask("sqlite://", {str(elsewhere): [SETOSA]}, tmp_path)
    assert answers[str(elsewhere)][0][0]["species"] == "setosa"


def test_a_model_of_several_targets_answers_with_all_of_them(ask: Ask, tmp_path: Path) -> None:
    code = "from sklearn.ensemble import RandomForestClassifier\ndef train(data, params):\n"
    code += f"    forest = RandomForestClassifier(5, random_state=0)\n    X = {NUMBERS}\n"
    code += "    return forest.fit(X, data[['species', 'colour']])\n"
    module = project(tmp_path, code)
    asked = request(tmp_path, config(["species", "colour"], module))
    train(asked, InProcess())
    row: Row = {"length": 5.1, "width": 3.0, "leaves": 4, "price": 8.0}
    model = written(tmp_path / "one", asked.into)
    answers, _, _ = ask("sqlite://", {str(model): [row]}, tmp_path)
    [served] = InProcess().predict(asked.into, [row])
    assert answers[str(model)][0][0] == served
    assert {"species", "colour", "probability_colour_blue"} <= set(served)


@pytest.mark.filterwarnings("ignore")
def test_mlflow_reads_signature_example_and_environment(tmp_path: Path) -> None:
    from mlflow.models import Model as MlflowModel
    from mlflow.pyfunc import get_model_dependencies

    iris_bundle(tmp_path / "bundle")
    model = written(tmp_path / "one", tmp_path / "bundle")
    read = MlflowModel.load(str(model))
    assert read.get_input_schema().input_names() == list(COLUMNS)
    outputs = {spec.name: spec.type.name for spec in read.get_output_schema().inputs}
    assert outputs["species"] == "string"
    assert outputs["probability_setosa"] == "double"
    example = read.load_input_example(str(model))
    assert example.to_dict("records") == [SETOSA]
    assert "dataframe_split" in str(read.get_serving_input(str(model)))
    lines = Path(get_model_dependencies(str(model))).read_text().splitlines()
    assert "onnxruntime==1.31.1" in lines
    assert any(line.startswith("mlflow==") for line in lines)
    assert not any(line.startswith("mlship") for line in lines)
    conda = yaml.safe_load((model / "conda.yaml").read_text())
    assert conda["dependencies"][0] == "python=3.11"
    assert conda["dependencies"][-1] == {"pip": lines}


def test_a_signature_has_no_type_that_makes_mlflow_change_values() -> None:
    schema = bundles.Schema(
        inputs=(Field(name="a", kind="integer", nullable=True), Field(name="b", kind="boolean")),
        outputs=(Field(name="y", kind="integer", nullable=True), Field(name="z", kind="integer")),
    )
    signature = packaging.signature(schema)
    assert signature["inputs"] == (
        '[{"type":"any","name":"a","required":false},{"type":"any","name":"b","required":true}]'
    )
    assert signature["outputs"] == (
        '[{"type":"double","name":"y","required":false},{"type":"long","name":"z","required":true}]'
    )


def test_the_code_of_a_model_imports_nothing_by_the_name_of_mlship() -> None:
    archive = loader.archive()
    assert loader.archive().data == archive.data
    source = (
        "import sys; sys.modules['mlship'] = None; sys.path.insert(0, sys.argv[1])\n"
        "import importlib, pkgutil\n"
        f"package = importlib.import_module('{archive.package}.runtime')\n"
        "for each in pkgutil.iter_modules(package.__path__, package.__name__ + '.'):\n"
        "    if not each.name.endswith('__main__'): importlib.import_module(each.name)\n"
    )
    path = Path(os.environ.get("TMPDIR", "/tmp")) / f"{uuid.uuid4().hex}.zip"  # noqa: S108
    path.write_bytes(archive.data)
    try:
        subprocess.run([sys.executable, "-P", "-c", source, str(path)], check=True)
    finally:
        path.unlink()


@pytest.mark.filterwarnings("ignore")
def test_versions_of_an_earlier_mlship_are_read_and_promoted(
    uri: str, open_store: Callable[[str], MlflowStore], tmp_path: Path
) -> None:
    release = tiny_release(tiny_bundle(tmp_path / "bundle"))
    name = f"old-{uuid.uuid4().hex[:8]}"
    with session(uri, {}) if uri.startswith("http") else _new(uri, tmp_path) as client:
        location = None if uri.startswith("http") else (tmp_path / "artifacts").as_uri()
        experiment = client.create_experiment(name, artifact_location=location)
        tags = {**mlflow_runs.identity(release), "mlship.bundle": release.bundle}
        run = client.create_run(experiment, tags=tags)
        client.log_artifacts(run.info.run_id, str(tmp_path / "bundle"), "bundle")
        client.set_terminated(run.info.run_id)
        client.create_registered_model(name)
        source = f"{run.info.artifact_uri}/bundle"
        client.create_model_version(
            name, source, run.info.run_id, tags={"mlship.release": release.id}
        )
    store = open_store(name)
    fetched = store.fetch(release, tmp_path / "fetched")
    assert bundles.read(fetched, expected=release.bundle)
    store.record(Run(release=release, bundle=tmp_path / "bundle", metrics={"accuracy": 0.9}))
    store.point("champion", release)
    (version,) = store.versions()
    assert (version.number, version.aliases) == ("1", ("champion",))


def _new(uri: str, folder: Path) -> Any:
    from mlship.adapters.mlflow import library

    library.create_database(Path(uri.removeprefix("sqlite:///")), folder / "artifacts", {})
    return session(uri, {})


def test_mlship_trusts_nothing_of_a_model_but_the_verified_bundle(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    release = tiny_release(iris_bundle(folder))
    store = MlflowStore(f"sqlite:///{tmp_path}/mlflow.db", "iris", tmp_path / "artifacts", {})
    store.record(Run(release=release, bundle=folder))
    store.point("champion", release)
    (document,) = (tmp_path / "artifacts").rglob("MLmodel")
    marker = tmp_path / "marker"
    evil = f"open({str(marker)!r}, 'w').close()\n"
    (document.parent / "evil.py").write_text(evil)
    (document.parent / "code.zip").write_bytes(b"no archive")
    document.write_text(f"flavors: {{python_function: {{loader_module: evil, code: .}}}}\n# {evil}")
    fetched = store.fetch(release, tmp_path / "fetched")
    assert Model.load(fetched, release.bundle).predict([SETOSA])[0]["species"] == "setosa"
    assert not list(fetched.rglob("evil.py"))
    assert store.versions()[0].aliases == ("champion",)
    assert not marker.exists()


@pytest.mark.slow
def test_mlflow_models_serve_answers_as_mlship_does(bystander: Bystander, tmp_path: Path) -> None:
    iris_bundle(tmp_path / "bundle", preprocess=HOOK)
    model = written(tmp_path / "one", tmp_path / "bundle")
    port = 20000 + os.getpid() % 20000
    arguments = ["-m", str(model), "--env-manager", "local"]
    arguments += ["--host", "127.0.0.1", "--port", str(port)]
    url = f"http://127.0.0.1:{port}"
    with bystander.serving(arguments, tmp_path):
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            try:
                if asking.get(f"{url}/ping").is_success:
                    break
            except httpx.TransportError:
                time.sleep(0.2)
        body = {"dataframe_records": [SETOSA, {**SETOSA, "sepal_length": 5}]}
        answer = asking.post(f"{url}/invocations", json=body, timeout=30)
        expected = Model.load(tmp_path / "bundle", None).predict(body["dataframe_records"])
        assert answer.json() == {"predictions": expected}
        for column, value in (("petal_width", None), ("petal_width", "5"), ("sepal_width", 101)):
            body = {"dataframe_records": [{**SETOSA, column: value}]}
            answer = asking.post(f"{url}/invocations", json=body, timeout=30)
            assert answer.status_code == 400
            assert column in answer.text
