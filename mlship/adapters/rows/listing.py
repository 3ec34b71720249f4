"""The files that a batch reads: paths, folders, globs, URLs of fsspec, and the rows of queries."""

import importlib
import importlib.util
import itertools
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any, Final

import msgspec

from mlship import files
from mlship.adapters.rows import iceberg, tables
from mlship.adapters.rows.queries import QueryRows
from mlship.adapters.tables import delta
from mlship.adapters.tables.iceberg import METADATA
from mlship.domain import batch as batches
from mlship.domain.batch import Format, Input
from mlship.domain.batch_ports import Listed
from mlship.domain.databases import is_address
from mlship.errors import ConfigError, NotFoundError, UnavailableError

_FORMATS: Final[Mapping[str, Format]] = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".csv.gz": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".jsonl.gz": "jsonl",
    ".ndjson.gz": "jsonl",
}
_KNOWN: Final = "Parquet (.parquet), CSV (.csv) or JSON lines (.jsonl), texts also as .gz"
_OTHER: Final = re.compile(
    r"\.(parquet|pq|csv|jsonl|ndjson)\.(gzip|bz2|xz|lzma|zst|zstd|lz4|snappy|br|z|zip|gz)$"
    r"|\.(orc|avro|feather|arrow|tsv|tsv\.gz)$"
)
"""Names of files of rows that a batch does not read: passed over, their rows would be lost."""
_MAGIC: Final = "*?["
_RUN: Final = re.compile(r"/(release|split)(-[0-9a-f]{12})+/run-[0-9a-f]{12}/")
"""Outputs of a batch, which may be in the same bucket as its inputs."""
_HIDDEN: Final = (".", "_")
"""Files and folders whose names begin so are none of a table, as Spark and pyarrow have it."""


class LakeFiles:
    """The port Files.

    Args:
        root: the project's folder, from which relative paths go.
        state: remembers the digests of files, so that a resumed batch does not read them again.
    """

    def __init__(self, root: Path, state: Path) -> None:
        self._root = root
        self._state = state
        self._queries = QueryRows(root, state)

    def list(self, patterns: Sequence[str]) -> Sequence[Listed]:
        """Return the files of patterns, sorted by path, each once.

        Raises:
            NotFoundError: a pattern names no file.
            ConfigError: a file has no known format, or an address needs a library.
            UnavailableError: a folder cannot be read.
        """
        found: dict[str, Listed] = {}
        for pattern in patterns:
            listed = self._listed(pattern)
            if not listed:
                message = f"no files to read: {pattern} names none"
                hint = f"correct batch.input or --input; files must be {_KNOWN}"
                raise NotFoundError(message, hint=hint)
            found |= {each.path: each for each in listed}
        return [found[path] for path in sorted(found)]

    def held(self, patterns: Sequence[str], paths: Sequence[str]) -> AbstractContextManager[None]:
        """Keep the rows of queries until the batch ends, so that it goes on after a kill."""
        return self._queries.held([text for text in patterns if is_address(text)], paths)

    def known(self, plan: str) -> Mapping[str, Input]:
        """Return the inputs of an earlier plan of this name, by path."""
        decode = msgspec.json.Decoder(Input).decode
        # Most files have the same columns: thousands of copies would be most of the memory.
        columns: dict[tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]] = {}
        with suppress(OSError, msgspec.DecodeError), self._place(plan).open("rb") as lines:
            return {
                each.path: msgspec.structs.replace(
                    each, columns=columns.setdefault(each.columns, each.columns)
                )
                for each in map(decode, lines)
            }
        return {}

    def remember(self, plan: str, inputs: Sequence[Input]) -> None:
        """Remember the inputs of a plan; an error to do so is none of the batch."""
        lines = b"".join(msgspec.json.encode(each) + b"\n" for each in inputs)
        with suppress(OSError):
            files.make_private(self._state)
            self._place(plan).parent.mkdir(exist_ok=True)
            files.write_atomically(self._place(plan), lines)

    def _place(self, plan: str) -> Path:
        return self._state / "batch" / f"inputs-{plan}.jsonl"

    def _listed(self, pattern: str) -> Sequence[Listed]:
        if is_address(pattern):
            return [self._queries.listed(pattern)]
        is_url = "://" in pattern
        place = pattern.removeprefix(delta.ADDRESS)
        folder = (self._root / place).absolute()
        is_delta = place != pattern or (not is_url and tables.is_delta(folder))
        if is_delta or pattern.endswith(METADATA):
            files_of = tables.files_of if is_delta else iceberg.files_of
            uris = files_of(place if is_url else str(folder), pattern)
            found = (_of_url(uri) if "://" in uri else self._of_path(uri) for uri in uris)
            return list(itertools.chain.from_iterable(found))
        return _of_url(pattern) if is_url else self._of_path(pattern)

    def _of_path(self, pattern: str) -> Sequence[Listed]:
        # As its real path: a file that several links lead to is there once.
        path = Path(os.path.realpath(self._root / pattern))
        if path.is_dir():
            return _of_folder(path)
        if path.exists() or not any(sign in pattern for sign in _MAGIC):
            return [_of_file(path)] if path.is_file() else []
        listed: list[Listed] = []
        for found in _matches((self._root / pattern).absolute()):
            each = Path(os.path.realpath(found))
            if each.is_dir():
                listed += _of_folder(each)
            elif each.is_file() and not (each.parent / batches.MANIFEST).is_file():
                listed.append(_of_file(each))
        return listed


