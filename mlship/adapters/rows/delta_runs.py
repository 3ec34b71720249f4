"""A Delta table that takes the outputs of runs: each is one commit, with a transaction of its own.

Delta keeps the version of each application that writes (`txn` actions). The application is the
run: a table that has its transaction has all its rows, and of two writers one gets a conflict.
The manifest is in the metadata of the commit, which the log keeps as long as its entries.
"""

import importlib
import itertools
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

from mlship.adapters.rows import table_runs, tables
from mlship.adapters.tables.delta import ADDRESS
from mlship.adapters.tables.faults import check_installed
from mlship.domain.batch import Manifest, Plan
from mlship.domain.bundle import ID, Field, Kind
from mlship.errors import (
    ConfigError,
    ConflictError,
    MlshipError,
    ProjectError,
    UnavailableError,
    first_line,
    shown,
)

_RUN: Final = "mlship.run"
_MANIFEST: Final = "mlship.manifest"
_VERSION: Final = 1
"""The first version of a transaction; a run that is published again has the next one."""
_RETRIES: Final = 15
"""So often a commit is put after those of others that do not conflict with it."""
_TRIES: Final = 4
_FILE_BYTES: Final = 64 << 20
"""A file is in memory until it is complete."""
_TYPES: Final[dict[Kind, frozenset[str]]] = {
    "number": frozenset({"double"}),
    "integer": frozenset({"long"}),
    "boolean": frozenset({"boolean"}),
    "text": frozenset({"string"}),
}
_REFUSES: Final = re.compile(r"validation check|[Ii]nvariant")
"""What the library says where rows break a constraint of the table."""
_FLOATS: Final = ("float", "double", "halffloat")
_FAMILIES: Final = (
    ("int", "uint", *_FLOATS),
    ("string", "large_string", "string_view", "dictionary<values=string", "csv"),
    ("decimal",),
)
"""Types of Arrow of which one table column takes several: what it would round is refused then."""


