"""Models of several targets: labels that are there or not, classes, numbers."""

from collections.abc import Callable
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
from mlship.domain import gates
from mlship.domain.bundle import Bundle, Field, Head, Row, Value
from mlship.errors import ConfigError, ProjectError
from mlship.runtime import heads, openapi, page
from mlship.training import baseline
from mlship.training.columns import rows_of
from mlship.training.data import Data, Target, read
from mlship.training.scoring import plots, several, slices
from mlship.training.scoring.score import score
from mlship.training.scoring.scorers import Scorers
from mlship.training.train import train
from tests.harness.projects import InProcess, project, request

Make = Callable[[pd.DataFrame], list[Any]]
KINDS: dict[str, tuple[list[str], Make]] = {
    "labels": (["sunny", "windy"], lambda x: [(x.a > x.b).astype(int), (x.c > 0.4).astype(int)]),
    "booleans": (["sunny", "windy"], lambda x: [x.a > x.b, x.c > 0.4]),
    "classes": (
        ["sky", "wind"],
        lambda x: [
            np.where(x.a > 0.4, "blue", np.where(x.b > 0, "grey", "black")),
            np.where(x.c > 0, "calm", "storm"),
        ],
    ),
    "numbers": (["heat", "rain"], lambda x: [2 * x.a + x.b, 1000 * x.c + 30 * x.a]),
}


def weather(kind: str, rows: int = 160) -> tuple[pd.DataFrame, list[str]]:
    """Return three measures and the targets of a kind, and the targets' names."""
    generator = np.random.default_rng(5)
    frame = pd.DataFrame({name: generator.normal(size=rows).round(3) for name in "abc"})
    names, make = KINDS[kind]
    return frame.assign(**dict(zip(names, make(frame), strict=True))), names


def setting(targets: list[str], module: str, **more: Any) -> Config:
    values: dict[str, Any] = {
        "name": "weather",
        "data": {"train": "data.csv", "split": {"fraction": 0.3, "seed": 1}, "target": targets},
        "model": {"train": f"{module}:train", **more.pop("model", {})},
        **more,
    }
    return layers.resolve([layers.Layer(name="mlship.yaml", values=values)]).config


def sealed(root: Path, kind: str, line: str, call: str, **more: Any) -> tuple[Bundle, Path]:
    frame, targets = weather(kind)
    module = project(root, code_of(line, call, targets), frame)
    asked = request(root, setting(targets, module, **more))
    made = train(asked, InProcess())
    return bundles.read(asked.into, expected=made.bundle), asked.into


def code_of(line: str, call: str, targets: list[str]) -> str:
    code = f"{line}\ndef train(data, params):\n"
    return code + f"    return {call}.fit(data[['a', 'b', 'c']], data[{targets}])\n"


