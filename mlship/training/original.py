"""The model as training left it: of which task, from which columns, and what it predicts."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import is_classifier, is_outlier_detector, is_regressor

from mlship.config.project import ModelConfig
from mlship.domain.bundle import Field, Head, Label, Layout, Task
from mlship.errors import ProjectError
from mlship.runtime.formats import answers_likeliest, summed_once
from mlship.runtime.heads import labels_of, probabilities_of
from mlship.training import heads as heads_of
from mlship.training import labels, order, parts
from mlship.training.data import Data, Target
from mlship.training.fit import Prepared
from mlship.training.proof.answers import (
    MARGIN,
    Answers,
    Outputs,
    Predict,
    ask,
    margins_of,
    with_margins,
)
from mlship.training.sample import Sample, given, hint_of

_SAMPLE = 200
_FEW = 2_000


@dataclass(frozen=True)
class Original:
    """A fitted estimator, or a model file's own predictions, to which every form is compared.

    Attributes:
        estimator: `None` for a model that the training function saved in its library's format.
        columns: what it was fitted with, in its order; a part of the prepared columns.
        layout: how it is given rows: as a DataFrame, its only column, or an array.
        heads: the columns of its answer, one for each target, with their labels in the order of
            its probabilities; no labels for a regression.
        predict: answers rows after `preprocess`.
        labels_of: only the labels or values for such rows, which costs less, shape (n,), or
            (n, heads) if there are several.
        ask_held_out: returns the answers to the held-out rows; raises if one is refused.
        is_coded: whether the estimator itself answers with the places of labels.
    """

    estimator: Any
    task: Task
    columns: tuple[Field, ...]
    layout: Layout
    heads: tuple[Head, ...]
    predict: Predict
    labels_of: Callable[[pd.DataFrame], Any]
    ask_held_out: Callable[[], Answers]
    is_coded: bool = False

    @property
    def several(self) -> tuple[Head, ...]:
        """Its heads if there are several, as a manifest lists them."""
        return self.heads if len(self.heads) > 1 else ()


def examine(estimator: Any, config: ModelConfig, data: Data, prepared: Prepared) -> Original:
    """Ask an estimator what it is.

    Raises:
        ProjectError: it cannot predict, predicts another number of values
            than there are targets, was fitted with columns that serving cannot give it, or in an
            order that is not known.
    """
    if not callable(getattr(estimator, "predict", None)):
        raise _no_prediction(estimator, config)
    task = task_of(estimator, config, data)
    columns = _columns(estimator, config, prepared)
    names = [field.name for field in columns]
    layout = _layout(estimator, config, names, prepared)
    hint = hint_of(estimator, columns)
    sample = Sample(estimator, config.source, layout, prepared.train[names].head(_SAMPLE), hint)
    sample.check_shapes(task, len(data.targets))
    decide = sample.decision(task)
    alone = _predict_one(estimator, task, layout, names, decide)
    heads = heads_of.of_estimator(estimator, task, config, data, lambda: ask(alone, prepared.train))
    coded = labels.of_estimator(estimator, config, data) if task == "classification" else ()
    make: Callable[..., Predict] = _predict_one
    if len(heads) > 1:
        make = partial(_predict_several, heads)
    if coded:
        heads = (Head(name=heads[0].name, classes=coded),)
        make = partial(_predict_coded, coded)
    predict = make(estimator, task, layout, names, decide)
    if layout != "frame" or parts.names_of(estimator) is None:
        as_given = make(estimator, task, layout, None, decide)
        truth = heads_of.truth_of(heads, data)
        form = "a DataFrame" if layout == "frame" else "an array"
        trained = f"{config.source} fitted its model on {form}"
        order.check(as_given, heads, prepared.train[names], truth, trained)
    many = predict
    if answers_likeliest(estimator) and not coded and len(heads) == 1:
        many = _predict_likeliest(estimator, layout, names, predict)
    elif len(prepared.test) > _FEW:
        many = make(summed_once(estimator), task, layout, names, decide)
    shape = -1 if len(heads) == 1 else (-1, len(heads))
    return Original(
        estimator=estimator,
        task=task,
        columns=columns,
        layout=layout,
        heads=heads,
        predict=predict,
        labels_of=lambda frame: np.reshape(estimator.predict(given(frame[names], layout)), shape),
        ask_held_out=lambda: held_out(many, prepared.test, config.source, hint),
        is_coded=bool(coded),
    )


def task_of(estimator: Any, config: ModelConfig, data: Data) -> Task:
    """Return what a model is for, from the configuration, the model, or the target's values.

    Raises:
        ProjectError: the configuration says one thing and the model is the other.
    """
    told = _told(estimator)
    if not data.targets:
        task: Task = "anomaly" if config.task == "anomaly" else "clustering"
        is_detector = callable(getattr(estimator, "decision_function", None))
        if task == "anomaly" and not (is_detector and is_outlier_detector(estimator)):
            message = f"{config.source} returned {type(estimator).__name__}, which is no detector "
            message += "of outliers"
            hint = "return an IsolationForest, for instance, or set model.task to clustering"
            raise ProjectError(message, hint=hint)
        return task
    if config.task == "anomaly":
        # With labelled data, a detector is a classification of -1 and 1.
        return "classification"
    if config.task != "auto":
        if told is not None and told != config.task:
            message = f"mlship.yaml says model.task: {config.task}, but {config.source} "
            message += f"returned a model for {told}"
            raise ProjectError(message, hint="change one of them")
        return config.task
    if told is not None:
        return told
    tasks = {"classification" if _has_labels(target) else "regression" for target in data.targets}
    if len(tasks) > 1:
        message = f"data.target lists labels and numbers: {', '.join(data.names)}"
        raise ProjectError(message, hint="set model.task, or train a model for each kind of target")
    return "classification" if tasks == {"classification"} else "regression"


def _has_labels(target: Target) -> bool:
    few = target.kind == "integer" and target.train.nunique() <= 20
    return target.kind in ("text", "boolean") or few


def _no_prediction(estimator: Any, config: ModelConfig) -> ProjectError:
    name = type(estimator).__name__
    message = f"{config.source} returned {name}, which cannot predict"
    hint = "return a fitted estimator, or the path of a saved model"
    if callable(getattr(estimator, "fit_predict", None)):
        message += " rows that it was not fitted on"
        hint = "use one that can, such as KMeans or GaussianMixture, or novelty=True of a detector"
    return ProjectError(message, hint=hint)


def held_out(
    predict: Predict,
    rows: pd.DataFrame,
    name: str,
    hint: str = "return a model fitted on these columns",
) -> Answers:
    """Return the answers for the held-out rows, all of which must be answered.

    Args:
        predict: answers rows after `preprocess`.
        rows: the held-out rows.
        name: of the model, for messages.
        hint: what to do if it refuses all of them.

    Raises:
        ProjectError: one is refused, or its answer is NaN or infinite.
    """
    try:
        answers = ask(predict, rows)
    except ProjectError:
        raise
    except Exception as error:  # whatever the model's library raises
        message = f"the model of {name} cannot predict the held-out rows: {error}"
        raise ProjectError(message, hint=hint) from error
    if answers.refusals:
        row, reason = min(answers.refusals.items())
        message = f"the model of {name} cannot predict {len(answers.refusals)} of {len(rows)} "
        message += f"held-out rows, first row {row + 1}: {reason}"
        hint = "check that row's values: fill missing ones, or fix the training"
        raise ProjectError(message, hint=hint)
    return answers


def _told(estimator: Any) -> Task | None:
    try:
        if is_classifier(estimator) or is_outlier_detector(estimator):
            return "classification"
        if is_regressor(estimator):
            return "regression"
    except (AttributeError, TypeError):  # it is of no kind that scikit-learn knows
        pass
    return "classification" if hasattr(estimator, "classes_") else None


def _columns(estimator: Any, config: ModelConfig, prepared: Prepared) -> tuple[Field, ...]:
    known = {field.name: field for field in prepared.columns}
    names = parts.names_of(estimator)
    if names is None:
        count = getattr(estimator, "n_features_in_", len(known))
        if count != len(known):
            message = f"{config.source} fitted its model on {count} of {len(known)} columns, "
            message += "without their names"
            raise ProjectError(message, hint="fit it on a DataFrame, or drop them in `preprocess`")
        return prepared.columns
    # LightGBM writes the blanks of a name as underscores.
    known = {name.replace(" ", "_"): field for name, field in known.items()} | known
    foreign = [name for name in names if name not in known]
    if foreign:
        message = f"{config.source} fitted its model on a column {foreign[0]}, which serving "
        message += "cannot give it: it is made in the training function"
        raise ProjectError(message, hint="make such columns in `preprocess`, or inside the model")
    return tuple(known[name] for name in names)


def _layout(estimator: Any, config: ModelConfig, names: list[str], prepared: Prepared) -> Layout:
    """Return how the model takes rows; where it does not say, what it can predict from.

    Raises:
        ProjectError: it cannot predict the training rows in any way.
    """
    if parts.names_of(estimator) is not None:
        return "frame"
    layouts: list[Layout] = ["frame", "matrix"]
    if hasattr(estimator, "n_features_in_"):
        # Estimators of libraries keep the names of a DataFrame, others may count its columns only.
        layouts = ["frame", "matrix"] if parts.begins_with_own(estimator) else ["matrix"]
    elif len(names) == 1:
        layouts = ["series", *layouts]
    sample = prepared.train[names].head(_SAMPLE)
    reason = ""
    for layout in layouts:
        try:
            if len(np.asarray(estimator.predict(given(sample, layout)))) == len(sample):
                return layout
            reason = reason or "it returns another number of rows"
        except Exception as error:  # noqa: BLE001 (whatever the model's library raises)
            reason = reason or f"{type(error).__name__}: {error}"
    message = f"the model of {config.source} cannot predict the training rows: {reason}"
    raise ProjectError(message, hint="return a model fitted on these columns")


def _predict_one(
    estimator: Any,
    task: Task,
    layout: Layout,
    names: list[str] | None,
    decide: Callable[[Any], Any] | None,
) -> Predict:
    """Return the model's answers to rows; without names, to their columns as they come."""
    has_probabilities = task != "regression" and hasattr(estimator, "predict_proba")

    def predict(frame: pd.DataFrame) -> Outputs:
        data = given(frame if names is None else frame[names], layout)
        labels = np.asarray(estimator.predict(data))
        if labels.ndim > 2 or (labels.ndim == 2 and labels.shape[1] != 1):
            message = f"the model predicts {labels.shape[1:]} values for a row"
            raise ProjectError(message, hint="fit it on the one target column, or list them all")
        if has_probabilities:
            outputs = Outputs(
                labels=labels.reshape(len(frame)),
                probabilities=np.asarray(estimator.predict_proba(data)),
            )
            margins = margins_of(outputs)
            # Equal probabilities say nothing of the label if another function decides it.
            if decide is not None and (margins < MARGIN).any():
                margins = np.maximum(margins, _margins(decide(data)))
            return replace(outputs, margins=margins)
        margins = None if decide is None else _margins(decide(data))
        if task == "anomaly":
            scores = np.reshape(estimator.decision_function(data), (len(frame), 1))
            return Outputs(labels.reshape(len(frame)), probabilities=scores, margins=margins)
        return Outputs(labels=labels.reshape(len(frame)), margins=margins)

    return predict