class DeltaOutputs:
    """The port Table.

    Args:
        root: the project's folder.
        address: `delta+` and a path or a URL, as it is written.
        fields: of the outputs.

    Raises:
        ConfigError: the library deltalake is not installed, or the address names a version.
    """

    def __init__(self, root: Path, address: str, fields: Sequence[Field]) -> None:
        place = address.removeprefix(ADDRESS)
        self._shown = ADDRESS + shown(place)
        check_installed("deltalake", f"the Delta table {self._shown}")
        if "?" in place:
            message = f"batch.output {self._shown} names a version, and rows go to the latest one"
            raise ConfigError(message, hint="remove what begins with ?")
        self._place = place if "://" in place else str((root / place).absolute())
        self._fields = tuple(fields)

    @property
    def shown(self) -> str:
        """Its address without user and password."""
        return self._shown

    def check(self, plan: Plan) -> None:
        """Check that the table can take the outputs of a plan; one that is not there will be made.

        Raises:
            ProjectError: it has other columns, or files have other types of a kept column.
            UnavailableError: it cannot be read.
        """
        _check_alike(plan)
        with self._faults():
            table = self._opened()
            known = {each.name: each for each in table.schema().fields} if table else {}
        if not known:
            return
        kept = table_runs.kept_types(plan)
        kinds: dict[str, Kind | None] = {ID: "text", **dict.fromkeys(plan.keep)}
        kinds |= {each.name: each.kind for each in self._fields}
        kinds |= dict.fromkeys(table_runs.own(plan), "text")
        for name, kind in kinds.items():
            if name not in known:
                message = f"the Delta table {self._shown} has no column {name}"
                raise ProjectError(message, hint="add it, or give another table as --output")
            own = str(getattr(known[name].type, "type", known[name].type))
            gets = "" if kind is None or own in _TYPES[kind] else min(_TYPES[kind])
            gets = gets or next((a for a in kept.get(name, ()) if _changes(own, a)), "")
            if gets:
                message = f"the Delta table {self._shown}: column {name} has type {own}, and gets "
                raise ProjectError(message + gets, hint="give another table as --output")
        required = (name for name, each in known.items() if not each.nullable)
        if more := next((name for name in required if name not in kinds), ""):
            message = f"the Delta table {self._shown}: column {more} needs a value, and gets none"
            raise ProjectError(message, hint="let it be null, or give another table as --output")

    def has(self, plan: Plan) -> bool:
        """Return whether the table has a run.

        Raises:
            UnavailableError: the table cannot be read.
        """
        with self._faults():
            table = self._opened()
            return table is not None and _has(table, plan)

    def find(self, plan: Plan) -> Manifest | None:
        """Return the manifest of a run that the table has.

        Raises:
            UnavailableError: the table cannot be read.
            ConflictError: the log of the table has lost the manifest.
        """
        with self._faults():
            table = self._opened()
            if table is None or not _has(table, plan):
                return None
            for commit in table.history():
                if commit.get(_RUN) == plan.run:
                    return msgspec.json.decode(commit[_MANIFEST], type=Manifest)
        message = (
            f"the Delta table {self._shown} has the run {plan.run}, and its log does not have "
        )
        message += "the commit any more"
        hint = "nothing needs to be published; the machine that did it has the run's manifest"
        raise ConflictError(message, hint=hint)

    def publish(self, plan: Plan, manifest: Manifest, folder: Path) -> None:
        """Add the outputs in a folder as one commit, unless the table has the run.

        Raises:
            ProjectError: the table refuses the rows.
            UnavailableError: the table cannot be written.
            IntegrityError: a part in the folder is damaged.
        """
        faults: Any = importlib.import_module("deltalake.exceptions")
        with self._faults():
            for left in reversed(range(_TRIES)):
                try:
                    self._commit(plan, manifest, folder)
                except faults.CommitFailedError:
                    # Another process was faster: with this run, or by making the table.
                    table = self._opened()
                    if not left and (table is None or not _has(table, plan)):
                        raise
                else:
                    return

    def _commit(self, plan: Plan, manifest: Manifest, folder: Path) -> None:
        import pyarrow as pa

        deltalake: Any = importlib.import_module("deltalake")
        batches = table_runs.outputs(plan, manifest, folder)
        first = next(batches, None)
        if first is None:
            return
        table = self._opened()
        if table is None:
            # Empty, so that the commit below begins with a state that this process has seen:
            # writing to an address would take in what another one has committed meanwhile.
            try:
                schema = _schema(table_runs.schema(plan, manifest, folder))
            except pa.ArrowException as error:
                raise self._refused(first_line(error)) from error
            deltalake.DeltaTable.create(self._place, schema, mode="ignore")
            table = deltalake.DeltaTable(self._place)
        if _has(table, plan):
            return
        version = (table.transaction_version(_application(plan)) or _VERSION - 1) + 1
        misfits: list[str] = []
        try:
            deltalake.write_deltalake(
                table,
                _reader(table, itertools.chain([first], batches), misfits),
                mode="append",
                target_file_size=_FILE_BYTES,
                commit_properties=deltalake.CommitProperties(
                    custom_metadata=_metadata(plan, manifest),
                    app_transactions=[deltalake.Transaction(_application(plan), version)],
                    max_commit_retries=_RETRIES,
                ),
            )
        except Exception as error:
            if not misfits:
                raise
            raise self._refused(misfits[0]) from error

    def _refused(self, reason: str) -> ProjectError:
        message = f"the Delta table {self._shown} refuses the outputs: {reason}; "
        hint = "correct the table, or give another one as --output: finished parts are kept"
        return ProjectError(f"{message}nothing was published", hint=hint)

    def _opened(self) -> Any:
        deltalake: Any = importlib.import_module("deltalake")
        faults: Any = importlib.import_module("deltalake.exceptions")
        try:
            return deltalake.DeltaTable(self._place)
        except faults.TableNotFoundError:
            return None

    @contextmanager
    def _faults(self) -> Iterator[None]:
        faults: Any = importlib.import_module("deltalake.exceptions")
        try:
            yield
        except MlshipError:
            raise
        except faults.SchemaMismatchError as error:
            raise self._refused(first_line(error)) from error
        except (faults.DeltaError, OSError) as error:
            if _REFUSES.search(str(error)):
                raise self._refused(first_line(error)) from error
            message = f"the Delta table {self._shown} cannot be used: {first_line(error)}; "
            message += "nothing was published"
            hint = (
                "check the disk, the network and the credentials, then run `mlship batch` again: "
            )
            raise UnavailableError(message, hint=f"{hint}finished parts are kept") from error


