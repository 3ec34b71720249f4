"""Rows that `corpus.py` asks, and what the trained model answers: written apart from mlship's own.

Nothing of `mlship.training` is used here, so that a fault there cannot hide itself.
"""

import datetime as dt
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

Row = dict[str, Any]
COUNT = 2_200
MARGIN = 1e-6
_CHARACTERS = "abz AZ09 .-_'\"/äÉßı\u0301\u4e2d\U0001f600"


@dataclass(frozen=True)
class Asked:
    """A row in JSON types.

    Attributes:
        column: the one that alone is unlike training; empty for others.
        jump: rows of the same name lie around one jump, within a unit of single precision.
    """

    row: Row
    column: str = ""
    jump: str = ""


@dataclass(frozen=True)
class Answered:
    """What a model answers to n rows.

    Attributes:
        labels: labels or values.
        probabilities: shape (n, classes), or `None`.
        sure: boolean, whether rounding cannot change a label.
        refused: by row, what it raised.
    """

    labels: list[Any]
    probabilities: Any
    sure: Any
    refused: Mapping[int, str]


class Contract:
    """What a project's data promise of requests: kinds of columns, and which may be null."""

    def __init__(self, train: pd.DataFrame, test: pd.DataFrame) -> None:
        self.train = train
        both = pd.concat([train, test])
        self.nullable = [name for name in train.columns if both[name].isna().any()]

    def frame(self, rows: Sequence[Row]) -> pd.DataFrame:
        """Return rows as pandas reads such values among those of training."""
        return pd.DataFrame(
            {
                str(name): _column([row[str(name)] for row in rows], self.train[name])
                for name in self.train
            }
        )

    def row(self, number: int) -> Row:
        """Return a training row in JSON types."""
        return {str(name): plain(self.train[name].iloc[number]) for name in self.train}


def plain(value: Any) -> Any:
    """Return a value in JSON types."""
    if value is None or value is pd.NA or value is pd.NaT:
        return None
    if isinstance(value, pd.Timestamp | dt.date):
        return value.isoformat()
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and np.isnan(value) else value


def _column(values: list[Any], like: pd.Series) -> pd.Series:
    dtype = like.dtype
    kind = getattr(dtype, "kind", "O")
    if isinstance(dtype, pd.CategoricalDtype):
        return pd.Series(pd.Categorical(values, dtype=dtype))
    if kind == "M":
        return pd.Series(pd.to_datetime(pd.Series(values), format="ISO8601")).astype(dtype)
    if isinstance(dtype, pd.api.extensions.ExtensionDtype):
        return pd.Series([pd.NA if value is None else value for value in values], dtype=dtype)
    if kind == "O" or (kind == "b" and None in values):
        return pd.Series([np.nan if value is None else value for value in values], dtype=object)
    if None in values and kind in "iu":
        return pd.Series([np.nan if value is None else value for value in values], dtype="float64")
    return pd.Series(values, dtype=dtype)


def rows(
    contract: Contract, held_out: pd.DataFrame, predict: Callable[[pd.DataFrame], Any], seed: int
) -> list[Asked]:
    """Return the held-out rows, then at least `COUNT` others."""
    random = np.random.default_rng(seed)
    asked = [Asked(row) for row in _json_rows(held_out)]
    made = [
        *_nulls(contract, random),
        *_texts(contract, random),
        *_numbers(contract, random),
        *_dates(contract, random),
        *_borders(contract, predict, random),
    ]
    made += _free(contract, random, max(COUNT - len(made), 600))
    return [*asked, *made]


def _json_rows(frame: pd.DataFrame) -> list[Row]:
    return [
        {str(name): plain(frame[name].iloc[number]) for name in frame}
        for number in range(len(frame))
    ]


def _bases(contract: Contract, random: np.random.Generator, count: int) -> list[Row]:
    return [contract.row(int(n)) for n in random.integers(0, len(contract.train), count)]