LOGISTIC = "from sklearn.linear_model import LogisticRegression"
MODELS = {
    "forest of labels": (
        "labels",
        "from sklearn.ensemble import RandomForestClassifier as M",
        "M(8, random_state=1)",
    ),
    "network of labels": (
        "labels",
        "from sklearn.neural_network import MLPClassifier as M",
        "M((6,), solver='lbfgs', max_iter=3000, random_state=1)",
    ),
    "one against the rest": (
        "labels",
        f"{LOGISTIC}\nfrom sklearn.multiclass import OneVsRestClassifier as M",
        "M(LogisticRegression())",
    ),
    "chain of booleans": (
        "booleans",
        f"{LOGISTIC}\nfrom sklearn.multioutput import ClassifierChain as M",
        "M(LogisticRegression())",
    ),
    "one model for each class": (
        "classes",
        f"{LOGISTIC}\nfrom sklearn.multioutput import MultiOutputClassifier as M",
        "M(LogisticRegression())",
    ),
    "xgboost of labels": (
        "labels",
        "from xgboost import XGBClassifier as M",
        "M(n_estimators=8, n_jobs=1)",
    ),
    "without probabilities": (
        "labels",
        "from sklearn.linear_model import RidgeClassifier as M",
        "M()",
    ),
    "line of numbers": ("numbers", "from sklearn.linear_model import LinearRegression as M", "M()"),
    "neighbours of numbers": (
        "numbers",
        "from sklearn.neighbors import KNeighborsRegressor as M",
        "M()",
    ),
    "xgboost of numbers": (
        "numbers",
        "from xgboost import XGBRegressor as M",
        "M(n_estimators=8, n_jobs=1)",
    ),
}
FORMS = {"xgboost of labels": "xgboost", "xgboost of numbers": "xgboost"}


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_what_is_served_is_what_the_model_answers(name: str, tmp_path: Path) -> None:
    kind, line, call = MODELS[name]
    targets = weather(kind)[1]
    bundle, folder = sealed(tmp_path, kind, line, call)
    assert bundle.names == bundle.targets == tuple(targets)
    assert bundle.target == targets[0]
    assert bundle.model.format == FORMS.get(name, bundle.model.format)
    data = read(tmp_path, setting(targets, "pipeline").data)
    scope: dict[str, Any] = {}
    exec(code_of(line, call, targets), scope)  # noqa: S102 (the code is of this module)
    known = data.train.assign(**{target.name: target.train for target in data.targets})
    model = scope["train"](known, {})
    served = pd.DataFrame(InProcess().predict(folder, rows_of(data.test)))
    wanted = pd.DataFrame(model.predict(data.test), columns=targets)
    if bundle.task == "regression":
        assert list(served) == targets
        assert np.allclose(served, wanted, rtol=1e-3, atol=1e-3)
        assert all(float(bundle.metrics[f"r2[{target}]"]) > 0.3 for target in targets)
        return
    assert served[targets].to_numpy().tolist() == wanted.to_numpy().tolist()
    for target, head in zip(data.targets, bundle.model.heads, strict=True):
        assert set(head.classes) == set(target.train.tolist())
        assert served[target.name].dtype == target.test.dtype
        shares = [f"probability_{target.name}_{label}" for label in head.classes]
        assert (shares[0] in served) is (name != "without probabilities")
        if shares[0] in served:
            assert np.allclose(served[shares].sum(axis=1), 1)
        assert float(bundle.metrics[f"accuracy[{target.name}]"]) > 0.6


CLASHES: dict[str, tuple[dict[str, list[str]], str]] = {
    "probabilities of two targets": (
        {"s": ["x_y", "z"], "s_x": ["y", "w"]},
        "two outputs are named probability_s_x_y, one of them of s_x",
    ),
    "a target and a probability": (
        {"u": ["x", "y"], "probability_u_x": ["p", "q"]},
        "two outputs are named probability_u_x, one of them of u",
    ),
    "its own probability": (
        {"probability_x": ["x", "y"]},
        "two outputs are named probability_x, one of them of probability_x",
    ),
    "the id of a prediction": (
        {"id": ["x", "y"]},
        "an output of id is named id, as each prediction's id",
    ),
}


@pytest.mark.fits
@pytest.mark.parametrize("name", CLASHES)
def test_two_outputs_of_one_name_are_refused(name: str, tmp_path: Path) -> None:
    labels, message = CLASHES[name]
    frame = weather("labels")[0][["a", "b", "c"]]
    for place, (target, classes) in enumerate(labels.items()):
        frame[target] = np.where(frame.iloc[:, place] > 0, *classes)
    line = "from sklearn.tree import DecisionTreeClassifier as M"
    code = code_of(line, "M(max_depth=2)", list(labels))
    if len(labels) == 1:
        code = code.replace(f"{list(labels)}", f"{next(iter(labels))!r}")
    asked = request(tmp_path, setting(list(labels), project(tmp_path, code, frame)))
    with pytest.raises(ProjectError) as caught:
        train(asked, InProcess())
    assert caught.value.message == message


