"""Training and scoring in a process of their own; nothing half-made is left behind."""

import os
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path

import msgspec

from mlship import files
from mlship.adapters.checkout import (
    changes,
    children,
    code,
    datafiles,
    git,
    lock,
    repository,
    shadows,
)
from mlship.adapters.checkout.children import RateRequest, ScoreRequest, TrainRequest
from mlship.adapters.checkout.copies import Copies
from mlship.adapters.checkout.jobs import Jobs
from mlship.config.check_files import check_files
from mlship.config.project import Config, ModelConfig
from mlship.config.requirements import REQUIREMENTS
from mlship.domain import digests, environment
from mlship.domain.bundle import Value
from mlship.domain.commit import named, unwanted
from mlship.domain.digests import Digest
from mlship.domain.inputs import OUTSIDE, SCRIPT, Inputs, Opened
from mlship.domain.ports import Progress
from mlship.domain.prediction import Prediction
from mlship.domain.scores import Scores, Trained
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

    def start(self) -> None:
        """Begin to load, in the background, the libraries of training and scoring.

        Raises:
            ProjectError: a module of the project has the name of one of them.
        """
        shadows.check_names(self._root, self._config.model)
        self._jobs.start()

    def inputs(self) -> Inputs:
        """Return what a training depends on, as far as it is known before. Runs no user code.

        Raises:
            ProjectError: a file is missing, or a required distribution is not installed.
            ConfigError: the parameters have no JSON form, or an address needs a library.
            IntegrityError: a file is not the one that its `.dvc` pointer names.
        """
        data = self._config.data
        sources = datafiles.sources(self._root, data)
        parts = {"train": sources[data.train], "test": sources.get(data.test or "")}
        return Inputs(
            data=digests.of_value(parts),
            params=digest_of_params(self._config.model),
            environment=lock.digest_of(lock.training_environment(self._root, self._config.model)),
            settings=code.settings_of(self._config),
            sources=sources,
            files=code.files_of(self._root, self._config),
        )

    def current(self, paths: Iterable[str]) -> dict[str, Digest | None]:
        """Return the digests of files of the project as they are now, `None` for a missing one.

        A module of another checkout is missing as soon as Python finds it elsewhere.
        """
        now = {path: _digest(self._root / path) for path in paths}
        copies = self._copies
        return now | {path: None for path in copies.code(now) if copies.is_read_no_more(path)}

    @cached_property
    def _copies(self) -> Copies:
        return Copies(self._root, repository.top_of(self._root) or self._root)

    def train(self, into: Path) -> Trained:
        """Train, convert, check and seal a bundle in a new folder.

        The bundle is made beside `into` and moved there whole. What an earlier, killed training
        left there is removed.

        Raises:
            ProjectError: the user's code or data is wrong; the message says where.
            ConflictError: there is such a folder, or a file was changed after it was read.
            UnavailableError: the disk is full.
        """
        digest_of_params(self._config.model)
        shadows.check_names(self._root, self._config.model)
        into = into.absolute()
        with children.full_disk_named(str(into.parent)):
            into.parent.mkdir(parents=True, exist_ok=True)
            _refuse_existing(into)
            _sweep(into)
            draft = into.with_name(f".{into.name}.{os.getpid()}.tmp")
            before = changes.state(self._root)
            for name in before.absent:
                hint = f"git submodule update --init {name}"
                self._progress.note(f"submodule {name} is not checked out: {hint}")
            try:
                request = TrainRequest(root=self._root, config=self._config, into=draft)
                made = self._jobs.ask("train", request, Trained, self._meanwhile)
                _refuse_existing(into)
                draft.rename(into)
                files.sync_folder(into.parent)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
        self._progress.note(f"{made.rows} rows, {made.features} features -> {made.format}")
        made = self._described(made, before.changes)
        for note in made.notes:
            self._progress.note(note)
        return made

    def _described(self, made: Trained, before: Collection[str]) -> Trained:
        """Return a training with its notes on the project's files, without those that are data.

        What a compiled library or another program wrote is not seen; a file that is new since, by
        git, counts as written, unless it is code or decides on tests.
        """
        opened, after = made.opened, changes.changed(self._root)
        data = datafiles.names(self._root, self._config.data)
        read = {path: digest for path, digest in opened.read.items() if path not in data}
        copies = self._copies
        foreign = copies.code(read)
        own = set(copies.own(opened.read)) - set(foreign)
        shared = [path for path in own & read.keys() if path.startswith(OUTSIDE)]
        checks = check_files(self._config)
        new = {
            path
            for path in after
            if path not in before and not path.endswith(SCRIPT) and not checks.has(path)
        }
        wrote = [path for path in opened.written if not path.startswith(OUTSIDE)]
        there = [path for path in wrote if path in after or (self._root / path).exists()]
        kept = git.not_ignored(self._root, there)
        saved = [self._config.model.saved] if self._config.model.saved else []
        outputs = tuple(sorted({*there, *saved, *new} - set(data)))
        opened = Opened(
            read=read,
            left=opened.left,
            written=tuple(sorted({*kept, *opened.left, *(new - opened.read.keys())})),
            ignored=code.ignored(self._root, own - set(opened.written)),
            shared=(*foreign, *changes.changed_outside(self._root, shared)),
        )
        notes = [*made.notes, *copies.notes(foreign), *_notes(opened, after, before)]
        variables = [name for name in self._config.model.environment if name in os.environ]
        if variables:
            verb = "values are" if len(variables) > 1 else "value is"
            notes.append(
                f"training was given {named(variables)}: the {verb} not part of the release"
            )
        return msgspec.structs.replace(made, notes=tuple(notes), opened=opened, outputs=outputs)

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

    def rate(
        self, function: str, predictions: Sequence[Prediction], truth: Sequence[Value]
    ) -> list[float]:
        """Score predictions against their outcomes by a function of the project.

        Raises:
            ProjectError: the function is missing, fails, or returns no number for a prediction.
        """
        request = RateRequest(
            root=self._root,
            function=function,
            target=self._config.data.targets[0],
            predictions=tuple(prediction.id for prediction in predictions),
            outputs=tuple(prediction.outputs for prediction in predictions),
            truth=tuple(truth),
        )
        return self._jobs.ask("rate", request, list[float])


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


def _digest(path: Path) -> Digest | None:
    try:
        return digests.of_file(path) if path.is_file() else None
    except OSError:  # nobody may read it: for a training it would be missing as well
        return None


def _notes(opened: Opened, after: Collection[str], before: Collection[str]) -> Iterator[str]:
    read = [path for path in opened.read if not path.endswith((SCRIPT, REQUIREMENTS))]
    if read:
        yield f"training read {named(read)}: part of the release"
    written = [path for path in opened.written if path in after and path not in before]
    if written:
        yield f"training wrote {unwanted(written)}"


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
