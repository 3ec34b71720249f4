"""Loaders of model files, one for each format, behind a common Protocol.

A loader imports heavy libraries itself, so that an ONNX model starts without pandas and
scikit-learn. Every file is verified against the manifest before it is loaded.
"""

import copy
import pickle
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias

import msgspec

from mlship.domain.bundle import Model, ModelFormat, Task
from mlship.domain.columns import Columns
from mlship.errors import IntegrityError
from mlship.runtime import archive, heads, onnx_contents, text_model, trust
from mlship.runtime.frames import Rows, column_of, nulls, to_column, to_frame, to_matrix

Data: TypeAlias = Any
"""Rows as `Columns` or as a list, or a DataFrame that the hook `preprocess` returned."""


_LIKELIEST: Final = ("ExtraTreesClassifier", "RandomForestClassifier")
_BOOSTED: Final = "HistGradientBoostingClassifier"


class Raw(msgspec.Struct, frozen=True):
    """A model's outputs: labels or values of shape (n,), probabilities of shape (n, classes).

    An anomaly detector has scores of shape (n, 1) in their place. Of a model with heads, labels
    have shape (n, heads), and the probabilities of all heads stand beside each other.

    Attributes:
        labels: `None` if the format has only probabilities.
    """

    labels: Any
    probabilities: Any


class Computation(Protocol):
    """A loaded model."""

    def __call__(self, data: Data) -> Raw:
        """Compute the outputs for rows with the model's columns."""


def load(path: Path, model: Model, task: Task) -> Computation:
    """Load the model from a verified file.

    Raises:
        IntegrityError: the file is not such a model, or contains types that are not trusted.
    """
    try:
        computation = _LOADERS[model.format](path, model, task)
    except (IntegrityError, ImportError):
        raise
    except Exception as error:  # libraries raise all kinds of errors
        message = f"{path.name} is not a valid {model.format} model: {error}"
        raise IntegrityError(message, hint="train again") from error
    return _with_labels(computation, model) if model.is_coded else computation


def _with_labels(computation: Computation, model: Model) -> Computation:
    """Return a computation that answers labels where a model answers their places."""
    import numpy as np

    classes = np.array(model.classes, dtype=object)

    def compute(data: Data) -> Raw:
        raw = computation(data)
        return Raw(classes[np.asarray(raw.labels).astype(int)], raw.probabilities)

    return compute


def feed(data: Data, model: Model) -> Any:
    """Return the data as the layout says: a DataFrame, its only column, or an array."""
    if model.layout == "matrix":
        return to_matrix(_rows(data), [field.name for field in model.columns], model.dtype)
    frame = _frame(data, model)
    return frame.iloc[:, 0] if model.layout == "series" else frame


def _frame(data: Data, model: Model) -> Any:
    return to_frame(data, model.columns) if isinstance(data, Columns | list) else data


def _rows(data: Data) -> Rows:
    rows: Rows = data if isinstance(data, Columns | list) else nulls(data)
    return rows


