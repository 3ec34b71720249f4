"""Models that the training function saved itself, and names by their path."""

import io
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from msgspec.structs import replace

from mlship.adapters.checkout import datafiles
from mlship.config.project import ModelConfig
from mlship.domain import digests
from mlship.domain.bundle import Field, Head, Label, Model, ModelFormat, Task
from mlship.errors import IntegrityError, MlshipError, ProjectError, RefusedError
from mlship.runtime import formats
from mlship.training import order, signatures, skopsfile
from mlship.training.answers import Outputs, Predict, outputs_of
from mlship.training.columns import rows_of
from mlship.training.data import Data, Target
from mlship.training.fit import Prepared
from mlship.training.heads import numbers_of, truth_of
from mlship.training.original import Original, held_out
from mlship.training.owncode import Trust

_CHANGED = (
    "nothing was loaded; find out who changed it, or set model.pickle_sha256 to what you made"
)
_PICKLES = (".pkl", ".pickle", ".joblib")
_NATIVE: dict[str, ModelFormat] = {
    ".onnx": "onnx",
    ".ubj": "xgboost",
    ".json": "xgboost",
    ".txt": "lightgbm",
}


@dataclass(frozen=True)
class Saved:
    """A model file that may be loaded: a pickle's digest was checked."""

    name: str
    data: bytes

    @property
    def suffix(self) -> str:
        """Return the ending that tells the format."""
        return Path(self.name).suffix

    @property
    def is_native(self) -> bool:
        """Tell whether it is served as it is; others hold an estimator that is converted."""
        return self.suffix in _NATIVE


@dataclass(frozen=True)
class _Facts:
    """What a native file says of itself; `None` where it says nothing."""

    task: Task
    classes: int | None
    names: list[str] | None
    count: int | None
    layout: Literal["matrix", "columns"] = "matrix"
    has_labels: bool = False


def read(root: Path, config: ModelConfig, returned: str | Path) -> Saved:
    """Return a saved model's file, with a pickle's digest checked.

    Raises:
        ProjectError: there is no such file, or its name tells no known format.
        RefusedError: it is a pickle, and pickles are not allowed; or it is not what its ending
            says, or a link out of the project.
        IntegrityError: it is not the pickle that the configuration allows, or an ONNX model that
            refers to other files or libraries.
    """
    path = root / returned
    known = (".skops", *_NATIVE, *_PICKLES)
    if path.is_dir():
        message = f"{config.source} returned {returned}, which is a folder, not a model file"
        raise RefusedError(message, hint="return the path of the model file itself")
    if path.suffix not in known:
        message = f"{config.source} returned the path {returned}, which has no known format"
        raise ProjectError(message, hint=f"the known endings are {', '.join(known)}")
    if not path.is_file():
        message = f"{config.source} returned the path {returned}, and there is no such file"
        raise ProjectError(message, hint="return the path that the model was saved to")
    datafiles.check_lfs(path, str(returned))
    _check_link(root, config, path)
    source = Saved(name=str(returned), data=path.read_bytes())
    if source.suffix in _PICKLES:
        _check_pickle(config, source)
    else:
        signatures.check(source.name, source.suffix, source.data)
    return source


def of_booster(returned: object) -> Saved | None:
    """Return the file of a bare XGBoost or LightGBM booster; `None` for anything else."""
    origin = type(returned).__module__.partition(".")[0]
    if type(returned).__name__ != "Booster":
        return None
    booster: Any = returned
    if origin == "xgboost":
        return Saved(name="booster.ubj", data=bytes(booster.save_raw("ubj")))
    if origin == "lightgbm":
        return Saved(name="booster.txt", data=booster.model_to_string().encode())
    return None


