"""From a model to the file that is served: the first form that answers as the original does."""

import dataclasses
import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from msgspec.structs import replace
from sklearn.base import is_outlier_detector

from mlship.domain.bundle import Dtype, Layout, Model, ModelFormat
from mlship.errors import MlshipError, ProjectError
from mlship.runtime import formats
from mlship.runtime.formats import Computation
from mlship.training import parts
from mlship.training.forms import conversion, onnxfile, skopsfile
from mlship.training.forms.conversion import Child
from mlship.training.forms.skopsfile import Kept
from mlship.training.frameworks import catboostfile
from mlship.training.frameworks.exports import Export, NotExportedError
from mlship.training.original import Original
from mlship.training.owncode import Trust
from mlship.training.proof import trial as trials
from mlship.training.proof.answers import Answers
from mlship.training.proof.replies import HELD_OUT
from mlship.training.proof.trial import Trial


@dataclass(frozen=True)
class Converted:
    """The manifest of a model file that was written, and what people should know of it.

    Attributes:
        trial: the trial that it passed, with the limits of the form.
        modules: top-level modules that loading it needs.
        computation: the model file, where it was loaded in this process; ONNX never is.
        held_out: gives what an ONNX form answers to very many held-out rows.
    """

    model: Model
    trial: Trial
    modules: tuple[str, ...]
    notes: tuple[str, ...] = ()
    computation: Computation | None = None
    held_out: Child[Answers] | None = None


def expected(original: Original) -> ModelFormat:
    """Return the form in which a model is tried first."""
    if isinstance(original.estimator, Export):
        return original.estimator.format
    return _library(original.estimator) or ("skops" if _beyond_onnx(original) else "onnx")


@dataclass(frozen=True)
class Begun:
    """The form that is tried first, as it is made in a fork while the original answers.

    Attributes:
        onnx: the first of its conversions to ONNX.
        skops: the skops file.
    """

    onnx: Child[bytes] | None = None
    skops: Child[Kept] | None = None


@contextmanager
def begun(original: Original, trust: Trust) -> Iterator[Begun]:
    """Begin to make the form that is tried first, if it takes a while; give it."""
    form = None if isinstance(original.estimator, Export) else expected(original)
    if form == "onnx":
        with conversion.started(original, *_onnx_inputs(original)[0]) as onnx:
            yield Begun(onnx=onnx)
    elif form == "skops":
        skopsfile.imported()  # here, so that it is not imported twice
        with Child(lambda: _kept(original, trust), "saving it with skops") as skops:
            yield Begun(skops=skops)
    else:
        yield Begun()


def convert(
    trial: Trial,
    folder: Path,
    trust: Trust,
    first: Begun,
    held_out: pd.DataFrame,
) -> Converted:
    """Write a model below `folder` in the first form that passes the trial.

    XGBoost and LightGBM models are tried in their libraries' formats, others as ONNX, and CatBoost
    models in its format after that; skops, which keeps the estimator itself, comes last. Models of
    other frameworks have one form, the one that they export.

    Args:
        trial: the original and the rows that a form must answer as it does.
        folder: the bundle's.
        trust: what the model may be made of beyond the exact list.
        first: what `begun` gave.
        held_out: the held-out rows, before `preprocess`. An ONNX form answers very many of them
            while it is tried, and the bundle sealed.

    Raises:
        ProjectError: no form passes; the message says what stands in the way.
    """
    if isinstance(trial.original.estimator, Export):
        return _as_exported(trial, folder, trial.original.estimator)
    native = _native(trial.original)
    if native:
        tried = _as_native(trial, folder, *native)
    elif catboostfile.is_catboost(trial.original.estimator):
        tried = _as_catboost(trial, folder, first.onnx, held_out)
    else:
        tried = _as_onnx(trial, folder, first.onnx, held_out)
    if isinstance(tried, Converted):
        return tried
    return _as_skops(trial, folder, tried, trust, first.skops)


def _as_exported(trial: Trial, folder: Path, export: Export) -> Converted:
    """Write the files of an export, and prove them.

    Raises:
        ProjectError: the framework cannot export the model, or the export answers otherwise.
    """
    model = _model(trial.original, export.format, export.layout, export.dtype, "onnx")
    hint = "a row's answer must depend on that row only, and be made by operators of ONNX; see "
    hint += "`mlship guide your-own-model`"
    try:
        files = export.files()
    except NotExportedError as error:
        raise ProjectError(f"{export.name} cannot be served: {error}", hint=hint) from error
    for name, data in files.items():
        path = folder / "model" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    try:
        different = conversion.in_child(
            lambda: prove(trial, model, loaded(trial, model, folder)),
            f"the trial of {export.name} as ONNX",
        )
        limited = trial.narrowed(different)
        reason = "" if limited else shown(trial, different)
    except (onnxfile.NotConvertedError, MlshipError) as error:
        different, limited, reason = {}, None, onnxfile.first_line(error)
    if limited is None:
        message = f"the ONNX form of {export.name} does not answer as it does: {reason}"
        if any(row in trial.answers.refusals for row in different):
            hint = "let the model answer these values too, such as with clamp() before an index"
        raise ProjectError(message, hint=hint)
    note = f"{export.name} is served as ONNX, without its framework"
    return Converted(model=model, trial=limited, modules=export.modules, notes=(note,))


