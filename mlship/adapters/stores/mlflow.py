"""A store in MLflow: an embedded sqlite database, or a tracking server.

One experiment and one registered model a project, both named as the project. The one run of a
release is found by its tag `mlship.release`, and so is its version.
"""

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from mlship.adapters.mlflow import library
from mlship.adapters.mlflow.database import alone, check_database, database_path
from mlship.adapters.mlflow.rest import check_server
from mlship.adapters.stores import mlflow_fast, mlflow_runs
from mlship.adapters.stores.mlflow_fast import ARCHIVED, RELEASE
from mlship.domain import bundle
from mlship.domain.bundle import Bundle
from mlship.domain.digests import Digest
from mlship.domain.release import Release
from mlship.domain.versions import Alias, Run, Version
from mlship.errors import ConflictError, NotFoundError, shown


class MlflowStore:
    """Keeps the runs, versions and aliases of one project in MLflow.

    Args:
        uri: `sqlite:///` and the path of a file, or `http(s)://` of a tracking server.
        name: of the project.
        artifacts: the folder for files of runs beside a sqlite database; a server has its own.
        environ: where credentials and other `MLFLOW_*` settings come from; by default the
            process's own.
    """

    def __init__(
        self,
        uri: str,
        name: str,
        artifacts: Path,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._uri = uri
        self._name = name
        self._artifacts = artifacts.absolute()
        self._environ = os.environ if environ is None else environ
        self._database = database_path(uri)
        self._is_server = uri.startswith(("http://", "https://"))

    def record(self, run: Run) -> None:
        """Keep what is given of a release, in the one run of that release.

        Raises:
            IntegrityError: the bundle is not the one that the release names; nothing was kept.
            NotFoundError: a file or the bundle does not exist; nothing was kept.
            UnavailableError: MLflow cannot be reached or written.
        """
        manifest = bundle.read(run.bundle, expected=run.release.bundle) if run.bundle else None
        for path in run.files.values():
            if not path.is_file():
                message = f"{path} does not exist, so it cannot be kept with {run.release}"
                raise NotFoundError(message, hint="make it with `mlship train` first")
        with self._client(creates=True, changes=True) as client:
            library.persist(lambda: self._record(client, run, manifest))

    def fetch(self, release: Release, into: Path) -> Path:
        """Put the release's bundle into a folder that does not exist yet; return the folder.

        A folder that holds this very bundle already is left as it is.

        Raises:
            NotFoundError: the store has no bundle of that release.
            IntegrityError: its manifest is not the one that the release names.
            UnavailableError: MLflow cannot be reached, or `into` cannot be written.
        """
        if into.exists():
            bundle.read(into, expected=release.bundle)
            return into
        with self._client() as client:
            run = self._with_bundle(client, release)
            into.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".", dir=into.parent) as temporary:
                draft = Path(
                    client.download_artifacts(run.info.run_id, mlflow_runs.FOLDER, temporary)
                )
                bundle.read(draft, expected=release.bundle)
                draft.rename(into)
        return into

    def versions(self) -> Sequence[Version]:
        """Return the registered versions as they are now, oldest first, without importing mlflow.

        Raises:
            UnavailableError: MLflow cannot be reached or read.
            IntegrityError: the database is damaged.
        """
        if self._is_server:
            return mlflow_fast.from_server(self._uri, self._name, self._environ)
        if self._database:
            found = mlflow_fast.from_database(self._uri, self._database, self._name)
            if found is not None:
                return found
        with self._client() as client:
            return self._listed(client)

    def point(self, alias: Alias, release: Release | None) -> None:
        """Make an alias name a release's version, registered first where it is new.

        Raises:
            NotFoundError: the release was not recorded with its bundle.
            UnavailableError: MLflow cannot be reached or written.
            ConflictError: the alias names another version when it is read back.
        """
        if self._holder(alias) == (release and release.id):
            return
        with self._client(changes=True) as client:
            library.persist(lambda: self._point(client, alias, release))
        if self._holder(alias) != (release and release.id):
            message = f"alias {alias} of {self._name} was changed by somebody else meanwhile"
            raise ConflictError(message, hint="look at it with `mlship status`, then run it again")

    def archive(self, release: Release, *, archived: bool) -> None:
        """Tag the version of a release as archived, or take the tag away.

        Raises:
            NotFoundError: the release has no version.
            UnavailableError: MLflow cannot be reached or written.
        """
        found = [version for version in self.versions() if version.release == release.id]
        if not found:
            message = f"{release} has no registered version in {shown(self._uri)}"
            raise NotFoundError(message, hint="deploy it to production first")
        if found[0].archived == archived:
            return
        number = found[0].number
        with self._client(changes=True) as client:
            if archived:
                client.set_model_version_tag(self._name, number, ARCHIVED, "true")
            else:
                client.delete_model_version_tag(self._name, number, ARCHIVED)

    @contextmanager
    def _client(self, *, creates: bool = False, changes: bool = False) -> Iterator[Any]:
        """Give a client of a server or database that was seen to work a moment ago."""
        with ExitStack() as held:
            if self._database:
                if not self._database.exists() and not creates:
                    message = f"there is no MLflow database {self._database}"
                    raise NotFoundError(message, hint="`mlship train` makes it")
                if changes:
                    held.enter_context(alone(self._uri, self._database))
                if not self._database.exists():
                    library.create_database(self._database, self._artifacts, self._environ)
                check_database(self._uri, self._database)
            elif self._is_server:
                check_server(self._uri, self._environ)
            yield held.enter_context(library.session(self._uri, self._environ))

    def _record(self, client: Any, run: Run, manifest: Bundle | None) -> None:
        found = mlflow_runs.find(client, self._name, run.release)
        if found is None:
            artifacts = self._artifacts.as_uri() if self._database else None
            found = mlflow_runs.create(client, self._name, run.release, artifacts)
        mlflow_runs.log(client, found, run)
        mlflow_runs.upload_files(client, found, run.files)
        if run.bundle and manifest:
            mlflow_runs.upload_bundle(client, found, run.bundle, manifest, run.release.bundle)
        if found.info.status == "RUNNING":
            client.set_terminated(found.info.run_id)

    def _point(self, client: Any, alias: Alias, release: Release | None) -> None:
        if release is None:
            client.delete_registered_model_alias(self._name, alias)
        else:
            number = self._register(client, release)
            client.set_registered_model_alias(self._name, alias, number)

    def _with_bundle(self, client: Any, release: Release) -> Any:
        run = mlflow_runs.find(client, self._name, release)
        if run is None or mlflow_runs.BUNDLE not in run.data.tags:
            message = f"MLflow at {shown(self._uri)} has no bundle of {release}"
            raise NotFoundError(message, hint="`mlship train` on its commit records it")
        return run

    def _register(self, client: Any, release: Release) -> str:
        """Return the number of a release's version; of two made at once, the first stays."""
        run = self._with_bundle(client, release)
        if not (found := self._numbers(client, release)):
            with library.existing_is_fine():
                client.create_registered_model(self._name)
            source = f"{run.info.artifact_uri}/{mlflow_runs.FOLDER}"
            tags = {RELEASE: release.id, "mlship.commit": release.commit}
            created = client.create_model_version(self._name, source, run.info.run_id, tags=tags)
            found = self._numbers(client, release)
            if int(created.version) != found[0]:
                client.delete_model_version(self._name, str(created.version))
        return str(found[0])

    def _numbers(self, client: Any, release: Release) -> list[int]:
        listed = self._listed(client)
        return [int(version.number) for version in listed if version.release == release.id]

    def _listed(self, client: Any) -> list[Version]:
        """Return the versions through MLflow's own client; its search leaves aliases out."""
        entries: list[Any] = []
        token = None
        while not entries or token:
            page = client.search_model_versions(f"name='{self._name}'", page_token=token)
            if not page:
                break
            entries += page
            token = page.token
        if not entries:
            return []
        aliases = client.get_registered_model(self._name).aliases
        found = [(int(entry.version), entry.creation_timestamp, entry.tags) for entry in entries]
        return mlflow_fast.listed(found, {alias: int(aliases[alias]) for alias in aliases})

    def _holder(self, alias: Alias) -> Digest | None:
        named = [version.release for version in self.versions() if alias in version.aliases]
        return named[0] if named else None
