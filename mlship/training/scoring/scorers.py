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

from mlship.domain.bundle import Bundle, Head, Row, Task, Value, probability_of, quantile_of
from mlship.errors import ConfigError, ProjectError
from mlship.training.blame import called
from mlship.training.fit import find
from mlship.training.scoring import quantiles, several
from mlship.training.scoring.several import Truth

_PINBALL = re.compile(r"pinball\[(0?\.[0-9]+)\]")
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

    def measure(self, bundle: Bundle, truth: Truth, outputs: Sequence[Row]) -> dict[str, float]:
        """Return each metric of outputs against the true values.

        With several targets, a function of the project gets all of them; another metric is
        computed for each target, as `NAME[TARGET]`, and its mean is `NAME`.

        Raises:
            ConfigError: there is no such scorer or class.
            ProjectError: a metric cannot be computed from these outputs.
        """
        values: dict[str, float] = {}
        for name, what in self.named.items():
            if ":" in what:
                values[name] = self._by_function(name, what, truth, outputs)
            else:
                values |= _by_name(name, what, bundle, truth, outputs)
        return values

    def _by_function(self, name: str, what: str, truth: Truth, outputs: Sequence[Row]) -> float:
        function = find(self.root, what)
        known = pd.DataFrame({target: list(values) for target, values in truth.items()})
        given = known if len(truth) > 1 else known.iloc[:, 0]
        frame = pd.DataFrame(list(outputs))
        value = called(self.root, what, lambda: function(given, frame))
        if np.shape(value) == (len(known),):
            value = np.mean(value)
        elif name == self.promoted:
            message = f"{what} returned {type(value).__name__} for {len(known)} rows"
            hint = "gates.promote.metric needs one number for each row: a Series or an array"
            raise ProjectError(message, hint=hint)
        return _number(name, what, value)


def _by_name(
    name: str, what: str, bundle: Bundle, truth: Truth, outputs: Sequence[Row]
) -> dict[str, float]:
    heads = several.problem_of(bundle).targets
    if len(heads) == 1:
        return {name: _measured(name, what, heads[0], bundle.task, truth, outputs)}
    of_a_class = _OF_A_CLASS.fullmatch(what)
    if of_a_class:
        labels = {head.name: {str(label) for label in head.classes} for head in heads}
        having = tuple(head for head in heads if of_a_class[2] in labels[head.name])
        heads = having or heads
    values = {
        head.name: _measured(name, what, head, bundle.task, truth, several.of_head(head, outputs))
        for head in heads
    }
    mean = {name: sum(values.values()) / len(values)}
    return mean | {f"{name}[{target}]": value for target, value in values.items()}


def _measured(
    name: str, what: str, head: Head, task: Task, truth: Truth, outputs: Sequence[Row]
) -> float:
    measure = _scorer(name, what, head, task)
    try:
        value = measure(truth[head.name], outputs)
    except Exception as error:  # whatever scikit-learn raises
        message = f"mlship.yaml: metrics.{name}: {what} cannot be computed: {error}"
        hint = "use a metric that fits the model's outputs"
        raise ProjectError(message, hint=hint) from error
    return _number(name, what, value)


def _number(name: str, what: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        message = f"mlship.yaml: metrics.{name}: {what} returned {type(value).__name__}"
        raise ProjectError(message, hint="return one number") from error


def _scorer(name: str, what: str, head: Head, task: Task) -> Measure:
    of_a_class = _OF_A_CLASS.fullmatch(what)
    if of_a_class:
        return _for_class(name, of_a_class[1], of_a_class[2], head)
    of_a_quantile = _PINBALL.fullmatch(what)
    if of_a_quantile:
        return _for_quantile(float(of_a_quantile[1]), head)
    known = sklearn.metrics.get_scorer_names()
    if what in known:
        scorer = sklearn.metrics.get_scorer(what)
        return lambda truth, outputs: scorer(
            _estimator(head, task, outputs), np.zeros((len(truth), 1)), np.array(list(truth))
        )
    function = getattr(sklearn.metrics, what, None)
    if callable(function) and what.endswith(
        ("_score", "_loss", "_error", "_corrcoef", "_deviance")
    ):
        return lambda truth, outputs: function(
            np.array(list(truth)), np.array([row[head.name] for row in outputs])
        )
    near = difflib.get_close_matches(what, known, n=1)
    message = f"mlship.yaml: metrics.{name}: scikit-learn has no scorer {what}"
    hint = f"did you mean {near[0]}?" if near else "use its name, or a function: pipeline:cost"
    raise ConfigError(message, hint=hint)


def _for_quantile(quantile: float, head: Head) -> Measure:
    """Return the pinball loss of a model that predicts one quantile, or has an output for it."""
    own = quantile_of(quantile, head.name)

    def measure(truth: Sequence[Value], outputs: Sequence[Row]) -> float:
        predicted = np.array([row.get(own, row[head.name]) for row in outputs], dtype="float64")
        loss = quantiles.pinball(quantile, np.array(truth, dtype="float64"), predicted)
        return float(loss.mean())

    return measure


def _for_class(name: str, kind: str, text: str, head: Head) -> Measure:
    labels = {str(label): label for label in head.classes}
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
        given = [row[head.name] == labels[text] for row in outputs]
        return float(functions[kind](wanted, given, zero_division=math.nan))

    return measure


def _estimator(head: Head, task: Task, outputs: Sequence[Row]) -> Any:
    """Return an estimator that predicts recorded outputs, for scorers."""
    labels = np.array([row[head.name] for row in outputs])
    if task == "regression":
        return _Values(labels)
    names = [probability_of(label) for label in head.classes]
    if outputs and set(names) <= set(outputs[0]):
        table = np.array([[row[name] for name in names] for row in outputs], dtype="float64")
        return _Probabilities(labels, np.array(head.classes), table)
    return _Labels(labels, np.array(head.classes))


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
