"""Files of data: a path in the project, a `.dvc` pointer to one beside it, or an fsspec URL."""

import hashlib
import importlib
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import yaml

from mlship.config.project import DataConfig
from mlship.domain import digests
from mlship.domain.digests import Digest
from mlship.errors import ConfigError, IntegrityError, ProjectError, UnavailableError

_POINTER = ".dvc"
_CHUNK = 1 << 20


def digest_of_data(root: Path, data: DataConfig) -> Digest:
    """Return the digest of the training and the held-out data, as their bytes are now.

    Raises:
        ProjectError: a file is missing or cannot be read.
        IntegrityError: a file is not the one that its `.dvc` pointer names.
        ConfigError: an address needs a library that is not installed.
    """
    held_out = _digest(root, data.test) if data.test else None
    return digests.of_value({"train": _digest(root, data.train), "test": held_out})


def digest_of_held_out(root: Path, data: DataConfig) -> Digest:
    """Return the digest of what is held out: the file's, or that of the data and its split.

    Raises:
        ProjectError, IntegrityError, ConfigError: as `digest_of_data`.
    """
    if data.test:
        return _digest(root, data.test)
    return digests.of_value({"train": _digest(root, data.train), "split": data.split})


def name_of(text: str) -> str:
    """Return the name that tells a file's format: a pointer's own ending is taken away."""
    return text.removesuffix(_POINTER)


@contextmanager
def opened(root: Path, text: str) -> Iterator[IO[bytes]]:
    """Open data for reading bytes.

    Raises:
        ProjectError, IntegrityError, ConfigError, UnavailableError: it cannot be read.
    """
    if _is_address(text):
        with _opened_address(text) as file:
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


def _digest(root: Path, text: str) -> Digest:
    digest = hashlib.sha256()
    with opened(root, text) as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return Digest("sha256:" + digest.hexdigest())


def _is_address(text: str) -> bool:
    return "://" in text


@contextmanager
def _opened_address(text: str) -> Iterator[IO[bytes]]:
    if importlib.util.find_spec("fsspec") is None:
        message = f"data at {text} needs the library fsspec"
        raise ConfigError(message, hint="pip install fsspec, and the driver of that address")
    fsspec: Any = importlib.import_module("fsspec")
    try:
        with fsspec.open(text, "rb") as file:
            yield file
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
    if path.suffix == _POINTER:
        return _followed(path, text)
    if path.is_file():
        return path
    if path.with_name(path.name + _POINTER).is_file():
        message = f"data file {text} is missing: only its pointer {text}{_POINTER} is there"
        raise ProjectError(message, hint=f"dvc pull {text}{_POINTER}")
    message = f"no data file {text} in {root}"
    raise ProjectError(message, hint="correct data.train or data.test in mlship.yaml")


def _followed(pointer: Path, text: str) -> Path:
    if not pointer.is_file():
        message = f"no data file {text}"
        raise ProjectError(message, hint="correct data.train or data.test in mlship.yaml")
    try:
        entry = yaml.safe_load(pointer.read_text("utf-8"))["outs"][0]
        name, md5 = str(entry["path"]), str(entry["md5"])
    except (yaml.YAMLError, KeyError, IndexError, TypeError, UnicodeDecodeError) as error:
        message = f"{text} is not a DVC pointer to one file"
        raise ProjectError(message, hint="make it with `dvc add`") from error
    path = pointer.parent / name
    if md5.endswith(".dir"):
        message = f"{text} points to a folder; the data must be one file"
        raise ProjectError(message, hint="dvc add the file itself")
    if not path.is_file():
        message = f"{name}, which {text} points to, is missing"
        raise ProjectError(message, hint=f"dvc pull {text}")
    if _md5(path) != md5:
        message = f"{name} is not the file that {text} points to"
        raise IntegrityError(message, hint=f"dvc checkout {text}, or dvc add {name} to keep it")
    return path


def _md5(path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