def loaded(trial: Trial, model: Model, folder: Path) -> Computation:
    """Return a model file as serving loads it.

    Raises:
        MlshipError: the runtime cannot load it.
    """
    return formats.load(folder / model.path, model, trial.original.task)


def prove(trial: Trial, model: Model, computation: Computation) -> dict[int, str]:
    """Return the probes on which a loaded model file differs, and how."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they were shown when the original predicted
        return trial.differing(model, computation)


def shown(trial: Trial, different: Mapping[int, str]) -> str:
    """Say on how many probes a form was found to differ, and how on the first one."""
    row, what = next(iter(different.items()))
    name = trial.probes.describe(row)
    return f"at least {len(different)} of {len(trial.rows)} probes differ, one ({name}): {what}"


def _library(estimator: Any) -> ModelFormat | None:
    """Return the library whose own format a booster is tried in first; `None` for other models."""
    origins = {kind.__module__.partition(".")[0] for kind in type(estimator).__mro__}
    if "xgboost" in origins and hasattr(estimator, "get_booster"):
        return "xgboost"
    if "lightgbm" in origins and hasattr(estimator, "booster_"):
        return "lightgbm"
    return None


def _native(original: Original) -> tuple[ModelFormat, str, bytes] | None:
    estimator = original.estimator
    match _library(estimator):
        case "xgboost":
            return "xgboost", "ubj", bytes(estimator.get_booster().save_raw("ubj"))
        case "lightgbm":
            return "lightgbm", "txt", estimator.booster_.model_to_string().encode()
    return None


def _as_native(
    trial: Trial, folder: Path, form: ModelFormat, suffix: str, data: bytes
) -> Converted | str:
    original = trial.original
    layout: Layout = "frame" if _needs_frame(original) else "matrix"
    model = _model(original, form, layout, "float64", suffix)
    missing = getattr(original.estimator, "missing", None)
    if form == "xgboost" and isinstance(missing, int | float) and math.isfinite(missing):
        model = replace(model, missing=float(missing))
    _write(folder, model, data)
    try:
        computation = loaded(trial, model, folder)
        different = prove(trial, model, computation)
    except Exception as error:  # noqa: BLE001 (whatever the model's library raises)
        return _dropped(folder, model, f"{form} cannot load it: {onnxfile.first_line(error)}")
    limited = trial.narrowed(different)
    if limited is None:
        return _dropped(folder, model, f"as {form}, {shown(trial, different)}")
    modules = (form, "pandas") if layout == "frame" else (form,)
    return Converted(model=model, trial=limited, modules=modules, computation=computation)


def _needs_frame(original: Original) -> bool:
    """Tell whether a library's own format takes columns that are no numbers."""
    if any(field.dtype == "category" for field in original.columns):
        return True
    return catboostfile.has_categories(original.estimator)


def _as_catboost(
    trial: Trial, folder: Path, first: Child[bytes] | None, held_out: pd.DataFrame
) -> Converted | str:
    """Return the ONNX file that passes, or else CatBoost's own; or why there is none."""
    tried = _as_onnx(trial, folder, first, held_out)
    if isinstance(tried, Converted):
        return tried
    data = catboostfile.to_file(trial.original.estimator)
    kept = _as_native(trial, folder, "catboost", "cbm", data)
    if isinstance(kept, Converted):
        note = f"the model is kept in CatBoost's format: {tried}"
        return dataclasses.replace(kept, notes=(note,))
    return f"{tried}; {kept}"


def _as_onnx(
    trial: Trial, folder: Path, first: Child[bytes] | None, held_out: pd.DataFrame
) -> Converted | str:
    """Return the ONNX file that passes, or why there is none."""
    original = trial.original
    reason = _beyond_onnx(original)
    if reason:
        return reason
    for layout, dtype in _onnx_inputs(original):
        child, first = first or conversion.started(original, layout, dtype), None
        try:
            model = _model(original, "onnx", layout, dtype, "onnx")
            _write(folder, model, child.result())
            return _onnx_of(trial, folder, model, held_out)
        except onnxfile.NoConverterError as error:
            return str(error)
        except onnxfile.NotConvertedError as error:
            reason = reason or str(error)
    return reason


