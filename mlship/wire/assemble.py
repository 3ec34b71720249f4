"""The composition root: from a Config to the ports. The only module that picks a backend."""

import os
import shlex
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from mlship import files
from mlship.adapters.checkout import repository
from mlship.adapters.checkout.predictor import ChildPredictor
from mlship.adapters.checkout.source import GitSource
from mlship.adapters.checkout.tester import PytestTester
from mlship.adapters.checkout.trainer import ChildTrainer
from mlship.adapters.forges.github.forge import GitHubForge
from mlship.adapters.targets.local.locks import FileLocks
from mlship.config import projects
from mlship.config.check_files import check_files
from mlship.config.layers import (
    Resolved,
    from_environment,
    from_flags,
    from_yaml,
    hint_of_unread,
    resolve,
)
from mlship.config.project import Config
from mlship.domain import api_keys
from mlship.domain.commit import named
from mlship.domain.dsse import Signing
from mlship.domain.fence import KERNEL, Fence, Locks
from mlship.domain.ports import Progress, Target
from mlship.errors import ConfigError
from mlship.steps.pipeline import Pipeline, Targets
from mlship.wire import backends, observations, signing
from mlship.wire.backends import Purpose

if TYPE_CHECKING:
    from mlship.steps.publish import Publishing

CONFIG = "mlship.yaml"


def read(path: Path, environment: Mapping[str, str], flags: Sequence[str]) -> Resolved:
    """Return the Config of a project with the origin of each value.

    Raises:
        ConfigError: there is no such file, or it, the environment or a flag is invalid.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(
            f"{path.name} not found in {path.resolve().parent}", hint=_next_action(path)
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}", hint=hint_of_unread(error)) from error
    return resolve([from_yaml(text, path.name), from_environment(environment), from_flags(flags)])


def _next_action(path: Path) -> str:
    """Return the hint for a missing file: use one in a folder above or below, or write one."""
    for folder in path.resolve().parents:
        if (folder / path.name).is_file():
            file = folder / path.name
            return f"there is one in {folder}: run the command there, or use --config {file}"
    inner = projects.below(path.resolve().parent) if path.name == CONFIG else []
    if inner:
        first = shlex.quote(str(path.parent / inner[0] / CONFIG))
        here = "there is a project in" if len(inner) == 1 else "there are projects in"
        return f"{here} {named(inner)}: run the command there, or use --config {first}"
    return "run `mlship init` to write one, go to the project's folder, or use --config"


def assemble(
    config: Config,
    root: Path,
    progress: Progress,
    environment: Mapping[str, str],
    purpose: Purpose = "change",
    overridden: Sequence[str] = (),
    by: Signing | None = None,
) -> Pipeline:
    """Compose a project's pipeline. Nothing is opened, started or imported that is not used.

    For a command that changes something, its state becomes private: predictions and outcomes may
    be of persons.

    Args:
        config: of the project.
        root: the project's folder.
        progress: receives progress notes.
        environment: the environment variables.
        purpose: what the command does with the pipeline.
        overridden: the settings that do not come from mlship.yaml.
        by: signs the command's records, instead of the key of the project or of this machine.
    """
    state = _state(root, purpose)
    user, home = _actor_and_home(config, root, environment)
    shared = backends.shares_ledger(config, root)
    store = backends.store(config, home, state, environment, progress, purpose)
    signatures = signing.signatures(config, environment, root, home, by, shared=shared)
    ahead = backends.ahead(config, store)
    trainer = ChildTrainer(root, config, progress, ahead.prepare)
    return Pipeline(
        root=root,
        state=state,
        config=config,
        actor=user,
        clock=lambda: datetime.now(UTC),
        progress=progress,
        source=GitSource(root, check_files(config)),
        trainer=trainer,
        tester=PytestTester(root, config, progress.note),
        predictor=ChildPredictor(),
        ledger=backends.ledger(config, state, environment, progress, purpose, signatures.signing),
        locks=_EachTargets(config, state, user, environment),
        store=store,
        observations=observations.observations(config, home, state, environment),
        removals=observations.removals(config, home, state, environment),
        forge=GitHubForge(environment, config.name),
        target=_targets(config, home, state, progress, environment),
        images=lambda: backends.images(config, state, progress, environment),
        engine=lambda: backends.docker_engine(environment),
        before_training=trainer.start,
        load_ahead=ahead.load,
        home=home,
        shares_ledger=shared,
        signatures=signatures,
        overridden=tuple(overridden),
        api_key=environment.get(api_keys.KEY, ""),
    )


def _targets(
    config: Config, home: str, state: Path, progress: Progress, environment: Mapping[str, str]
) -> Targets:
    def target(name: str, fence: Fence = KERNEL) -> Target:
        if backends.target_config(config, name).kind == "local":
            return backends.local_target(name, config, state, progress)
        return backends.cluster_target(name, config, home, progress, environment, fence)

    return target


def _state(root: Path, purpose: Purpose) -> Path:
    """Return the folder of the project's state; a change makes it one that no other user may enter.

    One of another owner stays; `mlship doctor` tells of it.
    """
    state = root / ".mlship"
    if purpose == "change":
        with suppress(PermissionError):
            files.make_private(state)
            if not files.is_private(state):
                state.chmod(0o700)
    return state


class _EachTargets:
    """The port Locks, with a lock in each target."""

    def __init__(
        self, config: Config, state: Path, user: str, environment: Mapping[str, str]
    ) -> None:
        self._config, self._state = config, state
        self._user, self._environment = user, environment

    def exclusive(self, name: str) -> AbstractContextManager[Fence]:
        return self._locks(name).exclusive(name)

    def _locks(self, name: str) -> Locks:
        if backends.target_config(self._config, name).kind == "local":
            return FileLocks(self._state / "locks")
        return backends.cluster_locks(name, self._config, self._user, self._environment)


def publishing(
    project: str, environment: Mapping[str, str], *, pictures: bool = False
) -> "Publishing":
    """Return the ports to publish a report of a project.

    Args:
        project: its name.
        environment: the environment variables.
        pictures: whether comments show pictures, which are kept in the repository.
    """
    from mlship.adapters.forges.cml import CmlComments
    from mlship.adapters.forges.github.connection import Connection
    from mlship.adapters.forges.github.pictures import GitHubPictures
    from mlship.adapters.forges.summary import StepSummary
    from mlship.domain.job import of
    from mlship.steps.publish import Publishing

    job = of(environment)
    forge = GitHubForge(environment, project)
    return Publishing(
        job=job,
        forge=forge,
        cml=CmlComments(project, environment, forge.get),
        summary=StepSummary(job.summary),
        pictures=GitHubPictures(Connection(environment), project) if pictures else None,
    )


def _actor_and_home(config: Config, root: Path, environment: Mapping[str, str]) -> tuple[str, str]:
    """Return the user who runs the command, by GitHub Actions, git or the system; and the home."""
    actor = environment.get("GITHUB_ACTOR", "")
    if actor and config.home:
        return actor, config.home
    known = repository.settings(root)
    actor = actor or repository.email(known).strip() or environment.get("USER", "unknown")
    return actor, signing.home_of(config, root, known)


def environment() -> Mapping[str, str]:
    """Return the process's environment; all other code gets it as a parameter."""
    return os.environ
