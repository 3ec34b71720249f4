"""How good predicted quantiles are.

Source: Koenker and Bassett, "Regression quantiles", Econometrica 46(1), 1978: the pinball loss.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mlship.domain.bundle import Row, Value, middle_of, quantile_of


def losses(
    quantiles: Sequence[float], target: str, truth: Sequence[Value], outputs: Sequence[Row]
) -> dict[str, Any]:
    """Return for each metric of quantiles its value in each row; metrics are means over rows.

    They are `pinball[0.1]` for each quantile, `pinball`, the mean of these, `coverage`, whether
    the truth is between the outermost quantiles, and `crossing`, whether quantiles are not in
    order. There are none if the outputs lack a quantile.

    Returns:
        Arrays of shape (rows,).
    """
    names = [quantile_of(quantile, target) for quantile in quantiles]
    if not names or not outputs or not set(names) <= set(outputs[0]):
        return {}
    wanted = np.array(truth, dtype="float64")
    table = np.array([[row[name] for name in names] for row in outputs], dtype="float64")
    columns = {
        f"pinball[{quantile:g}]": pinball(quantile, wanted, table[:, place])
        for place, quantile in enumerate(quantiles)
    }
    return {
        "pinball": np.mean(list(columns.values()), axis=0),
        **columns,
        "coverage": ((table[:, 0] <= wanted) & (wanted <= table[:, -1])).astype("float64"),
        "crossing": (np.diff(table, axis=1) < 0).any(axis=1).astype("float64"),
    }


def pinball(quantile: float, truth: Any, predicted: Any) -> Any:
    """Return the pinball loss of each row, shape (rows,)."""
    gaps = truth - predicted
    return np.maximum(quantile * gaps, (quantile - 1) * gaps)


def constant(quantiles: Sequence[float], target: str, truth: Any) -> Row:
    """Return the outputs that the quantiles of an array of training targets suggest."""
    row: Row = {
        quantile_of(quantile, target): float(np.quantile(truth, quantile)) for quantile in quantiles
    }
    return {target: row[middle_of(quantiles, target)]} | row
