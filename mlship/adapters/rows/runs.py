"""Runs in a folder: parts in a hidden folder, which is renamed when its manifest is written."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from mlship import files
from mlship.adapters.rows import object_runs
from mlship.adapters.rows.journal import Journal
from mlship.adapters.rows.manifests import check_parts, encoded
from mlship.domain import batch as batches
from mlship.domain.batch import Counts, Finished, Manifest, Plan, Scored
from mlship.errors import ConflictError, IntegrityError, UnavailableError

_PREFIX: Final = "run-"


class FolderRuns:
    """The port Runs, for an output on this machine.

    A reader sees a run whole or not at all: its folder gets its name in one step.
    """

    def __init__(self, output: Path) -> None:
        self._output = output

    @property
    def table(self) -> str:
        """No table: outputs stay in the folder."""
        return ""

    def place(self, plan: Plan) -> Path:
        """Return the folder of a run that is committed."""
        return self._output / plan.folder / f"{_PREFIX}{plan.run}"

    def committed(self, plan: Plan) -> tuple[str, Manifest] | None:
        """Return the folder and the manifest of a run if it was committed.

        Raises:
            IntegrityError: a part of it is gone, or has another size.
        """
        folder = self.place(plan)
        manifest = read(str(folder))
        if manifest is None:
            return None
        check_parts(str(folder), _sizes(folder), plan, manifest)
        return str(folder), manifest

    @contextmanager
    def begin(self, plan: Plan) -> Iterator["FolderRun"]:
        """Open a run that is not committed, for this process and its workers alone.

        Raises:
            ConflictError: another process works on it.
            UnavailableError: the folder cannot be written.
        """
        folder = self._output / plan.folder / f".{_PREFIX}{plan.run}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / batches.JOURNAL).touch()
        except OSError as error:
            message = f"cannot write to {self._output}: {error.strerror}; nothing was published"
            raise UnavailableError(message, hint="correct --output or its permissions") from error
        with files.locked(folder) as is_locked:
            if not is_locked:
                message = f"another `mlship batch` writes to {folder}"
                raise ConflictError(message, hint="wait for it; it may be on another machine")
            run = FolderRun(folder, plan)
            try:
                yield run
            finally:
                run.close()


class FolderRun:
    """The port Run: a folder, and a journal of the parts that are done."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self._folder = folder
        self._plan = plan
        self._journal = Journal(folder / batches.JOURNAL)
        self._remove_leftovers()

    @property
    def folder(self) -> str:
        """Where parts are written."""
        return str(self._folder)

    def finished(self) -> Mapping[str, Finished]:
        """Return the parts whose outputs are there, by name."""
        rejected = _sizes(self._folder / batches.REJECTED)
        return self._journal.finished(self._plan, _sizes(self._folder), rejected)

    def add(self, part: Scored) -> None:
        """Note that a part is done."""
        self._journal.add(part)

    def counts(self) -> Iterator[Mapping[str, Counts]]:
        """Return the counts of each part that is done."""
        return self._journal.counts()

    def commit(self, manifest: Manifest) -> str:
        """Publish the run, all of it or nothing; return its folder.

        Raises:
            IntegrityError: a part is not there, or has another size.
            UnavailableError: the folder cannot be written.
        """
        check_parts(str(self._folder), _sizes(self._folder), self._plan, manifest)
        final = self._folder.with_name(self._folder.name.removeprefix("."))
        try:
            self._clean()
            files.write_atomically(self._folder / batches.MANIFEST, encoded(manifest))
            self._folder.rename(final)
            files.sync_folder(final.parent)
            (final / batches.JOURNAL).unlink(missing_ok=True)
        except OSError as error:
            message = f"cannot publish {final}: {error.strerror}; nothing was published"
            hint = "free disk space or correct the permissions, then run `mlship batch` again"
            raise UnavailableError(message, hint=hint) from error
        return str(final)

    def close(self) -> None:
        """Close the journal."""
        self._journal.close()

    def _clean(self) -> None:
        """Remove rejected rows of parts that are none of the plan."""
        wanted = {f"part-{part.name}.jsonl" for part in self._plan.parts}
        for path in (self._folder / batches.REJECTED).glob("*"):
            if path.name not in wanted:
                path.unlink()

    def _remove_leftovers(self) -> None:
        for folder in (self._folder, self._folder / batches.REJECTED):
            for leftover in folder.glob(".*.tmp"):
                leftover.unlink(missing_ok=True)


class ManifestFiles:
    """The port Manifests."""

    def read(self, folder: str) -> Manifest | None:
        """Return the manifest of a run's folder; `None` if it is gone.

        Raises:
            IntegrityError: it is not a manifest.
        """
        return read(folder)


def read(folder: str) -> Manifest | None:
    """Return the manifest of a run's folder; `None` if it is gone.

    Raises:
        IntegrityError: it is not a manifest.
        UnavailableError: the store of a URL does not answer.
    """
    if "://" in folder:
        return object_runs.read(folder)
    path = Path(folder) / batches.MANIFEST
    try:
        return msgspec.json.decode(path.read_bytes(), type=Manifest)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, msgspec.DecodeError) as error:
        message = f"{path} cannot be read: {error}"
        raise IntegrityError(message, hint="restore it from a backup") from error


def _sizes(folder: Path) -> dict[str, int]:
    """Return the sizes of the files in a folder; none if it is not there."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name: entry.stat().st_size for entry in entries if entry.is_file()}
    except FileNotFoundError:
        return {}
