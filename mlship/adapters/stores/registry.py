"""A model registry in the repository of a container registry, beside the project's images.

    tag         mlship.<project>.fact.<64 hex>    the digest of one fact, as JSON
    layers      the fact; the files of a run; the files of a bundle

Runs, versions and aliases are what the facts add up to, see `registry_facts`. A file that the
repository has is not sent again. A bundle is read by the digest that its release has, so the
registry needs no trust.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from mlship.adapters.artifacts.artifacts import Artifacts
from mlship.adapters.artifacts.collection import Collection
from mlship.adapters.stores.recorded import check_files
from mlship.adapters.stores.registry_facts import (
    FACT,
    AliasFact,
    ArchiveFact,
    Fact,
    File,
    RunFact,
    State,
    fold,
    is_empty,
    unknown,
)
from mlship.domain import bundle, digests
from mlship.domain import home as homes
from mlship.domain.bundle import Bundle
from mlship.domain.digests import Digest
from mlship.domain.outputs import is_inside
from mlship.domain.release import Release
from mlship.domain.untrusted import decoded
from mlship.domain.versions import Alias, Run, Version
from mlship.errors import ConflictError, IntegrityError, NotFoundError, UnavailableError


def _now() -> datetime:
    return datetime.now(UTC)


class RegistryStore:
    """Stores the runs, versions and aliases of a project in a container registry.

    Args:
        artifacts: the documents of the project.
        name: of the project and its registered model.
        home: of the project, if others may use the repository; see `mlship.domain.home`.
        clock: returns the current time, in UTC.
        packs: whether facts that are added may be packed.
    """

    def __init__(
        self,
        artifacts: Artifacts,
        name: str,
        home: str = homes.UNKNOWN,
        clock: Callable[[], datetime] = _now,
        *,
        packs: bool = True,
    ) -> None:
        self._artifacts = artifacts
        self._facts = Collection(artifacts, "fact", packs=packs)
        self._name = name
        self._home = home
        self._clock = clock

    def record(self, run: Run) -> None:
        """Add the given facts to the run of a release; a release has exactly one run.

        Raises:
            IntegrityError: the bundle does not match the release; nothing was recorded.
            NotFoundError: a file or the bundle does not exist; nothing was recorded.
            ConflictError: the model is another project's; nothing was recorded.
            UnavailableError: the registry does not answer, or denies access.
        """
        manifest = bundle.read(run.bundle, expected=run.release.bundle) if run.bundle else None
        check_files(run)
        with self._opened():
            state = self._claimed()
            known = state.runs.get(run.release.id)
            fact = unknown(known, self._fact_of(run, state))
            if known is not None and is_empty(fact) and fact.home == state.home:
                return
            paths = {file.digest: run.files[name] for name, file in fact.files.items()}
            if fact.has_bundle and run.bundle is not None and manifest is not None:
                paths |= _files(run.bundle, manifest, run.release.bundle)
            self._add(fact, paths)

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
            UnavailableError: the registry does not answer, or `into` cannot be written.
        """
        with self._opened():
            if not files and into.exists():
                bundle.read(into, expected=release.bundle)
                return into
            run = self._state().runs.get(release.id)
            if files:
                self._fetch_files(release, run.files if run else {}, files, into)
                return into
            if run is None or not run.has_bundle:
                raise self._no_bundle(release)
            into.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".", dir=into.parent) as temporary:
                draft = Path(temporary) / into.name
                self._fetch_bundle(release, draft)
                draft.rename(into)
        return into

    def versions(self) -> Sequence[Version]:
        """Return the current registered versions, oldest first.

        Raises:
            UnavailableError: the registry does not answer, or denies access.
            IntegrityError: what it returns is not a fact.
        """
        with self._opened():
            return self._state().versions()

    def point(self, alias: Alias, release: Release | None) -> None:
        """Set an alias to the version of a release, which is registered first if it is new.

        Raises:
            NotFoundError: the release was not recorded with its bundle.
            UnavailableError: the registry does not answer, or denies access.
            ConflictError: the alias has another version when it is read back, or the model is
                another project's.
        """
        with self._opened():
            state = self._claimed()
            wanted = release.id if release else None
            if release is not None:
                run = state.runs.get(release.id)
                if run is None or not run.has_bundle:
                    raise self._no_bundle(release)
            if state.aliases.get(alias) == wanted:
                return
            number = state.next_number if wanted and wanted not in state.numbers else 0
            self._add(
                AliasFact(
                    turn=state.turn + 1,
                    time=self._clock(),
                    home=homes.settled(state.home, self._home),
                    alias=alias,
                    release=wanted,
                    number=number,
                )
            )
            if self._state().aliases.get(alias) != wanted:
                message = f"another process changed alias {alias} of {self._name} at the same time"
                raise ConflictError(message, hint="run `mlship status`, then run the command again")

    def archive(self, release: Release, *, archived: bool) -> None:
        """Tag the version of a release as archived, or remove the tag.

        Raises:
            NotFoundError: the release has no version.
            ConflictError: the model is another project's.
            UnavailableError: the registry does not answer, or denies access.
        """
        with self._opened():
            state = self._claimed()
            if release.id not in state.numbers:
                message = f"{release} has no registered version in {self._artifacts.where}"
                raise NotFoundError(message, hint="run `mlship deploy-production` first")
            if (release.id in state.archived) == archived:
                return
            self._add(
                ArchiveFact(
                    turn=state.turn + 1,
                    time=self._clock(),
                    home=homes.settled(state.home, self._home),
                    release=release.id,
                    archived=archived,
                )
            )

    def _state(self) -> State:
        return fold({each: _decoded(data) for each, data in self._facts.read().stored.items()})

    def _claimed(self) -> State:
        """Return the state.

        Raises:
            ConflictError: the model is another project's.
        """
        state = self._state()
        what = f"model {self._name} in {self._artifacts.where}"
        homes.check(what, state.home, self._home, self._name)
        return state

    def _fact_of(self, run: Run, state: State) -> RunFact:
        return RunFact(
            turn=state.turn + 1,
            time=self._clock(),
            home=homes.settled(state.home, self._home),
            release=run.release,
            params=run.params,
            metrics=run.metrics,
            tags=run.tags,
            files={
                name: File(digest=digests.of_file(path), size=path.stat().st_size)
                for name, path in run.files.items()
            },
            data=run.data,
            has_bundle=run.bundle is not None,
        )

    def _add(self, fact: Fact, paths: dict[Digest, Path] | None = None) -> None:
        self._facts.add(digests.canonical_json(fact), paths)

    def _fetch_bundle(self, release: Release, draft: Path) -> None:
        draft.mkdir()
        self._take(release, release.bundle, None, draft / bundle.MANIFEST)
        manifest = bundle.manifest(draft, expected=release.bundle)
        for name, file in manifest.files.items():
            path = draft / name
            path.parent.mkdir(parents=True, exist_ok=True)
            self._take(release, file.digest, file.size, path)
        bundle.read(draft, expected=release.bundle)

    def _fetch_files(
        self, release: Release, kept: dict[str, File], names: Sequence[str], into: Path
    ) -> None:
        for name in names:
            if name not in kept or not is_inside(name):
                message = f"{self._artifacts.where} has no {name} of {release}"
                raise NotFoundError(message, hint="check out its commit and run `mlship train`")
            path = into / name
            path.parent.mkdir(parents=True, exist_ok=True)
            self._take(release, kept[name].digest, kept[name].size, path)

    def _take(self, release: Release, digest: Digest, size: int | None, path: Path) -> None:
        try:
            self._artifacts.download(digest, size, path)
        except NotFoundError as error:
            message = f"{self._artifacts.where} lost {path.name} of {release}"
            hint = "check out its commit and run `mlship train`"
            raise NotFoundError(message, hint=hint) from error

    def _no_bundle(self, release: Release) -> NotFoundError:
        message = f"{self._artifacts.where} has no bundle of {release}"
        return NotFoundError(message, hint="check out its commit and run `mlship train`")

    @contextmanager
    def _opened(self) -> Iterator[None]:
        try:
            with closing(self._artifacts):
                yield
        except OSError as error:
            message = f"cannot read or write files of {self._name}: {error.strerror or error}"
            hint = "free disk space or make the folder writable, then run the command again"
            raise UnavailableError(message, hint=hint) from error


def _files(folder: Path, manifest: Bundle, digest: Digest) -> dict[Digest, Path]:
    files = {file.digest: folder / name for name, file in manifest.files.items()}
    return files | {digest: folder / bundle.MANIFEST}


def _decoded(data: bytes) -> Fact:
    try:
        fact: Fact = decoded(FACT.decode, data)
    except msgspec.DecodeError as error:
        message = f"an artifact of the store is not a fact that this version knows: {error}"
        hint = "update mlship; if it is the newest, delete the tag of the artifact"
        raise IntegrityError(message, hint=hint) from error
    return fact