def _check_alike(plan: Plan) -> None:
    """Check that the files have the same type of each kept column."""
    for name, kinds in table_runs.kept_types(plan).items():
        families = {
            next((n for n, family in enumerate(_FAMILIES) if kind.startswith(family)), kind): kind
            for kind in kinds
        }
        if len(families) > 1:
            one, other = list(families.values())[:2]
            other = "text" if other == "csv" else other
            message = f"batch.keep: column {name} has type {one} in one file and {other} in another"
            hint = "write it with the same type in all files, or do not keep it"
            raise ProjectError(f"{message}; no row was scored", hint=hint)


def _changes(own: str, arrow: str) -> bool:
    """Return whether a column would round or cut values of a type of Arrow without an error."""
    if arrow.startswith("timestamp"):
        return own == "date"
    if arrow.startswith("decimal"):
        return own in ("float", "double")
    return arrow.startswith(_FLOATS) and (
        own.startswith("decimal") or (own == "float" and arrow in ("double", "float64"))
    )


def _schema(outputs: Any) -> Any:
    """Return the schema of a new table: Delta has no unsigned numbers, and no column of nulls."""
    import pyarrow as pa

    own = {pa.uint8(): pa.int16(), pa.uint16(): pa.int32(), pa.uint32(): pa.int64()}
    own |= {pa.uint64(): pa.decimal128(20, 0), pa.null(): pa.string()}
    return pa.schema([(field.name, own.get(field.type, field.type)) for field in outputs])


def _reader(table: Any, batches: Iterator[Any], misfits: list[str]) -> Any:
    """Return record batches with the columns of a table; the memory is that of some of them.

    Args:
        table: the table.
        batches: the outputs.
        misfits: gets the reason if values do not fit a column, which the library hides.
    """
    import pyarrow as pa

    wanted = pa.schema(table.schema().to_arrow())

    def cast(batch: Any, field: Any) -> Any:
        if field.name not in batch.schema.names:
            return pa.nulls(batch.num_rows, field.type)
        try:
            return batch.column(field.name).cast(field.type)
        except pa.ArrowException as error:
            misfits.append(f"column {field.name}: {first_line(error)}")
            raise

    def each() -> Iterator[Any]:
        for batch in batches:
            columns = [cast(batch, field) for field in wanted]
            yield pa.record_batch(columns, schema=wanted)

    return pa.RecordBatchReader.from_batches(wanted, each())


def _has(table: Any, plan: Plan) -> bool:
    """Return whether a table has a run: its transaction, and rows.

    The transaction stays where the rows were deleted, or an earlier version was restored. Of a
    table whose rows the library may not be able to read, it is what counts.
    """
    if table.transaction_version(_application(plan)) is None:
        return False
    if set(table.protocol().reader_features or ()) - tables.HARMLESS:
        return True
    deltalake: Any = importlib.import_module("deltalake")
    query = f"SELECT 1 FROM outputs WHERE {table_runs.RUN} = '{plan.run}' LIMIT 1"  # noqa: S608 (hexadecimal)
    found = deltalake.QueryBuilder().register("outputs", table).execute(query).read_all()
    return bool(found.num_rows)


def _application(plan: Plan) -> str:
    return f"mlship-run-{plan.run}"


def _metadata(plan: Plan, manifest: Manifest) -> dict[str, str]:
    return {
        _RUN: plan.run,
        _MANIFEST: msgspec.json.encode(manifest).decode(),
        "mlship.release": plan.release,
        "mlship.name": manifest.name,
        "mlship.bundle": manifest.bundle,
        "mlship.data": plan.data,
    }