def _predict_likeliest(
    estimator: Any, layout: Layout, names: list[str], predict: Predict
) -> Predict:
    """Return the answers of a classifier whose label is its likeliest class, at half the cost.

    It is asked for its labels themselves where it is not sure, and where there are few rows.
    """

    def likeliest(frame: pd.DataFrame) -> Outputs:
        if len(frame) <= _FEW:
            return predict(frame)
        shares = np.asarray(estimator.predict_proba(given(frame[names], layout)))
        outputs = Outputs(estimator.classes_[shares.argmax(axis=1)], shares)
        margins = margins_of(outputs)
        unsure = np.flatnonzero(~(margins >= MARGIN))
        if len(unsure):
            own = predict(frame.iloc[unsure])
            outputs.labels[unsure] = own.labels
            margins[unsure] = margins_of(own)
        return replace(outputs, margins=margins)

    return likeliest


def _predict_coded(classes: tuple[Label, ...], *arguments: Any) -> Predict:
    """Return the answers of a model that counts its classes, with the labels of these."""
    predict, known = _predict_one(*arguments), np.array(classes, dtype=object)

    def decoded(frame: pd.DataFrame) -> Outputs:
        outputs = predict(frame)
        return replace(outputs, labels=known[outputs.labels.astype(int)])

    return decoded


