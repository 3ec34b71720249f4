"""Trees of scikit-learn as nodes of ONNX, whole arrays at a time.

skl2onnx goes through the nodes of a forest one by one, which takes longer than to train it. The
attributes are the same as its own, in the same order, with three exceptions: a missing value goes
the way that the tree learnt, a threshold is rounded for single precision whatever the input is,
because the operator keeps no other, and rates of hits, which are optional, are left out.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from onnx import TensorProto
from skl2onnx import update_registered_converter
from skl2onnx.common._registration import get_converter, get_shape_calculator
from skl2onnx.common.data_types import BooleanTensorType, Int64TensorType
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.tree import (
    DecisionTreeClassifier,
    DecisionTreeRegressor,
    ExtraTreeClassifier,
    ExtraTreeRegressor,
)

Converter = Callable[[Any, Any, Any], None]

_DOMAIN: Final = "ai.onnx.ml"
_CLASSIFIERS: Final = (
    DecisionTreeClassifier,
    ExtraTreeClassifier,
    ExtraTreesClassifier,
    RandomForestClassifier,
)
_REGRESSORS: Final = (
    DecisionTreeRegressor,
    ExtraTreeRegressor,
    ExtraTreesRegressor,
    RandomForestRegressor,
)


@functools.cache
def register() -> None:
    """Let skl2onnx convert trees and forests by this module, in this process."""
    for kinds, make in ((_CLASSIFIERS, _classifier), (_REGRESSORS, _regressor)):
        for kind in kinds:
            alias = f"Sklearn{kind.__name__}"
            usual = get_converter(alias)
            update_registered_converter(
                kind,
                alias,
                get_shape_calculator(alias),
                make(usual),
                overwrite=True,
                options=usual.get_allowed_options(),
            )


def _classifier(usual: Converter) -> Converter:
    """Return a converter of classifiers with one target; others go to the usual one."""

    def convert(scope: Any, operator: Any, container: Any) -> None:
        model = operator.raw_operator
        labels = np.asarray(model.classes_).tolist() if model.n_outputs_ == 1 else []
        known = {type(label) for label in labels}
        # skl2onnx knows what to do with a single class, and what labels there cannot be.
        if len(labels) < 2 or not (known == {str} or known <= {int, bool}):
            usual(scope, operator, container)
            return
        trees = _trees(model)
        attributes = _nodes(trees) | _weights(trees, "class", is_classifier=True)
        if known == {str}:
            attributes["classlabels_strings"] = labels
        else:
            attributes["classlabels_int64s"] = [int(label) for label in labels]
        _add(scope, operator, container, "TreeEnsembleClassifier", attributes)

    return convert


def _regressor(_: Converter) -> Converter:
    """Return a converter of regressors with any number of targets."""

    def convert(scope: Any, operator: Any, container: Any) -> None:
        model = operator.raw_operator
        trees = _trees(model)
        attributes: dict[str, Any] = {**_nodes(trees)}
        attributes |= _weights(trees, "target", is_classifier=False)
        attributes["n_targets"] = int(model.n_outputs_)
        _add(scope, operator, container, "TreeEnsembleRegressor", attributes)

    return convert


def _trees(model: Any) -> list[Any]:
    """Return the fitted trees of a forest, or the only one of a tree."""
    return [member.tree_ for member in getattr(model, "estimators_", [model])]


def _add(scope: Any, operator: Any, container: Any, kind: str, attributes: dict[str, Any]) -> None:
    """Add the node of an ensemble, behind a cast where it does not take the type of its input."""
    inputs = operator.input_full_names
    is_whole = isinstance(operator.inputs[0].type, Int64TensorType)
    is_regressor = kind == "TreeEnsembleRegressor"
    if isinstance(operator.inputs[0].type, BooleanTensorType) or (is_whole and is_regressor):
        numbers = scope.get_unique_variable_name("cast_input")
        name = scope.get_unique_operator_name("Cast")
        container.add_node("Cast", inputs, [numbers], name=name, to=TensorProto.FLOAT)
        inputs = [numbers]
    container.add_node(
        kind,
        inputs,
        [output.full_name for output in operator.outputs],
        op_domain=_DOMAIN,
        op_version=1,
        name=scope.get_unique_operator_name(kind),
        post_transform="NONE",
        **attributes,
    )


def _nodes(trees: Sequence[Any]) -> dict[str, list[Any]]:
    """Return the attributes of all nodes of an ensemble, lists of length n."""
    inner = _joined(trees, _is_inner)
    left, right = _joined(trees, _lefts), _joined(trees, _rights)
    thresholds = _at_most(_joined(trees, lambda tree: tree.threshold))
    tracks = _joined(trees, lambda tree: tree.missing_go_to_left.astype(bool))
    modes = np.where(inner, b"BRANCH_LEQ", b"LEAF")
    return {
        "nodes_treeids": _numbers_of(trees, _all),
        "nodes_nodeids": _joined(trees, _all).tolist(),
        "nodes_featureids": np.where(inner, _joined(trees, _features), 0).tolist(),
        "nodes_modes": modes.tolist(),
        "nodes_values": np.where(inner, thresholds, np.float32(0)).tolist(),
        "nodes_truenodeids": np.where(inner, left, 0).tolist(),
        "nodes_falsenodeids": np.where(inner, right, 0).tolist(),
        "nodes_missing_value_tracks_true": (inner & tracks).astype(int).tolist(),
    }


def _weights(trees: Sequence[Any], prefix: str, *, is_classifier: bool) -> dict[str, list[Any]]:
    """Return the attributes of what leaves answer, each as its share of the ensemble's answer.

    A classifier's values are shares of its classes; of two classes only the second is told.
    """
    values = _joined(trees, lambda tree: tree.value[_leaves(tree)].reshape(len(_leaves(tree)), -1))
    factor = 1.0 / len(trees)
    if is_classifier:
        sums = functools.reduce(np.add, values.T)
        values = values * (factor / np.where(sums == 0, 1.0, sums))[:, None]
        values = values[:, 1:] if values.shape[1] == 2 else values
    else:
        values = values * factor
    count = values.shape[1]
    return {
        f"{prefix}_treeids": np.repeat(_numbers_of(trees, _leaves), count).tolist(),
        f"{prefix}_nodeids": np.repeat(_joined(trees, _leaves), count).tolist(),
        f"{prefix}_ids": np.tile(np.arange(count), len(values)).tolist(),
        f"{prefix}_weights": values.astype("float32").ravel().tolist(),
    }


def _joined(trees: Sequence[Any], values_of: Callable[[Any], Any]) -> Any:
    """Return an array of all trees, one after another."""
    return np.concatenate([values_of(tree) for tree in trees])


def _numbers_of(trees: Sequence[Any], nodes_of: Callable[[Any], Any]) -> list[int]:
    """Return the number of the tree that each of some nodes is of."""
    counts = [len(nodes_of(tree)) for tree in trees]
    numbers: list[int] = np.repeat(np.arange(len(trees)), counts).tolist()
    return numbers


def _all(tree: Any) -> Any:
    return np.arange(tree.node_count)


def _is_inner(tree: Any) -> Any:
    return tree.children_left >= 0


def _leaves(tree: Any) -> Any:
    return np.flatnonzero(tree.children_left < 0)


def _lefts(tree: Any) -> Any:
    return tree.children_left


def _rights(tree: Any) -> Any:
    return tree.children_right


def _features(tree: Any) -> Any:
    return tree.feature


def _at_most(thresholds: Any) -> Any:
    """Return the largest number of single precision that is not above each threshold.

    A tree compares a number of single precision with a threshold of double precision. This bound
    gives the same answer for all numbers of single precision.
    """
    with np.errstate(over="ignore"):
        singles = thresholds.astype("float32")
        below = np.nextafter(singles, np.float32(-np.inf))
    return np.where(singles > thresholds, below, singles)
