"""A store in a plain directory, with the contract of a model registry and nothing to install.

    <folder>/<name>/runs/<64 hex>/run.json     params, metrics, tags; beside it files/ and bundle/
    <folder>/<name>/versions/1.json            which release version 1 carries, since when
    <folder>/<name>/versions/1.archived        is there while version 1 is archived
    <folder>/<name>/aliases/champion.json      which version the alias names

Each file is put in place whole. A version's number is taken by a hard link, which fails when
another process took it first; so no lock is needed.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import msgspec

from mlship import files
from mlship.domain import bundle, digests
from mlship.domain.digests import Digest
from mlship.domain.release import Release
from mlship.domain.versions import Alias, Run, Version
from mlship.errors import IntegrityError, NotFoundError, UnavailableError

_Value = TypeVar("_Value")


class _Run(msgspec.Struct, frozen=True, kw_only=True):
    release: Release
    params: dict[str, str] = {}
    metrics: dict[str, float] = {}
    tags: dict[str, str] = {}


class _Version(msgspec.Struct, frozen=True, kw_only=True):
    release: Digest
    created: datetime


class _Alias(msgspec.Struct, frozen=True, kw_only=True):
    version: int


def _now() -> datetime:
    return datetime.now(UTC)


class DirectoryStore:
    """Keeps the runs, versions and aliases of one project in a folder.

    Args:
        folder: where the projects are; made when something is written.
        name: of the project and its registered model.
        clock: tells when a version was registered.
    """

    def __init__(self, folder: Path, name: str, clock: Callable[[], datetime] = _now) -> None:
        self._folder = folder / name
        self._clock = clock

    def record(self, run: Run) -> None:
        """Keep what is given of a release, in the one run of that release.

        Raises:
            IntegrityError: the bundle is not the one that the release names; nothing was kept.
            NotFoundError: a file or the bundle does not exist; nothing was kept.
            UnavailableError: the folder cannot be written.
        """
        for path in (*run.files.values(), *([run.bundle / bundle.MANIFEST] if run.bundle else [])):
            if not path.is_file():
                message = f"{path} does not exist, so it cannot be kept with {run.release}"
                raise NotFoundError(message, hint="make it with `mlship train` first")
        with self._mapped():
            folder = self._run_folder(run.release.id)
            folder.mkdir(parents=True, exist_ok=True)
            if run.bundle and not _is_whole(folder / "bundle", run.release.bundle):
                shutil.rmtree(folder / "bundle", ignore_errors=True)
                _copy_bundle(run.bundle, folder / "bundle", run.release.bundle)
            for name, path in run.files.items():
                _copy_file(path, folder / "files" / name)
            kept = _read(folder / "run.json", _Run) or _Run(release=run.release)
            merged = _Run(
                release=run.release,
                params={**kept.params, **run.params},
                metrics={**kept.metrics, **run.metrics},
                tags={**kept.tags, **run.tags},
            )
            files.write_atomically(folder / "run.json", digests.canonical_json(merged))

    def fetch(self, release: Release, into: Path) -> Path:
        """Put the release's bundle into a folder that does not exist yet; return the folder.

        A folder that holds this very bundle already is left as it is.

        Raises:
            NotFoundError: the store has no bundle of that release.
            IntegrityError: its manifest is not the one that the release names.
            UnavailableError: the bundle cannot be read, or `into` cannot be written.
        """
        source = self._run_folder(release.id) / "bundle"
        if not source.is_dir():
            raise _no_bundle(release, self._folder)
        with self._mapped():
            if into.exists():
                bundle.read(into, expected=release.bundle)
                return into
            into.parent.mkdir(parents=True, exist_ok=True)
            _copy_bundle(source, into, release.bundle)
        return into

    def versions(self) -> Sequence[Version]:
        """Return the registered versions as they are now, oldest first.

        Raises:
            IntegrityError: a file of the store is not what this store writes.
            UnavailableError: the folder cannot be read.
        """
        with self._mapped():
            aliases: dict[int, list[str]] = {}
            for path in sorted((self._folder / "aliases").glob("[!.]*.json")):
                alias = _read(path, _Alias)
                if alias:
                    aliases.setdefault(alias.version, []).append(path.stem)
            return [
                Version(
                    number=str(number),
                    release=version.release,
                    aliases=tuple(aliases.get(number, [])),
                    archived=self._archived(number).exists(),
                    created=version.created,
                )
                for number, version in sorted(self._versions().items())
            ]

    def point(self, alias: Alias, release: Release | None) -> None:
        """Make an alias name a release's version, registered first where it is new.

        Raises:
            NotFoundError: the release was not recorded with its bundle.
            UnavailableError: the folder cannot be written.
        """
        with self._mapped():
            path = self._folder / "aliases" / f"{alias}.json"
            if release is None:
                path.unlink(missing_ok=True)
                return
            if not (self._run_folder(release.id) / "bundle").is_dir():
                raise _no_bundle(release, self._folder)
            number = self._register(release.id)
            path.parent.mkdir(exist_ok=True)
            files.write_atomically(path, digests.canonical_json(_Alias(version=number)))

    def archive(self, release: Release, *, archived: bool) -> None:
        """Tag the version of a release as archived, or take the tag away.

        Raises:
            NotFoundError: the release has no version.
            UnavailableError: the folder cannot be written.
        """
        with self._mapped():
            number = self._number(release.id)
            if number is None:
                message = f"{release} has no registered version in {self._folder}"
                raise NotFoundError(message, hint="deploy it to production first")
            if archived:
                self._archived(number).touch()
            else:
                self._archived(number).unlink(missing_ok=True)

    def _register(self, release: Digest) -> int:
        (self._folder / "versions").mkdir(exist_ok=True)
        version = digests.canonical_json(_Version(release=release, created=self._clock()))
        while (number := self._number(release)) is None:
            taken = max(self._versions(), default=0) + 1
            draft = self._folder / "versions" / f".{release.removeprefix('sha256:')}.{os.getpid()}"
            files.write_atomically(draft, version)
            try:
                os.link(draft, self._folder / "versions" / f"{taken}.json")
            except FileExistsError:
                continue
            finally:
                draft.unlink()
        return number

    def _number(self, release: Digest) -> int | None:
        found = [n for n, version in self._versions().items() if version.release == release]
        return min(found, default=None)

    def _versions(self) -> dict[int, _Version]:
        found = {}
        for path in (self._folder / "versions").glob("[!.]*.json"):
            version = _read(path, _Version)
            if version:
                found[int(path.stem)] = version
        return found

    def _archived(self, number: int) -> Path:
        return self._folder / "versions" / f"{number}.archived"

    def _run_folder(self, release: Digest) -> Path:
        return self._folder / "runs" / release.removeprefix("sha256:")

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            message = f"store {self._folder} cannot be used: {_reason(error)}"
            hint = "free disk space or make the folder writable, then run the command again"
            raise UnavailableError(message, hint=hint) from error


def _reason(error: OSError) -> str:
    """Return why in a few words; a copy of many files fails with a list of reasons."""
    if isinstance(error, shutil.Error) and error.args and error.args[0]:
        return str(error.args[0][0][-1]).partition(": ")[0]
    return error.strerror or str(error)


def _no_bundle(release: Release, folder: Path) -> NotFoundError:
    message = f"store {folder} has no bundle of {release}"
    return NotFoundError(message, hint="`mlship train` on its commit records it")


def _read(path: Path, kind: type[_Value]) -> _Value | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        return None
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        message = f"{path} is not what the store wrote: {error}"
        raise IntegrityError(message, hint="restore the store from a backup") from error


def _copy_file(source: Path, into: Path) -> None:
    into.parent.mkdir(parents=True, exist_ok=True)
    files.write_atomically(into, source.read_bytes())


def _is_whole(folder: Path, expected: Digest) -> bool:
    try:
        bundle.read(folder, expected=expected)
    except (IntegrityError, NotFoundError):
        return False
    return True


def _copy_bundle(source: Path, into: Path, expected: Digest) -> None:
    """Copy beside the place, check the copy, rename it: it is there whole or not at all."""
    with tempfile.TemporaryDirectory(prefix=".", dir=into.parent) as temporary:
        draft = Path(temporary) / into.name
        shutil.copytree(source, draft, symlinks=True)
        bundle.read(draft, expected=expected)
        try:
            draft.rename(into)
        except OSError:
            if not into.is_dir():
                raise
            bundle.read(into, expected=expected)  # another process was first
