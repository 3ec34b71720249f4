"""scikit-learn estimators as ONNX, by skl2onnx; the same estimator gives the same bytes."""

import warnings
from typing import Any, Literal

from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, StringTensorType
from skl2onnx.common.exceptions import MissingConverter, MissingShapeCalculator

from mlship.training.original import Original

_INPUT = "features"


class NotConvertedError(Exception):
    """Carries why an estimator did not become ONNX; another layout or type may do."""


class NoConverterError(NotConvertedError):
    """A part of the estimator has no converter at all."""


def from_estimator(
    original: Original,
    layout: Literal["matrix", "columns", "frame"],
    dtype: Literal["float64", "float32"],
) -> bytes:
    """Return an estimator as an ONNX model with plain tensors as its outputs.

    Args:
        original: the model.
        layout: one input of shape (rows, columns), or one of shape (rows, 1) for each column.
        dtype: the type of numbers.

    Raises:
        NotConvertedError: skl2onnx cannot.
    """
    number = DoubleTensorType if dtype == "float64" else FloatTensorType
    inputs: list[tuple[str, Any]] = [(_INPUT, number([None, len(original.columns)]))]
    if layout == "columns":
        inputs = [
            (field.name, (StringTensorType if field.kind == "text" else number)([None, 1]))
            for field in original.columns
        ]
    options = {}
    if original.answers.probabilities is not None:
        options = {id(original.estimator): {"zipmap": False}}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = convert_sklearn(
                original.estimator, name="mlship", initial_types=inputs, options=options
            )
    except (MissingConverter, MissingShapeCalculator) as error:
        raise NoConverterError(_first_line(error)) from error
    except Exception as error:  # a converter may fail in any way on what it was not written for
        raise NotConvertedError(f"{type(error).__name__}: {_first_line(error)}") from error
    if original.answers.probabilities is None:
        # A classifier without probabilities gives scores, which must not be taken for them.
        del model.graph.output[1:]
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:160] if lines else type(error).__name__