def _predict_several(
    heads: tuple[Head, ...],
    estimator: Any,
    task: Task,
    layout: Layout,
    names: list[str] | None,
    decide: Callable[[Any], Any] | None,
) -> Predict:
    """Return the answers of a model with several heads."""
    has_probabilities = task == "classification" and hasattr(estimator, "predict_proba")

    def predict(frame: pd.DataFrame) -> Outputs:
        data = given(frame if names is None else frame[names], layout)
        values = estimator.predict(data)
        shares = estimator.predict_proba(data) if has_probabilities else None
        try:
            labels = labels_of(values, heads)
            outputs = Outputs(labels=labels, probabilities=probabilities_of(shares, heads))
        except ValueError as error:
            hint = "fit it on all columns that data.target lists, in that order"
            raise ProjectError(str(error), hint=hint) from error
        outputs = with_margins(outputs, heads)
        margins = margins_of(outputs)
        if decide is not None and (outputs.probabilities is None or (margins < MARGIN).any()):
            scores = np.abs(decide(data))
            if scores.shape == labels.shape:
                is_told = outputs.probabilities is not None
                margins = np.maximum(margins, scores) if is_told else scores
        return replace(outputs, margins=margins)

    return predict


def _margins(scores: Any) -> Any:
    if scores.ndim == 1:
        return np.abs(scores)
    best = np.sort(scores, axis=1)
    return best[:, -1] - best[:, -2]
