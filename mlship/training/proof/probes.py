"""Rows made to find a difference between a model and what is made of it for serving.

Held-out rows look like training rows, and so does what they show. Probes are what requests may
hold besides: nulls, unknown texts, huge numbers, and rows on both sides of the places where the
model changes its mind. They are the same for the same data and the same model.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import pandas as pd

from mlship.domain.bundle import Field

ProbeKind = Literal[
    "training row",
    "held-out row",
    "mixture",
    "null",
    "text",
    "unseen text",
    "number",
    "extreme",
    "date",
    "boundary",
]

ROWS: Final = 2_000
"""At least so many probes of data alone; boundaries of the model come on top."""

LARGEST_PROVEN: Final = 2.0**53 + 2
"""Every form must agree up to this magnitude; beyond it a form may have a limit."""

_CELLS = 2_000_000
"""Values in all rows that try something: a row of 2,000 columns is as much as a hundred of 20."""

_BASES = 3
_TRAINING = 300
_HELD_OUT = 1_000
_KNOWN_TEXTS = 300
_SINGLE = float(np.finfo("float32").max)
_EXTREMES = (1e6, 1e9, 1e12, 1e15, 2.0**53 + 2, 1e18, 1e30, _SINGLE, 1e39, 1e308)
_WORDS = (2**31 - 1, 2**31, 3 * 10**9, 2**32 - 1, 2**32 + 1)
"""Around the largest number of a word: int64 operators of onnxruntime err there, in batches."""
_LONG = 10_000
_SCRAMBLED = 40
_BETWEEN = (
    *"    -'_./9aZ",
    "  ",
    "\n",
    " \t ",
    "\u00a0",
    "\u2003",
    "É",
    "ß",
    "İ",
    "\u0301",
    "\u4e2d",
    "\U0001f600",
)
_CASES = (str, str, str.upper, str.title, str.swapcase)


@dataclass(frozen=True)
class Probes:
    """Rows before `preprocess`, with what each of them tries.

    Attributes:
        frame: the rows, with the types of the training data.
        kinds: what each row tries.
        columns: the column in which it does; empty for the whole row.
        jumps: rows with the same number, from 1, lie around one jump of a model that computes with
            its inputs: rounding may bring them to either side of it. Others have 0.
    """

    frame: pd.DataFrame
    kinds: tuple[ProbeKind, ...]
    columns: tuple[str, ...]
    jumps: tuple[int, ...]

    def __add__(self, other: "Probes") -> "Probes":
        """Return the rows of both."""
        return Probes(
            frame=stacked([self.frame, other.frame], self.frame),
            kinds=self.kinds + other.kinds,
            columns=self.columns + other.columns,
            jumps=self.jumps + other.jumps,
        )

    def beside(self, row: int) -> list[int]:
        """Return the other rows around the same jump."""
        return [other for other in self._at_jumps.get(self.jumps[row], ()) if other != row]

    @functools.cached_property
    def _at_jumps(self) -> Mapping[int, list[int]]:
        rows: dict[int, list[int]] = {}
        for row, jump in enumerate(self.jumps):
            if jump:
                rows.setdefault(jump, []).append(row)
        return rows

    def rows(self, kind: ProbeKind, column: str) -> list[int]:
        """Return the numbers of the rows that try something in a column."""
        return self._by_attempt.get((kind, column), [])

    @functools.cached_property
    def _by_attempt(self) -> Mapping[tuple[ProbeKind, str], list[int]]:
        rows: dict[tuple[ProbeKind, str], list[int]] = {}
        for row, attempt in enumerate(zip(self.kinds, self.columns, strict=True)):
            rows.setdefault(attempt, []).append(row)
        return rows

    def describe(self, row: int) -> str:
        """Name a row for people: `unseen text in city`."""
        column = self.columns[row]
        return f"{self.kinds[row]} in {column}" if column else self.kinds[row]


def make(
    train: pd.DataFrame,
    test: pd.DataFrame,
    fields: tuple[Field, ...],
    texts: Mapping[str, Sequence[str]],
    numbers: Sequence[float],
) -> Probes:
    """Return the probes that data alone give.

    Args:
        train: the training rows.
        test: the held-out rows, which a form must know before it is sealed.
        fields: their columns.
        texts: all known texts of columns, also those that only an encoder in the model lists.
        numbers: numbers that mean something to the model, such as -999 for a missing value.
    """
    random = np.random.default_rng(0)
    attempts = _attempts(train, fields, texts, numbers)
    known = train.iloc[spread(len(train), _TRAINING)], test.iloc[spread(len(test), _HELD_OUT)]
    tried = train.iloc[[attempt.base for attempt in attempts]]
    count = len(known[0]) + len(known[1])
    missing = max(ROWS - count - len(attempts), ROWS // 4)
    changes: dict[str, dict[int, Any]] = {}
    for row, attempt in enumerate(attempts, count):
        changes.setdefault(attempt.column, {})[row] = attempt.value
    kinds: list[ProbeKind] = ["training row"] * len(known[0])
    kinds += ["held-out row"] * len(known[1])
    kinds += [attempt.kind for attempt in attempts]
    kinds += ["mixture"] * missing
    columns = [""] * count + [attempt.column for attempt in attempts] + [""] * missing
    frame = stacked([*known, tried, _mixtures(train, fields, missing, random)], train, changes)
    return Probes(
        frame=frame,
        kinds=tuple(kinds),
        columns=tuple(columns),
        jumps=(0,) * len(frame),
    )


class _Attempt(NamedTuple):
    """A value to try in a column of a training row, by the row's number."""

    kind: ProbeKind
    column: str
    base: int
    value: Any


