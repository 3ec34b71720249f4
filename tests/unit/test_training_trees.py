"""Trees as ONNX by whole arrays: the same graphs as skl2onnx's, and the same answers as the model.

Each model is asked rows on its thresholds and right beside them, in single precision.
"""

from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import ModelProto, helper
from skl2onnx import convert_sklearn, update_registered_converter
from skl2onnx.common._registration import get_converter, get_shape_calculator
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType
from sklearn.datasets import make_classification
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingRegressor,
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import (
    DecisionTreeClassifier,
    DecisionTreeRegressor,
    ExtraTreeClassifier,
    ExtraTreeRegressor,
)

from mlship.training.forms import trees

_COLUMNS = 6
_USUAL = {
    kind: get_converter(f"Sklearn{kind.__name__}")._fct
    for kind in (
        *(DecisionTreeClassifier, ExtraTreeClassifier, ExtraTreesClassifier),
        *(RandomForestClassifier, DecisionTreeRegressor, ExtraTreeRegressor),
        *(ExtraTreesRegressor, RandomForestRegressor),
    )
}
"""skl2onnx's own converters, before any other is registered in this process."""

CLASSIFIERS = [
    DecisionTreeClassifier(random_state=0),
    DecisionTreeClassifier(max_depth=1, random_state=0),
    ExtraTreeClassifier(random_state=0),
    ExtraTreesClassifier(7, random_state=0),
    ExtraTreesClassifier(7, bootstrap=True, random_state=0),
    RandomForestClassifier(7, random_state=0),
    RandomForestClassifier(7, class_weight="balanced", min_samples_leaf=9, random_state=0),
    GradientBoostingClassifier(n_estimators=5, random_state=0),
    AdaBoostClassifier(DecisionTreeClassifier(max_depth=3), n_estimators=4, random_state=0),
]
REGRESSORS = [
    DecisionTreeRegressor(random_state=0),
    ExtraTreeRegressor(random_state=0),
    ExtraTreesRegressor(7, random_state=0),
    RandomForestRegressor(7, random_state=0),
    RandomForestRegressor(7, criterion="absolute_error", max_depth=4, random_state=0),
    BaggingRegressor(DecisionTreeRegressor(max_depth=5), 4, random_state=0),
]


def data(classes: int = 3) -> tuple[Any, Any]:
    """Return rows of numbers that single precision does not hold, and labels."""
    rows, labels = make_classification(
        400, _COLUMNS, n_informative=4, n_classes=classes, random_state=1
    )
    return rows, labels


def converted(model: Any, kind: Any = FloatTensorType) -> ModelProto:
    trees.register()
    options = {id(model): {"zipmap": False}} if hasattr(model, "predict_proba") else {}
    inputs = [("features", kind([None, _COLUMNS]))]
    return convert_sklearn(model, name="mlship", initial_types=inputs, options=options)


def answers(graph: ModelProto, rows: Any) -> list[Any]:
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    found: list[Any] = session.run(None, {"features": rows})
    return found


def beside_thresholds(model: Any, rows: Any) -> Any:
    """Return rows of single precision with a number on each threshold, or right beside it."""
    members = np.ravel(getattr(model, "estimators_", [model])).tolist()
    tried = [rows.astype("float32")]
    for tree in (member.tree_ for member in members):
        is_finite = np.isfinite(tree.threshold)
        for node in np.flatnonzero((tree.children_left >= 0) & is_finite)[:60]:
            single = np.float32(tree.threshold[node])
            for value in (single, *(np.nextafter(single, np.float32(to)) for to in (9e9, -9e9))):
                row = rows[node % len(rows)].astype("float32")
                row[tree.feature[node]] = value
                tried.append(row[None])
    return np.concatenate(tried)


def check(model: Any, rows: Any) -> None:
    found = answers(converted(model), rows)
    if not hasattr(model, "predict_proba"):
        wanted = model.predict(rows)
        assert np.allclose(found[0].reshape(wanted.shape), wanted, rtol=1e-5, atol=1e-6)
        return
    shares = model.predict_proba(rows)
    assert np.allclose(found[1], shares, atol=1e-5)
    best = np.sort(shares, axis=1)
    sure = best[:, -1] - best[:, -2] > 1e-6
    assert sure.any()
    assert (found[0] == model.predict(rows))[sure].all()


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("model", CLASSIFIERS, ids=str)
def test_classifiers_answer_the_same_at_their_thresholds(model: Any, classes: int) -> None:
    rows, labels = data(classes)
    fitted = model.fit(rows, np.array(["yes", "no", "maybe"])[labels])
    check(fitted, beside_thresholds(fitted, rows))


@pytest.mark.parametrize("model", REGRESSORS, ids=str)
def test_regressors_answer_the_same_at_their_thresholds(model: Any) -> None:
    rows, labels = data()
    fitted = model.fit(rows, rows[:, 0] * 3 + labels)
    check(fitted, beside_thresholds(fitted, rows))


