"""The parts of a fitted model: the model itself, and the estimators within it."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from mlship.training.data import Data

_DEPTH = 6
_CHILDREN = (
    "steps",
    "transformers_",
    "transformer_list",
    "estimators_",
    "estimator_",
    "best_estimator_",
    "calibrated_classifiers_",
    "estimator",
)
_LIBRARIES = frozenset(("sklearn", "xgboost", "lightgbm", "catboost"))
_NUMBERS = ("missing", "missing_values", "fill_value", "unknown_value", "encoded_missing_value")


def of(model: Any, depth: int = _DEPTH) -> Iterator[Any]:
    """Yield a model and all estimators within it."""
    yield model
    if depth == 0:
        return
    for name in _CHILDREN:
        children = getattr(model, name, None)
        if isinstance(children, np.ndarray):
            children = children.ravel().tolist()
        for child in children if isinstance(children, list) else [children]:
            part = child[1] if isinstance(child, tuple) and len(child) > 1 else child
            if hasattr(part, "__dict__") and not isinstance(part, type):
                yield from of(part, depth - 1)


def names_of(model: Any) -> list[str] | None:
    """Return the columns that a model was fitted with, in its order; `None` if it saw no names."""
    names = getattr(model, "feature_names_in_", None)
    if names is None:  # CatBoost has its own attribute, with numbers where it saw no names
        names = getattr(model, "feature_names_", None)
        if names is not None and list(names) == [str(place) for place in range(len(names))]:
            names = None
    return None if names is None else [str(name) for name in names]


def numbers_of(model: Any) -> list[float]:
    """Return the finite numbers that a part takes for a missing or an unknown value."""
    found = {
        float(value)
        for part in of(model)
        for name in _NUMBERS
        if isinstance(value := getattr(part, name, None), int | float)
        and not isinstance(value, bool)
        and np.isfinite(value)
    }
    return sorted(found)


def texts_of(model: Any, data: Data) -> dict[str, list[str]]:
    """Return all known texts of each column of text: of the data, and of the model's encoders.

    The categories of an encoder are a column's if they hold all of the column's training texts.
    """
    listed = [
        {text for text in categories if isinstance(text, str)}
        for part in of(model)
        for categories in getattr(part, "categories_", ())
    ]
    known = {}
    for field in data.fields:
        if field.kind != "text" or field.dtype not in ("object", "str", "string"):
            continue
        own = {str(text) for text in data.train[field.name].dropna().unique()}
        held_out = {str(text) for text in data.test[field.name].dropna().unique()}
        more = [texts for texts in listed if own <= texts]
        known[field.name] = sorted(own | held_out | set[str]().union(*more))
    return known


def has_trees(model: Any) -> bool:
    """Tell whether a model only compares numbers somewhere, so that its jumps are exact."""
    names = ("tree_", "_predictors", "get_booster", "booster_", "get_borders")
    return any(hasattr(part, name) for part in of(model) for name in names)


def is_of_single_trees(model: Any) -> bool:
    """Tell whether a model is trees of scikit-learn alone, which read numbers as float32."""
    members = getattr(model, "estimators_", ())
    if isinstance(members, np.ndarray):
        members = members.ravel().tolist()
    return all(hasattr(member, "tree_") for member in members or [model])


def has_double_thresholds(model: Any) -> bool:
    """Tell whether a part is a HistGradientBoosting, whose converter keeps single precision."""
    return any(hasattr(part, "_predictors") for part in of(model))


def has_infinite_threshold(model: Any) -> bool:
    """Tell whether a tree splits at infinity, between missing values and all others."""
    trees = [part.tree_ for part in of(model) if hasattr(part, "tree_")]
    return any(not np.isfinite(tree.threshold[tree.children_left >= 0]).all() for tree in trees)


def takes_categories(model: Any) -> bool:
    """Tell whether a model is a booster that was fitted on columns of pandas categories."""
    for name, facts in (("booster_", "pandas_categorical"), ("get_booster", "feature_types")):
        booster = getattr(model, name, None)
        listed = getattr(booster() if callable(booster) else booster, facts, None)
        if listed and (facts == "pandas_categorical" or "c" in listed):
            return True
    return False


def selects_by_name(model: Any) -> bool:
    """Tell whether a part picks its columns by their names, which an array does not have."""
    return any(
        isinstance(columns, str)
        or (isinstance(columns, list) and any(isinstance(name, str) for name in columns))
        for part in of(model)
        for _, _, columns in getattr(part, "transformers_", ())
    )


def begins_with_own(model: Any) -> bool:
    """Tell whether the part that is given the columns is of the project, or of an unknown library.

    Such a part may set `n_features_in_` and not `feature_names_in_`, whatever it was fitted on.
    """
    first = model
    while isinstance(steps := getattr(first, "steps", None), list) and steps:
        first = steps[0][1]
    return type(first).__module__.partition(".")[0] not in _LIBRARIES
