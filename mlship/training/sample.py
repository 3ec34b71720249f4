"""A fitted estimator with some of its training rows, which it is asked before anything else."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from mlship.domain.bundle import Field, Layout, Task
from mlship.errors import ProjectError
from mlship.training import parts
from mlship.training.proof.answers import Outputs, ask


def given(frame: pd.DataFrame, layout: Layout) -> Any:
    """Return a DataFrame as a model takes it: as it is, its only column, or an array."""
    match layout:
        case "series":
            return frame.iloc[:, 0]
        case "matrix":
            return frame.to_numpy()
        case _:
            return frame


def hint_of(estimator: Any, columns: tuple[Field, ...]) -> str:
    """Return what to do about a model that refuses the columns of the data."""
    if not parts.takes_categories(estimator):
        return "return a model fitted on these columns"
    return f"it was fitted on pandas categories: {dtypes_of(columns)}"


def dtypes_of(columns: tuple[Field, ...]) -> str:
    """Return how to read the columns of text as categories, where a model was fitted on such."""
    texts = [field.name for field in columns if field.kind == "text" and field.dtype != "category"]
    dtypes = ", ".join(f"{name}: category" for name in texts[:5] or ["COLUMN"])
    return f"read its columns so, with `dtype: {{{dtypes}}}` under data.read in mlship.yaml"


@dataclass(frozen=True)
class Sample:
    """An estimator, how it takes rows, and rows of the training data.

    Attributes:
        source: where the estimator comes from, for messages.
        hint: what to do if it refuses all rows.
    """

    estimator: Any
    source: str
    layout: Layout
    rows: pd.DataFrame
    hint: str

    def answered(self, method: str) -> Any:
        """Return what a method of the estimator answers to the rows that it does not refuse.

        Raises:
            ProjectError: it refuses all of them; the message has the method and what it raised.
        """

        def predict(rows: pd.DataFrame) -> Outputs:
            asked = getattr(self.estimator, method)
            return Outputs(labels=np.asarray(asked(given(rows, self.layout))))

        try:
            answers = ask(predict, self.rows)
        except Exception as error:  # whatever the model's library raises
            message = f"the model of {self.source} cannot predict the training rows: {method} "
            message += f"raises {type(error).__name__}: {str(error).strip()[:300]}"
            raise ProjectError(message, hint=self.hint) from error
        return answers.outputs.labels[answers.accepted]

    def check_shapes(self, task: Task, targets: int) -> None:
        """Refuse a classifier of one target that does not answer labels, and shares of classes.

        Raises:
            ProjectError: it does not; the message says what it answers.
        """
        labels = self.answered("predict")
        if task != "classification" or targets != 1:
            return
        if not hasattr(self.estimator, "predict_proba"):
            return
        shares = self.answered("predict_proba")
        name = f"{type(self.estimator).__name__} of {self.source}"
        is_raw = shares.ndim != 2 or labels[:1].size > 1
        own = (getattr(part, "objective", None) for part in parts.of(self.estimator))
        if is_raw and any(map(callable, own)):
            message = f"the {name} returns raw scores, not labels and probabilities, because its "
            message += "objective is a function"
            hint = "return a class of the project around it, whose predict and predict_proba make "
            hint += "labels and probabilities of the scores; see `mlship guide your-own-model`"
            raise ProjectError(message, hint=hint)
        if shares.ndim != 2:
            shape = ", ".join(map(str, ("rows", *shares.shape[1:])))
            message = f"predict_proba of the {name} returns an array of shape ({shape})"
            raise ProjectError(message, hint="return an array of shape (rows, classes)")

    def decision(self, task: Task) -> Callable[[Any], Any] | None:
        """Return a classifier's decision function in units of its usual score, if it has one."""
        estimator = self.estimator
        if task in ("regression", "clustering") or not hasattr(estimator, "decision_function"):
            return None
        scores = np.abs(self.answered("decision_function"))
        usual = (float(np.median(scores)) if len(scores) else 0.0) or 1.0
        return lambda data: np.asarray(estimator.decision_function(data)) / usual
