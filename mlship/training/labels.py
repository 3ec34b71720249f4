"""The labels that the numbers of classes stand for."""

from typing import Any

import numpy as np

from mlship.config.project import ModelConfig
from mlship.domain.bundle import Label
from mlship.errors import ProjectError
from mlship.training.data import Data


def of_estimator(estimator: Any, config: ModelConfig, data: Data) -> tuple[Label, ...]:
    """Return the labels that an estimator's classes 0, 1, ... stand for, as `model.classes` says.

    It is empty for an estimator that answers labels itself, or if nothing is said.

    Raises:
        ProjectError: `model.classes` has other labels than the model, or another number of them.
    """
    # An estimator of several targets has a list of classes for each.
    if not config.classes or len(data.targets) != 1:
        return ()
    own = np.asarray(getattr(estimator, "classes_", ()))
    if own.ndim != 1 or not len(own):
        return ()
    classes = own.tolist()
    if set(classes) == set(config.classes):
        return ()
    if own.dtype.kind in "iuf" and classes == list(range(len(classes))):
        return of_codes(config, data, len(classes))
    listed, known = (", ".join(map(repr, some[:5])) for some in (config.classes, classes))
    message = f"mlship.yaml: model.classes has {listed}, and the {type(estimator).__name__} of "
    message += f"{config.source} knows {known}"
    raise ProjectError(message, hint="remove model.classes: this estimator answers labels itself")


def of_codes(config: ModelConfig, data: Data, count: int) -> tuple[Label, ...]:
    """Return the labels of the classes 0, 1, ... of a model that does not know them.

    Raises:
        ProjectError: `model.classes` has another number of them; or it is not set, and the target
            holds other values.
    """
    if config.classes:
        if len(config.classes) != count:
            message = f"mlship.yaml: model.classes has {len(config.classes)} classes, and the "
            message += f"model has {count}"
            raise ProjectError(message, hint="list all of them, in the order of the model's codes")
        return config.classes
    labels = sorted(data.only.train.unique().tolist())
    if labels == list(range(count)):
        return tuple(labels)
    shown = ", ".join(str(label) for label in labels[:5])
    message = (
        f"the model counts its classes from 0 to {count - 1}, and {data.only.name} holds {shown}"
    )
    hint = "say which is which: `classes: [...]` under `model` in mlship.yaml, in the order of the "
    raise ProjectError(message, hint=f"{hint}model's codes")
