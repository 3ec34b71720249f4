"""What saved models of ONNX, XGBoost and LightGBM say of themselves."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from mlship.domain.bundle import ModelFormat, Task


@dataclass(frozen=True)
class Facts:
    """What a native file says of itself; `None` where it says nothing."""

    task: Task
    classes: int | None
    names: list[str] | None
    count: int | None
    layout: Literal["matrix", "columns"] = "matrix"
    has_labels: bool = False


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
    learner = json.loads(booster.save_config())["learner"]
    objective = learner["objective"]["name"]
    many = int(learner["learner_model_param"]["num_class"])
    return Facts(
        task="classification" if objective.startswith(("binary:", "multi:")) else "regression",
        classes=many or 2,
        names=booster.feature_names,
        count=booster.num_features(),
    )


def _lightgbm_facts(data: bytes) -> Facts:
    import lightgbm

    booster = lightgbm.Booster(model_str=data.decode())
    objective = str(booster.dump_model(num_iteration=1).get("objective", ""))
    is_classifier = objective.startswith(("binary", "multiclass"))
    return Facts(
        task="classification" if is_classifier else "regression",
        classes=max(booster.num_model_per_iteration(), 2),
        names=booster.feature_name(),
        count=booster.num_feature(),
    )


_FACTS: dict[ModelFormat, Callable[[bytes], Facts]] = {
    "onnx": _onnx_facts,
    "xgboost": _xgboost_facts,
    "lightgbm": _lightgbm_facts,
}
