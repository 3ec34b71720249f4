"""Rows of published outputs, found by their id or by a column: part by part, in record batches.

A part is read only if it has the bytes that were written: its digest is in the manifest. So an
output that somebody changed never decides which release is better.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, Final

from mlship.adapters.rows import object_runs
from mlship.domain import batch as batches
from mlship.domain import batch_schema, batch_sides, digests
from mlship.domain.batch import Entry, Manifest
from mlship.domain.batch_outcomes import Answered
from mlship.domain.bundle import ID
from mlship.domain.csv_text import WholeLineEnds
from mlship.errors import IntegrityError, NotFoundError, ProjectError, UnavailableError, shown

_ROWS: Final = 1 << 16
"""So many rows are looked at together."""
_CHUNK: Final = 4 << 20
_RESTORE: Final = "restore it from a backup; the outcomes are recorded when it is there again"


class OutputFiles:
    """The port Outputs, for folders and URLs of fsspec."""

    def rows(
        self,
        folder: str,
        manifest: Manifest,
        parts: Sequence[Entry],
        column: str,
        wanted: Collection[str],
    ) -> Iterator[Answered]:
        """Return the rows whose value in a column is wanted, part by part.

        Raises:
            NotFoundError: an output is gone.
            IntegrityError: an output was changed since it was written.
            ProjectError: values of the column have no single form as text.
            UnavailableError, ConfigError: an output cannot be read.
        """
        values = wanted if isinstance(wanted, Mapping | AbstractSet) else frozenset(wanted)
        for part in parts:
            path = f"{folder}/{batches.file_of(part.name, manifest.format)}"
            with _unchanged(path, part) as file:
                for batch in _batches(file, manifest, column):
                    for value, row in _matching(batch, column, values, path):
                        id_ = value if column == ID else row[ID]
                        yield Answered(value, id_, _outputs(row, manifest), part)


def _matching(
    batch: Any, column: str, wanted: Collection[str], path: str
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    import numpy as np
    import pyarrow as pa

    own = batch.column(column)
    if not batch_schema.is_key(str(own.type)):
        message = f"{shown(path)}: the key {column} has type {own.type}"
        hint = "have the input write it as text or as whole numbers; or give the ids of predictions"
        raise ProjectError(message, hint=hint)
    if pa.types.is_dictionary(own.type):
        own = own.dictionary_decode()
    texts = own.cast(pa.string())
    # Arrow's own is_in hashes all values again for each batch, of which there may be a million.
    found = map(wanted.__contains__, texts.to_numpy(zero_copy_only=False))
    is_wanted = pa.array(np.fromiter(found, bool, len(texts)))
    texts = texts.filter(is_wanted)
    if len(texts):
        yield from zip(texts.to_pylist(), batch.filter(is_wanted).to_pylist(), strict=True)


def _outputs(row: Mapping[str, Any], manifest: Manifest) -> dict[str, Any]:
    """Return the model's own columns of a row."""
    others = {ID, *manifest.keep, *(batch_sides.ADDED if manifest.players else ())}
    return {name: value for name, value in row.items() if name not in others}


def _batches(file: IO[bytes], manifest: Manifest, column: str) -> Iterator[Any]:
    """Return the record batches of a part, without kept columns that nobody asks for."""
    unused = set(manifest.keep) - {column}
    if manifest.format == "parquet":
        import pyarrow.parquet as pq

        known = pq.ParquetFile(file, pre_buffer=False)
        names = [name for name in known.schema_arrow.names if name not in unused]
        yield from known.iter_batches(batch_size=_ROWS, columns=names, use_threads=False)
        return
    import pyarrow as pa
    import pyarrow.csv as pacsv

    options = pacsv.ConvertOptions(
        column_types=dict.fromkeys((ID, column), pa.string()),
        null_values=[""],
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
    )
    parsing = pacsv.ParseOptions(newlines_in_values=True)
    source = WholeLineEnds(file)
    table = pacsv.read_csv(source, parse_options=parsing, convert_options=options)
    names = [name for name in table.column_names if name not in unused]
    yield from table.select(names).to_batches(max_chunksize=_ROWS)


@contextmanager
def _unchanged(path: str, part: Entry) -> Iterator[IO[bytes]]:
    """Open an output that has the bytes that were written.

    Raises:
        NotFoundError: it is gone.
        IntegrityError: it was changed.
        UnavailableError: it cannot be read.
    """
    with _opened(path) as file:
        try:
            found = digests.of_open(file)
        except OSError as error:
            message = f"cannot read {shown(path)}: {error.strerror or error}"
            raise UnavailableError(message, hint="check the disk or the network") from error
        if found != part.digest:
            message = f"{shown(path)} was changed since it was published"
            raise IntegrityError(message, hint=_RESTORE)
        file.seek(0)
        yield file


@contextmanager
def _opened(path: str) -> Iterator[IO[bytes]]:
    """Open an output; that of a URL is copied to this machine, since it is read twice."""
    gone = f"the output {shown(path)} is gone"
    if "://" not in path:
        try:
            file = Path(path).open("rb")  # noqa: SIM115 (closed below)
        except FileNotFoundError as error:
            raise NotFoundError(gone, hint=_RESTORE) from error
        except OSError as error:
            message = f"cannot read {path}: {error.strerror}"
            raise UnavailableError(message, hint="correct its permissions") from error
        with file:
            yield file
        return
    with TemporaryFile() as copy:
        with object_runs.faults_of(path):
            system, name = object_runs.opened(path)
            try:
                with system.open(name, "rb") as source:
                    while chunk := source.read(_CHUNK):
                        copy.write(chunk)
            except FileNotFoundError as error:
                raise NotFoundError(gone, hint=_RESTORE) from error
        copy.seek(0)
        yield copy