def test_thresholds_rounded_up_would_answer_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, labels = data()
    fitted = RandomForestClassifier(7, random_state=0).fit(rows, labels)
    monkeypatch.setattr(trees, "_at_most", lambda thresholds: thresholds.astype("float32"))
    with pytest.raises(AssertionError):
        check(fitted, beside_thresholds(fitted, rows))


def test_regressors_of_several_targets() -> None:
    rows, _ = data()
    fitted = RandomForestRegressor(5, random_state=0).fit(rows, rows[:, [0, 1, 3]])
    check(fitted, beside_thresholds(fitted, rows))


def test_classifiers_of_several_targets_are_left_to_the_usual_converter() -> None:
    rows, labels = data()
    fitted = DecisionTreeClassifier(random_state=0).fit(
        rows, np.c_[labels > 0, labels > 1].astype(int)
    )
    tried = rows.astype("float32")
    assert (answers(converted(fitted), tried)[0] == fitted.predict(tried)).all()


@pytest.mark.parametrize("kind", [bool, int, float])
def test_labels_are_of_the_kinds_that_the_usual_converter_gives(kind: type) -> None:
    rows, labels = data(2)
    fitted = RandomForestClassifier(5, random_state=0).fit(rows, labels.astype(kind))
    found = answers(converted(fitted), rows.astype("float32"))[0]
    assert found.dtype == np.int64
    assert (found == fitted.predict(rows.astype("float32"))).all()


def test_trees_of_one_node() -> None:
    rows, _ = data()
    labels = np.arange(len(rows)) % 3 == 0
    leaf = DecisionTreeClassifier(min_impurity_decrease=1.0).fit(rows, labels)
    assert leaf.tree_.node_count == 1
    check(leaf, rows.astype("float32"))
    forest = RandomForestRegressor(3, min_samples_leaf=400, random_state=0).fit(rows, rows[:, 0])
    assert {tree.tree_.node_count for tree in forest.estimators_} == {1}
    check(forest, rows.astype("float32"))


@pytest.mark.parametrize(
    "model",
    [DecisionTreeClassifier(random_state=0), RandomForestClassifier(7, random_state=0)],
    ids=str,
)
def test_missing_values_go_where_the_tree_sends_them(model: Any) -> None:
    rows, labels = data()
    rows[np.random.default_rng(2).random(rows.shape) < 0.2] = np.nan
    fitted = model.fit(rows, labels)
    tried = beside_thresholds(fitted, rows)
    assert np.isnan(tried).any(axis=1).sum() > 100
    check(fitted, tried)


def test_missing_values_are_the_only_reason_for_tracks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control of the test above: without tracks the answers differ."""
    rows, labels = data()
    rows[np.random.default_rng(2).random(rows.shape) < 0.2] = np.nan
    fitted = RandomForestClassifier(7, random_state=0).fit(rows, labels)
    nodes = trees._nodes

    def without(ensemble: Any) -> Any:
        names = nodes(ensemble)
        return {key: names[key] for key in names if key != "nodes_missing_value_tracks_true"}

    monkeypatch.setattr(trees, "_nodes", without)
    with pytest.raises(AssertionError):
        check(fitted, rows.astype("float32"))


def test_trees_behind_other_steps() -> None:
    rows, labels = data()
    fitted = make_pipeline(StandardScaler(), RandomForestClassifier(7, random_state=0))
    check(fitted.fit(rows, labels), rows.astype("float32"))


def test_classifiers_that_are_given_double_precision() -> None:
    rows, labels = data()
    fitted = RandomForestClassifier(7, random_state=0).fit(rows, labels)
    single = rows.astype("float32").astype("float64")
    found = answers(converted(fitted, DoubleTensorType), single)[0]
    assert (found == fitted.predict(single)).all()


@pytest.mark.parametrize("model", [*CLASSIFIERS[:7], *REGRESSORS[:5]], ids=str)
def test_attributes_are_those_of_the_usual_converter(model: Any) -> None:
    rows, labels = data()
    fitted = model.fit(rows, labels)
    own = _attributes(converted(fitted))
    alias = f"Sklearn{type(model).__name__}"
    ours, shape = get_converter(alias), get_shape_calculator(alias)
    options = ours.get_allowed_options()
    try:
        registered = (type(model), alias, shape, _USUAL[type(model)])
        update_registered_converter(*registered, overwrite=True, options=options)
        assert own == _attributes(converted(fitted))
    finally:
        registered = (type(model), alias, shape, ours._fct)
        update_registered_converter(*registered, overwrite=True, options=options)


def _attributes(graph: ModelProto) -> dict[str, Any]:
    [node] = [node for node in graph.graph.node if node.op_type.startswith("TreeEnsemble")]
    ours = {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}
    return {
        name: value
        for name, value in ours.items()
        if name not in ("nodes_hitrates", "nodes_missing_value_tracks_true")
    }
