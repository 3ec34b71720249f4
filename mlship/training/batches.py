"""Training rows that do not fit in memory: they are read in batches, and a sample of them is kept.

The rows are read twice. The first time, the targets and the sample are kept, which tells all that
is asked of raw rows later: their types, values to try, and which held-out rows are among them. The
second time, each batch goes through `preprocess`, of which the features are kept.
"""

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from mlship.adapters.checkout import datafiles, tables
from mlship.config.data import DataConfig
from mlship.errors import ConfigError, IntegrityError, ProjectError

_EVEN: Final = 10_000
"""At least so many rows are in the sample, if there are as many; at most twice that, evenly."""
_TEXTS: Final = 51
"""So many values of a column of text are in it: up to 50, a field lists its values."""
_BUFFER: Final = 1 << 20


@dataclass(frozen=True)
class Batches:
    """Training rows, a batch at a time.

    Attributes:
        dtypes: of the columns, the targets left out; each batch gets them.
        targets: of all rows, as they were read before.
    """

    root: Path
    config: DataConfig
    dtypes: dict[str, Any]
    targets: pd.DataFrame

    def features(self) -> Iterator[pd.DataFrame]:
        """Yield the rows of each batch without the targets, with a plain index.

        Raises:
            IntegrityError: the data have other rows than when they were read before.
            ProjectError, ConfigError, UnavailableError: they cannot be read.
        """
        start = 0
        for frame in frames(self.root, self.config):
            known = self.targets.iloc[start : start + len(frame)].reset_index(drop=True)
            targets = frame[list(self.targets.columns)].reset_index(drop=True)
            if len(known) != len(frame) or not targets.equals(known.astype(targets.dtypes)):
                raise self._changed()
            start += len(frame)
            yield frame[list(self.dtypes)].astype(self.dtypes).reset_index(drop=True)
        if start != len(self.targets):
            raise self._changed()

    def _changed(self) -> IntegrityError:
        message = f"{self.config.train} was changed while it was read"
        return IntegrityError(message, hint="wait until it is complete, then train again")


def frames(root: Path, config: DataConfig) -> Iterator[pd.DataFrame]:
    """Yield the training rows in batches of `data.batch_rows`, with the index that they have.

    Raises:
        ConfigError: the format has no batches.
        ProjectError: the data are missing or malformed, or a column has pandas categories, lists
            or structures.
        IntegrityError, UnavailableError: as `mlship.adapters.checkout.datafiles`.
    """
    import pyarrow as pa

    text, rows = config.train, config.batch_rows or 1
    try:
        if tables.is_table(root, text):
            yield from map(_plain, tables.batches_of(root, text, rows))
        elif datafiles.name_of(text).endswith(".parquet"):
            import pyarrow.parquet as pq

            with datafiles.opened(root, text) as file:
                # Otherwise the bytes of a whole row group are kept while it is read.
                whole = pq.ParquetFile(file, pre_buffer=False, buffer_size=_BUFFER)
                yield from map(_plain, whole.iter_batches(rows))
        else:
            message = f"data.batch_rows reads Parquet and tables, and {text} is neither"
            raise ConfigError(message, hint="write it as Parquet, or remove data.batch_rows")
    except (pa.ArrowException, OSError) as error:
        message = f"data file {text} cannot be read: {str(error).strip()[:300]}"
        raise ProjectError(message, hint="write it again") from error


def _plain(batch: Any) -> pd.DataFrame:
    import pyarrow as pa

    for field in batch.schema:
        if pa.types.is_nested(field.type):
            raise _of_parts(field.name, str(field.type))
    frame: pd.DataFrame = batch.to_pandas()
    frame.columns = [str(name) for name in frame.columns]
    for name, dtype in frame.dtypes.items():
        if isinstance(dtype, pd.CategoricalDtype):
            message = f"column {name} has pandas categories, which differ from batch to batch"
            raise ProjectError(message, hint="write it as text, or remove data.batch_rows")
    return frame


