"""A model registry in a plain directory, with nothing to install.

    <folder>/<name>/runs/<64 hex>/run.json     params, metrics, tags; beside it files/ and bundle/
    <folder>/<name>/versions/1.json            the release of version 1, and its time
    <folder>/<name>/versions/1.archived        exists while version 1 is archived
    <folder>/<name>/aliases/champion.json      the version of the alias
    <folder>/<name>/home.json                  the home of the project

Files are written atomically. A version number is reserved by a hard link, which fails if another
process reserved it first. So no lock is needed.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import msgspec

from mlship import files
from mlship.adapters.stores.recorded import check_files
from mlship.domain import bundle, digests
from mlship.domain import home as homes
from mlship.domain.digests import Digest
from mlship.domain.release import Release
from mlship.domain.untrusted import decoded
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
    """Stores the runs, versions and aliases of a project in a folder.

    Args:
        folder: the folder of all projects; created on the first write.
        name: the name of the project and its registered model.
        home: of the project, if others may use the folder; see `mlship.domain.home`.
        clock: returns the current time, for the time of registration.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        home: str = homes.UNKNOWN,
        clock: Callable[[], datetime] = _now,
    ) -> None:
        self._folder = folder / name
        self._name = name
        self._home = home
        self._clock = clock

    def record(self, run: Run) -> None:
        """Add the given facts to the run of a release; a release has exactly one run.

        Raises:
            IntegrityError: the bundle does not match the release; nothing was recorded.
            NotFoundError: a file or the bundle does not exist; nothing was recorded.
            ConflictError: the model is another project's; nothing was recorded.
            UnavailableError: the folder is not writable.
        """
        check_files(run, [run.bundle / bundle.MANIFEST] if run.bundle else [])
        with self._mapped():
            self._claim()
            folder = self._run_folder(run.release.id)
            folder.mkdir(parents=True, exist_ok=True)
            if run.bundle and not _is_whole(folder / "bundle", run.release.bundle):
                shutil.rmtree(folder / "bundle", ignore_errors=True)
                _copy_bundle(run.bundle, folder / "bundle", run.release.bundle)
            for name, path in run.files.items():
                _copy_file(path, folder / "files" / name)
            recorded = _read(folder / "run.json", _Run) or _Run(release=run.release)
            merged = _Run(
                release=run.release,
                params={**recorded.params, **run.params},
                metrics={**recorded.metrics, **run.metrics},
                tags={**recorded.tags, **run.tags},
            )
            files.write_atomically(folder / "run.json", digests.canonical_json(merged))

    def fetch(self, release: Release, into: Path, *, files: Sequence[str] = ()) -> Path:
        """Copy the release's bundle into a folder that does not exist yet; return the folder.

        A folder that already contains this bundle is left unchanged.

        Args:
            release: the release.
            into: the folder.
            files: paths of files of its run, which are copied instead of the bundle.

        Raises:
            NotFoundError: the store has no bundle of that release, or not these files.
            IntegrityError: its manifest does not match the release.
            UnavailableError: the bundle cannot be read, or `into` cannot be written.
        """
        if files:
            return self._fetch_files(release, into, files)
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

    def _fetch_files(self, release: Release, into: Path, names: Sequence[str]) -> Path:
        source = self._run_folder(release.id) / "files"
        with self._mapped():
            for name in names:
                if not (source / name).is_file():
                    message = f"store {self._folder} has no {name} of {release}"
                    raise NotFoundError(message, hint="check out its commit and run `mlship train`")
                _copy_file(source / name, into / name)
        return into

    def versions(self) -> Sequence[Version]:
        """Return the current registered versions, oldest first.

        Raises:
            IntegrityError: a file of the store is invalid.
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
        """Set an alias to the version of a release, which is registered first if it is new.

        Raises:
            NotFoundError: the release was not recorded with its bundle.
            ConflictError: the model is another project's.
            UnavailableError: the folder cannot be written.
        """
        with self._mapped():
            self._claim()
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
        """Tag the version of a release as archived, or remove the tag.

        Raises:
            NotFoundError: the release has no version.
            UnavailableError: the folder cannot be written.
        """
        with self._mapped():
            number = self._number(release.id)
            if number is None:
                message = f"{release} has no registered version in {self._folder}"
                raise NotFoundError(message, hint="run `mlship deploy-production` first")
            if archived:
                self._archived(number).touch()
            else:
                self._archived(number).unlink(missing_ok=True)

    def _claim(self) -> None:
        """Write whose model this is, if that is not written yet.

        Raises:
            ConflictError: it is another project's.
        """
        path = self._folder / "home.json"
        kept = _read(path, str) or homes.UNKNOWN
        homes.check(f"model {self._name} in {self._folder.parent}", kept, self._home, self._name)
        settled = homes.settled(kept, self._home)
        if settled != kept:
            self._folder.mkdir(parents=True, exist_ok=True)
            files.write_atomically(path, digests.canonical_json(settled))

    def _register(self, release: Digest) -> int:
        (self._folder / "versions").mkdir(exist_ok=True)
        version = digests.canonical_json(_Version(release=release, created=self._clock()))
        # Looked at once: what appeared between two looks would be registered a second time.
        while (number := _number_in(versions := self._versions(), release)) is None:
            candidate = max(versions, default=0) + 1
            draft = self._folder / "versions" / f".{release.removeprefix('sha256:')}.{os.getpid()}"
            files.write_atomically(draft, version)
            try:
                os.link(draft, self._folder / "versions" / f"{candidate}.json")
            except FileExistsError:
                continue
            finally:
                draft.unlink()
        return number

    def _number(self, release: Digest) -> int | None:
        return _number_in(self._versions(), release)

    def _versions(self) -> dict[int, _Version]:
        versions = {}
        for path in (self._folder / "versions").glob("[!.]*.json"):
            version = _read(path, _Version)
            if version:
                versions[int(path.stem)] = version
        return versions

    def _archived(self, number: int) -> Path:
        return self._folder / "versions" / f"{number}.archived"

    def _run_folder(self, release: Digest) -> Path:
        return self._folder / "runs" / release.removeprefix("sha256:")

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            message = f"cannot use the store {self._folder}: {_reason(error)}"
            hint = "free disk space or make the folder writable, then run the command again"
            raise UnavailableError(message, hint=hint) from error


def _number_in(versions: Mapping[int, _Version], release: Digest) -> int | None:
    """Return the number under which a release is registered, if it is."""
    return min((n for n, version in versions.items() if version.release == release), default=None)


def _reason(error: OSError) -> str:
    """Return the reason in a few words; a copy of many files fails with a list of reasons."""
    if isinstance(error, shutil.Error) and error.args and error.args[0]:
        return str(error.args[0][0][-1]).partition(": ")[0]
    return error.strerror or str(error)


def _no_bundle(release: Release, folder: Path) -> NotFoundError:
    message = f"store {folder} has no bundle of {release}"
    return NotFoundError(message, hint="check out its commit and run `mlship train`")


def _read(path: Path, kind: type[_Value]) -> _Value | None:
    try:
        return decoded(msgspec.json.Decoder(kind).decode, path.read_bytes())
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        message = f"{path} is not a valid file of the store: {error}"
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
    """Copy a bundle atomically: copy it beside its place, verify the copy, rename it."""
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