def _nulls(contract: Contract, random: np.random.Generator) -> Iterator[Asked]:
    for name in contract.nullable:
        for base in _bases(contract, random, 12):
            yield Asked({**base, name: None}, name)
    if len(contract.nullable) > 1:
        for base in _bases(contract, random, 4):
            yield Asked({**base, **dict.fromkeys(contract.nullable)})


def _texts(contract: Contract, random: np.random.Generator) -> Iterator[Asked]:
    for name, column in contract.train.items():
        if column.dtype != object or not isinstance(column.dropna().iloc[0], str):
            continue
        known = column.dropna().unique().tolist()
        some = [known[int(n)] for n in random.integers(0, len(known), 6)]
        texts = ["", " ", "nan", "NaN", "None", "null", "<NA>", "true", "1", "?", "a" * 3000, "\n"]
        texts += [some[0].upper(), some[1].lower(), some[2] + " ", "\t" + some[3], some[4][:-1]]
        texts += [some[5] + some[0], some[0].replace("r", "\u0072\u0301")]
        for _ in range(24):
            picked = random.choice(list(_CHARACTERS), int(random.integers(1, 20)))
            texts.append("".join(picked))
        words = " ".join(known[:40]).split()
        if len(words) > 20:
            for _ in range(300):
                texts.append(" ".join(random.choice(words, int(random.integers(1, 25)))))
        for base, text in zip(_bases(contract, random, len(texts)), texts, strict=True):
            yield Asked({**base, str(name): text}, str(name))


def _numbers(contract: Contract, random: np.random.Generator) -> Iterator[Asked]:
    for name, column in contract.train.items():
        kind = getattr(column.dtype, "kind", "O")
        if kind not in "iuf":
            continue
        present = column.dropna()
        values: list[Any] = [0, 1, -1, 7, 2**24 + 1, 2**31, 10**15, -(10**12), 2**53 - 1]
        values += [int(present.iloc[0]), int(present.max()) + 1, int(present.min()) - 1]
        if kind == "f":
            values += [-0.0, 1e-320, 0.1, -2.5, 1e6 + 0.1, 1e20, -1e30, 3.5e38, 1e300]
            for value in random.choice(present.to_numpy(dtype="float64"), 12):
                values += [np.nextafter(value, np.inf), float(np.float32(value)), value + 1e-9]
        fits = [value for value in values if _fits(value, column.dtype)]
        for base, value in zip(_bases(contract, random, len(fits)), fits, strict=True):
            yield Asked({**base, str(name): plain(value)}, str(name))


def _fits(value: Any, dtype: Any) -> bool:
    name = str(dtype).lower()
    if name.startswith(("int", "uint")):
        return bool(np.iinfo(name).min <= value <= np.iinfo(name).max)
    return name != "float32" or abs(value) < 3e38


def _dates(contract: Contract, random: np.random.Generator) -> Iterator[Asked]:
    texts = ["1900-01-01", "2200-12-31T23:59:59", "2024-02-29", "1970-01-01T00:00:00.000001"]
    texts += [
        str(pd.Timestamp(2018, 1, 1) + dt.timedelta(seconds=int(n)))
        for n in random.integers(0, 250_000_000, 150)
    ]
    for name, column in contract.train.items():
        if getattr(column.dtype, "kind", "O") == "M":
            for base, text in zip(_bases(contract, random, len(texts)), texts, strict=True):
                yield Asked({**base, str(name): text.replace(" ", "T")}, str(name))


def _free(contract: Contract, random: np.random.Generator, count: int) -> list[Asked]:
    """Return rows of values from different training rows, numbers also between and beyond."""
    columns = {}
    for name, column in contract.train.items():
        values = [plain(v) for v in column.iloc[random.integers(0, len(column), count)]]
        kind = getattr(column.dtype, "kind", "O")
        if kind in "iuf":
            low, high = float(column.min()), float(column.max())
            span = high - low
            for place in np.flatnonzero(random.random(count) < 0.6).tolist():
                drawn = random.uniform(low - span / 2, high + span / 2)
                drawn = drawn if kind == "f" else round(drawn)
                if values[place] is not None and _fits(drawn, column.dtype):
                    values[place] = plain(np.float32(drawn)) if _is_single(column) else drawn
        columns[str(name)] = values
    return [
        Asked(dict(zip(columns, row, strict=True))) for row in zip(*columns.values(), strict=True)
    ]