def sampled(
    root: Path, config: DataConfig, test: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return a sample of the training rows, and the targets of all of them.

    The index of the sample has the numbers of its rows, from 0.

    Args:
        root: the project's folder.
        config: names the data.
        test: the held-out rows, with their targets.

    Raises:
        ProjectError, ConfigError, IntegrityError, UnavailableError: as `frames`.
    """
    sample = _Sample(test, config.targets)
    known: list[pd.DataFrame] = []
    start = 0
    for frame in frames(root, config):
        frame.index = pd.RangeIndex(start, start + len(frame))
        start += len(frame)
        if missing := [name for name in config.targets if name not in frame.columns]:
            message = f"data file {config.train} has no column {missing[0]}, the target"
            raise ProjectError(message, hint=f"there are: {', '.join(frame.columns[:20])}")
        known.append(frame[list(config.targets)].copy())
        sample.add(frame)
    if not start:
        message = f"data file {config.train} has no rows"
        raise ProjectError(message, hint="fill it, or name another under data in mlship.yaml")
    return sample.frame(), pd.concat(known)


class _Sample:
    """Rows that stand for all: some evenly, and those that a column or a held-out row needs.

    These are, of each column, the first one without a value, the smallest and the largest number,
    and the first texts, and the first row of those that are equal to a held-out one.
    """

    def __init__(self, test: pd.DataFrame, targets: tuple[str, ...]) -> None:
        self._targets = targets
        self._columns = sorted(map(str, test.columns))
        self._held_out = set(_hashes(test, self._columns))
        self._stride = 1
        self._even: list[pd.DataFrame] = []
        self._marked: list[pd.DataFrame] = []
        self._texts: dict[str, set[Any]] = {}
        self._without: set[str] = set()
        self._range: dict[str, tuple[float, float]] = {}

    def add(self, frame: pd.DataFrame) -> None:
        """Look at a batch, whose index has the numbers of its rows."""
        self._even.append(frame[frame.index % self._stride == 0].copy())
        while sum(map(len, self._even)) > 2 * _EVEN:
            self._stride *= 2
            self._even = [part[part.index % self._stride == 0].copy() for part in self._even]
        marked = {place for name in frame.columns for place in self._places(name, frame[name])}
        if set(self._columns) == set(frame.columns):
            for place, value in enumerate(_hashes(frame, self._columns)):
                if value in self._held_out:
                    self._held_out.discard(value)
                    marked.add(place)
        if marked:
            self._marked.append(frame.iloc[sorted(marked)].copy())

    def frame(self) -> pd.DataFrame:
        """Return the rows, in their order."""
        rows = pd.concat([part for part in (*self._even, *self._marked) if len(part)])
        return rows[~rows.index.duplicated()].sort_index()

    def _places(self, name: str, column: pd.Series) -> Iterator[int]:
        """Yield the places of the rows that a column needs."""
        is_missing = column.isna().to_numpy()
        if name not in self._without and is_missing.any():
            self._without.add(name)
            yield int(is_missing.argmax())
        if column.dtype.kind in "iufM":
            if not is_missing.all():
                yield from self._extremes(name, column.to_numpy("float64", na_value=np.nan))
            return
        texts = self._texts.setdefault(name, set())
        if len(texts) < _TEXTS:
            is_first = ~(column.duplicated().to_numpy() | is_missing)
            for place in np.flatnonzero(is_first).tolist():
                if len(texts) < _TEXTS and column.iloc[place] not in texts:
                    texts.add(column.iloc[place])
                    yield place

    def _extremes(self, name: str, values: Any) -> Iterator[int]:
        low, high = self._range.get(name, (np.inf, -np.inf))
        least, most = int(np.nanargmin(values)), int(np.nanargmax(values))
        if values[least] < low:
            yield least
        if values[most] > high:
            yield most
        self._range[name] = (min(low, values[least]), max(high, values[most]))


def _hashes(frame: pd.DataFrame, columns: list[str]) -> list[int]:
    """Return a number for each row; numbers that are equal have the same, whatever their type."""
    plain = {
        name: column.astype("float64") if _is_of_numbers(column) else column
        for name, column in ((name, frame[name]) for name in columns)
    }
    try:
        values: list[int] = pd.util.hash_pandas_object(pd.DataFrame(plain), index=False).tolist()
    except TypeError:
        for name, column in plain.items():
            kinds = {type(value).__name__ for value in column if not isinstance(value, Hashable)}
            if kinds:
                raise _of_parts(name, ", ".join(sorted(kinds))) from None
        raise
    return values


def _of_parts(name: str, kind: str) -> ProjectError:
    message = f"column {name} holds values of type {kind}"
    return ProjectError(message, hint="use numbers only, text only, or booleans only")


def _is_of_numbers(column: pd.Series) -> bool:
    if column.dtype == np.dtype("object"):
        return pd.api.types.infer_dtype(column, skipna=True) == "boolean"
    return bool(pd.api.types.is_numeric_dtype(column.dtype))
