"""Runs in an object store: parts under the prefix of the run, and a manifest that commits them.

A store has no rename. So the manifest, written last and only if there is none, is what makes a run:
readers take the parts that it names. The journal of a run that is not committed is on this machine.
"""

import importlib
import importlib.util
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import msgspec

from mlship import files
from mlship.adapters.rows.journal import Journal
from mlship.adapters.rows.manifests import check_parts, encoded
from mlship.domain import batch as batches
from mlship.domain import digests
from mlship.domain.batch import Counts, Finished, Manifest, Plan, Scored
from mlship.errors import (
    ConfigError,
    ConflictError,
    IntegrityError,
    MlshipError,
    UnavailableError,
    shown,
)

_PREFIX: Final = "run-"
_AGAIN: Final = "then run `mlship batch` again: finished parts are kept"


class ObjectRuns:
    """The port Runs, for a URL of fsspec.

    Args:
        url: the prefix of all runs.
        state: the folder of journals.
    """

    def __init__(self, url: str, state: Path) -> None:
        self._url = url.rstrip("/")
        self._state = state

    @property
    def table(self) -> str:
        """No table: outputs are objects."""
        return ""

    def committed(self, plan: Plan) -> tuple[str, Manifest] | None:
        """Return the prefix and the manifest of a run if it was committed.

        Raises:
            IntegrityError: a part of it is gone, or has another size.
            UnavailableError: the store does not answer.
        """
        place = self._place(plan)
        manifest = read(place)
        if manifest is None:
            return None
        check_parts(shown(place), _sizes(place), plan, manifest)
        return place, manifest

    @contextmanager
    def begin(self, plan: Plan) -> Iterator["ObjectRun"]:
        """Open a run that is not committed.

        Raises:
            ConflictError: another process of this machine works on it.
            UnavailableError: the journal cannot be written.
        """
        place = self._place(plan)
        folder = self._state / digests.short(digests.of_bytes(place.encode()))
        try:
            files.make_private(folder)
        except OSError as error:
            message = f"cannot write the journal {folder}: {error.strerror}"
            raise UnavailableError(message, hint=f"correct its permissions, {_AGAIN}") from error
        with files.locked(folder) as is_locked:
            if not is_locked:
                message = f"another `mlship batch` writes to {shown(place)}"
                raise ConflictError(message, hint="wait for it")
            run = ObjectRun(place, plan, folder)
            try:
                yield run
            finally:
                run.close()

    def _place(self, plan: Plan) -> str:
        return f"{self._url}/{plan.folder}/{_PREFIX}{plan.run}"


class ObjectRun:
    """The port Run: a prefix, and a journal of the parts that are done.

    Args:
        place: the URL of the prefix.
        plan: of the run.
        folder: with the journal; it is removed when the run is committed.
    """

    def __init__(self, place: str, plan: Plan, folder: Path) -> None:
        self._place = place
        self._plan = plan
        self._local = folder
        self._journal = Journal(folder / batches.JOURNAL)

    @property
    def folder(self) -> str:
        """Where parts are written."""
        return self._place

    def finished(self) -> Mapping[str, Finished]:
        """Return the parts whose outputs are there, by name.

        Raises:
            UnavailableError: the store does not answer.
        """
        rejected = _sizes(f"{self._place}/{batches.REJECTED}")
        return self._journal.finished(self._plan, _sizes(self._place), rejected)

    def add(self, part: Scored) -> None:
        """Note that a part is done."""
        self._journal.add(part)

    def counts(self) -> Iterator[Mapping[str, Counts]]:
        """Return the counts of each part that is done."""
        return self._journal.counts()

    def commit(self, manifest: Manifest) -> str:
        """Write the manifest, if there is none; return the prefix.

        Raises:
            IntegrityError: a part is not there, or has another size.
            ConflictError: a run with other outputs was committed meanwhile.
            UnavailableError: the store does not take it.
        """
        check_parts(shown(self._place), _sizes(self._place), self._plan, manifest)
        path = f"{self._place}/{batches.MANIFEST}"
        try:
            with faults_of(path, publishes=True):
                _create(path, encoded(manifest))
        except FileExistsError:
            known = read(self._place)
            if known is None or known.parts != manifest.parts:
                message = f"{shown(path)} was written meanwhile, and names other outputs"
                hint = "use one version of mlship and of the model's libraries on all machines"
                raise ConflictError(message, hint=hint) from None
        with suppress(OSError):
            shutil.rmtree(self._local)
        return self._place

    def close(self) -> None:
        """Close the journal."""
        self._journal.close()


def read(place: str) -> Manifest | None:
    """Return the manifest of a run; `None` if there is none.

    Raises:
        IntegrityError: it is not a manifest.
        UnavailableError: the store does not answer.
    """
    path = f"{place}/{batches.MANIFEST}"
    with faults_of(path):
        system, name = opened(path)
        try:
            return msgspec.json.decode(system.cat_file(name), type=Manifest)
        except FileNotFoundError:
            return None
        except msgspec.DecodeError as error:
            message = f"{shown(path)} cannot be read: {error}"
            raise IntegrityError(message, hint="restore it from a backup") from error


def opened(path: str) -> tuple[Any, str]:
    """Return the file system of a URL as it is now, and the path in it.

    Raises:
        ConfigError: it needs a library.
    """
    if importlib.util.find_spec("fsspec") is None:
        message = f"{shown(path)} needs the library fsspec"
        raise ConfigError(message, hint="pip install fsspec, and the driver of that address")
    library: Any = importlib.import_module("fsspec")
    system, name = library.core.url_to_fs(path)
    system.invalidate_cache()
    return system, name


@contextmanager
def faults_of(path: str, *, publishes: bool = False) -> Iterator[None]:
    """Map what goes wrong with an object to an error that names it.

    Args:
        path: its URL.
        publishes: whether it is a part of a run that is not committed.
    """
    again = _AGAIN if publishes else "then run the command again"
    try:
        yield
    except (MlshipError, FileExistsError):
        raise
    except (ImportError, ValueError) as error:
        message = f"{shown(path)} cannot be used: {error}"
        raise ConfigError(message, hint="correct batch.output, or install its driver") from error
    except PermissionError as error:
        message = f"{shown(path)}: the store does not allow it: {error.strerror or error}"
        hint = "grant the credentials the right to read, list and create objects there"
        raise UnavailableError(message, hint=f"{hint}, {again}") from error
    except Exception as error:  # drivers of stores have errors of their own
        reason = getattr(error, "strerror", "") or error
        message = f"{shown(path)} cannot be used: {reason}"
        message += "; nothing was published" * publishes
        hint = f"check the bucket, the network and the credentials, {again}"
        raise UnavailableError(message, hint=hint) from error


def _create(path: str, data: bytes) -> None:
    """Write an object if it is not there: by the condition of the store, if its driver has one."""
    system, name = opened(path)
    try:
        system.pipe_file(name, data, mode="create")
    except TypeError:  # of a driver without conditions
        if system.exists(name):
            raise FileExistsError(path) from None
        system.pipe_file(name, data)


def _sizes(place: str) -> dict[str, int]:
    """Return the sizes of the objects under a prefix, by name; none if there are none."""
    with faults_of(place, publishes=True):
        system, name = opened(place)
        try:
            entries = system.ls(name, detail=True)
        except FileNotFoundError:
            return {}
    return {
        entry["name"].rpartition("/")[2]: entry["size"]
        for entry in entries
        if entry.get("type") == "file"
    }
