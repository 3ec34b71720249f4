"""What saved models of ONNX, XGBoost and LightGBM say of themselves."""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from mlship.domain.bundle import Field, ModelFormat, Task
from mlship.errors import ProjectError
from mlship.training.sample import dtypes_of


@dataclass(frozen=True)
class Facts:
    """What a native file says of itself; `None` where it says nothing.

    Attributes:
        layout: how it takes rows; as a DataFrame if it was fitted on pandas categories.
        categories: how many columns of categories it was fitted on.
    """

    task: Task
    classes: int | None
    names: list[str] | None
    count: int | None
    layout: Literal["matrix", "columns", "frame"] = "matrix"
    has_labels: bool = False
    categories: int = 0


def of(form: ModelFormat, data: bytes) -> Facts:
    """Return what a file says of itself.

    Raises:
        Exception: what its library raises if it cannot read the file.
    """
    return _FACTS[form](data)


def _onnx_facts(data: bytes) -> Facts:
    import onnxruntime

    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if any(not output.type.startswith("tensor(") for output in outputs[:2]):
        message = "its outputs are not tensors: export it with the option zipmap off"
        raise ValueError(message)
    if any(isinstance(entry.shape[0], int) for entry in inputs if entry.shape):
        message = "it takes a fixed number of rows: export it with a dynamic batch dimension"
        raise ValueError(message)
    is_classifier = outputs[0].type in ("tensor(string)", "tensor(int64)", "tensor(bool)")
    width = outputs[1].shape[-1] if len(outputs) > 1 else None
    is_matrix = len(inputs) == 1 and inputs[0].shape[-1] != 1
    count = inputs[0].shape[-1] if is_matrix else len(inputs)
    return Facts(
        task="classification" if is_classifier else "regression",
        classes=width if isinstance(width, int) else None,
        layout="matrix" if is_matrix else "columns",
        names=None if is_matrix else [entry.name for entry in inputs],
        count=count if isinstance(count, int) else None,
        has_labels=True,
    )


def _xgboost_facts(data: bytes) -> Facts:
    import xgboost

    booster = xgboost.Booster(model_file=bytearray(data))
    _check_columns(_xgboost_columns(booster), booster.num_features())
    learner = json.loads(booster.save_config())["learner"]
    objective = learner["objective"]["name"]
    many = int(learner["learner_model_param"]["num_class"])
    categories = (booster.feature_types or []).count("c")
    return Facts(
        task="classification" if objective.startswith(("binary:", "multi:")) else "regression",
        classes=many or 2,
        names=booster.feature_names,
        count=booster.num_features(),
        layout="frame" if categories else "matrix",
        categories=categories,
    )


def _lightgbm_facts(data: bytes) -> Facts:
    import lightgbm

    booster = lightgbm.Booster(model_str=data.decode())
    _check_columns(_lightgbm_columns(data.decode()), booster.num_feature())
    objective = str(booster.dump_model(num_iteration=1).get("objective", ""))
    is_classifier = objective.startswith(("binary", "multiclass"))
    categories = len(booster.pandas_categorical or ())
    return Facts(
        task="classification" if is_classifier else "regression",
        classes=max(booster.num_model_per_iteration(), 2),
        names=booster.feature_name(),
        count=booster.num_feature(),
        layout="frame" if categories else "matrix",
        categories=categories,
    )


def _check_columns(used: Iterable[int], count: int) -> None:
    """Refuse a column that there is not: a library reads whatever lies beyond a row in memory.

    Raises:
        ValueError: a tree compares one.
    """
    wrong = next((column for column in used if not 0 <= column < count), None)
    if wrong is not None:
        message = f"it is damaged: a tree compares column {wrong} of {count}, counted from 0"
        raise ValueError(message)


def _xgboost_columns(booster: Any) -> Iterator[int]:
    model = json.loads(booster.save_raw("json"))["learner"]["gradient_booster"]
    model = model.get("gbtree", model).get("model", {})  # dart keeps its trees in a gbtree
    for tree in model.get("trees", ()):
        yield from tree["split_indices"]


def _lightgbm_columns(text: str) -> Iterator[int]:
    for line in text.splitlines():
        name, _, values = line.partition("=")
        if name in ("split_feature", "leaf_features"):
            yield from map(int, values.split())


_FACTS: dict[ModelFormat, Callable[[bytes], Facts]] = {
    "onnx": _onnx_facts,
    "xgboost": _xgboost_facts,
    "lightgbm": _lightgbm_facts,
}


def check_categories(facts: Facts, name: str, columns: tuple[Field, ...]) -> None:
    """Refuse columns that are no categories although a model was fitted on such.

    Raises:
        ProjectError: another number of them is read as categories.
    """
    count = sum(field.dtype == "category" for field in columns)
    if facts.categories and facts.categories != count:
        message = f"the saved model {name} was fitted on pandas categories in {facts.categories} "
        message += f"of its columns, and the data have them in {count}"
        raise ProjectError(message, hint=dtypes_of(columns))


def whole(form: ModelFormat, data: bytes, suffix: str) -> bytes:
    """Return a file that answers as what is loaded from it does.

    A Booster of XGBoost predicts with all its rounds, whatever the best one was. Only the
    estimators in scikit-learn's form stop at that, and the files that they write have their mark.

    Args:
        form: of the file.
        data: of the file.
        suffix: its ending, such as `.ubj`.
    """
    if form != "xgboost":
        return data
    import xgboost

    booster = xgboost.Booster(model_file=bytearray(data))
    if booster.attr("best_iteration") is None or booster.attr("scikit_learn") is not None:
        return data
    booster.set_attr(best_iteration=None, best_score=None)
    return bytes(booster.save_raw(suffix.removeprefix(".")))
