"""A store in MLflow: an embedded sqlite database, or a tracking server.

Each project has one experiment and one registered model, both with its name. The run of a release
and its version are found by the tag `mlship.release`.
"""

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from mlship.adapters.http.retries import Patience
from mlship.adapters.mlflow import library
from mlship.adapters.mlflow import model as packaging
from mlship.adapters.mlflow.database import alone, check_database, database_path
from mlship.adapters.mlflow.rest import PATIENCE, connected
from mlship.adapters.stores import mlflow_fast, mlflow_page, mlflow_runs
from mlship.adapters.stores.mlflow_fast import ARCHIVED
from mlship.adapters.stores.mlflow_library import LibraryPlace
from mlship.adapters.stores.mlflow_runs import (
    BUNDLE,
    COLUMNS,
    MODEL,
    Batch,
    KeptRun,
    Place,
    StoredModel,
)
from mlship.adapters.stores.mlflow_server import ServerPlace
from mlship.adapters.stores.recorded import check_files
from mlship.domain import bundle
from mlship.domain import home as homes
from mlship.domain.bundle import Bundle
from mlship.domain.digests import Digest
from mlship.domain.release import Release
from mlship.domain.versions import Alias, Run, Version
from mlship.errors import ConflictError, MlshipError, NotFoundError, shown


def _now() -> datetime:
    return datetime.now(UTC)


