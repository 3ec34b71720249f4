"""Which row and which column a model or a hook fails on, found by trying other values."""

from collections.abc import Callable, Sequence
from typing import Any

from mlship.domain.bundle import Row, Schema
from mlship.errors import ProjectError
from mlship.runtime.faults import RefusedRequest

COLUMNS = 100
"""At most so many columns are tried, because each costs a prediction."""

Compute = Callable[[Sequence[Row]], Any]


def refusal_of(
    compute: Compute, rows: Sequence[Row], schema: Schema, error: ProjectError
) -> RefusedRequest | None:
    """Return the refusal of the first row that fails, or `None` if no row is to blame.

    A row is to blame if it fails alone and the schema's example does not. A column is to blame if
    the row does not fail with the example's value there.

    Args:
        compute: computes rows, or raises a `ProjectError`.
        rows: rows that fail together.
        schema: has the example of each column.
        error: what `compute` raised for the rows.
    """
    number, error = _first_failing(compute, rows, error)
    example = {field.name: field.example for field in schema.inputs}
    if number is None or _error_of(compute, [example]) is not None:
        return None
    row = rows[number]
    for field in schema.inputs[:COLUMNS]:
        if _error_of(compute, [{**row, field.name: field.example}]) is None:
            message = f"{field.name} {_shown(row[field.name])} is not accepted by the model"
            hint = f"send a value such as {_shown(field.example)}"
            return RefusedRequest(
                f"{message}: {error.message}", row=number, column=field.name, hint=hint
            )
    message = f"the model does not accept this combination of values: {error.message}"
    return RefusedRequest(message, row=number, hint="compare it with the rows of the training data")


def _first_failing(
    compute: Compute, rows: Sequence[Row], error: ProjectError
) -> tuple[int | None, ProjectError]:
    """Return the first row that fails alone, by halving, and its error; `None` if none does."""
    if len(rows) == 1:
        return 0, error
    half = len(rows) // 2
    for offset, part in ((0, rows[:half]), (half, rows[half:])):
        own = _error_of(compute, part)
        if own is not None:
            number, own = _first_failing(compute, part, own)
            return (None if number is None else offset + number), own
    return None, error


def _error_of(compute: Compute, rows: Sequence[Row]) -> ProjectError | None:
    try:
        compute(rows)
    except ProjectError as error:
        return error
    except RefusedRequest as refusal:
        return refusal.as_project_error()
    return None


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return f'"{value[:40]}"'
    return "null" if value is None else str(value)