def estimator_of(source: Saved, trust: Trust) -> Any:
    """Return the estimator in a skops file, or in a pickle whose digest was checked.

    Raises:
        IntegrityError: the skops file is made to mislead.
        ProjectError: the file is damaged, or holds types that are not trusted.
    """
    try:
        if source.suffix == ".skops":
            return skopsfile.to_estimator(source.data, source.name, trust)
        import joblib

        return joblib.load(io.BytesIO(source.data))  # it reads plain pickles too
    except MlshipError:
        raise
    except Exception as error:  # unpickling runs code, which may raise anything
        message = f"the saved model {source.name} cannot be loaded: {type(error).__name__}: {error}"
        raise ProjectError(message, hint="save it again with what is installed here") from error


def adopt(
    config: ModelConfig, source: Saved, data: Data, prepared: Prepared, folder: Path
) -> tuple[Original, Model, tuple[str, ...]]:
    """Write a native file below `folder` as it is; return what it is, and the modules it needs.

    Raises:
        ProjectError: it does not load, does not fit the columns, predicts NaN, or does not say
            which of its classes is which label.
    """
    form = _NATIVE[source.suffix]
    try:
        facts = _FACTS[form](source.data)
    except Exception as error:  # each library has errors of its own, some of them plain ones
        message = f"the saved model {source.name} cannot be read: {str(error).splitlines()[0]}"
        raise ProjectError(message, hint=f"save it as {form} itself does") from error
    task = facts.task if config.task == "auto" else config.task
    columns = _columns(source, facts, prepared)
    heads = numbers_of(config, data)
    if len(heads) > 1 and task == "classification":
        message = f"the saved model {source.name} does not say which labels its targets have"
        hint = "return the fitted estimator, or save it as skops"
        raise ProjectError(message, hint=hint)
    model = Model(
        format=form,
        path=f"model/model{source.suffix}",
        layout=facts.layout,
        columns=columns,
        heads=heads if len(heads) > 1 else (),
    )
    path = folder / model.path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(source.data)
    if task == "classification":
        target = data.targets[0]
        classes = _classes(config, facts, (path, model), target, prepared)
        model = replace(model, classes=classes)
        heads = (Head(name=target.name, classes=classes),)
    predict = _predict(path, model, task)
    if facts.names is None:
        trained = f"{config.source} fitted its model on an array"
        order.check(predict, heads, prepared.train, truth_of(heads, data), trained)
    original = Original(
        estimator=None,
        task=task,
        columns=columns,
        layout=model.layout,
        heads=heads,
        predict=predict,
        labels_of=lambda frame: predict(frame).labels,
        answers=held_out(predict, prepared.test, config.source),
    )
    return original, model, ("onnxruntime" if form == "onnx" else form,)


def _check_link(root: Path, config: ModelConfig, path: Path) -> None:
    """Refuse a path in the project that leads out of it."""
    is_inside = Path(os.path.abspath(path)).is_relative_to(os.path.abspath(root))  # noqa: PTH100 (links are kept)
    if (is_inside or path.is_symlink()) and not path.resolve().is_relative_to(root.resolve()):
        message = f"{config.source} returned {path.name}, a link to {path.resolve()}, "
        message += "outside of the project"
        raise RefusedError(message, hint="copy the file into the project")


def _check_pickle(config: ModelConfig, source: Saved) -> None:
    if not config.allow_pickle or config.pickle_sha256 is None:
        message = f"{config.source} returned {source.name}; loading a pickle runs its code"
        hint = "save it as skops or ONNX, or set model.allow_pickle and model.pickle_sha256"
        raise RefusedError(message, hint=hint)
    found = digests.of_bytes(source.data).removeprefix("sha256:")
    if found != config.pickle_sha256.removeprefix("sha256:").lower():
        message = f"{source.name} has sha256 {found}, not model.pickle_sha256"
        raise IntegrityError(message, hint=_CHANGED)


def _columns(source: Saved, facts: _Facts, prepared: Prepared) -> tuple[Field, ...]:
    known = {field.name: field for field in prepared.columns}
    if facts.names is not None and set(facts.names) <= set(known):
        return tuple(known[name] for name in facts.names)
    if facts.count in (None, len(known)):
        return prepared.columns
    message = f"the saved model {source.name} takes {facts.count} columns, and the data have "
    message += f"{len(known)}: {', '.join(known)}"
    raise ProjectError(message, hint="train it on these, or drop the others in `preprocess`")


