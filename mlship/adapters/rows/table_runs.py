"""Runs whose outputs go to a table: scored into a folder of this machine, then published as one.

The copy on this machine is complete before the table gets anything. So a batch that is killed goes
on where it was, workers need no access to the table, and `trace` finds the outputs. The table
itself knows which runs it has: who publishes one asks it in the transaction that adds the rows.
"""

import functools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Protocol

from mlship.adapters.rows.runs import FolderRun, FolderRuns
from mlship.domain import batch as batches
from mlship.domain import batch_sides, digests
from mlship.domain.batch import Counts, Finished, Manifest, Plan, Scored
from mlship.errors import ConfigError, IntegrityError

RELEASE: Final = "mlship_release"
RUN: Final = "mlship_run"
ROWS: Final = 50_000
_EMPTY: Final = "null"
"""The type of a column whose values are all missing, as pandas writes it."""
_TEXT: Final = "string"
_NESTED: Final = (
    "list",
    "large_list",
    "fixed_size_list",
    "struct",
    "map",
    "binary",
    "large_binary",
)


class Table(Protocol):
    """A table that takes the outputs of runs, each as a whole and once."""

    @property
    def shown(self) -> str:
        """Its address without user and password."""

    def check(self, plan: Plan) -> None:
        """Check that it can take the outputs of a plan, before rows are scored.

        Raises:
            NotFoundError: there is no such table.
            ProjectError: it has other columns.
            UnavailableError: it cannot be used.
        """

    def has(self, plan: Plan) -> bool:
        """Return whether it has the outputs of a run."""

    def find(self, plan: Plan) -> Manifest | None:
        """Return the manifest of a run that it has."""

    def publish(self, plan: Plan, manifest: Manifest, folder: Path) -> None:
        """Add the outputs in a folder, unless the table has the run."""


class TableRuns:
    """The port Runs, for a table.

    Args:
        table: gets the outputs.
        copies: the folder for outputs on this machine.
    """

    def __init__(self, table: Table, copies: Path) -> None:
        self._table = table
        self._copies = FolderRuns(copies)

    @property
    def table(self) -> str:
        """The address of the table, without user and password."""
        return self._table.shown

    def committed(self, plan: Plan) -> tuple[str, Manifest] | None:
        """Return the folder and the manifest of a run that the table has.

        A run that was complete on this machine, and is not in the table, is added.

        Raises:
            IntegrityError: a part of the copy is gone, or has another size.
            NotFoundError, ProjectError, UnavailableError: the table cannot take it.
        """
        copy = self._copies.committed(plan)
        if copy is None:
            known = self._table.find(plan)
            return None if known is None else (str(self._copies.place(plan)), known)
        if not self._table.has(plan):
            self._table.check(plan)
            self._table.publish(plan, copy[1], Path(copy[0]))
        return copy

    @contextmanager
    def begin(self, plan: Plan) -> Iterator["TableRun"]:
        """Open a run that is not committed, for this process and its workers alone.

        Raises:
            ConfigError: the outputs have columns that a table cannot have.
            NotFoundError, ProjectError, UnavailableError: the table cannot take it.
            ConflictError: another process works on it.
        """
        check_columns(plan)
        self._table.check(plan)
        with self._copies.begin(plan) as run:
            yield TableRun(self._table, plan, run)


class TableRun:
    """The port Run: that of the folder, whose outputs go to the table in the end."""

    def __init__(self, table: Table, plan: Plan, run: FolderRun) -> None:
        self._table = table
        self._plan = plan
        self._run = run

    @property
    def folder(self) -> str:
        """Where parts are written."""
        return self._run.folder

    def finished(self) -> Mapping[str, Finished]:
        """Return the parts whose outputs are there, by name."""
        return self._run.finished()

    def add(self, part: Scored) -> None:
        """Note that a part is done."""
        self._run.add(part)

    def counts(self) -> Iterator[Mapping[str, Counts]]:
        """Return the counts of each part that is done."""
        return self._run.counts()

    def commit(self, manifest: Manifest) -> str:
        """Publish the run, all of it or nothing; return the folder with its copy.

        Raises:
            IntegrityError: a part is not there, or has another size.
            ProjectError: the table refuses the rows.
            UnavailableError: the folder or the table cannot be written.
        """
        folder = self._run.commit(manifest)
        self._table.publish(self._plan, manifest, Path(folder))
        return folder


