"""Data: a path in the project, which DVC or Git LFS may hold, an fsspec URL, a table or a query."""

import importlib
import importlib.util
import shlex
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Final

from mlship.adapters.checkout import changes, dvc, queries, tables
from mlship.config.data import DataConfig
from mlship.domain import digests
from mlship.domain.digests import Digest
from mlship.errors import ConfigError, ProjectError, UnavailableError

_LFS: Final = b"version https://git-lfs.github.com/spec/v1\n"
_VERSIONS: Final = ("generation", "VersionId", "version_id")
"""What Google Cloud Storage, S3 and Azure call the version of an object in fsspec's `info`."""


def sources(root: Path, data: DataConfig) -> dict[str, Digest]:
    """Return the digests of the training and the held-out data by their names in mlship.yaml.

    The digest is that of the bytes; of a Delta table, and of an object in a store that keeps
    versions, that of the version, so that it is not downloaded.

    Raises:
        ProjectError: a file is missing or cannot be read.
        IntegrityError: a file is not the one that its `.dvc` pointer names.
        ConfigError: an address needs a library that is not installed.
    """
    return {text: _digest(root, text) for text in _texts(data)}


def digest_of_held_out(root: Path, data: DataConfig) -> Digest:
    """Return the digest of what is held out: the file's, or that of the data and its split.

    Raises:
        ProjectError, IntegrityError, ConfigError: as `sources`.
    """
    if data.test:
        return _digest(root, data.test)
    return digests.of_value({"train": _digest(root, data.train), "split": data.split})


def names(root: Path, data: DataConfig) -> set[str]:
    """Return the paths in the project of the data and of what points to it."""
    found = set()
    for text in _texts(data):
        if not _is_address(text):
            path = root / text
            target = dvc.read(path, text).target if path.suffix == dvc.SUFFIX else path
            pointer = dvc.pointer_to(root, target)
            files = (path, target, *([pointer.file] if pointer else []))
            found |= {file.relative_to(root).as_posix() for file in files if root in file.parents}
    return found


def places(root: Path, data: DataConfig) -> list[Path]:
    """Return the files of the data that are on this machine; DVC may keep them."""
    texts = [text for text in _texts(data) if not _is_address(text)]
    return [root / name for name in {*texts, *names(root, data)}]


def name_of(text: str) -> str:
    """Return the name that tells a file's format: a pointer's own ending is taken away."""
    return text.removesuffix(dvc.SUFFIX)


def check_lfs(path: Path, name: str) -> None:
    """Check that a file is not only a pointer of Git LFS; any other fault is for others to find.

    Raises:
        ProjectError: it is.
    """
    begin = b""
    with suppress(OSError), path.open("rb") as file:
        begin = file.read(len(_LFS))
    if begin == _LFS:
        message = f"{name} is a Git LFS pointer, not the file itself"
        raise ProjectError(message, hint="git lfs pull; in a workflow, check out with `lfs: true`")


@contextmanager
def opened(root: Path, text: str) -> Iterator[IO[bytes]]:
    """Open data for reading bytes.

    Raises:
        ProjectError, IntegrityError, ConfigError, UnavailableError: it cannot be read.
    """
    if _is_address(text):
        with _faults_of(text), _fsspec(text).open(text, "rb") as file:
            yield file
        return
    path = _path(root, text)
    try:
        file = path.open("rb")
    except OSError as error:
        message = f"data file {text} cannot be read: {error.strerror}"
        raise ProjectError(message, hint="correct its path or its permissions") from error
    with file:
        yield file


def _texts(data: DataConfig) -> tuple[str, ...]:
    return (data.train, data.test) if data.test else (data.train,)


def _digest(root: Path, text: str) -> Digest:
    if tables.is_table(root, text):
        return tables.digest_of(root, text)
    if queries.is_query(text):
        return digests.of_bytes(queries.rows_of(root, text))
    if version := _version(text):
        return digests.of_value({"address": text, "version": version})
    with opened(root, text) as file:
        return digests.of_open(file)


def _version(text: str) -> str:
    """Return the version of an object in a store that keeps versions, else an empty text."""
    if not _is_address(text):
        return ""
    fsspec = _fsspec(text)
    with _faults_of(text):
        try:
            system, path = fsspec.core.url_to_fs(text)
        except ValueError as error:
            message = f"data at {text} cannot be found: {error}"
            raise ConfigError(message, hint="correct data.train or data.test") from error
        system.invalidate_cache()
        info = system.info(path)
    # S3 calls the version `null` where it keeps none.
    known = (str(info.get(name) or "null") for name in _VERSIONS)
    return next((version for version in known if version != "null"), "")


def _is_address(text: str) -> bool:
    return "://" in text


def _fsspec(text: str) -> Any:
    if importlib.util.find_spec("fsspec") is None:
        message = f"data at {text} needs the library fsspec"
        raise ConfigError(message, hint="pip install fsspec, and the driver of that address")
    return importlib.import_module("fsspec")


@contextmanager
def _faults_of(text: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        message = f"data at {text} needs a driver: {error}"
        raise ConfigError(message, hint="pip install what the message names") from error
    except FileNotFoundError as error:
        message = f"no data at {text}"
        raise ProjectError(message, hint="correct data.train or data.test") from error
    except OSError as error:
        message = f"data at {text} cannot be read: {error}"
        hint = "check the network and the credentials; training gets the variables that "
        hint += "model.environment names"
        raise UnavailableError(message, hint=hint) from error


def _path(root: Path, text: str) -> Path:
    path = root / text
    if path.suffix == dvc.SUFFIX:
        return _followed(path, text)
    pointer = dvc.pointer_to(root, path)
    if pointer is not None:
        pointer.check(path)
    if path.is_file():
        check_lfs(path, f"data file {text}")
        return path
    if name := _absent_submodule(root, path):
        message = f"data file {text} is in the submodule {name}, which is not checked out"
        raise ProjectError(message, hint=f"git submodule update --init {shlex.quote(name)}")
    if output := dvc.output_of(root, path):
        message = f"data file {text}, an output in {output.name}, is missing"
        raise ProjectError(message, hint=f"dvc pull {shlex.quote(text)}")
    message = f"no data file {text} in {root}"
    raise ProjectError(message, hint="correct data.train or data.test in mlship.yaml")


def _absent_submodule(root: Path, path: Path) -> str:
    """Return the submodule that a missing file is in, where it is not checked out; else nothing."""
    folder = next((place for place in path.parents if place.is_dir()), root)
    if folder == root or not folder.is_relative_to(root) or any(folder.iterdir()):
        return ""
    try:
        names = changes.absent_submodules(root)
    except ProjectError:  # no git, or no repository
        return ""
    return next((name for name in names if folder == root / name), "")


def _followed(file: Path, text: str) -> Path:
    if not file.is_file():
        message = f"no data file {text}"
        raise ProjectError(message, hint="correct data.train or data.test in mlship.yaml")
    pointer = dvc.read(file, text)
    if pointer.is_folder:
        message = f"{text} points to a folder, and data must be one file"
        folder = text.removesuffix(dvc.SUFFIX)
        raise ProjectError(message, hint=f"name a file in it, such as {folder}/train.csv")
    pointer.check(pointer.target)
    return pointer.target
