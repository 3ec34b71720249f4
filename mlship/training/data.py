"""The project's data as pandas reads them, and their schema."""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

import msgspec
import numpy as np
import pandas as pd

from mlship.adapters.checkout import datafiles, queries, tables
from mlship.config.data import DataConfig, ReadConfig
from mlship.config.explain import hint_of_reading
from mlship.domain.bundle import Field, Kind
from mlship.errors import ConfigError, ProjectError
from mlship.training import batches, csv
from mlship.training.batches import Batches
from mlship.training.columns import field_of, fields_of, unified

_FORMATS = (
    "CSV (.csv), Parquet (.parquet) or JSON lines (.jsonl), the texts in UTF-8 and also as .gz"
)

_PLAIN = ReadConfig()


@dataclass(frozen=True)
class Target:
    """A column to predict, in both parts.

    Attributes:
        place: its place among the columns of the file.
    """

    train: pd.Series
    test: pd.Series
    kind: Kind
    place: int

    @property
    def name(self) -> str:
        """Return the name of the column."""
        return str(self.train.name)


@dataclass(frozen=True)
class Data:
    """Training and held-out rows: features and targets apart, with the types of pandas.

    Attributes:
        train: all training rows, or a sample of them, whose index has the numbers of its rows.
        batches: all training rows, if `train` is a sample.
    """

    train: pd.DataFrame
    test: pd.DataFrame
    targets: tuple[Target, ...]
    fields: tuple[Field, ...]
    batches: Batches | None = None

    @property
    def count(self) -> int:
        """Return how many training rows there are."""
        return len(self.train if self.batches is None else self.batches.targets)

    @property
    def only(self) -> Target:
        """Return the target of a model that can have one only.

        Raises:
            ProjectError: there are several, or none.
        """
        if len(self.targets) != 1:
            message = f"a model of this kind predicts one target, not {len(self.targets)}"
            hint = "name one column as data.target, or return a fitted estimator"
            raise ProjectError(message, hint=hint)
        return self.targets[0]

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the columns to predict."""
        return tuple(target.name for target in self.targets)


def read(
    root: Path, config: DataConfig, loaded: Mapping[str, pd.DataFrame] = MappingProxyType({})
) -> Data:
    """Return the training and the held-out rows, checked.

    A column has the type that pandas gives to the values of both parts.

    Args:
        root: the project's folder.
        config: names the data.
        loaded: what `load` returned for files, by name, if it has read them already.

    Raises:
        ProjectError: a file is missing, empty or malformed; the target is missing or has missing
            values; columns are doubled, differ between the parts or have no kind.
        IntegrityError, ConfigError, UnavailableError: as `mlship.adapters.checkout.datafiles`.
    """

    def rows_of(text: str) -> pd.DataFrame:
        return loaded[text] if text in loaded else load(root, text, config.read)

    if config.batch_rows is not None:
        return _read_in_batches(root, config, rows_of)
    train = rows_of(config.train)
    _check_targets(train, config.targets, config.train)
    if config.test:
        test = rows_of(config.test)
        _check_targets(test, config.targets, config.test)
        _check_same_columns(train, test, config)
    else:
        train, test = _split(train, config)
    return _data(train, test, train, config)


def _read_in_batches(
    root: Path, config: DataConfig, rows_of: Callable[[str], pd.DataFrame]
) -> Data:
    if not config.test or not config.targets:
        lacks = "target" if config.test else "test"
        message = f"mlship.yaml: data.batch_rows needs data.{lacks}"
        hint = f"set data.{lacks}" + ("" if config.test else " to a file with the held-out rows")
        raise ConfigError(message, hint=f"{hint}, or remove data.batch_rows")
    test = rows_of(config.test)
    _check_targets(test, config.targets, config.test)
    train, known = batches.sampled(root, config, test)
    _check_targets(known, config.targets, config.train)
    _check_same_columns(train, test, config)
    data = _data(train, test, known, config)
    dtypes = {str(name): data.train[name].dtype for name in data.train.columns}
    return replace(data, batches=Batches(root, config, dtypes, known))


def _data(train: pd.DataFrame, test: pd.DataFrame, known: pd.DataFrame, config: DataConfig) -> Data:
    """Return features and targets apart; `known` has the targets of all training rows."""
    places = list(train.columns)
    targets = []
    for column in config.targets:
        own, held_out = unified(column, known[column], test[column])
        kind = field_of(column, own).kind
        targets.append(Target(train=own, test=held_out, kind=kind, place=places.index(column)))
    train, test = (part.drop(columns=list(config.targets)) for part in (train, test))
    for column in train.columns:
        train[column], test[column] = unified(column, train[column], test[column])
    if not len(train.columns):
        message = f"{config.train} has no column besides the target {', '.join(config.targets)}"
        raise ProjectError(message, hint="add the columns to predict from")
    return Data(
        train=train,
        test=test[train.columns],
        targets=tuple(targets),
        fields=_fields(train, test),
    )


def _fields(train: pd.DataFrame, test: pd.DataFrame) -> tuple[Field, ...]:
    """Return the fields of the training rows; held-out rows may have nulls of their own."""
    fields_of(test)
    return tuple(
        msgspec.structs.replace(
            field, nullable=field.nullable or bool(test[field.name].isna().any())
        )
        for field in fields_of(train)
    )


def load(root: Path, text: str, options: ReadConfig = _PLAIN) -> pd.DataFrame:
    """Return a file's rows.

    Raises:
        ProjectError: it is missing, empty, malformed, likely read in the wrong way, or has no
            known format.
    """
    try:
        frame = _rows(root, text, options)
    except pd.errors.EmptyDataError as error:
        message = f"data file {text} is empty"
        raise ProjectError(message, hint="write a header line and rows into it") from error
    except ImportError as error:
        message = f"data file {text} needs a library: {error}"
        raise ProjectError(message, hint="pip install pyarrow") from error
    except UnicodeDecodeError as error:
        message = f"data file {text} is not in {error.encoding}: byte {error.start} is "
        message += f"0x{error.object[error.start]:02x}"
        hint = hint_of_reading(options, encoding="latin-1")
        raise ProjectError(message, hint=f"{hint}, or its own encoding") from error
    except (ValueError, TypeError, LookupError, pd.errors.ParserWarning) as error:
        message = f"data file {text} cannot be read: {str(error).strip()}"
        raise ProjectError(message, hint=f"it must be {_FORMATS}") from error
    frame.columns = [str(column) for column in frame.columns]
    doubled = frame.columns[frame.columns.duplicated()]
    if len(doubled):
        message = f"data file {text} has the column {doubled[0]} twice"
        raise ProjectError(message, hint="rename one of them")
    if frame.empty:
        message = f"data file {text} has no rows"
        raise ProjectError(message, hint="fill it, or name another under data in mlship.yaml")
    return frame.reset_index(drop=True)


def nearest(name: str, known: list[str]) -> str:
    """Return a hint: the known name that was probably meant, or all of them."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else f"there are: {', '.join(known[:20])}"


