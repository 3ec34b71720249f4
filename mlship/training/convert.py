"""From a model to the file that is served: ONNX where it agrees, the library's own otherwise."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from mlship.domain.bundle import Model, ModelFormat, Row
from mlship.errors import MlshipError, ProjectError
from mlship.runtime import formats
from mlship.training import onnxfile, skopsfile
from mlship.training.original import Answers, Original
from mlship.training.owncode import Trust

RTOL, ATOL = 1e-4, 1e-5
"""How far a number may be from the original's: relative, and absolute near zero."""

_Layout = Literal["matrix", "columns", "frame"]
_Dtype = Literal["float64", "float32"]


@dataclass(frozen=True)
class Converted:
    """The manifest of a model file that was written, and what people should know of it.

    Attributes:
        modules: top-level modules that loading it needs.
    """

    model: Model
    modules: tuple[str, ...]
    notes: tuple[str, ...] = ()


def convert(original: Original, rows: list[Row], folder: Path, trust: Trust) -> Converted:
    """Write a model below `folder` in the first format that answers as the original does.

    XGBoost and LightGBM models keep their native form. Others become ONNX when that gives the
    same labels, and numbers within `RTOL` and `ATOL`, on the held-out rows; skops otherwise.

    Args:
        original: the model.
        rows: the held-out rows after `preprocess`, of which the original's answers are.
        folder: the bundle's.
        trust: what the model may be made of beyond the exact list.

    Raises:
        ProjectError: no format holds the model; the message says what stands in the way.
    """
    native = _native(original)
    if native is not None:
        suffix, format_, data = native
        _refuse_texts(original, format_)
        model = _write(folder, original, (format_, "matrix", "float64"), suffix, data)
        difference = differs(folder, model, original, rows)
        if difference:
            message = f"the {format_} model predicts otherwise after it was saved: {difference}"
            raise ProjectError(message, hint="wrap it in a scikit-learn Pipeline, then train again")
        return Converted(model=model, modules=(format_,))
    model_or_reason = _as_onnx(original, rows, folder)
    if isinstance(model_or_reason, Model):
        return Converted(model=model_or_reason, modules=("onnxruntime",))
    return _as_skops(original, rows, folder, model_or_reason, trust)


def differs(folder: Path, model: Model, original: Original, rows: list[Row]) -> str:
    """Load a model file as serving does; return how its answers differ, or nothing.

    Raises:
        MlshipError: the runtime cannot load it.
    """
    raw = formats.load(folder / model.path, model, original.task)(rows)
    labels = raw.labels
    if labels is None:
        classes = np.array(model.classes, dtype=object)
        labels = classes[np.asarray(raw.probabilities).argmax(axis=1)]
    return difference_of(original, Answers(labels=labels, probabilities=raw.probabilities))


def difference_of(original: Original, found: Answers) -> str:
    """Say how answers differ from the original's: in which row, and what; or nothing."""
    wanted = original.answers
    if original.task == "regression":
        return _far(wanted.labels, found.labels, "value")
    unlike = [
        number
        for number, (one, other) in enumerate(
            zip(wanted.labels.tolist(), np.asarray(found.labels).tolist(), strict=True)
        )
        if one != other
    ]
    if unlike:
        return f"{len(unlike)} of {len(wanted.labels)} labels differ, first in row {unlike[0] + 1}"
    if (wanted.probabilities is None) != (found.probabilities is None):
        return "one gives probabilities and the other does not"
    if wanted.probabilities is None:
        return ""
    return _far(wanted.probabilities, found.probabilities, "probability")


def _far(wanted: Any, found: Any, what: str) -> str:
    one, other = np.asarray(wanted, dtype="float64"), np.asarray(found, dtype="float64")
    if one.shape != other.shape:
        return f"the shape is {other.shape}, not {one.shape}"
    if np.allclose(other, one, rtol=RTOL, atol=ATOL):
        return ""
    return f"a {what} differs by {np.abs(one - other).max():.3g}"


