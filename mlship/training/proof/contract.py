"""What requests may hold: the columns of the data, narrowed to what the model accepts.

A null, an unknown text or a huge number that the model refuses whatever stands beside it is
refused before the model runs, with the column's name, in every form of the model.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import numpy as np
from msgspec.structs import replace

from mlship.domain.bundle import Field, Row, Schema
from mlship.runtime import rows as runtime_rows
from mlship.runtime.faults import RefusedRequest
from mlship.training.proof.answers import Answers
from mlship.training.proof.probes import LARGEST_PROVEN, Probes

_LISTED = 2_000
"""A column with more known texts is not closed; the model itself refuses the others."""

_TOLD_BELOW: Final = 1e30
"""A limit beyond this is of no interest: it is where single or double precision ends."""


def learnt(
    fields: tuple[Field, ...], probes: Probes, answers: Answers, texts: Mapping[str, Sequence[str]]
) -> tuple[Field, ...]:
    """Return the fields with what the original refuses in a column.

    Args:
        fields: the columns of the data.
        probes: rows.
        answers: the original's, to the probes.
        texts: all known texts of columns of text, in training, held out, or in an encoder.
    """
    refused = frozenset(answers.refusals)
    return tuple(_learnt(field, probes, refused, texts.get(field.name, ())) for field in fields)


def _learnt(field: Field, probes: Probes, refused: Collection[int], texts: Sequence[str]) -> Field:
    nulls = probes.rows("null", field.name)
    if nulls and all(row in refused for row in nulls):
        field = replace(field, nullable=False)
    unseen, known = probes.rows("unseen text", field.name), probes.rows("text", field.name)
    is_closed = bool(unseen) and all(row in refused for row in unseen)
    if is_closed and len(texts) <= _LISTED and not any(row in refused for row in known):
        field = replace(field, is_closed=True, choices=tuple(sorted(texts)))
    limit = _limit(probes, field, refused)
    largest = _largest(field.dtype)
    if largest is not None and (limit is None or limit > largest):
        limit = largest
    # Between the good and the bad of two numbers in use, the model itself decides.
    if limit is not None and limit >= LARGEST_PROVEN:
        field = replace(field, limit=limit)
    return field


def _largest(dtype: str) -> float | None:
    """Return the largest number of a type that is narrower than a request's numbers."""
    name = dtype.lower()
    return float(np.finfo(name).max) if name in ("float16", "float32") else None


def _limit(probes: Probes, field: Field, bad: Collection[int]) -> float | None:
    """Return the largest magnitude below which no extreme number is bad; `None` if all are good."""
    extremes = probes.rows("extreme", field.name)
    sizes = {row: abs(float(probes.frame[field.name].iloc[row])) for row in extremes}
    smallest = min((size for row, size in sizes.items() if row in bad), default=None)
    if smallest is None:
        return None
    below = [size for size in sizes.values() if size < smallest]
    return max(below, default=None)


def limited(
    fields: tuple[Field, ...], probes: Probes, differing: Mapping[int, str]
) -> tuple[Field, ...] | None:
    """Return the fields with limits beyond which a form differs from the original.

    It is `None` if the form differs on other rows too, or on numbers that must be right.
    """
    if any(probes.kinds[row] != "extreme" for row in differing):
        return None
    narrowed = []
    for field in fields:
        limit = _limit(probes, field, differing)
        if limit is not None and limit < LARGEST_PROVEN:
            return None
        old = field.limit if field.limit is not None else np.inf
        narrowed.append(field if limit is None else replace(field, limit=min(limit, old)))
    return tuple(narrowed)


def accepted(fields: tuple[Field, ...], rows: Sequence[Row]) -> Any:
    """Return which rows the fields accept, a boolean array of shape (rows,)."""
    schema = Schema(inputs=fields, outputs=())
    return np.array([_is_accepted(row, schema) for row in rows], dtype=bool)


def _is_accepted(row: Row, schema: Schema) -> bool:
    try:
        runtime_rows.check([row], schema)
    except RefusedRequest:
        return False
    return True


def limits_of(before: tuple[Field, ...], after: tuple[Field, ...]) -> list[str]:
    """Say which values requests may not hold although the data have the column's kind."""
    pairs = list(zip(before, after, strict=True))
    limits: dict[float, list[str]] = {}
    for field in after:
        if field.limit is not None and field.limit < _TOLD_BELOW:
            limits.setdefault(field.limit, []).append(field.name)
    told = [
        (", ".join(names), f"numbers beyond {limit:g}") for limit, names in sorted(limits.items())
    ]
    unknown = [field.name for field in after if field.is_closed]
    nulls = [own.name for own, learnt in pairs if own.nullable and not learnt.nullable]
    told += [
        (", ".join(names), what)
        for names, what in ((unknown, "unknown values"), (nulls, "nulls"))
        if names
    ]
    return [f"{what} are refused in {names}" for names, what in told]