def _session(path: Path) -> Any:
    """Return a session of onnxruntime for a file that refers to nothing beyond itself."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4  # what it says is in the exception as well
    data = path.read_bytes()
    onnx_contents.check(data, path.name)
    return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def _load_onnx(path: Path, model: Model, task: Task) -> Computation:
    import onnxruntime as ort

    session = _session(path)
    build = _onnx_feed(session, model)
    outputs = _outputs_of(session, task)
    options = ort.RunOptions()  # without it, each run makes one, for a tenth of the time of a row

    def compute(data: Data) -> Raw:
        rows = _rows(data)
        values = session.run(outputs, build(rows), options)
        if model.heads:
            return _of_heads(values[0], values[1] if len(values) > 1 else None, model)
        return Raw(values[0].reshape(len(rows)), values[1] if len(values) > 1 else None)

    return compute


def _outputs_of(session: Any, task: Task) -> list[str]:
    """Return the names of labels and probabilities, or of values alone."""
    names = [output.name for output in session.get_outputs()]
    return names[: 1 if task == "regression" else 2]


def _load_transformers(path: Path, model: Model, task: Task) -> Computation:
    session = _session(path)
    answers = text_model.load(path, session, _outputs_of(session, task))
    column = model.columns[0].name

    def compute(data: Data) -> Raw:
        values = answers(column_of(_rows(data), column))
        return Raw(values[0].reshape(len(data)), values[1] if len(values) > 1 else None)

    return compute


def _onnx_feed(session: Any, model: Model) -> Callable[[Rows], Mapping[str, Any]]:
    """Return a function from rows to the inputs of a session, with its element types."""
    dtypes = {
        "tensor(double)": "float64",
        "tensor(float)": "float32",
        "tensor(int64)": "int64",
        "tensor(bool)": "bool",
        "tensor(string)": "object",
    }
    inputs = [(entry.name, dtypes.get(entry.type, model.dtype)) for entry in session.get_inputs()]
    names = [field.name for field in model.columns]
    if model.layout == "matrix":
        if len(inputs) != 1:
            message = f"the ONNX model has {len(inputs)} inputs; the layout `matrix` needs one"
            raise IntegrityError(message, hint="train again")
        matrix, dtype = inputs[0]
        return lambda rows: {matrix: to_matrix(rows, names, dtype)}
    known = set(names)
    if len(inputs) != len(names) and not {name for name, _ in inputs} <= known:
        inputs_named = [name for name, _ in inputs]
        message = f"the ONNX model has inputs {inputs_named}, but the manifest has {names}"
        raise IntegrityError(message, hint="train again")
    pairs = [
        (name, name if name in known else names[place], dtype)
        for place, (name, dtype) in enumerate(inputs)
    ]
    return lambda rows: {name: to_column(rows, column, dtype) for name, column, dtype in pairs}


def _load_skops(path: Path, model: Model, task: Task) -> Computation:
    # Read once: what is loaded is what was checked.
    data = path.read_bytes()
    parts = archive.read(data, path.name)
    foreign = trust.untrusted(parts, {*model.types, *model.trusted})
    if foreign:
        message = f"{path.name} contains parts that are not trusted: {trust.described(foreign)}"
        hint = "train again; the manifest names the project's own types, and those of model.trust"
        raise IntegrityError(message, hint=hint)
    return _in_one_thread(_estimator(trust.load(data, parts), model, task))


def _load_pickle(path: Path, model: Model, task: Task) -> Computation:
    """Load a pickle, which runs code. It was allowed explicitly, and its digest was verified."""
    if path.suffix == ".joblib":
        import joblib

        return _in_one_thread(_estimator(joblib.load(path), model, task))
    with path.open("rb") as file:
        estimator = pickle.load(file)  # noqa: S301 (see above)
    return _in_one_thread(_estimator(estimator, model, task))


def _in_one_thread(compute: Computation) -> Computation:
    """Return a computation that starts no threads or processes for `n_jobs` of its estimator.

    They take longer than a request's rows do, the processors have workers already, and sums of
    threads depend on which ends first. Other threads, of OpenMP and BLAS, are not concerned.
    """
    joblib = sys.modules.get("joblib")
    if joblib is None:
        return compute

    def computed(data: Data) -> Raw:
        with joblib.parallel_config("sequential"):
            return compute(data)

    return computed


def _estimator(estimator: Any, model: Model, task: Task) -> Computation:
    """Return a computation for a scikit-learn estimator, or any object with its methods."""
    if model.heads:
        return _estimator_of_heads(estimator, model, task)
    order = _order(estimator, model) if task in ("classification", "clustering") else None
    if order is not None and answers_likeliest(estimator):
        return _likeliest(estimator, model, order)
    estimator = summed_once(estimator)

    def compute(data: Data) -> Raw:
        features = _as_fitted(data, model)
        labels = estimator.predict(features)
        if task == "anomaly":
            scores = estimator.decision_function(features)
            return Raw(labels.reshape(len(data)), scores.reshape(len(data), 1))
        if order is None:
            return Raw(labels.reshape(len(data)), None)
        return Raw(labels.reshape(len(data)), estimator.predict_proba(features)[:, order])

    return compute


def answers_likeliest(estimator: Any) -> bool:
    """Tell whether an estimator is a classifier of scikit-learn that takes labels from its shares.

    Asking it for labels and for probabilities computes the same twice. Others, such as boosted
    trees, take labels from numbers of which different ones give the same probability.
    """
    kind = type(estimator)
    return kind.__module__.startswith("sklearn.ensemble.") and kind.__name__ in _LIKELIEST


def summed_once(estimator: Any) -> Any:
    """Return a boosted classifier of scikit-learn that asks its trees once for one table.

    It makes both labels and probabilities from the sums of its trees, and computes these for each.
    The first call keeps them for the second one, if that is given the same object. Any other
    estimator is returned as it is.
    """
    kind = type(estimator)
    if not (kind.__module__.startswith("sklearn.ensemble.") and kind.__name__ == _BOOSTED):
        return estimator
    kept: list[tuple[Any, Any]] = []

    def sums(table: Any, *args: Any) -> Any:
        # One operation each: other threads may call as well.
        for known, values in kept[:]:
            if known is table:
                kept.clear()
                return values
        values = estimator._raw_predict(table, *args)  # noqa: SLF001
        kept[:] = [(table, values)]
        return values

    once = copy.copy(estimator)
    once._raw_predict = sums  # noqa: SLF001
    return once


def _likeliest(estimator: Any, model: Model, order: list[int]) -> Computation:
    """Return a computation that takes the labels from the probabilities, as the estimator does."""

    def compute(data: Data) -> Raw:
        shares = estimator.predict_proba(_as_fitted(data, model))
        return Raw(estimator.classes_[shares.argmax(axis=1)], shares[:, order])

    return compute


def _estimator_of_heads(estimator: Any, model: Model, task: Task) -> Computation:
    has_shares = task == "classification" and hasattr(estimator, "predict_proba")

    def compute(data: Data) -> Raw:
        features = _as_fitted(data, model)
        shares = estimator.predict_proba(features) if has_shares else None
        return _of_heads(estimator.predict(features), shares, model)

    return compute


def _of_heads(labels: Any, shares: Any, model: Model) -> Raw:
    return Raw(heads.labels_of(labels, model.heads), heads.probabilities_of(shares, model.heads))


def _as_fitted(data: Data, model: Model) -> Any:
    """Return what pandas would have given to the estimator: an array has the columns' types."""
    if model.layout == "matrix" and all(field.dtype for field in model.columns):
        return _frame(data, model).to_numpy()
    return feed(data, model)


