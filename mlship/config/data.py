"""The section `data` of mlship.yaml: where the data are, and how they are read."""

from typing import Annotated

import msgspec
from msgspec import Meta

Share = Annotated[float, Meta(gt=0, lt=1)]


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class SplitConfig(_Section, frozen=True):
    """Hold out random rows of `data.train`, instead of a separate file."""

    fraction: Annotated[Share, Meta(description="share of the rows to hold out")] = 0.2
    seed: Annotated[int, Meta(description="the same seed holds out the same rows")] = 0
    stratify: Annotated[
        str | None, Meta(description="column whose distribution is kept in both parts")
    ] = None


class ReadConfig(_Section, frozen=True):
    """Options of `pandas.read_csv` for the CSV files of the data."""

    sep: Annotated[str, Meta(min_length=1, description="separator of the fields")] = ","
    decimal: Annotated[str, Meta(min_length=1, max_length=1, description="decimal sign")] = "."
    thousands: Annotated[str | None, Meta(description="sign between groups of three digits")] = None
    encoding: Annotated[
        str | None, Meta(description="such as latin-1; default: UTF-8, or UTF-16 with its mark")
    ] = None
    na_values: Annotated[
        tuple[str, ...], Meta(description="further texts that stand for a missing value")
    ] = ()
    keep_default_na: Annotated[
        bool, Meta(description="whether pandas' own texts, such as NA, stand for one too")
    ] = True
    index_col: Annotated[
        int | str | None, Meta(description="column that only numbers or names the rows")
    ] = None
    dtype: Annotated[
        dict[str, str], Meta(description="types of columns, such as {city: category, zip: str}")
    ] = {}
    parse_dates: Annotated[
        tuple[str, ...], Meta(description="columns of dates; requests send them as ISO text")
    ] = ()


class DataConfig(_Section, frozen=True):
    """Where the data is."""

    train: Annotated[
        str,
        Meta(
            description="CSV, Parquet or JSON lines: a path or an fsspec URL; a .dvc file is "
            "followed; a Delta table: its folder, or delta+ and its URL; the metadata file of an "
            "Iceberg table, NAME.metadata.json; or a query: postgresql://USER@HOST/DB#FILE.sql"
        ),
    ]
    test: Annotated[str | None, Meta(description="held-out data; or set `split`")] = None
    split: Annotated[SplitConfig | None, Meta(description="hold out rows of `train`")] = None
    target: Annotated[
        str | tuple[str, ...] | None,
        Meta(
            description="the column to predict, or a list of columns; default: target, and none "
            "for the tasks clustering and anomaly"
        ),
    ] = None
    read: ReadConfig = ReadConfig()
    slices: Annotated[
        tuple[str, ...],
        Meta(
            description="columns by whose values the release and the champion are compared; "
            "default: all columns"
        ),
    ] = ()

    batch_rows: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(
            description="read the training rows so many at a time, and keep what model.preprocess "
            "makes of them: for rows that do not fit in memory, where features do; Parquet and "
            "tables only"
        ),
    ] = None

    @property
    def targets(self) -> tuple[str, ...]:
        """The columns to predict; none for a task without a target."""
        if self.target is None:
            return ()
        return (self.target,) if isinstance(self.target, str) else self.target