def _attempts(
    train: pd.DataFrame,
    fields: tuple[Field, ...],
    texts: Mapping[str, Sequence[str]],
    numbers: Sequence[float],
) -> list[_Attempt]:
    """Return what to try in each column; of very many columns, an even choice of all of it.

    Extreme numbers come last, by size: those that a model refuses stand together, and cost less.
    """
    bases = spread(len(train), _BASES).tolist()
    attempts = [
        _Attempt(kind, field.name, base, value)
        for field in fields
        for kind, values in _values(field, train[field.name], texts, numbers)
        for base in (bases if kind in ("null", "unseen text", "date") else bases[:1])
        for value in values
    ]
    chosen = spread(len(attempts), max(ROWS, _CELLS // len(fields))) if attempts else []
    attempts = [attempts[number] for number in chosen]
    return sorted(attempts, key=lambda one: abs(one.value) if one.kind == "extreme" else 0.0)


def stacked(
    frames: list[pd.DataFrame],
    like: pd.DataFrame,
    changes: Mapping[str, Mapping[int, Any]] = MappingProxyType({}),
) -> pd.DataFrame:
    """Return frames below each other with the types of another one.

    Whole numbers become numbers only in a column that has missing values now.

    Args:
        frames: have the columns of `like`.
        like: has their types.
        changes: other values, by column and by row of the result.
    """
    columns = {}
    for name in like.columns:
        values = [value for frame in frames for value in frame[name].astype(object)]
        for row, value in changes.get(name, {}).items():
            values[row] = value
        column = pd.Series(values, dtype=object)
        columns[name] = _typed(column, like[name].dtype)
    return pd.DataFrame(columns)


def _typed(column: pd.Series, dtype: Any) -> pd.Series:
    if dtype == np.dtype("object"):
        return column
    if isinstance(dtype, np.dtype) and dtype.kind in "iub" and column.isna().any():
        return column if dtype.kind == "b" else column.astype("float64")
    return column.astype(dtype)


def spread(count: int, wanted: int) -> Any:
    """Return the numbers of at most `wanted` of `count` things, evenly spread, with both ends."""
    return np.unique(np.linspace(0, count - 1, min(wanted, count)).astype(int))


def _values(
    field: Field,
    column: pd.Series,
    texts: Mapping[str, Sequence[str]],
    numbers: Sequence[float],
) -> Iterator[tuple[ProbeKind, list[Any]]]:
    if field.nullable:
        yield "null", [_missing(column)]
    present = column.dropna()
    if not len(present):
        return
    if field.dtype == "category" or field.kind == "boolean":
        known = field.categories or (False, True)
        yield "text", list(known[:_KNOWN_TEXTS])
    elif field.dtype.startswith("datetime64") or field.dtype == "date":
        yield "date", _dates(present)
    elif field.kind == "text":
        known_texts = texts.get(field.name) or present.unique().tolist()
        yield "text", list(known_texts[:_KNOWN_TEXTS])
        first, last = str(present.iloc[0]), str(present.iloc[-1])
        texts_made, all_known = _unseen(first, last) + _scrambled(known_texts), set(known_texts)
        yield "unseen text", [text for text in texts_made if text not in all_known]
    elif field.dtype != "decimal":
        yield "number", _numbers(field, present, numbers)
        yield "extreme", _extremes(field, present)


def _missing(column: pd.Series) -> Any:
    return pd.NA if isinstance(column.dtype, pd.api.extensions.ExtensionDtype) else np.nan


def _unseen(first: str, last: str) -> list[str]:
    candidates = [
        "",
        " ",
        "None",
        "NA",
        "nan",
        "null",
        f" {first}",
        f"{first} ",
        first.upper(),
        first.lower(),
        first[:-1],
        f"{first}\u0301",
        "0",
        "-1",
        "ß\u202e\u0000☃",
        "ÄPFEL und École, İstanbul 4\uff12 don't stop_me-now",
        f"{first} {last}",
        "x" * _LONG,
    ]
    return list(dict.fromkeys(candidates))


def _scrambled(known: Sequence[str]) -> list[str]:
    """Return texts of known words in another case and order, with other blanks and letters.

    Analyzers differ in what ends a word, in what they do to blanks, and in what is lower case.
    """
    random = np.random.default_rng(2)
    words = list(dict.fromkeys(word for text in known[:_KNOWN_TEXTS] for word in text.split()))
    if not words:
        return []
    texts = []
    for _ in range(_SCRAMBLED):
        picked = [words[place] for place in random.integers(0, len(words), 6)]
        parts = [_CASES[random.integers(len(_CASES))](word[:20]) for word in picked]
        parts += [_BETWEEN[place] for place in random.integers(0, len(_BETWEEN), 6)]
        texts.append("".join(parts[place] for place in random.permutation(len(parts))))
    return texts


def _dates(present: pd.Series) -> list[Any]:
    first, last = pd.Timestamp(present.min()), pd.Timestamp(present.max())
    zone = first.tz
    known = [first, last]
    for moment, days in ((first, -1), (last, 1)):
        # It may be the last one that its unit holds.
        with suppress(OverflowError, pd.errors.OutOfBoundsDatetime):
            known.append(moment + pd.Timedelta(days=days).as_unit("s"))
    # A request has the years that ISO 8601 writes with four digits.
    known = [moment for moment in known if 1 <= moment.year <= 9999]
    borders = ["1969-12-31", "1970-01-01", "2000-02-29", "2024-12-31T23:59:59", "2100-01-01"]
    known += [pd.Timestamp(text, tz=zone) for text in borders]
    if present.dtype == object:
        return [moment.date() for moment in known]
    return known


def _numbers(field: Field, present: pd.Series, known: Sequence[float]) -> list[Any]:
    low, high = present.min(), present.max()
    middle = present.iloc[len(present) // 2]
    if field.kind == "integer":
        values = [low, high, low - 1, high + 1, middle, 0, 1, -1, 2**24 + 1]
        values += [value for value in known if value == int(value)]
        return [int(value) for value in values if _fits(int(value), present)]
    low, high, middle = float(low), float(high), float(middle)
    values = [low, high, low - 1, high + 1, middle, (low + high) / 2, 0.0, -0.0, 1.0, -1.0]
    values += [*known, middle + 0.5, round(middle) + 0.25, 2.0**24 + 1, 1e-7, 1e-40, -1e-300]
    for value in (low, high, middle):
        single = np.float32(value)
        values += [np.nextafter(value, np.inf), np.nextafter(value, -np.inf), float(single)]
        values += [float(np.nextafter(single, np.float32(sign))) for sign in (np.inf, -np.inf)]
    return [float(value) for value in values]


def _extremes(field: Field, present: pd.Series) -> list[Any]:
    if field.kind == "integer":
        values = [int(value) for value in _EXTREMES if value < 2.0**63]
        values += [*_WORDS, 2**53 + 1, 2**63 - 1]
        return [v for value in values for v in (value, -value) if _fits(v, present)]
    name = str(present.dtype)
    largest = float(np.finfo(name).max) if name in ("float16", "float32") else np.inf
    return [sign * value for value in _EXTREMES for sign in (1, -1) if value <= largest]


def _fits(value: int, present: pd.Series) -> bool:
    name = str(present.dtype).lower()
    if not name.startswith(("int", "uint")):
        return True
    limits = np.iinfo(name)
    return bool(limits.min <= value <= limits.max)


def _mixtures(
    train: pd.DataFrame, fields: tuple[Field, ...], count: int, random: np.random.Generator
) -> pd.DataFrame:
    """Return rows whose values come from different rows; half have new numbers in between."""
    columns = {}
    for field in fields:
        column = train[field.name].iloc[random.integers(0, len(train), count)]
        column = column.reset_index(drop=True)
        if field.kind == "number" and column.dtype.kind == "f":
            other = train[field.name].iloc[random.integers(0, len(train), count)].to_numpy()
            share = random.random(count) * (random.random(count) < 0.5)
            column = column + share * (other - column.to_numpy())
        columns[field.name] = column
    return pd.DataFrame(columns)
