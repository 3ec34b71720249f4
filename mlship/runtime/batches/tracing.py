"""Finds one row of a batch again: in its input, and in the outputs."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from mlship.domain import digests
from mlship.domain.batch import Block
from mlship.domain.batch_work import Find, Found
from mlship.domain.bundle import ID, Row
from mlship.domain.csv_text import WholeLineEnds
from mlship.errors import IntegrityError, NotFoundError, shown
from mlship.runtime.batches import places, reading
from mlship.runtime.batches.inspection import inspect
from mlship.runtime.batches.partition import row_of
from mlship.runtime.batches.reading import Malformed
from mlship.runtime.model import Model


def find(model: Model, request: Find) -> Found:
    """Return a row of a part and its outputs.

    Raises:
        NotFoundError: the part has no such row, or the row was rejected.
        IntegrityError: the input is not the one that was scored, or the output was changed.
        UnavailableError, ConfigError, ProjectError: a file cannot be read.
    """
    outputs = _outputs(model, request)
    each = request.input
    if places.version(each.path) != each.version:
        # Copied or restored, it may be the same bytes.
        now = inspect(each.path, each.format, request.reading).digest
        if now != each.digest:
            message = f"{each.path} was changed since the batch: its digest is {now}, "
            message += f"and {each.digest} was scored"
            raise IntegrityError(message, hint="restore the file to trace its rows")
    return Found(_inputs(model, request), outputs)


def _outputs(model: Model, request: Find) -> Row:
    names = [field.name for field in model.bundle.schema.outputs]
    with _published(request) as file:
        if request.format == "parquet":
            table = pq.read_table(file, filters=[(ID, "=", request.id)], columns=names)
        else:
            kinds = {ID: pa.string()}
            options = pacsv.ConvertOptions(column_types=kinds)
            parsing = pacsv.ParseOptions(newlines_in_values=True)
            source = WholeLineEnds(file)
            read = pacsv.read_csv(source, parse_options=parsing, convert_options=options)
            table = read.filter(pc.equal(read.column(ID), request.id)).select(names)
    if not table.num_rows:
        message = f"the batch has no prediction {request.id}: the row was rejected, or never was"
        raise NotFoundError(message, hint="look for it in the folder _rejected of the run")
    row: Row = table.to_pylist()[0]
    return row


@contextmanager
def _published(request: Find) -> Iterator[IO[bytes]]:
    """Open the outputs of a part, which must be as they were published."""
    restore = "restore it from a backup to trace its rows"
    try:
        places.version(request.output)
    except NotFoundError as error:
        message = f"the output {shown(request.output)} is gone"
        raise NotFoundError(message, hint=restore) from error
    with places.opened(request.output) as file:
        if digests.of_open(file) != request.published:
            message = f"{shown(request.output)} was changed since it was published"
            raise IntegrityError(message, hint=restore)
        file.seek(0)
        yield file


def _inputs(model: Model, request: Find) -> Row:
    each, fields = request.input, model.bundle.schema.inputs
    names = [field.name for field in fields]
    first = 0
    if each.format == "jsonl":
        for rows in reading.lines(each, each.blocks[0]):
            if request.row < first + len(rows):
                own = rows[request.row - first]
                return {name: own[name] for name in names if name in own}
            first += len(rows)
    else:
        malformed: list[Malformed] = []
        block = each.blocks[0]
        if each.format == "parquet":
            block, first = _group_of(each.path, block, request.row)
        for batch in reading.batches(each, block, request.reading, names, malformed):
            if request.row < first + batch.num_rows:
                return _row(batch, request, fields, first)
            first += batch.num_rows
    raise NotFoundError(
        f"{each.path} has no row {request.row} in this part",
        hint="check that the id is complete",
    )


def _group_of(path: str, block: Block, row: int) -> tuple[Block, int]:
    """Return the row group of a block that has a row, and its first row; else the whole block."""
    with places.opened(path) as file:
        metadata = pq.read_metadata(file)
    first = 0
    for group in range(block.start, block.end):
        end = first + metadata.row_group(group).num_rows
        if row < end:
            return Block(group, group + 1), first
        first = end
    return block, 0


def _row(batch: Any, request: Find, fields: Any, first: int) -> Row:
    is_text = request.input.format == "csv"
    place = request.row - first
    return row_of(batch, place, fields, request.reading, is_text=is_text)