class MlflowStore:
    """Stores the runs, versions and aliases of one project in MLflow.

    Args:
        uri: `sqlite:///` and the path of a file, or `http(s)://` of a tracking server.
        name: of the project.
        artifacts: the folder for files of runs beside a sqlite database; a server has its own.
        environ: has credentials and other `MLFLOW_*` settings; by default the process's own.
        patience: how long a tracking server is waited for.
        clock: returns the current time in UTC, for the files of a model.
        home: of the project, if others may use MLflow; see `mlship.domain.home`.
    """

    def __init__(
        self,
        uri: str,
        name: str,
        artifacts: Path,
        environ: Mapping[str, str] | None = None,
        patience: Patience = PATIENCE,
        clock: Callable[[], datetime] = _now,
        *,
        home: str = homes.UNKNOWN,
    ) -> None:
        self._uri = uri
        self._name = name
        self._artifacts = artifacts.absolute()
        self._environ = os.environ if environ is None else environ
        self._patience = patience
        self._clock = clock
        self._home = home
        self._database = database_path(uri)
        self._is_server = uri.startswith(("http://", "https://"))

    def prepare(self) -> None:
        """Load the libraries for an embedded database, and create it if it does not exist.

        It takes seconds, in which another process can work. A failure is not reported: it occurs
        again when something is recorded.
        """
        if self._database:
            with suppress(MlshipError), self._place(creates=True, changes=True) as place:
                place.versions()

    def load_ahead(self) -> None:
        """Start to load, in a thread, the libraries for a database; a server needs none."""
        if not self._is_server:
            library.load_ahead()

    def record(self, run: Run) -> None:
        """Add the given facts to the run of a release; a release has exactly one run.

        Raises:
            IntegrityError: the bundle does not match the release; nothing was recorded.
            NotFoundError: a file or the bundle does not exist; nothing was recorded.
            ConflictError: the experiment is another project's; nothing was recorded.
            UnavailableError: MLflow cannot be reached or written.
        """
        manifest = bundle.read(run.bundle, expected=run.release.bundle) if run.bundle else None
        check_files(run)
        with self._place(creates=True, changes=True) as place:
            self._persist(lambda: self._record(place, run, manifest))

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
            UnavailableError: MLflow cannot be reached, or `into` cannot be written.
        """
        if files:
            with self._place() as place:
                into.mkdir(parents=True, exist_ok=True)
                place.take(self._with_bundle(place, release).artifacts, files, into)
            return into
        if into.exists():
            bundle.read(into, expected=release.bundle)
            return into
        with self._place() as place:
            run = self._with_bundle(place, release)
            into.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".", dir=into.parent) as temporary:
                model = _model(place, run)
                draft = place.download(model.artifacts, Path(temporary), release.bundle)
                bundle.read(draft, expected=release.bundle)
                draft.rename(into)
        return into

    def versions(self) -> Sequence[Version]:
        """Return the current registered versions, oldest first, without importing mlflow.

        Raises:
            UnavailableError: MLflow cannot be reached or read.
            IntegrityError: the database is damaged.
        """
        if self._is_server:
            return mlflow_fast.from_server(self._uri, self._name, self._environ, self._patience)
        if self._database:
            versions = mlflow_fast.from_database(self._uri, self._database, self._name)
            if versions is not None:
                return versions
        with self._place() as place:
            return place.versions()

    def point(self, alias: Alias, release: Release | None) -> None:
        """Set an alias to the version of a release, which is registered first if it is new.

        Raises:
            NotFoundError: the release was not recorded with its bundle.
            UnavailableError: MLflow cannot be reached or written.
            ConflictError: the alias has another version when it is read back, or the experiment is
                another project's.
        """
        if self._holder(alias) == (release and release.id):
            return
        with self._place(changes=True) as place:
            self._persist(lambda: self._point(place, alias, release))
        if self._holder(alias) != (release and release.id):
            message = f"another process changed alias {alias} of {self._name} at the same time"
            raise ConflictError(message, hint="run `mlship status`, then run the command again")

    def archive(self, release: Release, *, archived: bool) -> None:
        """Tag the version of a release as archived, or remove the tag.

        Raises:
            NotFoundError: the release has no version.
            UnavailableError: MLflow cannot be reached or written.
        """
        versions = [version for version in self.versions() if version.release == release.id]
        if not versions:
            message = f"{release} has no registered version in {shown(self._uri)}"
            raise NotFoundError(message, hint="run `mlship deploy-production` first")
        if versions[0].archived == archived:
            return
        with self._place(changes=True) as place:
            place.tag(versions[0].number, ARCHIVED, "true" if archived else None)

    @contextmanager
    def _place(self, *, creates: bool = False, changes: bool = False) -> Iterator[Place]:
        """Open the server, or a database that was just checked."""
        with ExitStack() as held:
            if self._is_server:
                server = held.enter_context(
                    connected(self._uri, self._environ, patience=self._patience)
                )
                yield ServerPlace(server, self._uri, self._name, self._environ)
                return
            if self._database:
                if not self._database.exists() and not creates:
                    message = f"MLflow database {self._database} does not exist"
                    raise NotFoundError(message, hint="run `mlship train` first")
                if changes:
                    held.enter_context(alone(self._uri, self._database))
                if not self._database.exists():
                    library.create_database(self._database, self._artifacts, self._environ)
                check_database(self._uri, self._database)
            client = held.enter_context(library.session(self._uri, self._environ))
            artifacts = self._artifacts.as_uri() if self._database else None
            yield LibraryPlace(client, self._name, artifacts)

    def _persist(self, work: Callable[[], None]) -> None:
        """Call a function, again if another process wrote the same row of the database first."""
        if self._is_server:
            work()
        else:
            library.persist(work)

    def _record(self, place: Place, run: Run, manifest: Bundle | None) -> None:
        release = run.release
        claimed = self._claimed(place)
        kept = place.find(release.id)
        if kept is None:
            kept = place.create(str(release), release.id, mlflow_runs.identity(release))
        if not claimed:
            place.settle(self._home)
        uploads = manifest if BUNDLE not in kept.tags else None
        if uploads and not kept.model:
            kept = self._with_model(place, kept, run)
        for batch in mlflow_runs.batches(kept, run):
            place.add(kept, batch)
        if run.data:
            place.use(kept, run.data)
        place.upload(kept.artifacts, run.files)
        if run.bundle and uploads:
            self._upload(place, kept, run.bundle, uploads, release)
        if kept.is_running:
            place.finish(kept)

    def _claimed(self, place: Place) -> bool:
        """Return whether the experiment is marked as this project's.

        Raises:
            ConflictError: it is another project's.
        """
        kept = place.home() if self._home else homes.UNKNOWN
        what = f"experiment {self._name} of MLflow at {shown(self._uri)}"
        homes.check(what, kept, self._home, self._name)
        return homes.settled(kept, self._home) == kept

    def _with_model(self, place: Place, kept: KeptRun, run: Run) -> KeptRun:
        """Create the logged model of a run; the metrics that are added later are its metrics."""
        identity = mlflow_runs.identity(run.release)
        model = place.create_model(kept, self._name, identity, mlflow_runs.texts(run.params))
        tags = {MODEL: model.number}
        place.add(kept, Batch(tags=tags))
        return msgspec.structs.replace(kept, tags={**kept.tags, **tags})

    def _upload(
        self, place: Place, kept: KeptRun, folder: Path, manifest: Bundle, release: Release
    ) -> None:
        model = place.model(kept.model)
        with tempfile.TemporaryDirectory(prefix="mlship-") as temporary:
            written = packaging.write(
                Path(temporary),
                folder,
                manifest,
                release,
                run=kept.number,
                model=model.number,
                created=self._clock(),
            )
            place.upload(model.artifacts, written)
        place.publish(model)
        tags = {BUNDLE: release.bundle, COLUMNS: mlflow_page.columns(manifest.schema)}
        place.add(kept, Batch(tags=mlflow_runs.texts(tags)))

    def _point(self, place: Place, alias: Alias, release: Release | None) -> None:
        self._claimed(place)
        place.point(alias, None if release is None else self._registered(place, release))

    def _with_bundle(self, place: Place, release: Release) -> KeptRun:
        run = place.find(release.id)
        if run is None or BUNDLE not in run.tags:
            message = f"MLflow at {shown(self._uri)} has no bundle of {release}"
            raise NotFoundError(message, hint="check out its commit and run `mlship train`")
        return run

    def _registered(self, place: Place, release: Release) -> str:
        """Return the number of a release's version, registered first if it is new."""
        run = self._with_bundle(place, release)
        for version in place.versions():
            if version.release == release.id:
                return version.number
        page = mlflow_page.page(run, release)
        return place.register(run, _model(place, run), release.id, page)

    def _holder(self, alias: Alias) -> Digest | None:
        named = [version.release for version in self.versions() if alias in version.aliases]
        return named[0] if named else None


def _model(place: Place, run: KeptRun) -> StoredModel:
    return place.model(run.model) if run.model else StoredModel(artifacts=run.artifacts)