@pytest.mark.fits
def test_manifest_of_one_target_has_no_key_of_several(tmp_path: Path) -> None:
    code = "from sklearn.linear_model import LinearRegression\n"
    code += "def train(data, params):\n"
    code += "    return LinearRegression().fit(data[['a', 'b', 'c']], data['heat'])\n"
    frame = weather("numbers")[0].drop(columns="rain")
    made = []
    for target in ("heat", ["heat"]):
        values = setting(["heat"], project(tmp_path, code, frame))
        config = msgspec.structs.replace(
            values, data=msgspec.structs.replace(values.data, target=target)
        )
        asked = request(tmp_path, config, f"bundle {type(target).__name__}")
        made.append(train(asked, InProcess()).bundle)
        manifest = msgspec.json.decode((asked.into / bundles.MANIFEST).read_bytes())
        assert not {"targets", "heads"} & {*manifest, *manifest["model"]}
    assert made[0] == made[1]


@pytest.mark.fits
def test_a_model_of_another_number_of_targets_is_refused(tmp_path: Path) -> None:
    line = "from sklearn.linear_model import LinearRegression as M"
    frame, targets = weather("numbers")
    code = code_of(line, "M()", targets).replace(f"{targets}", "'heat'")
    asked = request(tmp_path, setting(targets, project(tmp_path, code, frame)))
    with pytest.raises(ProjectError, match="not with 2 values"):
        train(asked, InProcess())


def test_labels_and_numbers_together_are_refused(tmp_path: Path) -> None:
    frame = weather("numbers")[0].assign(sky=["blue", "grey"] * 80)
    code = "class Own:\n    def predict(self, rows):\n        return rows[['a', 'b']].to_numpy()\n"
    code += "def train(data, params):\n    return Own()\n"
    asked = request(tmp_path, setting(["heat", "sky"], project(tmp_path, code, frame)))
    with pytest.raises(ProjectError, match="labels and numbers: heat, sky"):
        train(asked, InProcess())


