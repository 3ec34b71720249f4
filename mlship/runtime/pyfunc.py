"""A bundle as MLflow's `python_function`: what `mlflow.pyfunc.load_model` loads and calls.

MLflow imports this module from the archive `code.zip` of a model, under a package name of its own,
so it never meets an installed mlship. See decision 34.
"""

import datetime as dt
import decimal
import importlib
import math
from pathlib import Path
from typing import Any

from mlship.domain.bundle import Row
from mlship.errors import MlshipError, RowError
from mlship.runtime import frames
from mlship.runtime.faults import RefusedRequest
from mlship.runtime.model import Model


class PythonFunction:
    """A loaded bundle with the method that MLflow calls."""

    def __init__(self, model: Model) -> None:
        self._model = model

    def predict(self, model_input: Any) -> Any:
        """Return the outputs for a DataFrame, as a DataFrame with the same index.

        A column without a value in the request is null, if the schema allows nulls in it.

        Raises:
            MlflowException: a row is refused; the message names the row and the column.
        """
        import pandas as pd

        frame = model_input if isinstance(model_input, pd.DataFrame) else pd.DataFrame(model_input)
        try:
            outputs = self._model.predict(self._rows(frame))
        except RefusedRequest as refusal:
            raise _mapped(refusal.as_project_error()) from None
        except MlshipError as error:
            raise _mapped(error) from error
        names = [field.name for field in self._model.bundle.schema.outputs]
        columns = list(outputs[0]) if outputs else names
        return pd.DataFrame(outputs, columns=columns, index=frame.index)

    def _rows(self, frame: Any) -> list[Row]:
        rows = frames.nulls(frame).rows()
        absent = {
            field.name: None
            for field in self._model.bundle.schema.inputs
            if field.nullable and field.name not in frame.columns
        }
        return [
            {**absent, **{str(name): _plain(value) for name, value in row.items()}} for row in rows
        ]


def _load_pyfunc(path: str) -> PythonFunction:
    """Verify and load the bundle in a folder. MLflow requires this name."""
    return PythonFunction(Model.load(Path(path), None))


def _plain(value: Any) -> Any:
    """Return a value as JSON has it: ISO 8601 text for dates, numbers for decimals."""
    if isinstance(value, dt.date):  # a datetime or a Timestamp is one too
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        return float(value)
    plain = value.item() if hasattr(value, "item") else value
    return None if isinstance(plain, float) and math.isnan(plain) else plain


def _mapped(error: MlshipError) -> Exception:
    """Return MLflow's exception for an error; its server answers a refused row with status 400.

    MLflow is loaded whenever this is called. It is not imported by name, because a serving image
    has this module too, but no MLflow.
    """
    vendor = importlib.import_module("mlflow.exceptions").MlflowException
    message = f"{error.message}; {error.hint}" if error.hint else error.message
    refused = vendor.invalid_parameter_value(message)
    exception: Exception = refused if isinstance(error, RowError) else vendor(message)
    return exception
