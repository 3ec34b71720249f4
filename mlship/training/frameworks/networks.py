"""Networks of PyTorch and Keras: a matrix of numbers in, scores or values out.

A network says neither what its classes are called nor, often, what its output means. Both are
told in mlship.yaml, and nothing is guessed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd

from mlship.config.project import ModelConfig
from mlship.domain.bundle import Dtype, Head, Label, Task
from mlship.errors import ProjectError
from mlship.training import labels, order
from mlship.training.data import Data
from mlship.training.fit import Prepared
from mlship.training.frameworks import onnxgraph
from mlship.training.frameworks.exports import Export, Network
from mlship.training.frameworks.onnxgraph import Output
from mlship.training.original import Original, held_out
from mlship.training.proof.answers import Outputs

_SAMPLE = 200
_SUM = 1e-3


@dataclass(frozen=True)
class _NetworkExport(Export):
    name: str
    network: Network
    output: Output
    classes: tuple[Label, ...]
    columns: int
    width: int
    dtype: Dtype

    def files(self) -> Mapping[str, bytes]:
        graph = self.network.export(self.columns)
        data = onnxgraph.answering(graph, self.output, self.classes, self.width)
        return {"model.onnx": data}


def examine(network: Network, config: ModelConfig, data: Data, prepared: Prepared) -> Original:
    """Return what a network is and what it answers to the held-out rows.

    Raises:
        ProjectError: a column is not a number; the network does not take the columns, or returns
            something else than it is said to; or its output or its classes are not told.
    """
    for field in prepared.columns:
        if field.kind == "text":
            message = f"{network.name} takes numbers, and the column {field.name} is text"
            raise ProjectError(message, hint="encode it in `preprocess`, or leave it out there")
    width = _width(network, prepared)
    output = _output(network, config, width)
    task: Task = "regression" if output == "values" else "classification"
    classes: tuple[Label, ...] = ()
    if task == "classification":
        classes = labels.of_codes(config, data, max(width, 2))

    def predict(frame: pd.DataFrame) -> Outputs:
        return _outputs(network.compute(_matrix(frame, network.dtype)), output, classes)

    check_shares(predict(prepared.train.head(_SAMPLE)), network.name)
    trained = f"{config.source} fitted its model on an array"
    heads = (Head(name=data.only.name, classes=classes),)
    order.check(predict, heads, prepared.train, [data.only.train], trained, hint=order.BY_PLACE)
    return Original(
        estimator=_NetworkExport(
            name=network.name,
            network=network,
            output=output,
            classes=classes,
            columns=len(prepared.columns),
            width=width,
            dtype=network.dtype,
        ),
        task=task,
        columns=prepared.columns,
        layout="matrix",
        heads=heads,
        predict=predict,
        labels_of=lambda frame: predict(frame).labels,
        ask_held_out=lambda: held_out(predict, prepared.test, config.source),
    )


def _matrix(frame: pd.DataFrame, dtype: Dtype) -> Any:
    with np.errstate(over="ignore"):
        return frame.astype("float64").to_numpy(dtype=dtype, na_value=np.nan)


def _width(network: Network, prepared: Prepared) -> int:
    """Return the number of columns that a network returns."""
    sample = prepared.train.head(_SAMPLE)
    names = ", ".join(field.name for field in prepared.columns)
    try:
        values = np.asarray(network.compute(_matrix(sample, network.dtype)))
    except Exception as error:  # whatever the network's layers raise
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        message = f"{network.name} does not take a matrix of the columns {names}: {reason}"
        hint = "train it on all columns in their order, or drop the others in `preprocess`; an "
        hint += "exported program must take any number of rows"
        raise ProjectError(message, hint=hint) from error
    shape = values.shape
    if len(shape) not in (1, 2) or shape[0] != len(sample) or 0 in shape:
        message = f"{network.name} returns the shape {shape} for {len(sample)} rows"
        raise ProjectError(message, hint="return one row of scores, or one value, for each row")
    return shape[1] if len(shape) == 2 else 1


def _output(network: Network, config: ModelConfig, width: int) -> Output:
    """Return what a network's output is, as its last layer or the configuration says."""
    told: Output | None = None if config.output == "auto" else config.output
    if told is None and config.task == "regression":
        told = "values"
    if told is None:
        told = network.output
    if told is None:
        message = f"{network.name} does not say what it returns"
        hint = "set `output` under `model` in mlship.yaml: logits, probabilities or values"
        raise ProjectError(message, hint=hint)
    tasks = {"values": "regression"}
    if config.task not in ("auto", tasks.get(told, "classification")):
        message = f"mlship.yaml says model.task: {config.task}, and {network.name} returns {told}"
        raise ProjectError(message, hint="change one of model.task and model.output")
    if told == "values" and width > 1:
        message = f"{network.name} returns {width} values for a row, and a regression has one"
        raise ProjectError(message, hint="train it for one target, or set model.output")
    return told


def _outputs(values: Any, output: Output, classes: tuple[Label, ...]) -> Outputs:
    array = np.asarray(values, dtype="float64")
    if output == "values":
        return Outputs(labels=array.reshape(len(array)))
    shares = _shares(array.reshape(len(array), -1), output)
    names = np.array(classes, dtype=object)
    return Outputs(labels=names[np.nan_to_num(shares).argmax(axis=1)], probabilities=shares)


def _shares(scores: Any, output: Output) -> Any:
    with np.errstate(all="ignore"):
        if scores.shape[1] == 1:
            second = 1 / (1 + np.exp(-scores)) if output == "logits" else scores
            return np.concatenate([1 - second, second], axis=1)
        if output == "probabilities":
            return scores
        powers = np.exp(scores - scores.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)


def check_shares(outputs: Outputs, name: str) -> None:
    """Refuse probabilities that are none: what is said of the output is wrong then.

    Args:
        outputs: to rows of training.
        name: of the model.

    Raises:
        ProjectError: they are negative, or their sum is not 1.
    """
    shares = outputs.probabilities
    if shares is None:
        return
    shares = shares[np.isfinite(shares).all(axis=1)]
    is_right = (shares >= -_SUM).all() and np.allclose(shares.sum(axis=1), 1, atol=_SUM)
    if not is_right:
        example = cast("list[float]", np.round(shares[0], 3).tolist())
        message = f"{name} returns {example} for a row, which are no probabilities"
        hint = "set `output` under `model` in mlship.yaml to logits, or add a softmax"
        raise ProjectError(message, hint=hint)
