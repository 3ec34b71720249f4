"""The heads of a fitted estimator: what it answers with, and which label is which."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import is_outlier_detector

from mlship.config.project import ModelConfig
from mlship.domain.bundle import ANOMALY, CLUSTER, Head, Label, Task, quantile_of
from mlship.errors import ProjectError
from mlship.training.data import Data, Target
from mlship.training.proof.answers import Answers


def of_estimator(
    estimator: Any, task: Task, config: ModelConfig, data: Data, answers: Callable[[], Answers]
) -> tuple[Head, ...]:
    """Return the heads of a model, with their labels in the order of its probabilities."""
    if task == "regression":
        return numbers_of(config, data)
    if task == "anomaly":
        return (Head(name=ANOMALY, classes=(-1, 1)),)
    if task == "clustering":
        shares = answers().outputs.probabilities
        count = 0 if shares is None else shares.shape[1]
        return (Head(name=CLUSTER, classes=tuple(range(count))),)
    if config.quantiles:
        message = f"{config.source} returned a model for classification, which has no quantiles"
        raise ProjectError(message, hint="remove model.quantiles, or return a regression")
    if len(data.targets) == 1:
        classes = _classes(estimator, data.targets[0], answers)
        return (Head(name=data.targets[0].name, classes=classes),)
    own = getattr(estimator, "classes_", None)
    if isinstance(own, list) and len(own) == len(data.targets):
        listed = [tuple(np.asarray(classes).tolist()) for classes in own]
    else:
        listed = [_labels_in(target) for target in data.targets]
    return tuple(
        Head(name=target.name, classes=classes)
        for target, classes in zip(data.targets, listed, strict=True)
    )


def numbers_of(config: ModelConfig, data: Data) -> tuple[Head, ...]:
    """Return the heads of a regression: its targets, or the quantiles of the only one."""
    if not config.quantiles:
        return tuple(Head(name=target.name) for target in data.targets)
    name = data.targets[0].name
    return tuple(Head(name=quantile_of(quantile, name)) for quantile in config.quantiles)


def truth_of(heads: Sequence[Head], data: Data) -> list[pd.Series]:
    """Return the training values that belong to each head."""
    targets = data.targets
    return [targets[place % len(targets)].train for place in range(len(heads)) if targets]


def _labels_in(target: Target) -> tuple[Label, ...]:
    """Return the labels of a target; both of a label that is there or not, whatever rows have."""
    labels = sorted(target.train.unique().tolist())
    if not set(labels) <= {0, 1}:
        return tuple(labels)
    return (False, True) if target.kind == "boolean" else (0, 1)


def _classes(estimator: Any, target: Target, answers: Callable[[], Answers]) -> tuple[Label, ...]:
    """Return the model's classes, or else all labels of training and of its own predictions.

    Raises:
        ProjectError: it predicts several targets.
    """
    if is_outlier_detector(estimator):
        return (-1, 1)
    own = getattr(estimator, "classes_", None)
    if own is None:
        answered = set(answers().outputs.labels.tolist())
        labels = answered | set(target.train.tolist())
        if len({type(label) for label in labels}) > 1:
            labels = answered
        return tuple(sorted(labels))
    if isinstance(own, list) or np.asarray(own).ndim != 1:
        message = "the model predicts several targets"
        raise ProjectError(message, hint="list all of them in data.target, or fit it on one")
    return tuple(np.asarray(own).tolist())