def _rows(root: Path, text: str, options: ReadConfig) -> pd.DataFrame:
    if tables.is_table(root, text):
        frame: pd.DataFrame = tables.rows_of(root, text)
        return frame
    if queries.is_query(text):
        return csv.of_query(queries.rows_of(root, text), options)
    return _parsed(root, text, datafiles.name_of(text).removesuffix(".gz"), options)


def _parsed(root: Path, text: str, name: str, options: ReadConfig) -> pd.DataFrame:
    if name.endswith(".csv"):
        return csv.read(root, text, options)
    if options != _PLAIN:
        message = "data.read has options for CSV files only"
        raise ValueError(message)
    with datafiles.opened(root, text) as file:
        if name.endswith(".parquet"):
            parquet: pd.DataFrame = pd.read_parquet(file)
            return parquet
        if name.endswith((".jsonl", ".ndjson", ".json")):
            return _from_lines(file, datafiles.name_of(text).endswith(".gz"))
    message = f"its file name has no known extension: {name}"
    raise ValueError(message)


def _from_lines(file: IO[bytes], zipped: bool) -> pd.DataFrame:  # noqa: FBT001
    import gzip

    records = []
    with gzip.open(file) if zipped else file as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                try:
                    records.append(msgspec.json.decode(line, type=dict[str, Any]))
                except msgspec.DecodeError as error:
                    message = f"line {number}: {error}"
                    raise ValueError(message) from error
    return pd.DataFrame(records)


def _check_targets(frame: pd.DataFrame, targets: Sequence[str], text: str) -> None:
    for target in targets:
        if target not in frame.columns:
            what = "the target" if len(targets) == 1 else "a target"
            message = f"data file {text} has no column {target}, {what}"
            raise ProjectError(message, hint=nearest(target, list(frame.columns)))
        if frame[target].dtype.kind in "mM":
            message = f"data file {text}: {target} has dates, which are neither labels nor numbers"
            raise ProjectError(message, hint="write them as text, or as numbers such as a year")
        missing = int(frame[target].isna().sum())
        if missing:
            line = int(np.flatnonzero(frame[target].isna().to_numpy())[0]) + 1
            message = f"data file {text}: {missing} rows have no {target}, first row {line}"
            raise ProjectError(message, hint="fill these values, or leave the rows out")


def _check_same_columns(train: pd.DataFrame, test: pd.DataFrame, config: DataConfig) -> None:
    for one, other, name in (
        (train, test, f"{config.train} has, and {config.test} has not"),
        (test, train, f"{config.test} has, and {config.train} has not"),
    ):
        surplus = [str(column) for column in one.columns if column not in other.columns]
        if surplus:
            message = f"the data files have different columns: {name}: {', '.join(surplus[:10])}"
            raise ProjectError(message, hint=nearest(surplus[0], list(other.columns)))


def _split(frame: pd.DataFrame, config: DataConfig) -> tuple[pd.DataFrame, pd.DataFrame]:
    split = config.split
    if split is None:
        message = "mlship.yaml: data needs a held-out part"
        raise ProjectError(message, hint="give data.test or data.split")
    if split.stratify is not None and split.stratify not in frame.columns:
        message = f"data.split.stratify: {split.stratify} is not a column of {config.train}"
        raise ProjectError(message, hint=nearest(split.stratify, list(frame.columns)))
    # Importing it takes longer than to read most files, which needs pandas alone.
    from sklearn.model_selection import train_test_split

    labels = frame[split.stratify] if split.stratify else None
    try:
        train, test = train_test_split(
            frame, test_size=split.fraction, random_state=split.seed, stratify=labels
        )
    except ValueError as error:
        message = f"{config.train} cannot be split as data.split says: {error}"
        raise ProjectError(message, hint="add rows, or change fraction or stratify") from error
    return train.reset_index(drop=True), test.reset_index(drop=True)