def _native(original: Original) -> tuple[str, ModelFormat, bytes] | None:
    origins = {kind.__module__.partition(".")[0] for kind in type(original.estimator).__mro__}
    if "xgboost" in origins and hasattr(original.estimator, "get_booster"):
        return "ubj", "xgboost", bytes(original.estimator.get_booster().save_raw("ubj"))
    if "lightgbm" in origins and hasattr(original.estimator, "booster_"):
        return "txt", "lightgbm", original.estimator.booster_.model_to_string().encode()
    return None


def _refuse_texts(original: Original, format_: str) -> None:
    texts = [field.name for field in original.columns if field.kind == "text"]
    if texts:
        message = f"the {format_} model was fitted on text columns: {', '.join(texts)}"
        hint = "encode them in `preprocess`, or in a Pipeline around the model"
        raise ProjectError(message, hint=hint)


def _as_onnx(original: Original, rows: list[Row], folder: Path) -> Model | str:
    """Return the manifest of the ONNX file that agrees, or why there is none."""
    if any(field.kind == "text" and field.nullable for field in original.columns):
        return "a column of texts has missing values, which ONNX has no form for"
    layouts: list[_Layout] = ["matrix", "columns"]
    if any(field.kind == "text" for field in original.columns):
        layouts = ["columns"]
    dtypes: list[_Dtype] = ["float64", "float32"]
    reason = ""
    for layout in layouts:
        for dtype in dtypes:
            try:
                return _onnx_of(original, rows, folder, layout, dtype)
            except onnxfile.NoConverterError as error:
                return str(error)
            except onnxfile.NotConvertedError as error:
                reason = reason or str(error)
    return reason


def _onnx_of(
    original: Original, rows: list[Row], folder: Path, layout: _Layout, dtype: _Dtype
) -> Model:
    data = onnxfile.from_estimator(original, layout, dtype)
    model = _write(folder, original, ("onnx", layout, dtype), "onnx", data)
    try:
        difference = differs(folder, model, original, rows)
    except Exception as error:  # noqa: BLE001 (onnxruntime refuses in many ways)
        difference = f"onnxruntime refuses it: {str(error).splitlines()[0][:160]}"
    if difference:
        (folder / model.path).unlink()
        raise onnxfile.NotConvertedError(f"in {dtype}, {difference}")
    return model


def _as_skops(
    original: Original, rows: list[Row], folder: Path, reason: str, trust: Trust
) -> Converted:
    kept = skopsfile.from_estimator(original.estimator, trust)
    is_frame = hasattr(original.estimator, "feature_names_in_") or any(
        field.kind == "text" for field in original.columns
    )
    layout: _Layout = "frame" if is_frame else "matrix"
    model = _write(folder, original, ("skops", layout, "float64"), "skops", kept.data)
    admitted = kept.admitted
    model = msgspec.structs.replace(model, types=admitted.types, trusted=admitted.trusted)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they were shown when the original predicted
            difference = differs(folder, model, original, rows)
    except MlshipError as error:
        difference = error.message
    if difference:
        message = f"the model can be saved neither as ONNX ({reason}) nor as skops ({difference})"
        hint = "use scikit-learn's own estimators and Pipelines"
        raise ProjectError(message, hint=hint)
    needs = ("skops", "sklearn", "numpy", *kept.modules, *(("pandas",) if is_frame else ()))
    notes = [f"the model is kept as skops, not ONNX: {reason}"]
    if admitted.types:
        notes.append(f"it is made of the project's own {', '.join(admitted.types)}")
    if admitted.trusted:
        notes.append(f"the project vouches for {', '.join(admitted.trusted)} (model.trust)")
    return Converted(model=model, modules=needs, notes=tuple(notes))


def _write(
    folder: Path,
    original: Original,
    form: tuple[ModelFormat, _Layout, _Dtype],
    suffix: str,
    data: bytes,
) -> Model:
    format_, layout, dtype = form
    path = folder / "model" / f"model.{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return Model(
        format=format_,
        path=path.relative_to(folder).as_posix(),
        layout=layout,
        columns=original.columns,
        dtype=dtype,
        classes=original.classes,
    )
