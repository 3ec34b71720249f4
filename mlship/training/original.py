"""The model as training left it: what it predicts, of which task, from which columns."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import is_classifier, is_regressor

from mlship.config.project import ModelConfig
from mlship.domain.bundle import Field, Task
from mlship.errors import ProjectError
from mlship.training.data import Data
from mlship.training.fit import Prepared

Label = str | int | bool | float


@dataclass(frozen=True)
class Answers:
    """Predictions for rows: `labels` of shape (n,), `probabilities` of shape (n, classes)."""

    labels: Any
    probabilities: Any = None


@dataclass(frozen=True)
class Original:
    """A fitted estimator and the answers that whatever is made of it must give.

    Attributes:
        columns: what it was fitted with, in its order; a part of the prepared columns.
        classes: its labels in the order of its probabilities; empty for a regression.
        answers: for the held-out rows.
    """

    estimator: Any
    task: Task
    columns: tuple[Field, ...]
    classes: tuple[Label, ...]
    answers: Answers


def examine(estimator: Any, config: ModelConfig, data: Data, prepared: Prepared) -> Original:
    """Ask an estimator what it is and what it predicts for the held-out rows.

    Raises:
        ProjectError: it cannot predict, predicts NaN or several values, was fitted with columns
            that serving cannot give it, or its labels are not those of the target.
    """
    if not callable(getattr(estimator, "predict", None)):
        message = f"{config.train} returned {type(estimator).__name__}, which cannot predict"
        raise ProjectError(message, hint="return a fitted estimator, or the path of a saved model")
    task = task_of(estimator, config, data)
    columns = _columns(estimator, config, prepared)
    features = prepared.test[[field.name for field in columns]]
    answers = _answers(estimator, config, features, task)
    classes = _classes(estimator, answers, config) if task == "classification" else ()
    check_finite(answers, config.train)
    return Original(
        estimator=estimator, task=task, columns=columns, classes=classes, answers=answers
    )


def task_of(estimator: Any, config: ModelConfig, data: Data) -> Task:
    """Return what a model is for, from the configuration, the model, or the target's values.

    Raises:
        ProjectError: the configuration says one thing and the model is the other.
    """
    told = _told(estimator)
    if config.task != "auto":
        if told is not None and told != config.task:
            message = f"mlship.yaml says model.task: {config.task}, and {config.train} "
            message += f"returned a model for {told}"
            raise ProjectError(message, hint="change one of them")
        return config.task
    if told is not None:
        return told
    values = data.train_target
    few = values.dtype == np.int64 and values.nunique() <= 20
    return "classification" if values.dtype in (object, bool) or few else "regression"


def check_finite(answers: Answers, name: str) -> None:
    """Refuse predictions that are no predictions.

    Raises:
        ProjectError: one is NaN or infinite.
    """
    for values in (answers.labels, answers.probabilities):
        if values is not None and values.dtype.kind == "f" and not np.isfinite(values).all():
            rows = ~np.isfinite(values).reshape(len(values), -1).all(axis=1)
            message = f"the model of {name} predicts NaN or infinity for {rows.sum()} of "
            message += f"{len(values)} held-out rows, first row {int(np.flatnonzero(rows)[0]) + 1}"
            hint = "check that row's values: fill missing ones, or fix the training"
            raise ProjectError(message, hint=hint)


def _told(estimator: Any) -> Task | None:
    try:
        if is_classifier(estimator):
            return "classification"
        if is_regressor(estimator):
            return "regression"
    except (AttributeError, TypeError):  # it is of no kind that scikit-learn knows
        pass
    return "classification" if hasattr(estimator, "classes_") else None


def _columns(estimator: Any, config: ModelConfig, prepared: Prepared) -> tuple[Field, ...]:
    known = {field.name: field for field in prepared.columns}
    names = getattr(estimator, "feature_names_in_", None)
    if names is None:
        count = getattr(estimator, "n_features_in_", len(known))
        if count != len(known):
            message = f"{config.train} fitted its model on {count} of {len(known)} columns, "
            message += "without their names"
            raise ProjectError(message, hint="fit it on a DataFrame, or drop them in `preprocess`")
        return prepared.columns
    # LightGBM writes the blanks of a name as underscores.
    known = {name.replace(" ", "_"): field for name, field in known.items()} | known
    foreign = [str(name) for name in names if str(name) not in known]
    if foreign:
        message = f"{config.train} fitted its model on a column {foreign[0]}, which serving "
        message += "cannot give it: it is made in the training function"
        raise ProjectError(message, hint="make such columns in `preprocess`, or inside the model")
    return tuple(known[str(name)] for name in names)


def _answers(estimator: Any, config: ModelConfig, features: pd.DataFrame, task: Task) -> Answers:
    data = features if hasattr(estimator, "feature_names_in_") else features.to_numpy()
    try:
        labels = np.asarray(estimator.predict(data))
        probabilities = None
        if task == "classification" and hasattr(estimator, "predict_proba"):
            probabilities = np.asarray(estimator.predict_proba(data))
    except Exception as error:  # whatever the model's library raises
        message = f"the model of {config.train} cannot predict the held-out rows: {error}"
        raise ProjectError(message, hint="return a model fitted on these columns") from error
    if labels.ndim > 2 or (labels.ndim == 2 and labels.shape[1] != 1):
        message = f"the model of {config.train} predicts {labels.shape[1:]} values for a row"
        raise ProjectError(message, hint="fit it on the one target column")
    return Answers(labels=labels.reshape(len(features)), probabilities=probabilities)


def _classes(estimator: Any, answers: Answers, config: ModelConfig) -> tuple[Label, ...]:
    classes = np.asarray(getattr(estimator, "classes_", np.unique(answers.labels)))
    if classes.ndim != 1:
        message = f"the model of {config.train} predicts several targets"
        raise ProjectError(message, hint="fit it on the one target column")
    return tuple(classes.tolist())
