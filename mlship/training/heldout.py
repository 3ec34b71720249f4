"""Whether the project's own code may have trained on the rows that `data.split` holds out.

A command reads its data by itself. The file of mlship.yaml has the held-out rows too, so a command
is given the training rows as a file of their own, and one that reads the whole file is named.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Final

from mlship.adapters.checkout import datafiles, tables
from mlship.config.commands import TRAINING_ROWS
from mlship.config.data import ReadConfig
from mlship.config.project import Config

if TYPE_CHECKING:
    import pandas as pd

_TEXTS: Final = (".csv", ".jsonl", ".ndjson", ".json")


def place_of(root: Path, config: Config, into: Path) -> Path:
    """Return where the training rows are written, in the format of the data.

    Args:
        root: the project's folder.
        config: names the data.
        into: the folder of the bundle, which need not exist; the file is beside it.
    """
    name = datafiles.name_of(config.data.train)
    zipped = ".gz" if name.endswith(".gz") else ""
    ending = Path(name.removesuffix(".gz")).suffix
    if ending not in _TEXTS or tables.is_table(root, config.data.train):
        ending, zipped = ".parquet", ""
    return into.with_name(f"{into.name}.rows") / f"train{ending}{zipped}"


def write(frame: "pd.DataFrame", path: Path, options: ReadConfig) -> None:
    """Write training rows as `data.read` says that the data is written.

    Args:
        frame: the rows, the targets in their places.
        path: as `place_of` returns it; its folder is made.
        options: of the CSV file that the rows come from.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    name = path.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        frame.to_parquet(path)
    elif name.endswith(".csv"):
        frame.to_csv(
            path,
            index=options.index_col is not None,
            sep=options.sep,
            decimal=options.decimal,
            encoding=options.encoding or "utf-8",
            na_rep=options.na_values[0] if options.na_values else "",
        )
    else:
        frame.to_json(path, orient="records", lines=True, date_format="iso")


def exposed(config: Config, *, has_read_all: bool, has_read_rows: bool) -> str:
    """Return why the model may know the held-out rows, for people; empty if nothing says so.

    What other programs read, and what compiled libraries open by themselves, is not seen: a
    command may have read the whole file unless it was seen to read the training rows.

    Args:
        config: of the project.
        has_read_all: whether its code was seen to open the file that is split.
        has_read_rows: whether it was seen to open the file of the training rows.
    """
    model, data = config.model, config.data
    if data.test or not (has_read_all or (model.command and not has_read_rows)):
        return ""
    verb = "read" if has_read_all else "may have read"
    hint = (
        f"read the file that ${TRAINING_ROWS} names" if model.command else "use its argument `data`"
    )
    return (
        f"{model.source} {verb} {data.train} itself, with the rows that data.split holds out: if "
        f"it trained on them, the metrics are too good; {hint}, or set data.test to another file"
    )