def check_columns(plan: Plan) -> None:
    """Check what can be known of the outputs before rows are scored.

    Raises:
        ConfigError: they are no Parquet, or a kept column is nested or has a name of mlship's own.
    """
    if plan.format != "parquet":
        message = f"batch.format is {plan.format}, which is for outputs in a folder"
        raise ConfigError(message, hint="remove batch.format for a table")
    if taken := next((name for name in plan.keep if name in (RELEASE, RUN)), ""):
        message = f"batch.keep: {taken} is a column that mlship writes"
        raise ConfigError(message, hint="rename the column in the input, or do not keep it")
    for name, kinds in kept_types(plan).items():
        if kind := next((kind for kind in kinds if kind.startswith(_NESTED)), ""):
            message = f"batch.keep: column {name} has type {kind}, which a table does not get"
            raise ConfigError(message, hint="do not keep it, or write it as text")


def kept_types(plan: Plan) -> dict[str, tuple[str, ...]]:
    """Return the types that kept columns have in the inputs; one without values has none."""
    found: dict[str, dict[str, None]] = {name: {} for name in plan.keep}
    for each in plan.inputs:
        columns = each.columns if each.format != "jsonl" else [(name, _TEXT) for name in plan.keep]
        for name, kind in columns:
            if name in found and kind != _EMPTY:
                found[name][kind] = None
    return {name: tuple(kinds) for name, kinds in found.items()}


def kept(plan: Plan) -> dict[str, str]:
    """Return the types of kept columns, as the first input that has some says them."""
    return {name: next(iter(kinds), _TEXT) for name, kinds in kept_types(plan).items()}


def schema(plan: Plan, manifest: Manifest, folder: Path) -> Any:
    """Return the columns of the outputs of all parts: of numbers the widest, of nulls none."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    paths = (folder / batches.file_of(part.name, plan.format) for part in manifest.parts)
    parts = zip(manifest.parts, map(pq.read_schema, paths), strict=True)
    empty = {each.path: {n for n, kind in each.columns if kind == _EMPTY} for each in plan.inputs}
    none = pa.null()  # of which a part has texts that are missing
    plain = (
        pa.schema(
            (each.name, none if each.name in empty[part.input] else _plain_type(each.type))
            for each in columns
        )
        for part, columns in parts
    )
    texts = pa.schema([(RELEASE, pa.string()), (RUN, pa.string())])
    wide = functools.reduce(
        lambda a, b: pa.unify_schemas([a, b], promote_options="permissive"), plain
    )
    return pa.schema([*wide, *texts])


def outputs(plan: Plan, manifest: Manifest, folder: Path) -> Iterator[Any]:
    """Return the outputs of a run as record batches, with its release and its name.

    Raises:
        IntegrityError: a part has other bytes than those that were written, or other rows.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    sides = {each.role: each.release for each in manifest.players}
    for part in manifest.parts:
        release = sides.get(part.side, plan.release)
        rows = 0
        path = folder / batches.file_of(part.name, plan.format)
        if digests.of_file(path) != part.digest:
            message = f"{path} was changed after it was written; nothing was published"
            hint = f"remove {folder}, then run `mlship batch` again"
            raise IntegrityError(message, hint=hint)
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=ROWS, use_threads=False):
                rows += batch.num_rows
                texts = [_constant(text, batch.num_rows) for text in (release, plan.run)]
                names = [*batch.schema.names, RELEASE, RUN]
                yield pa.record_batch([*map(_plain, batch.columns), *texts], names=names)
        if rows != part.rows - part.rejected:
            message = f"{path} has {rows} rows, and {part.rows - part.rejected} were written"
            hint = f"remove {folder}, then run `mlship batch` again"
            raise IntegrityError(message, hint=hint)


def _constant(text: str, rows: int) -> Any:
    import pyarrow as pa

    return pa.repeat(pa.scalar(text), rows)


def _plain(column: Any) -> Any:
    import pyarrow as pa

    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _plain_type(type_: Any) -> Any:
    import pyarrow as pa

    return type_.value_type if pa.types.is_dictionary(type_) else type_


def own(plan: Plan) -> tuple[str, ...]:
    """Return the columns of text that are added: by whom, and of which run."""
    return (*(batch_sides.ADDED if plan.players else ()), RELEASE, RUN)