@pytest.mark.parametrize(("target", "said"), [([], "empty list"), (["a", "a"], "names a twice")])
def test_targets_that_make_no_sense_are_refused(target: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        setting(target, "pipeline")


HEADS = (Head(name="sky", classes=("blue", "grey")), Head(name="wet", classes=(0, 1)))
PROBLEM = several.Problem("classification", HEADS)


def test_labels_get_the_types_of_their_own_target_back() -> None:
    mixed = np.array([["grey", "1"], ["blue", "0"]])
    assert heads.labels_of(mixed, HEADS).tolist() == [["grey", 1], ["blue", 0]]
    with pytest.raises(ValueError, match="not with 2 values"):
        heads.labels_of(np.array([1, 2]), HEADS)


def test_probabilities_of_any_shape_become_one_table() -> None:
    table = np.array([[0.2, 0.8, 0.6, 0.4], [0.5, 0.5, 0.1, 0.9]])
    ways = [[table[:, :2], table[:, 2:]], np.stack([table[:, :2], table[:, 2:]]), table]
    ways += [table[:, [1, 3]]]
    for way in ways:
        assert np.allclose(heads.probabilities_of(way, HEADS), table)
    assert heads.likeliest(table, HEADS).tolist() == [["grey", 0], ["blue", 1]]
    three = (HEADS[0], Head(name="wind", classes=("n", "s", "w")))
    assert heads.probabilities_of(table[:, [1, 3]], three) is None
    with pytest.raises(ValueError, match="not one for each class"):
        heads.probabilities_of([table[:, :2], table[:, 2:]], three)


TRUTH: dict[str, list[Value]] = {
    "sky": ["blue", "blue", "grey", "grey"] * 20,
    "wet": [0, 1, 1, 0] * 20,
}


def outputs(sky: list[str], wet: list[int], chance: float = 0.8) -> list[Row]:
    return [
        {
            "sky": a,
            "wet": b,
            **{f"probability_sky_{c}": chance if c == a else 1 - chance for c in ("blue", "grey")},
            **{f"probability_wet_{c}": chance if c == b else 1 - chance for c in (0, 1)},
        }
        for a, b in zip(sky, wet, strict=True)
    ]


RIGHT = outputs(["blue", "blue", "grey", "grey"] * 20, [0, 1, 1, 0] * 20)
HALF = outputs(["blue", "blue", "blue", "grey"] * 20, [0, 1, 1, 1] * 20)


def test_metrics_are_of_each_target_and_their_mean() -> None:
    found = several.measure(PROBLEM, TRUTH, HALF)
    assert found["accuracy[sky]"] == found["accuracy[wet]"] == found["accuracy"] == 0.75
    codes = np.array([[s == "grey", w] for s, w in zip(*TRUTH.values(), strict=True)]).astype(int)
    said = np.array([[r["sky"] == "grey", r["wet"]] for r in HALF]).astype(int)
    assert found["accuracy_all"] == sklearn.metrics.accuracy_score(codes, said)
    assert found["hamming_loss"] == sklearn.metrics.hamming_loss(codes, said)
    f1 = sklearn.metrics.f1_score(codes[:, 0], said[:, 0], average="macro")
    assert found["f1_macro[sky]"] == pytest.approx(f1)
    losses = [found["log_loss[sky]"], found["log_loss[wet]"]]
    assert found["log_loss"] == pytest.approx(sum(losses) / 2)


def test_intervals_of_means_come_from_the_same_rows() -> None:
    found = several.differences(PROBLEM, TRUTH, (RIGHT, HALF))
    assert set(found) == set(several.measure(PROBLEM, TRUTH, RIGHT))
    mean = found["accuracy"]
    assert mean.estimate == 0.25
    assert 0.1 < mean.low < 0.25 < mean.high < 0.4
    # Each of these rows is wrong in one target only: never in both, never in none.
    assert found["accuracy_all"].estimate == 0.5
    assert found["hamming_loss"].low == pytest.approx(-mean.high)
    by_hand = np.array([0.0, 0.0, 0.5, 0.5] * 20)
    generator = np.random.default_rng(0)
    drawn = [by_hand[generator.integers(0, 80, 80)].mean() for _ in range(2_000)]
    assert (mean.low, mean.high) == pytest.approx(tuple(np.percentile(drawn, [2.5, 97.5])))


def test_intervals_of_numbers() -> None:
    truth: dict[str, list[Value]] = {"a": [1.0, 2.0, 3.0, 4.0] * 9, "b": [10.0, 20.0] * 18}
    close: list[Row] = [{"a": 1.1, "b": 11.0}, {"a": 2.1, "b": 21.0}] * 18
    far: list[Row] = [{"a": 3.0, "b": 15.0}, {"a": 3.0, "b": 25.0}] * 18
    problem = several.Problem("regression", (Head(name="a"), Head(name="b")))
    found = several.differences(problem, truth, (close, far))
    measured = [several.measure(problem, truth, side) for side in (close, far)]
    assert found["mae"].estimate == pytest.approx(measured[0]["mae"] - measured[1]["mae"])
    assert found["mae[b]"].low <= found["mae[b]"].estimate <= found["mae[b]"].high


def data_of(truth: dict[str, list[Value]], **columns: list[Any]) -> Data:
    frame = pd.DataFrame(columns)
    targets = tuple(
        Target(train=pd.Series(v, name=n), test=pd.Series(v, name=n), kind="text", place=0)
        for n, v in truth.items()
    )
    fields = tuple(Field(name=name, kind="text") for name in columns)
    return Data(train=frame, test=frame, targets=targets, fields=fields)


def test_each_target_must_beat_its_own_constant() -> None:
    data = data_of(TRUTH, place=["north", "south"] * 40)
    constant = baseline.outputs(PROBLEM, data, 80)
    assert constant[0]["probability_wet_1"] == 0.5
    values = several.measure(PROBLEM, TRUTH, RIGHT)
    low = several.measure(PROBLEM, TRUTH, constant)
    assert gates.on_baseline(values, low, "wet").holds
    wrong = outputs(["blue", "blue", "grey", "grey"] * 20, [1, 0, 0, 1] * 20)
    bad = several.measure(PROBLEM, TRUTH, wrong)
    assert gates.on_baseline(bad, low, "sky").holds
    check = gates.on_baseline(bad, low, "wet")
    assert not check.holds
    assert "for wet: accuracy 0 (0.5)" in check.text


def test_slices_score_a_row_by_the_mean_of_its_targets() -> None:
    data = data_of(TRUTH, place=["north", "south"] * 40)
    sides = [
        {name: [row[name] for row in rows] for name in TRUTH}
        for rows in (outputs(["blue"] * 80, [0, 1, 1, 0] * 20), RIGHT)
    ]
    found = slices.compare("classification", data, (sides[0], sides[1]))
    assert ("sky", "grey") in {(one.column, one.value) for one in found.listed if one.is_worse}
    north = next(one for one in found.listed if (one.column, one.value) == ("place", "north"))
    assert (north.release, north.champion) == (0.75, 1.0)
    assert found.method.startswith("paired t")


def test_pictures_have_a_row_for_each_target(tmp_path: Path) -> None:
    side = plots.Side(name="this release", predicted=TRUTH)
    heights = []
    for count in (1, 2):
        truth = dict(list(TRUTH.items())[:count])
        [name] = plots.draw("classification", truth, [side], tmp_path / str(count))
        content = (tmp_path / str(count) / name).read_bytes()
        heights.append(int.from_bytes(content[20:24]))
    assert heights[1] == 2 * heights[0]


def test_named_metrics_are_of_each_target_and_functions_get_all(tmp_path: Path) -> None:
    (tmp_path / "costs_of_weather.py").write_text(
        "def cost(truth, outputs):\n"
        "    return float((truth['sky'] != outputs['sky']).sum() + 10 * truth['wet'].sum())\n"
    )
    model = bundles.Model(format="onnx", path="m", layout="matrix", columns=(), heads=HEADS)
    bundle = Bundle(
        name="weather",
        task="classification",
        target="sky",
        targets=("sky", "wet"),
        schema=bundles.Schema(inputs=(), outputs=()),
        model=model,
        hooks=bundles.Hooks(),
        metrics={},
        requirements=(),
        python="3.11",
    )
    named = {"auc": "roc_auc", "grey": "recall[grey]", "cost": "costs_of_weather:cost"}
    found = Scorers(root=tmp_path, named=named).measure(bundle, TRUTH, HALF)
    assert set(found) == {"auc", "auc[sky]", "auc[wet]", "grey", "grey[sky]", "cost"}
    assert found["auc"] == pytest.approx((found["auc[sky]"] + found["auc[wet]"]) / 2)
    assert found["grey[sky]"] == 0.5
    assert found["cost"] == 20 + 10 * 40
    with pytest.raises(ConfigError, match="no class purple"):
        Scorers(root=tmp_path, named={"m": "recall[purple]"}).measure(bundle, TRUTH, HALF)
    document = openapi.document(bundle, "weather-1", "1")
    assert document["info"]["title"] == "weather: classification of sky, wet"
    assert b'"targets":["sky","wet"]' in page.render(bundle, "weather-1")


@pytest.mark.slow
def test_a_release_is_scored_against_the_champion_in_each_target(tmp_path: Path) -> None:
    line = "from sklearn.ensemble import RandomForestClassifier as M"
    _, good = sealed(tmp_path / "good", "classes", line, "M(20, random_state=1)")
    _, bad = sealed(tmp_path / "bad", "classes", line, "M(1, max_depth=1, random_state=1)")
    root = tmp_path / "good"
    config = setting(["sky", "wind"], "pipeline", gates={"test": {"accuracy[sky]": {"min": 0.5}}})
    asked = ScoreRequest(
        root=root, config=config, bundle=good, champion=bad, plots=tmp_path / "plots"
    )
    found = score(asked, InProcess())
    assert found.targets == ("sky", "wind")
    assert (found.labels, found.confusion) == ((), ())
    for name in ("accuracy", "accuracy[sky]", "accuracy_all"):
        assert float(found.metrics[name]) > float(found.champion[name])
        assert found.differences[name].low > -0.2
    assert float(found.baseline["accuracy[sky]"]) < float(found.metrics["accuracy[sky]"])
    assert found.slices is not None
