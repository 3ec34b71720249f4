"""CSV files as `pandas.read_csv` reads them, with likely mistakes named."""

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mlship.adapters.checkout import datafiles, heads
from mlship.config.data import ReadConfig
from mlship.config.explain import hint_of_reading
from mlship.errors import ProjectError

_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_SEPARATORS = (";", "\t", "|")


def read(root: Path, text: str, config: ReadConfig) -> pd.DataFrame:
    """Return a CSV file's rows.

    Raises:
        ProjectError: its separator, decimal sign or index column is likely another.
        ValueError: pandas cannot read it.
    """
    options = _options(root, text, config)
    with datafiles.opened(root, text) as file, warnings.catch_warnings():
        # pandas drops the surplus fields of a line that is too long, with a warning.
        warnings.simplefilter("error", pd.errors.ParserWarning)
        try:
            frame: pd.DataFrame = pd.read_csv(file, **options, **_parsing(config))
        except (ValueError, pd.errors.ParserWarning):
            heads.check_separator(root, text, config)
            raise
    with datafiles.opened(root, text) as file:
        header = pd.read_csv(file, header=None, nrows=1, dtype=str, index_col=False, **options)
    names = header.iloc[0]
    if config.index_col is None and names.notna().all() and len(names) == len(frame.columns):
        frame.columns = pd.Index(names)  # pandas renames the second of two `a`
    _check_separator(text, frame, config)
    _check_index(text, frame, config)
    _check_decimal(text, frame, config)
    return frame


def of_query(rows: bytes, config: ReadConfig) -> pd.DataFrame:
    """Return the rows of a query, which are CSV in UTF-8.

    Raises:
        ProjectError: the options of `data.read` are for another form.
        ValueError: pandas cannot read them.
    """
    if config.sep != "," or config.decimal != "." or config.encoding or config.thousands:
        message = "data.read: sep, decimal, thousands and encoding are for files, not for a query"
        raise ProjectError(message, hint="remove them: the database has numbers as such")
    frame: pd.DataFrame = pd.read_csv(io.BytesIO(rows), **_parsing(config))
    return frame


def _options(root: Path, text: str, config: ReadConfig) -> dict[str, Any]:
    is_zipped = datafiles.name_of(text).endswith(".gz")
    encoding = config.encoding
    if encoding is None:
        with datafiles.opened(root, text) as file:
            is_utf16 = not is_zipped and file.read(2) in _UTF16
        encoding = "utf-16" if is_utf16 else "utf-8-sig"
    return {
        "compression": "gzip" if is_zipped else None,
        "encoding": encoding,
        "sep": config.sep,
    }


def _parsing(config: ReadConfig) -> dict[str, Any]:
    return {
        "decimal": config.decimal,
        "thousands": config.thousands,
        "na_values": list(config.na_values) or None,
        "keep_default_na": config.keep_default_na,
        "index_col": False if config.index_col is None else config.index_col,
        "dtype": dict(config.dtype) or None,
        "parse_dates": list(config.parse_dates) or False,
        "low_memory": False,
    }


def _check_separator(text: str, frame: pd.DataFrame, config: ReadConfig) -> None:
    if len(frame.columns) != 1:
        return
    name = str(frame.columns[0])
    for separator in _SEPARATORS:
        if (
            separator in name
            and frame.iloc[:, 0].astype(str).str.contains(separator, regex=False).all()
        ):
            message = f"data file {text} has one column, {name[:80]!r}"
            raise ProjectError(message, hint=hint_of_reading(config, sep=separator))


def _check_index(text: str, frame: pd.DataFrame, config: ReadConfig) -> None:
    first = frame.columns[0]
    is_unnamed = pd.isna(first) or str(first).startswith("Unnamed: 0")
    if config.index_col is None and is_unnamed and len(frame.columns) > 1:
        values = frame.iloc[:, 0]
        if values.dtype.kind == "i" and (np.diff(values.to_numpy()) == 1).all():
            message = f"the first column of data file {text} has no name and counts the rows"
            hint = hint_of_reading(config, index_col=0)
            raise ProjectError(message, hint=f"{hint}, or give it a name")


def _check_decimal(text: str, frame: pd.DataFrame, config: ReadConfig) -> None:
    if config.decimal != "." or config.sep == ",":
        return
    for name in frame.columns:
        values = frame[name].dropna()
        if values.dtype == object and len(values):
            is_number = values.astype(str).str.fullmatch(r"-?\d+,\d+")
            if is_number.all():
                message = f"column {name} of data file {text} has numbers such as {values.iloc[0]}"
                raise ProjectError(message, hint=hint_of_reading(config, decimal=","))