def _is_single(column: pd.Series) -> bool:
    return bool(column.dtype == np.float32)


def _borders(
    contract: Contract, predict: Callable[[pd.DataFrame], Any], random: np.random.Generator
) -> Iterator[Asked]:
    """Return both sides of the places where answers jump, on lines between training rows."""
    names = [
        str(name)
        for name, column in contract.train.items()
        if column.dtype in (np.float64, np.int64)
    ]
    whole = contract.train.dropna()
    if not names or len(whole) < 2:
        return
    for moved in ([name] for name in names):
        yield from _border(whole, predict, random, moved, 24)
    yield from _border(whole, predict, random, names, 60)


def _border(
    whole: pd.DataFrame,
    predict: Callable[[pd.DataFrame], Any],
    random: np.random.Generator,
    moved: list[str],
    count: int,
) -> Iterator[Asked]:
    base = whole.iloc[random.integers(0, len(whole), count)].reset_index(drop=True)
    end = whole.iloc[random.integers(0, len(whole), count)].reset_index(drop=True)

    def at(share: Any) -> pd.DataFrame:
        columns = {}
        for name in moved:
            one, other = base[name].to_numpy(), end[name].to_numpy()
            place = one * (1 - share) + other * share
            columns[name] = np.round(place).astype("int64") if one.dtype.kind == "i" else place
        return base.assign(**columns)

    low, high = np.zeros(count), np.ones(count)
    try:
        first, last = predict(at(low)), predict(at(high))
        differing = first != last
        for _ in range(60):
            middle = (low + high) / 2
            same = predict(at(middle)) == first
            low, high = np.where(same, middle, low), np.where(same, high, middle)
    except Exception:  # noqa: BLE001 (a model may refuse rows between those of training)
        return
    jumps = [f"{'+'.join(moved)}:{place}" for place in np.flatnonzero(differing)]
    for share in (low, high):
        frame = at(share)[differing].reset_index(drop=True)
        yield from (
            Asked(row, jump=jump) for row, jump in zip(_json_rows(frame), jumps, strict=True)
        )
        near = frame.assign(
            **{
                name: np.float32(frame[name]).astype("float64")
                for name in moved
                if frame[name].dtype.kind == "f"
            }
        )
        yield from (
            Asked(row, jump=jump) for row, jump in zip(_json_rows(near), jumps, strict=True)
        )


def answers(  # noqa: C901 (halving and its bookkeeping belong together)
    answer: Callable[[pd.DataFrame], tuple[Any, Any, Any]],
    contract: Contract,
    asked: Sequence[Asked],
) -> Answered:
    """Ask the trained model; a row that it raises on, or answers with NaN, is refused."""
    count = len(asked)
    labels: list[Any] = [None] * count
    probabilities: list[Any] = [None] * count
    sure = np.ones(count, dtype=bool)
    refused: dict[int, str] = {}

    def visit(start: int, stop: int) -> None:
        try:
            frame = contract.frame([one.row for one in asked[start:stop]])
            found, shares, margins = answer(frame)
        except Exception as error:  # noqa: BLE001 (whatever a model raises is a refusal)
            if stop - start == 1:
                refused[start] = f"{type(error).__name__}: {str(error)[:120]}"
                return
            middle = (start + stop) // 2
            visit(start, middle)
            visit(middle, stop)
            return
        several = np.ndim(found) == 2
        labels[start:stop] = (found if several else np.reshape(found, stop - start)).tolist()
        if shares is not None:
            probabilities[start:stop] = list(shares)
        if margins is not None:
            sure[start:stop] = margins >= MARGIN

    for start in range(0, count, 250):
        visit(start, min(start + 250, count))
    for row, label in enumerate(labels):
        values = list(label) if isinstance(label, list) else [label]
        values += [] if probabilities[row] is None else list(probabilities[row])
        if any(isinstance(value, float) and not np.isfinite(value) for value in values):
            refused.setdefault(row, "NaN or infinity")
    has_shares = any(shares is not None for shares in probabilities)
    return Answered(labels, probabilities if has_shares else None, sure, refused)


