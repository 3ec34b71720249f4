"""The section `batch` of mlship.yaml: rows of files that are scored by `mlship batch`."""

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from mlship.config.texts import Name
from mlship.domain.batch import OutputFormat
from mlship.domain.batch_sides import Mode
from mlship.domain.batch_work import BeamOption
from mlship.domain.policy import Bound

NAMES: Final = ("rows", "nulls", "shift")
"""What `batch.gates` may bound."""

_MISSING: Final = (
    *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN"),
    *("<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"),
)
"""The texts that `pandas.read_csv` takes for a missing value, as training does."""


class BatchConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Rows of files, scored by `mlship batch`."""

    input: Annotated[
        str | tuple[str, ...] | None,
        Meta(
            description="files of rows: paths, folders, globs or fsspec URLs; Parquet, CSV (read "
            "as data.read says) or JSON lines; a Delta table: its folder, or delta+ and its URL; "
            "the metadata file of an Iceberg table, NAME.metadata.json; a query or a table of "
            "PostgreSQL: postgresql://USER@HOST/DB#FILE.sql or ?table=NAME"
        ),
    ] = None
    output: Annotated[
        str | None,
        Meta(
            description="where outputs go: a folder or an fsspec URL, in which each run has its "
            "own; a table of PostgreSQL: postgresql://USER@HOST/DB?table=SCHEMA.NAME; or a Delta "
            "table: delta+ and its folder or URL"
        ),
    ] = None
    format: Annotated[OutputFormat, Meta(description="of the outputs: parquet or csv")] = "parquet"
    keep: Annotated[
        tuple[str, ...],
        Meta(description="columns of the input that are copied to the output, such as a key"),
    ] = ()
    challenger: Annotated[
        Mode | None,
        Meta(
            description="how production's challenger takes part: shadow (it scores each row, too, "
            "and its outputs are written apart) or split (rows are divided by the route's weights)"
        ),
    ] = None
    key: Annotated[
        str | None,
        Meta(
            description="column by whose value a split gives rows to champion and challenger, as "
            "over HTTP; without it, rows are divided by their place"
        ),
    ] = None
    max_rejected: Annotated[
        Annotated[int, Meta(ge=0)],
        Meta(description="rows that the model may refuse; with more, the run is not published"),
    ] = 0
    gates: Annotated[
        dict[Name, Bound],
        Meta(
            description="bounds of a run before it is published: rows, nulls (the largest share of "
            "missing values of an output) and shift (the largest PSI of an output against the last "
            "run that was published)"
        ),
    ] = msgspec.field(default_factory=lambda: {"rows": Bound(min=1)})
    engine: Annotated[
        Literal["processes", "spark", "beam"],
        Meta(description="what scores: processes of this machine, Spark, or Apache Beam"),
    ] = "processes"
    spark: Annotated[
        dict[str, str],
        Meta(description="settings of Spark, such as spark.master and spark.executor.memory"),
    ] = {}
    beam: Annotated[
        dict[str, BeamOption],
        Meta(
            description="options of Beam's pipelines, such as runner (by default DirectRunner), "
            "project, region and temp_location"
        ),
    ] = {}
    workers: Annotated[
        Annotated[int, Meta(ge=0, le=256)],
        Meta(description="processes that score; 0 is one for each processor"),
    ] = 0
    part_rows: Annotated[
        Annotated[int, Meta(ge=1)],
        Meta(
            description="about so many rows of Parquet are a part, which is redone whole after "
            "a kill; a row group is never divided"
        ),
    ] = 1_000_000
    part_mb: Annotated[
        Annotated[int, Meta(ge=1, le=1024)],
        Meta(description="about so many MB of a text file are a part"),
    ] = 64

    @property
    def patterns(self) -> tuple[str, ...]:
        """The inputs, as a list."""
        return (self.input,) if isinstance(self.input, str) else self.input or ()


def missing_texts(na_values: tuple[str, ...], *, keeps_default: bool) -> tuple[str, ...]:
    """Return the texts that stand for a missing value in a CSV file."""
    return (*(_MISSING if keeps_default else ()), *na_values)
