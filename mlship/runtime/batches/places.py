"""Files to read: a path on this machine, or a URL of fsspec."""

import importlib
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

from mlship import files
from mlship.domain import batch
from mlship.errors import (
    ConfigError,
    IntegrityError,
    NotFoundError,
    ProjectError,
    UnavailableError,
)

_DRIVERS: Final = frozenset(
    {"adlfs", "aiobotocore", "aiohttp", "azure", "botocore", "gcsfs", "google", "s3fs"}
)


def is_url(path: str) -> bool:
    """Return whether a path is a URL."""
    return "://" in path


@contextmanager
def opened(path: str) -> Iterator[IO[bytes]]:
    """Open a file for reading bytes.

    Raises:
        NotFoundError: there is no such file.
        UnavailableError: it cannot be read.
        ConfigError: a URL needs a library that is not installed.
    """
    with faults_of(path):
        if is_url(path):
            with fsspec(path).open(path, "rb") as file:
                yield file
            return
        with Path(path).open("rb") as file:
            yield file


def version(path: str) -> str:
    """Return a text that changes with a file.

    Raises:
        NotFoundError, UnavailableError, ConfigError: as `opened`.
    """
    with faults_of(path):
        if not is_url(path):
            return files.state_of(Path(path).stat())
        system, name = fsspec(path).core.url_to_fs(path)
        system.invalidate_cache()
        return batch.version_of_object(system.info(name))


def check_same(path: str, known: str) -> None:
    """Check that a file is the one that the plan was made for.

    Raises:
        IntegrityError: it was changed or removed since.
    """
    try:
        now = version(path)
    except NotFoundError:
        now = ""
    if now != known:
        what = "was changed" if now else "was removed"
        message = f"{path} {what} while the batch was running; nothing was published"
        hint = "wait until it is complete, then run `mlship batch` again, which makes a new plan"
        raise IntegrityError(message, hint=hint)


def fsspec(path: str) -> Any:
    """Return the library fsspec.

    Raises:
        ConfigError: it is not installed.
    """
    if importlib.util.find_spec("fsspec") is None:
        message = f"{path} needs the library fsspec"
        raise ConfigError(message, hint="pip install fsspec, and the driver of that address")
    return importlib.import_module("fsspec")


def is_of_driver(error: Exception) -> bool:
    """Return whether an error is one of a driver of fsspec, of which some are no OSError."""
    return type(error).__module__.partition(".")[0] in _DRIVERS


@contextmanager
def faults_of(path: str) -> Iterator[None]:
    """Map what goes wrong with a file to an error that names it."""
    try:
        yield
    except FileNotFoundError as error:
        raise NotFoundError(
            f"there is no file {path}", hint="correct batch.input or --input"
        ) from error
    except ImportError as error:
        message = f"{path} needs a driver: {error}"
        raise ConfigError(message, hint="pip install what the message names") from error
    except Exception as error:
        if not isinstance(error, OSError) and not is_of_driver(error):
            raise
        reason = getattr(error, "strerror", "") or str(error)
        if "decrypt" in reason:
            message = f"{path} is encrypted: {reason}"
            raise ProjectError(message, hint="write it without encryption") from error
        message = f"cannot read {path}: {reason}"
        hint = "correct its permissions, or check the network and the credentials"
        raise UnavailableError(message, hint=hint) from error
