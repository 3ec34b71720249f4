"""Metrics that a project names: scorers and metrics of scikit-learn, or functions of its own."""

import difflib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import sklearn.metrics
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin

from mlship.domain.bundle import Bundle, Row, Value
from mlship.errors import ConfigError, ProjectError
from mlship.training.blame import called
from mlship.training.fit import find

_OF_A_CLASS = re.compile(r"(precision|recall|f1)\[(.+)\]")
Measure = Callable[[Sequence[Value], Sequence[Row]], float]


@dataclass(frozen=True)
class Scorers:
    """The metrics of a project, by their names in mlship.yaml.

    Attributes:
        root: the project's folder.
        named: what measures each: a scorer, or a function that returns one number, or a number
            for each row, whose mean is the metric.
        promoted: the one of these functions that decides promotions: it needs each row's number.
    """

    root: Path
    named: Mapping[str, str]
    promoted: str = ""

    def measure(
        self, bundle: Bundle, truth: Sequence[Value], outputs: Sequence[Row]
    ) -> dict[str, float]:
        """Return each metric of outputs against the true values.

        Raises:
            ConfigError: there is no such scorer or class.
            ProjectError: a metric cannot be computed from these outputs.
        """
        return {
            name: self._measured(name, what, bundle, truth, outputs)
            for name, what in self.named.items()
        }

    def _measured(
        self, name: str, what: str, bundle: Bundle, truth: Sequence[Value], outputs: Sequence[Row]
    ) -> float:
        if ":" in what:
            function = find(self.root, what)
            series, frame = pd.Series(list(truth), name=bundle.target), pd.DataFrame(list(outputs))
            value = called(self.root, what, lambda: function(series, frame))
            if np.shape(value) == (len(truth),):
                value = np.mean(value)
            elif name == self.promoted:
                message = f"{what} returned {type(value).__name__} for {len(truth)} rows"
                hint = "gates.promote.metric needs one number for each row: a Series or an array"
                raise ProjectError(message, hint=hint)
        else:
            measure = _scorer(name, what, bundle)
            try:
                value = measure(truth, outputs)
            except Exception as error:  # whatever scikit-learn raises
                message = f"mlship.yaml: metrics.{name}: {what} cannot be computed: {error}"
                hint = "use a metric that fits the model's outputs"
                raise ProjectError(message, hint=hint) from error
        try:
            return float(value)
        except (TypeError, ValueError) as error:
            message = f"mlship.yaml: metrics.{name}: {what} returned {type(value).__name__}"
            raise ProjectError(message, hint="return one number") from error


def _scorer(name: str, what: str, bundle: Bundle) -> Measure:
    of_a_class = _OF_A_CLASS.fullmatch(what)
    if of_a_class:
        return _for_class(name, of_a_class[1], of_a_class[2], bundle)
    known = sklearn.metrics.get_scorer_names()
    if what in known:
        scorer = sklearn.metrics.get_scorer(what)
        return lambda truth, outputs: scorer(
            _estimator(bundle, outputs), np.zeros((len(truth), 1)), np.array(list(truth))
        )
    function = getattr(sklearn.metrics, what, None)
    if callable(function) and what.endswith(
        ("_score", "_loss", "_error", "_corrcoef", "_deviance")
    ):
        return lambda truth, outputs: function(
            np.array(list(truth)), np.array([row[bundle.target] for row in outputs])
        )
    near = difflib.get_close_matches(what, known, n=1)
    message = f"mlship.yaml: metrics.{name}: scikit-learn has no scorer {what}"
    hint = f"did you mean {near[0]}?" if near else "use its name, or a function: pipeline:cost"
    raise ConfigError(message, hint=hint)


def _for_class(name: str, kind: str, text: str, bundle: Bundle) -> Measure:
    labels = {str(label): label for label in bundle.model.classes}
    if text not in labels:
        message = f"mlship.yaml: metrics.{name}: the model has no class {text}"
        raise ConfigError(message, hint=f"its classes are {', '.join(labels)}")
    functions = {
        "precision": sklearn.metrics.precision_score,
        "recall": sklearn.metrics.recall_score,
        "f1": sklearn.metrics.f1_score,
    }

    def measure(truth: Sequence[Value], outputs: Sequence[Row]) -> float:
        wanted = [value == labels[text] for value in truth]
        given = [row[bundle.target] == labels[text] for row in outputs]
        return float(functions[kind](wanted, given, zero_division=math.nan))

    return measure


def _estimator(bundle: Bundle, outputs: Sequence[Row]) -> Any:
    """Return an estimator that predicts recorded outputs, for scorers."""
    labels = np.array([row[bundle.target] for row in outputs])
    if bundle.task == "regression":
        return _Values(labels)
    names = [f"probability_{label}" for label in bundle.model.classes]
    if outputs and set(names) <= set(outputs[0]):
        table = np.array([[row[name] for name in names] for row in outputs], dtype="float64")
        return _Probabilities(labels, np.array(bundle.model.classes), table)
    return _Labels(labels, np.array(bundle.model.classes))


class _Values(RegressorMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn is untyped
    def __init__(self, values: Any) -> None:
        self.values = values

    def predict(self, _: Any) -> Any:
        return self.values


class _Labels(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn is untyped
    def __init__(self, labels: Any, classes: Any) -> None:
        self.labels = labels
        self.classes_ = classes

    def predict(self, _: Any) -> Any:
        return self.labels


class _Probabilities(_Labels):
    def __init__(self, labels: Any, classes: Any, table: Any) -> None:
        super().__init__(labels, classes)
        self.table = table

    def predict_proba(self, _: Any) -> Any:
        return self.table
