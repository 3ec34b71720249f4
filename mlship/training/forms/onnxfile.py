"""scikit-learn estimators as ONNX, by skl2onnx; the same estimator gives the same bytes.

skl2onnx is imported by the process that converts: a booster needs none of it.
"""

import copy
import warnings
from typing import Any

from sklearn.pipeline import Pipeline

from mlship.domain.bundle import Dtype, Layout
from mlship.training import parts
from mlship.training.libraries import compiled
from mlship.training.original import Original

_INPUT = "features"


class NotConvertedError(Exception):
    """Carries why an estimator did not become ONNX; another layout or type may do."""


class NoConverterError(NotConvertedError):
    """A part of the estimator has no converter at all."""


def from_estimator(
    original: Original,
    layout: Layout,
    dtype: Dtype,
) -> bytes:
    """Return an estimator as an ONNX model with plain tensors as its outputs.

    Args:
        original: the model.
        layout: one input of shape (rows, columns), or one of shape (rows, 1) for each column.
        dtype: the type of numbers.

    Raises:
        NotConvertedError: skl2onnx cannot.
    """
    with compiled():
        from skl2onnx import convert_sklearn
        from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, StringTensorType
        from skl2onnx.common.exceptions import MissingConverter, MissingShapeCalculator

        from mlship.training.forms import trees

    number = DoubleTensorType if dtype == "float64" else FloatTensorType
    inputs: list[tuple[str, Any]] = [(_INPUT, number([None, len(original.columns)]))]
    if layout == "columns":
        inputs = [
            (field.name, (StringTensorType if field.kind == "text" else number)([None, 1]))
            for field in original.columns
        ]
    trees.register()
    estimator = _without_samples(original.estimator)
    if dtype == "float64":
        estimator = _with_casts(estimator)
    has_shares = original.task != "regression" and hasattr(original.estimator, "predict_proba")
    options = {}
    if has_shares:
        options = {id(estimator): {"zipmap": False}}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = convert_sklearn(estimator, name="mlship", initial_types=inputs, options=options)
    except (MissingConverter, MissingShapeCalculator) as error:
        raise NoConverterError(first_line(error)) from error
    except Exception as error:  # a converter may fail in any way on what it was not written for
        # skl2onnx wraps what went wrong in the whole node.
        cause = error.__cause__ or error
        raise NotConvertedError(f"{type(cause).__name__}: {first_line(cause)}") from error
    if not has_shares:
        # A classifier without probabilities gives scores, which must not be taken for them.
        del model.graph.output[1:]
    _free_of_locales(model)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _without_samples(estimator: Any) -> Any:
    """Return a model whose forest draws no samples when skl2onnx looks at all its attributes."""
    if isinstance(estimator, Pipeline):
        *first, (name, last) = estimator.steps
        return Pipeline([*first, (name, _without_samples(last))])
    if not hasattr(type(estimator), "estimators_samples_"):
        return estimator
    forest = copy.copy(estimator)
    forest.bootstrap = False
    return forest


def _with_casts(estimator: Any) -> Any:
    """Return a pipeline that casts what it gives to trees to float32, as trees themselves do."""
    if not isinstance(estimator, Pipeline) or len(estimator.steps) < 2:
        return estimator
    from skl2onnx.sklapi import CastTransformer

    last = estimator.steps[-1][1]
    if not any(hasattr(part, "tree_") for part in parts.of(last)):
        return estimator
    return Pipeline([*estimator.steps[:-1], ("cast", CastTransformer()), estimator.steps[-1]])


def _free_of_locales(model: Any) -> None:
    """Let operators on text use the one UTF-8 locale that an image has without packages."""
    from onnx.helper import make_attribute

    for node in model.graph.node:
        if node.op_type == "StringNormalizer":
            others = [attribute for attribute in node.attribute if attribute.name != "locale"]
            del node.attribute[:]
            node.attribute.extend([*others, make_attribute("locale", "C.UTF-8")])


def first_line(error: BaseException, longest: int = 160) -> str:
    """Return the first line of what an error says, or its type if it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0][:longest] if lines else type(error).__name__
