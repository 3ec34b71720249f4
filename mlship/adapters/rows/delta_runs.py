"""A Delta table that takes the outputs of runs: each is one commit, with a transaction of its own.

Delta keeps the version of each application that writes (`txn` actions). The application is the
run: a table that has its transaction has all its rows, and of two writers one gets a conflict.
The manifest is in the metadata of the commit, which the log keeps as long as its entries.
"""

import importlib
import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

from mlship.adapters.rows import table_runs
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
            ProjectError: it has other columns.
            UnavailableError: it cannot be read.
        """
        with self._faults():
            table = self._opened()
            known = {each.name: each for each in table.schema().fields} if table else {}
        if not known:
            return
        kinds: dict[str, Kind | None] = {ID: "text", **dict.fromkeys(plan.keep)}
        kinds |= {each.name: each.kind for each in self._fields}
        kinds |= dict.fromkeys(table_runs.own(plan), "text")
        for name, kind in kinds.items():
            if name not in known:
                message = f"the Delta table {self._shown} has no column {name}"
                raise ProjectError(message, hint="add it, or give another table as --output")
            own = str(getattr(known[name].type, "type", known[name].type))
            if kind is not None and own not in _TYPES[kind]:
                message = f"the Delta table {self._shown}: column {name} has type {own}, and gets "
                message += min(_TYPES[kind])
                raise ProjectError(message, hint="give another table as --output")
        required = (name for name, each in known.items() if not each.nullable)
        if more := next((name for name in required if name not in kinds), ""):
            message = f"the Delta table {self._shown}: column {more} needs a value, and gets none"
            raise ProjectError(message, hint="let it be null, or give another table as --output")

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
        deltalake: Any = importlib.import_module("deltalake")
        batches = table_runs.outputs(plan, manifest, folder)
        first = next(batches, None)
        if first is None:
            return
        table = self._opened()
        if table is None:
            # Empty, so that the commit below begins with a state that this process has seen:
            # writing to an address would take in what another one has committed meanwhile.
            deltalake.DeltaTable.create(self._place, _schema(first), mode="ignore")
            table = deltalake.DeltaTable(self._place)
        if _has(table, plan):
            return
        deltalake.write_deltalake(
            table,
            _reader(table, first, batches),
            mode="append",
            target_file_size=_FILE_BYTES,
            commit_properties=deltalake.CommitProperties(
                custom_metadata=_metadata(plan, manifest),
                app_transactions=[deltalake.Transaction(_application(plan), _VERSION)],
                max_commit_retries=_RETRIES,
            ),
        )

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
            message = f"the Delta table {self._shown} refuses the outputs: {first_line(error)}; "
            message += "nothing was published"
            raise ProjectError(message, hint="give another table as --output") from error
        except (faults.DeltaError, OSError) as error:
            message = f"the Delta table {self._shown} cannot be used: {first_line(error)}; "
            message += "nothing was published"
            hint = (
                "check the disk, the network and the credentials, then run `mlship batch` again: "
            )
            raise UnavailableError(message, hint=f"{hint}finished parts are kept") from error


def _schema(batch: Any) -> Any:
    """Return the schema of a new table: Delta has no unsigned numbers."""
    import pyarrow as pa

    signed = {pa.uint8(): pa.int16(), pa.uint16(): pa.int32(), pa.uint32(): pa.int64()}
    signed[pa.uint64()] = pa.decimal128(20, 0)
    return pa.schema([(field.name, signed.get(field.type, field.type)) for field in batch.schema])


def _reader(table: Any, first: Any, others: Iterator[Any]) -> Any:
    """Return record batches with the columns of a table; the memory is that of some of them."""
    import pyarrow as pa

    wanted = pa.schema(table.schema().to_arrow())

    def each() -> Iterator[Any]:
        for batch in itertools.chain([first], others):
            columns = [
                batch.column(field.name).cast(field.type)
                if field.name in batch.schema.names
                else pa.nulls(batch.num_rows, field.type)
                for field in wanted
            ]
            yield pa.record_batch(columns, schema=wanted)

    return pa.RecordBatchReader.from_batches(wanted, each())


def _has(table: Any, plan: Plan) -> bool:
    return table.transaction_version(_application(plan)) is not None


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
