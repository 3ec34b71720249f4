"""Scores of predictions by a function of the project: one number for each row."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mlship.adapters.checkout.children import RateRequest
from mlship.domain.bundle import Row, Value
from mlship.errors import ProjectError
from mlship.training.blame import called
from mlship.training.fit import Function, find

_HINT = "return one number for each row: a Series or an array"


def rate(request: RateRequest) -> list[float]:
    """Return the score of each prediction, finite.

    Raises:
        ProjectError: the function fails or returns something else than a number for each row; the
            message names the first prediction that it fails on.
    """
    names = [f"prediction {prediction}" for prediction in request.predictions]
    truth = pd.Series(list(request.truth), name=request.target)
    scores = of_rows(request.root, request.function, truth, request.outputs, names)
    for place in np.flatnonzero(~np.isfinite(scores))[:1]:
        message = f"{request.function} returned {scores[place]} for {names[place]}: "
        message += _described(request.target, request.outputs[place], request.truth[place])
        raise ProjectError(message, hint="return a finite number for any outputs and outcome")
    return [float(score) for score in scores]


def of_rows(
    root: Path, function: str, truth: "pd.Series[Any]", outputs: Sequence[Row], names: Sequence[str]
) -> Any:
    """Return the array of what a function returns for each row: floats, maybe not finite.

    Args:
        root: the project's folder.
        function: `module:function`, which takes `truth` and a DataFrame of `outputs`.
        truth: the true value of each row.
        outputs: of each row.
        names: what to call each row in messages.

    Raises:
        ProjectError: the function fails, or returns something else than a number for each row.
    """
    call = _Call(root, function, find(root, function), truth, pd.DataFrame(list(outputs)))
    try:
        scores = call.scores(0, len(truth))
    except ProjectError as error:
        place = call.fails_at(0, len(truth))
        if place is None:
            raise
        row = _described(str(truth.name), outputs[place], truth.iloc[place])
        raise ProjectError(f"{names[place]} ({row}): {error.message}", hint=error.hint) from error
    if scores.shape != (len(truth),):
        size = "one number" if scores.shape == () else f"numbers of shape {scores.shape}"
        message = f"{function} returned {size} for {len(truth)} rows"
        raise ProjectError(message, hint=_HINT)
    return scores


class _Call:
    """A function of the project on consecutive rows."""

    def __init__(
        self,
        root: Path,
        name: str,
        function: Function,
        truth: "pd.Series[Any]",
        outputs: pd.DataFrame,
    ) -> None:
        self._root = root
        self._name = name
        self._function = function
        self._truth = truth
        self._outputs = outputs

    def scores(self, start: int, stop: int) -> Any:
        truth = self._truth.iloc[start:stop].reset_index(drop=True)
        outputs = self._outputs.iloc[start:stop].reset_index(drop=True)
        result = called(self._root, self._name, lambda: self._function(truth, outputs))
        try:
            scores = np.asarray(result)
            if np.iscomplexobj(scores):
                raise TypeError("they are complex")  # noqa: TRY301 (all that is no number)
            return scores.astype("float64")
        except (TypeError, ValueError) as error:
            message = f"{self._name} returned {type(result).__name__}, which is no numbers: {error}"
            raise ProjectError(message, hint=_HINT) from error

    def fails_at(self, start: int, stop: int) -> int | None:
        """Return the first row that the function fails on alone, found by halving."""
        while stop - start > 1:
            middle = (start + stop) // 2
            if self._fails(start, middle):
                stop = middle
            elif self._fails(middle, stop):
                start = middle
            else:
                return None
        return start if start < stop else None

    def _fails(self, start: int, stop: int) -> bool:
        try:
            self.scores(start, stop)
        except ProjectError:
            return True
        return False


def _described(target: str, outputs: Row, actual: Value) -> str:
    return f"{target} {str(outputs.get(target))[:40]}, outcome {str(actual)[:40]}"