def _onnx_inputs(original: Original) -> list[tuple[Layout, Dtype]]:
    """Return the inputs that an ONNX form may have, in the order in which they are tried."""
    if catboostfile.is_catboost(original.estimator):
        return [("matrix", "float32")]
    layouts: list[Layout] = ["matrix", "columns"]
    has_text = any(field.kind == "text" for field in original.columns)
    if has_text or parts.selects_by_name(original.estimator):
        layouts = ["columns"]
    dtypes: list[Dtype] = ["float64", "float32"]
    if parts.is_of_single_trees(original.estimator):
        dtypes.reverse()  # float64 errs at their thresholds, and a large forest takes many seconds
    return [(layout, dtype) for layout in layouts for dtype in dtypes]


def _beyond_onnx(original: Original) -> str:
    """Say what of a model ONNX has no form for, where that is known before a conversion."""
    for field in original.columns:
        if field.kind == "text" and field.nullable:
            return "a column of text has missing values, for which ONNX has no form"
        if field.dtype in ("category", "date", "decimal") or "datetime" in field.dtype:
            return f"ONNX has no form for a column of type {field.dtype}"
    if is_outlier_detector(original.estimator):
        return "ONNX gives a detector a third label, 0, at its threshold"
    if parts.has_double_thresholds(original.estimator):
        return "its trees compare in double precision, and those of ONNX in single"
    if parts.has_infinite_threshold(original.estimator):
        return "a tree splits between missing values and all others"
    return ""


def _onnx_of(trial: Trial, folder: Path, model: Model, held_out: pd.DataFrame) -> Converted:
    """Try an ONNX file that was written.

    Raises:
        NotConvertedError: it does not pass.
    """
    asked = None
    if len(held_out) > HELD_OUT:
        asked = Child(
            lambda: trials.held_out(trial, model, loaded(trial, model, folder), held_out),
            "the held-out rows",
        )
    with ExitStack() as unless_passed:
        if asked is not None:
            unless_passed.enter_context(asked)
        try:
            different = conversion.in_child(
                lambda: prove(trial, model, loaded(trial, model, folder)),
                "the trial of its ONNX form",
            )
        except onnxfile.NotConvertedError as error:
            reason = f"onnxruntime refuses it: {onnxfile.first_line(error)}"
            message = f"in {model.dtype}, {_dropped(folder, model, reason)}"
            raise onnxfile.NotConvertedError(message) from error
        limited = trial.narrowed(different)
        if limited is None:
            reason = _dropped(folder, model, shown(trial, different))
            raise onnxfile.NotConvertedError(f"in {model.dtype}, {reason}")
        unless_passed.pop_all()
    return Converted(model=model, trial=limited, modules=("onnxruntime",), held_out=asked)


def _kept(original: Original, trust: Trust) -> Kept:
    catboostfile.forget_times(original.estimator)
    return skopsfile.from_estimator(original.estimator, trust)


def _as_skops(
    trial: Trial, folder: Path, reason: str, trust: Trust, first: Child[Kept] | None
) -> Converted:
    original = trial.original
    try:
        kept = first.result() if first else _kept(original, trust)
    except onnxfile.NotConvertedError:
        # In this process it may be done, or says what is wrong.
        kept = _kept(original, trust)
    model = _model(original, "skops", original.layout, "float64", "skops")
    model = replace(model, types=kept.admitted.types, trusted=kept.admitted.trusted)
    _write(folder, model, kept.data)
    try:
        computation = loaded(trial, model, folder)
        different = prove(trial, model, computation)
        difference = shown(trial, different) if different else ""
    except MlshipError as error:
        difference = error.message
    if difference:
        message = f"no form of the model answers as it does: not skops ({difference}), and {reason}"
        hint = "a row's answer must depend on that row only: see `mlship guide your-own-model`"
        raise ProjectError(message, hint=hint)
    needs = ("skops", "sklearn", "numpy", "pandas", *kept.modules)
    notes = [f"the model is kept as skops: {reason}"]
    if model.types:
        notes.append(f"it is made of the project's own {', '.join(model.types)}")
    if model.trusted:
        notes.append(f"the project vouches for {', '.join(model.trusted)} (model.trust)")
    return Converted(
        model=model, trial=trial, modules=needs, notes=tuple(notes), computation=computation
    )


def _model(
    original: Original, form: ModelFormat, layout: Layout, dtype: Dtype, suffix: str
) -> Model:
    return Model(
        format=form,
        path=f"model/model.{suffix}",
        layout=layout,
        columns=original.columns,
        dtype=dtype,
        classes=() if original.several else original.heads[0].classes,
        heads=original.several,
        # A booster's own file has no labels; the places of its probabilities are looked up.
        is_coded=original.is_coded and form not in ("xgboost", "lightgbm"),
    )


def _write(folder: Path, model: Model, data: bytes) -> None:
    path = folder / model.path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _dropped(folder: Path, model: Model, reason: str) -> str:
    (folder / model.path).unlink()
    return reason