def _classes(
    config: ModelConfig,
    facts: _Facts,
    file: tuple[Path, Model],
    target: Target,
    prepared: Prepared,
) -> tuple[Label, ...]:
    """Return the labels in the order of the model's classes: as told, or as the model says.

    Raises:
        ProjectError: neither tells them.
    """
    labels = sorted(target.train.unique().tolist())
    if config.classes:
        if facts.classes not in (None, len(config.classes)):
            message = f"mlship.yaml: model.classes has {len(config.classes)} classes, and the "
            message += f"model has {facts.classes}"
            raise ProjectError(message, hint="list all of them, in the order of the model's codes")
        return config.classes
    count = len(labels) if facts.classes is None else facts.classes
    if facts.has_labels:
        return _own_labels(file, count, prepared)
    if labels == list(range(count)):
        return tuple(labels)
    shown = ", ".join(str(label) for label in labels[:5])
    message = f"the model counts its classes from 0 to {count - 1}, and {target.name} holds {shown}"
    hint = "say which is which: `classes: [...]` under `model` in mlship.yaml, in the order of the "
    raise ProjectError(message, hint=f"{hint}model's codes")


def _own_labels(file: tuple[Path, Model], count: int, prepared: Prepared) -> tuple[Label, ...]:
    """Return the label that goes with each probability in the model's own answers.

    Raises:
        ProjectError: not all of them were answered for the training rows.
    """
    path, model = file
    raw = formats.load(path, model, "classification")(rows_of(prepared.train))
    if raw.probabilities is None:
        return tuple(sorted(set(np.asarray(raw.labels).tolist())))
    places = np.asarray(raw.probabilities).argmax(axis=1).tolist()
    known = dict(zip(places, np.asarray(raw.labels).tolist(), strict=True))
    if sorted(known) != list(range(count)):
        message = f"the saved model {path.name} does not say the order of its {count} classes"
        hint = "list them under `model` in mlship.yaml: `classes: [...]`, in the model's order"
        raise ProjectError(message, hint=hint)
    return tuple(known[place] for place in range(count))


def _predict(path: Path, model: Model, task: Task) -> Predict:
    compute = formats.load(path, model, task)

    def predict(frame: pd.DataFrame) -> Outputs:
        return outputs_of(model, compute(rows_of(frame)))

    return predict


def _onnx_facts(data: bytes) -> _Facts:
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
    return _Facts(
        task="classification" if is_classifier else "regression",
        classes=width if isinstance(width, int) else None,
        layout="matrix" if is_matrix else "columns",
        names=None if is_matrix else [entry.name for entry in inputs],
        count=count if isinstance(count, int) else None,
        has_labels=True,
    )


def _xgboost_facts(data: bytes) -> _Facts:
    import xgboost

    booster = xgboost.Booster(model_file=bytearray(data))
    learner = json.loads(booster.save_config())["learner"]
    objective = learner["objective"]["name"]
    many = int(learner["learner_model_param"]["num_class"])
    return _Facts(
        task="classification" if objective.startswith(("binary:", "multi:")) else "regression",
        classes=many or 2,
        names=booster.feature_names,
        count=booster.num_features(),
    )


def _lightgbm_facts(data: bytes) -> _Facts:
    import lightgbm

    booster = lightgbm.Booster(model_str=data.decode())
    objective = str(booster.dump_model(num_iteration=1).get("objective", ""))
    is_classifier = objective.startswith(("binary", "multiclass"))
    return _Facts(
        task="classification" if is_classifier else "regression",
        classes=max(booster.num_model_per_iteration(), 2),
        names=booster.feature_name(),
        count=booster.num_feature(),
    )


_FACTS: dict[ModelFormat, Callable[[bytes], _Facts]] = {
    "onnx": _onnx_facts,
    "xgboost": _xgboost_facts,
    "lightgbm": _lightgbm_facts,
}
