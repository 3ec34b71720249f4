"""Looks at a file for the plan: its digest, its columns, and the blocks that it is cut into."""

import codecs
import csv
import hashlib
import io
from collections.abc import Iterator
from typing import IO, Final

import pyarrow as pa
import pyarrow.parquet as pq

from mlship.domain.batch import Block, Format, Input, Reading
from mlship.domain.digests import Digest
from mlship.errors import ProjectError
from mlship.runtime.batches import places

_CHUNK: Final = 4 << 20
_QUOTE: Final = b'"'
_LONGEST_HEADER: Final = 1 << 20


def inspect(path: str, form: Format, reading: Reading) -> Input:
    """Return a file as an input of a batch. All of its bytes are read.

    Raises:
        NotFoundError, UnavailableError, ConfigError: it cannot be read.
        ProjectError: it is not a file of that format, such as one that was cut off.
        IntegrityError: it was changed meanwhile.
    """
    known = places.version(path)
    columns: tuple[tuple[str, str], ...] = ()
    with places.opened(path) as file:
        if form == "parquet":
            columns, blocks = _of_parquet(path, file, reading)
            file.seek(0)
            digest, size, _ = _scanned(file, 0, 0, is_quoted=False)
        else:
            is_whole = path.endswith(".gz") or is_wide(reading.encoding)
            start = 0
            if form == "csv":
                columns, start = _header(path, file, reading)
                file.seek(0)
            digest, size, ends = _scanned(
                file, 0 if is_whole else reading.part_bytes, start, is_quoted=form == "csv"
            )
            starts = [start, *ends[:-1]] if ends else [start]
            blocks = [Block(a, b) for a, b in zip(starts, ends or [-1], strict=True)]
            if not is_whole and size <= start:
                blocks = []
    places.check_same(path, known)
    return Input(
        path=path,
        format=form,
        version=known,
        digest=digest,
        size=size,
        blocks=tuple(blocks),
        columns=columns,
    )


def is_wide(encoding: str) -> bool:
    """Return whether the bytes of a line end may be a part of another character."""
    name = codecs.lookup(encoding).name if encoding else "utf-8"
    return name.startswith(("utf-16", "utf-32"))


def _of_parquet(
    path: str, file: IO[bytes], reading: Reading
) -> tuple[tuple[tuple[str, str], ...], list[Block]]:
    try:
        known = pq.ParquetFile(file)
        schema, metadata = known.schema_arrow, known.metadata
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        if "crypt" in str(error):
            message = f"{path} is encrypted: {_line(error)}; no row was scored"
            raise ProjectError(message, hint="write it without encryption") from error
        message = f"{path} is not a complete Parquet file: {_line(error)}; no row was scored"
        raise ProjectError(message, hint="write the file again, or leave it out") from error
    blocks: list[Block] = []
    start = rows = 0
    for group in range(metadata.num_row_groups):
        rows += metadata.row_group(group).num_rows
        if rows >= reading.part_rows or group == metadata.num_row_groups - 1:
            blocks.append(Block(start, group + 1, rows))
            start, rows = group + 1, 0
    return tuple((field.name, str(field.type)) for field in schema), blocks


def _header(
    path: str, file: IO[bytes], reading: Reading
) -> tuple[tuple[tuple[str, str], ...], int]:
    """Return the columns of a CSV file, and the byte after its header.

    That of a compressed file is not known, and 0.
    """
    import gzip

    is_zipped = path.endswith(".gz")
    encoding = reading.encoding or "utf-8-sig"
    try:
        begin = (gzip.GzipFile(fileobj=file) if is_zipped else file).read(_LONGEST_HEADER)
        end = len(begin)
        if not is_wide(reading.encoding):
            end = next(_line_ends(begin, 0, is_quoted=True, least=0), len(begin))
        text = begin[:end].decode(encoding, "strict" if end < len(begin) else "ignore")
        names = next(csv.reader(io.StringIO(text), delimiter=reading.sep), [])
    except (UnicodeDecodeError, csv.Error, EOFError, gzip.BadGzipFile) as error:
        message = f"the header of {path} cannot be read: {error}; no row was scored"
        raise ProjectError(message, hint="set data.read.encoding and data.read.sep") from error
    if not names:
        message = f"{path} is empty: it has no header; no row was scored"
        raise ProjectError(message, hint="write a header line, or leave the file out")
    is_whole = is_zipped or is_wide(reading.encoding)
    return tuple((name, "csv") for name in names), 0 if is_whole else end


def _scanned(
    file: IO[bytes], part: int, start: int, *, is_quoted: bool
) -> tuple[Digest, int, list[int]]:
    """Return the digest and the size of a file, and the ends of its blocks.

    Args:
        file: at its begin.
        part: the least size of a block; 0 for no blocks.
        start: of the first block.
        is_quoted: whether a line end within quotes ends no line.
    """
    digest, size, ends = hashlib.sha256(), 0, list[int]()
    inside = False
    due = start + part
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
        if part and size + len(chunk) >= due:
            for end in _line_ends(chunk, size, is_quoted=is_quoted, least=due, inside=inside):
                if end >= due:
                    ends.append(end)
                    due = end + part
                if size + len(chunk) < due:
                    break
        if is_quoted and chunk.count(_QUOTE) % 2:
            inside = not inside
        size += len(chunk)
    if part and size > start and (not ends or ends[-1] != size):
        ends.append(size)
    return Digest(f"sha256:{digest.hexdigest()}"), size, ends


def _line_ends(
    chunk: bytes, offset: int, *, is_quoted: bool, least: int, inside: bool = False
) -> Iterator[int]:
    """Return the places after line ends, from the offset of a chunk in its file on.

    Args:
        chunk: bytes of the file.
        offset: of the chunk.
        is_quoted: whether a line end within quotes ends no line.
        least: places before it are not looked for.
        inside: whether the chunk begins within quotes.
    """
    start = max(0, least - offset - 1)
    if is_quoted and chunk.count(_QUOTE, 0, start) % 2:
        inside = not inside
    place = start
    while (end := chunk.find(b"\n", place)) >= 0:
        if is_quoted and chunk.count(_QUOTE, place, end) % 2:
            inside = not inside
        if not (is_quoted and inside):
            yield offset + end + 1
        place = end + 1


def _line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