def _matches(pattern: Path) -> list[Path]:
    """Return what a pattern names. `**` follows no links to folders, which may lead back."""
    parts = pattern.parts
    first = next(n for n, part in enumerate(parts) if any(sign in part for sign in _MAGIC))
    base = Path(*parts[:first])
    found = base.glob(str(Path(*parts[first:])))
    return sorted(
        path
        for path in found
        if not any(part.startswith(_HIDDEN) for part in path.relative_to(base).parts)
    )


def _of_file(path: Path) -> Listed:
    return _regular(path, _format(str(path)))


def _regular(path: Path, form: Format) -> Listed:
    """Return a file on this machine by its real path.

    Raises:
        ConfigError: it is no regular file, so that it could be waited for without end, or a record
            cannot name it.
    """
    if not path.is_file():
        message = f"{path} is not a regular file"
        raise ConfigError(message, hint="remove it, or name the files to read with a glob")
    try:
        str(path).encode()
    except UnicodeEncodeError:
        message = f"the path {os.fsencode(path)!r} is not UTF-8"
        raise ConfigError(message, hint="rename the file or its folder") from None
    return Listed(str(path), form, files.state_of(path.stat()))


def _format_beside(path: str) -> Format | None:
    """Return the format of a file in a folder; `None` if it is passed over.

    Raises:
        ConfigError: it has rows, in a format that is not read.
    """
    form = _known_format(path)
    if form is None and _OTHER.search(path.lower()):
        message = f"{path} has a format that a batch does not read, and its rows would be left out"
        hint = f"write it as {_KNOWN}; or name the files to read with a glob"
        raise ConfigError(message, hint=hint)
    return form


def _of_folder(folder: Path, seen: set[str] | None = None) -> list[Listed]:
    """Return the files of known formats in a folder and those below it.

    Runs that were published below it are passed over: they are outputs, not inputs.

    Args:
        folder: its real path.
        seen: real paths of folders that were looked at: a link may lead back to one.
    """
    seen = seen if seen is not None else set()
    seen.add(str(folder))
    tables.check_no_table(folder)
    listed: list[Listed] = []
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        message = f"cannot read the folder {folder}: {error.strerror}"
        raise UnavailableError(message, hint="correct its permissions") from error
    for entry in entries:
        if entry.name.startswith(_HIDDEN):
            continue
        real = Path(os.path.realpath(entry.path))
        if real.is_dir():
            if str(real) not in seen and not (real / batches.MANIFEST).is_file():
                listed += _of_folder(real, seen)
        elif form := _format_beside(entry.path):
            if not real.exists():
                message = f"{entry.path} is a link to a file that is not there"
                raise NotFoundError(message, hint="remove the link, or restore what it leads to")
            listed.append(_regular(real, form))
    return listed


def _of_url(pattern: str) -> Sequence[Listed]:
    if importlib.util.find_spec("fsspec") is None:
        message = f"{pattern} needs the library fsspec"
        raise ConfigError(message, hint="pip install fsspec, and the driver of that address")
    library: Any = importlib.import_module("fsspec")
    system, name, details = _details(library, pattern)
    if any("/_delta_log/" in path for path in details):
        message = f"{pattern} is a Delta table, whose folder has files of former versions too"
        raise ConfigError(message, hint=f"name it as {delta.ADDRESS}{pattern}")
    # What the pattern itself names is not hidden, whatever its name.
    start = min([len(name), *(name.find(sign) for sign in _MAGIC if sign in name)])
    listed = []
    for path, info in details.items():
        is_hidden = any(part.startswith(_HIDDEN) for part in path[start:].split("/") if part)
        is_hidden |= _RUN.search(path, start) is not None
        if is_hidden or info.get("type") != "file":
            continue
        if form := _format_beside(path):
            listed.append(
                Listed(system.unstrip_protocol(path), form, batches.version_of_object(info))
            )
    return listed


def _details(library: Any, pattern: str) -> tuple[Any, str, Mapping[str, Mapping[str, Any]]]:
    """Return the file system of a URL, the path in it, and what is known of each file there."""
    try:
        system, name = library.core.url_to_fs(pattern)
        system.invalidate_cache()
        if any(sign in name for sign in _MAGIC):
            return system, name, system.glob(name, detail=True)
        return system, name, system.find(name, detail=True)
    except (ImportError, ValueError) as error:
        message = f"{pattern} cannot be read: {error}"
        raise ConfigError(message, hint="correct the address, or install its driver") from error
    except FileNotFoundError:
        return None, "", {}
    except OSError as error:
        message = f"{pattern} cannot be read: {error}"
        raise UnavailableError(message, hint="check the network and the credentials") from error


def _format(path: str) -> Format:
    form = _known_format(path)
    if form is None:
        message = f"{path} has no known format"
        raise ConfigError(message, hint=f"give {_KNOWN}")
    return form


def _known_format(path: str) -> Format | None:
    name = path.rpartition("/")[2].lower()
    return next((form for ending, form in _FORMATS.items() if name.endswith(ending)), None)
