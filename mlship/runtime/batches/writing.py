"""Writes the outputs of a part: to a temporary file, synced, then renamed."""

import base64
import errno
import hashlib
import io
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import msgspec
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from mlship import files
from mlship.domain import batch as batches
from mlship.domain import digests
from mlship.domain.batch import OutputFormat
from mlship.domain.bundle import ID
from mlship.domain.digests import Digest
from mlship.errors import MlshipError, UnavailableError
from mlship.runtime.batches.partition import Rejected
from mlship.runtime.batches.places import fsspec, is_of_driver, is_url


class Outputs:
    """The outputs of a part. Nothing of them is seen before `finish`.

    Args:
        folder: of the run.
        part: its name.
        form: of the file.
        schema: of the outputs, as readers see it; labels may be written by their places in a list.
        metadata: is kept in the footer of a Parquet file.
    """

    def __init__(
        self,
        folder: str,
        part: str,
        form: OutputFormat,
        schema: Any,
        metadata: Mapping[str, str],
    ) -> None:
        self._rejected_path = f"{folder}/{batches.REJECTED}/part-{part}.jsonl"
        self._file = _New(f"{folder}/{batches.file_of(part, form)}")
        self._rejected: _New | None = None
        self._form, self._schema, self._metadata = form, schema, metadata
        self._writer: Any = None

    def write(self, batch: Any) -> None:
        """Add outputs."""
        with _faults_of(self._file.path):
            self._begun(batch.schema).write_batch(batch)

    def _begun(self, schema: Any) -> Any:
        """Return the writer, which is made for the first record batch."""
        if self._writer is None:
            file = self._file.file
            if self._form == "csv":
                self._writer = pacsv.CSVWriter(file, schema)
            else:
                self._writer = _parquet_writer(file, schema, self._schema, self._metadata)
        return self._writer

    def reject(self, row: Rejected, input_path: str) -> None:
        """Add a rejected row."""
        if self._rejected is None:
            self._rejected = _New(self._rejected_path)
        line = msgspec.json.encode({"file": input_path, **msgspec.to_builtins(row)})
        with _faults_of(self._rejected.path):
            self._rejected.file.write(line + b"\n")

    def finish(self) -> tuple[int, Digest, int]:
        """Put the files in their places.

        Returns:
            The size and the digest of the outputs, and the size of the file with rejected rows.

        Raises:
            UnavailableError: the disk is full, or the folder cannot be written.
        """
        rejected = self._rejected.publish()[0] if self._rejected is not None else 0
        with _faults_of(self._file.path):
            self._begun(self._schema).close()
        return *self._file.publish(), rejected

    def discard(self) -> None:
        """Remove what was written."""
        for file in (self._file, self._rejected):
            if file is not None and is_url(file.path):
                file.discard()
        # Otherwise its end is written when it is collected, to a file that is closed.
        with suppress(Exception):
            if self._writer is not None:
                self._writer.close()
        for file in (self._file, self._rejected):
            if file is not None:
                file.discard()


class _New:
    """A file that is written beside its place, or an object that is there when it is closed."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.file: IO[bytes]
        with _faults_of(path):
            if is_url(path):
                self._temporary = None
                self._system, name = fsspec(path).core.url_to_fs(path)
                self.file = _Digesting(_opened(self._system, name))  # type: ignore[assignment]
            else:
                place = Path(path)
                place.parent.mkdir(parents=True, exist_ok=True)
                self._temporary = place.with_name(f".{place.name}.{os.getpid()}.tmp")
                self.file = self._temporary.open("wb")

    def publish(self) -> tuple[int, Digest]:
        with _faults_of(self.path):
            if self._temporary is None:
                own: Any = self.file
                own.close()
                return own.size, Digest(f"sha256:{own.digest.hexdigest()}")
            self.file.flush()
            os.fsync(self.file.fileno())
            self.file.close()
            digest, size = _digest_of(self._temporary)
            self._temporary.replace(self.path)
            files.sync_folder(self._temporary.parent)
            return size, digest

    def discard(self) -> None:
        with suppress(Exception):
            if self._temporary is None:
                own: Any = self.file
                own.discard()
            else:
                self.file.close()
        if self._temporary is not None:
            with suppress(OSError):
                self._temporary.unlink(missing_ok=True)


def _opened(system: Any, name: str) -> Any:
    """Open a file of fsspec for writing. A store has no folders, and to make one makes a bucket."""
    try:
        return system.open(name, "wb")
    except FileNotFoundError:
        system.makedirs(name.rpartition("/")[0], exist_ok=True)
        return system.open(name, "wb")


class _Digesting:
    """A file of fsspec that counts and digests what is written."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.digest = hashlib.sha256()
        self.size = 0
        self.closed = False

    def write(self, data: Any) -> int:
        self.digest.update(data)
        self.size += len(data)
        self._file.write(data)
        return len(data)

    def flush(self) -> None:
        pass

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False

    def tell(self) -> int:
        return self.size

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._file.close()

    def discard(self) -> None:
        # To close it would put what was written in its place; its writer still adds an end.
        self.closed = True
        self._file.discard()
        with suppress(AttributeError):  # otherwise it is closed when it is collected
            self._file.closed = True
        self._file = io.BytesIO()


def _parquet_writer(
    file: Any, written: Any, schema: Any, metadata: Mapping[str, str]
) -> pq.ParquetWriter:
    """Return a writer of record batches.

    Args:
        file: is written to.
        written: the schema of the record batches, where labels are places in a list.
        schema: which readers get.
        metadata: is kept in the footer.
    """
    # Few floats are the same: to look for it takes longer than to write them.
    names = [
        field.name for field in schema if field.name != ID and not pa.types.is_floating(field.type)
    ]
    writer = pq.ParquetWriter(
        file,
        written,
        use_dictionary=names or False,
        # Ids differ in their last digits only.
        column_encoding={ID: "DELTA_BYTE_ARRAY"},
        compression="snappy",
        store_schema=False,
    )
    # Where Arrow keeps the types of a file: a label is a text, however it was written.
    described = schema.with_metadata(dict(metadata))
    stored = base64.b64encode(described.serialize().to_pybytes()).decode()
    writer.add_key_value_metadata({**metadata, "ARROW:schema": stored})
    return writer


def _digest_of(path: Path) -> tuple[Digest, int]:
    return digests.of_file(path), path.stat().st_size


@contextmanager
def _faults_of(path: str) -> Iterator[None]:
    try:
        yield
    except MlshipError:
        raise
    except Exception as error:
        number = getattr(error, "errno", None)
        if not isinstance(error, OSError) and not is_of_driver(error):
            raise
        reason = os.strerror(number) if number else str(error)
        hint = "correct its permissions" if number == errno.EACCES else "free disk space"
        if number not in (errno.EACCES, errno.ENOSPC, errno.EDQUOT):
            hint = "check the disk or the network, and that the bucket exists"
        raise UnavailableError(
            f"cannot write {path}: {reason}; nothing was published",
            hint=f"{hint}, then run `mlship batch` again: finished parts are kept",
        ) from error
