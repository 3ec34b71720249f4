"""Training and scoring in a process of their own; nothing half-made is left behind."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from mlship import files
from mlship.adapters.checkout import children, code, datafiles, lock
from mlship.adapters.checkout.children import ScoreRequest, TrainRequest
from mlship.adapters.checkout.jobs import Jobs
from mlship.config.project import Config, ModelConfig
from mlship.domain import digests, environment
from mlship.domain.digests import Digest
from mlship.domain.ports import Progress
from mlship.domain.scores import Inputs, Scores, Trained
from mlship.errors import ConfigError, ConflictError


class ChildTrainer:
    """Trains what a project's configuration says: `ports.Trainer`."""

    def __init__(
        self,
        root: Path,
        config: Config,
        progress: Progress,
        meanwhile: Callable[[], None] = children.nothing,
    ) -> None:
        """Take the project; `meanwhile` is called once while a training runs."""
        self._root = root.absolute()
        self._config = config
        self._progress = progress
        self._meanwhile = meanwhile
        variables = environment.of_user_code(os.environ, config.model.environment)
        self._jobs = Jobs(self._root, variables)

    def inputs(self) -> Inputs:
        """Return the digests of all that training depends on. Runs no user code.

        Raises:
            ProjectError: a file is missing, or a required distribution is not installed.
            ConfigError: the parameters have no JSON form, or an address needs a library.
            IntegrityError: a file is not the one that its `.dvc` pointer names.
        """
        return Inputs(
            data=datafiles.digest_of_data(self._root, self._config.data),
            params=digest_of_params(self._config.model),
            code=code.project_code(self._root, self._config),
            environment=lock.digest_of(lock.training_environment(self._root, self._config.model)),
        )

    def train(self, into: Path) -> Trained:
        """Train, convert, check and seal a bundle in a new folder.

        The bundle is made beside `into` and moved there whole. What an earlier, killed training
        left there is removed.

        Raises:
            ProjectError: the user's code or data is wrong; the message says where.
            ConflictError: there is such a folder.
            UnavailableError: the disk is full.
        """
        digest_of_params(self._config.model)
        into = into.absolute()
        with children.full_disk_named(str(into.parent)):
            into.parent.mkdir(parents=True, exist_ok=True)
            _refuse_existing(into)
            _sweep(into)
            draft = into.with_name(f".{into.name}.{os.getpid()}.tmp")
            try:
                request = TrainRequest(root=self._root, config=self._config, into=draft)
                made = self._jobs.ask("train", request, Trained, self._meanwhile)
                _refuse_existing(into)
                draft.rename(into)
                files.sync_folder(into.parent)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
        self._progress.note(f"{made.rows} rows, {made.features} features -> {made.format}")
        for note in made.notes:
            self._progress.note(note)
        return made

    def score(self, bundle: Path, champion: Path | None, plots: Path) -> Scores:
        """Score a bundle, and the champion on the same held-out rows; draw plots into a folder.

        Raises:
            ProjectError: the data or the bundle's hooks are wrong.
            UnavailableError: the disk is full.
        """
        request = ScoreRequest(
            root=self._root,
            config=self._config,
            bundle=bundle.absolute(),
            champion=champion.absolute() if champion else None,
            plots=plots.absolute(),
        )
        return self._jobs.ask("score", request, Scores)


def digest_of_params(model: ModelConfig) -> Digest:
    """Return the digest of the parameters' canonical JSON.

    Raises:
        ConfigError: they hold NaN, an infinity, or what JSON has no form for.
    """
    try:
        return digests.of_value(model.params)
    except (ValueError, TypeError) as error:
        message = f"mlship.yaml: model.params: {error}"
        raise ConfigError(message, hint="use numbers, texts, lists and mappings") from error


def _refuse_existing(into: Path) -> None:
    if into.exists():
        message = f"the folder {into} exists already"
        raise ConflictError(message, hint="train into a new folder, or remove that one")


def _sweep(into: Path) -> None:
    """Remove the drafts of trainings whose process is gone."""
    for draft in into.parent.glob(f".{into.name}.*.tmp"):
        pid = draft.name.split(".")[-2]
        if pid.isdecimal() and not _runs(int(pid)):
            shutil.rmtree(draft, ignore_errors=True)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return pid != os.getpid()
