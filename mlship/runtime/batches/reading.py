"""Reads a part of a file as record batches, or as rows of JSON."""

import gzip
import io
from collections.abc import Iterator, Sequence
from typing import IO, Any, Final

import msgspec
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from mlship.domain import csv_text
from mlship.domain.batch import Block, Input, Reading
from mlship.domain.csv_text import Utf8Text, WholeLineEnds
from mlship.errors import ProjectError
from mlship.runtime.batches import places
from mlship.runtime.batches.quotes import CheckedText, QuoteCheck

ROWS: Final = 50_000
"""Rows that are computed together: enough for a model's own speed, and few for the memory."""
_TEXT_BLOCK: Final = 4 << 20


class Malformed(msgspec.Struct, frozen=True):
    """A line of a CSV file with another number of fields than its header."""

    text: str
    reason: str


def batches(
    each: Input,
    block: Block,
    reading: Reading,
    names: Sequence[str],
    malformed: list[Malformed],
) -> Iterator[Any]:
    """Return the record batches of a block of Parquet or CSV.

    Args:
        each: the file.
        block: of the file.
        reading: how text is read.
        names: of the columns that are needed.
        malformed: gets lines that are no rows.

    Raises:
        NotFoundError, UnavailableError, ConfigError, ProjectError: the file cannot be read.
    """
    with places.opened(each.path) as file:
        try:
            if each.format == "parquet":
                yield from _parquet(each.path, file, block, names)
            else:
                yield from _csv(each, file, block, reading, names, malformed)
        except (
            pa.ArrowInvalid,
            pa.ArrowNotImplementedError,
            EOFError,
            UnicodeDecodeError,
        ) as error:
            reason = str(error).strip().splitlines()[0][:300]
            message = f"{each.path} cannot be read: {reason}"
            raise ProjectError(message, hint="write the file again, or leave it out") from error


def lines(each: Input, block: Block) -> Iterator[list[Any]]:
    """Return the rows of a block of JSON lines; a line that is no JSON is its text.

    Raises:
        NotFoundError, UnavailableError, ConfigError: the file cannot be read.
    """
    decode = msgspec.json.Decoder().decode
    rows: list[Any] = []
    with places.opened(each.path) as file:
        for line in _lines(each, file, block):
            if not line.strip():
                continue
            try:
                rows.append(decode(line))
            except (msgspec.DecodeError, UnicodeDecodeError):
                rows.append(line.decode("utf-8", "replace")[:1000])
            if len(rows) >= ROWS:
                yield rows
                rows = []
    if rows:
        yield rows


def _lines(each: Input, file: IO[bytes], block: Block) -> Iterator[bytes]:
    if each.path.endswith(".gz"):
        with gzip.open(file) as unzipped:
            yield from unzipped
        return
    file.seek(block.start)
    place = block.start
    while block.end < 0 or place < block.end:
        line = file.readline()
        if not line:
            return
        place += len(line)
        yield line


def _parquet(path: str, file: IO[bytes], block: Block, names: Sequence[str]) -> Iterator[Any]:
    # A file of Arrow's own is read without the interpreter.
    with file if places.is_url(path) else pa.OSFile(path) as source:
        yield from pq.ParquetFile(source).iter_batches(
            batch_size=ROWS,
            row_groups=list(range(block.start, block.end)),
            columns=list(names),
            use_threads=False,
        )


def _csv(
    each: Input,
    file: IO[bytes],
    block: Block,
    reading: Reading,
    names: Sequence[str],
    malformed: list[Malformed],
) -> Iterator[Any]:
    all_names = [name for name, _ in each.columns]
    is_whole = block.end < 0
    check = QuoteCheck(each.path, reading.sep)
    if is_whole:
        whole: Any = gzip.GzipFile(fileobj=file) if each.path.endswith(".gz") else file
        source: Any = CheckedText(_as_utf8(whole, reading), check)
    else:
        file.seek(block.start)
        text = file.read(block.end - block.start)
        check.feed(text)
        check.finish()
        source = _as_utf8(io.BytesIO(text), reading)

    def refuse(row: Any) -> str:
        reason = f"the line has {row.actual_columns} fields, and the header {row.expected_columns}"
        malformed.append(Malformed(row.text, reason))
        return "skip"

    reader = pacsv.open_csv(
        WholeLineEnds(source),
        read_options=pacsv.ReadOptions(
            use_threads=False,
            block_size=_TEXT_BLOCK,
            column_names=all_names,
            skip_rows=1 if is_whole else 0,
        ),
        parse_options=pacsv.ParseOptions(
            delimiter=reading.sep,
            # The streaming reader looks for line ends itself: it must know that values have some.
            newlines_in_values=True,
            invalid_row_handler=refuse,
        ),
        convert_options=pacsv.ConvertOptions(
            column_types=dict.fromkeys(all_names, pa.string()),
            include_columns=list(names),
            # What stands for a missing value is one in the model's columns, and a text in others.
            strings_can_be_null=False,
        ),
    )
    yield from reader


def _as_utf8(file: Any, reading: Reading) -> Any:
    return file if csv_text.is_utf8(reading.encoding) else Utf8Text(file, reading.encoding)