def _order(estimator: Any, model: Model) -> list[int] | None:
    """Return the index of each manifest class in the estimator; `None` without probabilities."""
    if not model.classes or not hasattr(estimator, "predict_proba"):
        return None
    # Clusters have numbers.
    own = list(getattr(estimator, "classes_", range(len(model.classes))))
    known = range(len(model.classes)) if model.is_coded else model.classes
    return [own.index(label) for label in known]


def _load_xgboost(path: Path, model: Model, task: Task) -> Computation:
    import xgboost

    booster = xgboost.Booster(model_file=str(path))
    booster.set_param({"nthread": 1})
    best = booster.attr("best_iteration")
    rounds = (0, int(best) + 1) if best is not None else (0, 0)
    options: dict[str, Any] = {"nthread": 1, "enable_categorical": model.layout == "frame"}
    if model.layout == "matrix":
        options["feature_names"] = booster.feature_names
    if model.missing is not None:
        options["missing"] = model.missing

    def compute(data: Data) -> Raw:
        matrix = xgboost.DMatrix(feed(data, model), **options)
        return _boosted(booster.predict(matrix, iteration_range=rounds), model, task)

    return compute


def _load_lightgbm(path: Path, model: Model, task: Task) -> Computation:
    import lightgbm

    booster = lightgbm.Booster(model_file=str(path))

    def compute(data: Data) -> Raw:
        return _boosted(booster.predict(feed(data, model), num_threads=1), model, task)

    return compute


def _load_catboost(path: Path, model: Model, task: Task) -> Computation:
    import catboost

    is_classifier = task == "classification"
    kind = catboost.CatBoostClassifier if is_classifier else catboost.CatBoostRegressor
    booster = kind().load_model(str(path))

    def compute(data: Data) -> Raw:
        features = feed(data, model)
        values = booster.predict(features, thread_count=1).reshape(len(data))
        shares = booster.predict_proba(features, thread_count=1) if is_classifier else None
        return Raw(values, shares)

    return compute


def _boosted(values: Any, model: Model, task: Task) -> Raw:
    """Interpret a booster's output by its shape: values, probabilities or classes."""
    import numpy as np

    if model.heads:
        if task == "regression":
            return _of_heads(values, None, model)
        shares = heads.probabilities_of(values, model.heads)
        return Raw(heads.likeliest(shares, model.heads), shares)
    if task == "regression" or not model.classes:
        return Raw(values.reshape(len(values)), None)
    if values.ndim == 2:
        return Raw(None, values)
    if len(model.classes) == 2:
        return Raw(None, np.stack([1 - values, values], axis=1))
    classes = np.array(model.classes, dtype=object)
    return Raw(classes[values.astype(int)], None)


_LOADERS: Mapping[ModelFormat, Callable[[Path, Model, Task], Computation]] = {
    "onnx": _load_onnx,
    "skops": _load_skops,
    "xgboost": _load_xgboost,
    "lightgbm": _load_lightgbm,
    "catboost": _load_catboost,
    "transformers": _load_transformers,
    "pickle": _load_pickle,
}