def _by_jump(asked: Sequence[Asked]) -> dict[str, list[int]]:
    rows: dict[str, list[int]] = {}
    for row, one in enumerate(asked):
        rows.setdefault(one.jump, []).append(row)
    return rows


class Comparison:
    """Tells whether an answer is the trained model's: equal labels, numbers within 1e-4."""

    def __init__(
        self,
        asked: Sequence[Asked],
        answered: Answered,
        *,
        is_regression: bool,
        is_exact: bool,
    ) -> None:
        """Take the model's answers; `is_exact` if it only compares numbers, as trees do."""
        self._asked = asked
        self._jumps = _by_jump(asked)
        self._answered = answered
        self._is_exact = is_exact
        self._is_regression = is_regression
        if is_regression:
            values = [
                float(value)
                for row, value in enumerate(answered.labels)
                if row not in answered.refused
            ]
            self._middle = float(np.median(values))
            low, high = np.quantile(values, [0.05, 0.95])
            self._spread = float(high - low)

    def is_beside(self, row: int, label: Any, shares: Sequence[float] | None) -> bool:
        """Tell whether rounding of the inputs may explain an answer: it is that beside a jump."""
        if self._is_exact or not self._asked[row].jump:
            return False
        others = self._jumps[self._asked[row].jump]
        return any(
            not self.difference(other, label, shares)
            for other in others
            if other not in self._answered.refused
        )

    def _far(self, row: int, shares: Sequence[float]) -> str:
        own = np.asarray(self._answered.probabilities[row], dtype="float64")
        if len(own) != len(shares):
            return f"{len(shares)} probabilities instead of {len(own)}"
        if not np.allclose(shares, own, rtol=1e-4, atol=1e-5):
            return f"probabilities {np.round(shares, 6)} instead of {np.round(own, 6)}"
        return ""

    def difference(self, row: int, label: Any, shares: Sequence[float] | None) -> str:
        """Say how an answer differs; empty if it does not."""
        wanted = self._answered.labels[row]
        if self._is_regression:
            scale = abs(wanted - self._middle) + self._spread or abs(wanted) / 100
            if abs(label - wanted) <= 1e-4 * scale:
                return ""
            return f"{label!r} instead of {wanted!r}"
        if label != wanted and self._answered.sure[row]:
            return f"{label!r} instead of {wanted!r}"
        if shares is not None and self._answered.probabilities is not None:
            return self._far(row, shares)
        return ""


class Several(Comparison):
    """Compares answers with several heads, or of clusters and anomalies: a list for each row."""

    def __init__(
        self,
        asked: Sequence[Asked],
        answered: Answered,
        *,
        is_regression: bool,
        is_exact: bool,
    ) -> None:
        """Take the model's answers, whose labels are lists."""
        lists = [label for label in answered.labels if isinstance(label, list)]
        width = len(lists[0]) if lists else 0  # a model that answers nothing is refused
        self._parts = [
            Comparison(
                asked,
                Answered(
                    [
                        label[place] if isinstance(label, list) else label
                        for label in answered.labels
                    ],
                    None,
                    answered.sure,
                    answered.refused,
                ),
                is_regression=is_regression,
                is_exact=is_exact,
            )
            for place in range(width)
        ]
        self._asked, self._answered, self._is_exact = asked, answered, is_exact
        self._jumps = _by_jump(asked)

    def difference(self, row: int, label: Any, shares: Sequence[float] | None) -> str:
        """Say how an answer differs; empty if it does not."""
        if len(label) != len(self._parts):
            return f"{len(label)} values instead of {len(self._parts)}"
        for part, own in zip(self._parts, label, strict=True):
            what = part.difference(row, own, None)
            if what:
                return what
        if shares is not None and self._answered.probabilities is not None:
            return self._far(row, shares)
        return ""
