"""The composition root: from a Config to the ports. The only module that picks a backend."""

import functools
import os
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mlship.checkout.git import GitSource
from mlship.checkout.predictor import ChildPredictor
from mlship.checkout.tester import PytestTester
from mlship.checkout.trainer import ChildTrainer
from mlship.config import Config, TargetConfig
from mlship.container import Engine
from mlship.errors import ConfigError
from mlship.forges.github import GitHubForge
from mlship.image import Images
from mlship.ports import Ledger, Locks, Observations, Progress, Store, Target
from mlship.settings import Resolved, from_environment, from_flags, from_yaml, resolve
from mlship.steps.pipeline import PRODUCTION, Pipeline
from mlship.targets.local.locks import FileLocks

if TYPE_CHECKING:
    from mlship.steps.publish import Publishing
    from mlship.targets.kubernetes import Access, KubernetesTarget, LeaseLocks
    from mlship.targets.local import LocalTarget

CONFIG = "mlship.yaml"
_MLFLOW = "sqlite:///.mlship/mlflow.db"


def read(path: Path, environment: Mapping[str, str], flags: Sequence[str]) -> Resolved:
    """Return the Config of a project with the origin of each value.

    Raises:
        ConfigError: there is no such file, or something in it, the environment or a flag is wrong.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(
            f"no {path.name} in {path.resolve().parent}", hint=_where_it_is(path)
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path} cannot be read: {error}", hint="save it as text in UTF-8"
        ) from error
    return resolve([from_yaml(text, path.name), from_environment(environment), from_flags(flags)])


def _where_it_is(path: Path) -> str:
    """Return the next action where there is no such file: go to the one above, or write one."""
    for folder in path.resolve().parents:
        if (folder / path.name).is_file():
            return f"there is one in {folder}: go there, or give --config {folder / path.name}"
    return "`mlship init` writes one; or go to the project's folder, or give --config"


def assemble(
    config: Config, root: Path, progress: Progress, environment: Mapping[str, str]
) -> Pipeline:
    """Compose a project's pipeline. Nothing is opened, started or imported that is not used."""
    state = root / ".mlship"

    who = actor(root, environment)

    def target(name: str) -> Target:
        if _settings(config, name).kind == "local":
            return local_target(name, config, state, progress)
        return cluster_target(name, config, progress, environment)

    def locks(name: str) -> Locks:
        if _settings(config, name).kind == "local":
            return FileLocks(state / "locks")
        return cluster_locks(name, config, who, environment)

    def images() -> Images:
        return _images(config, state, progress, environment)

    return Pipeline(
        root=root,
        state=state,
        config=config,
        actor=who,
        clock=lambda: datetime.now(UTC),
        progress=progress,
        source=GitSource(root),
        trainer=ChildTrainer(root, config, progress),
        tester=PytestTester(root, config),
        predictor=ChildPredictor(),
        ledger=_ledger(config, state, environment),
        locks=_EachTargets(locks),
        store=_store(config, state, environment),
        observations=_observations(config, state, environment),
        forge=GitHubForge(environment, config.name),
        target=target,
        images=images,
        engine=lambda: docker_engine(environment),
    )


def local_target(name: str, config: Config, state: Path, progress: Progress) -> "LocalTarget":
    """Return the target of a name; `.mlship/targets/<name>` holds its state."""
    from mlship.targets.local import LocalTarget  # noqa: PLC0415 (train and report need none)

    return LocalTarget(
        name,
        state / "targets" / name,
        _settings(config, name),
        _database(name, config) or state / "predictions" / name,
        progress,
    )


def cluster_target(
    name: str, config: Config, progress: Progress, environment: Mapping[str, str]
) -> "KubernetesTarget":
    """Return the target of a name that is in a cluster; nothing is asked yet."""
    from mlship.targets.kubernetes import KubernetesTarget  # noqa: PLC0415 (local ones need none)

    settings = _settings(config, name)
    if url := _database(name, config):
        own = settings.kubernetes
        own = msgspec.structs.replace(own, env={"MLSHIP_LOG": url, **own.env})
        settings = msgspec.structs.replace(settings, kubernetes=own)
    access = cluster_access(settings, environment)
    return KubernetesTarget(name, config.name, settings, access, progress)


def cluster_locks(
    name: str, config: Config, who: str, environment: Mapping[str, str]
) -> "LeaseLocks":
    """Return the locks of a target that is in a cluster: they are there, for every machine."""
    from mlship.targets.kubernetes import LeaseLocks  # noqa: PLC0415 (local targets need none)

    settings = _settings(config, name)
    holder = f"{who} at {socket.gethostname()}, process {os.getpid()}"
    namespace = settings.kubernetes.namespace
    return LeaseLocks(config.name, namespace, cluster_access(settings, environment), holder)


def cluster_access(
    settings: TargetConfig, environment: Mapping[str, str]
) -> "Callable[[], Access]":
    """Return how the cluster of a target is reached; nothing is asked yet."""
    if settings.gke is not None:
        from mlship.targets import gke  # noqa: PLC0415 (one is used)

        return functools.partial(gke.find, settings.gke)
    from mlship.targets import kubernetes  # noqa: PLC0415 (one is used)

    return functools.partial(kubernetes.find, settings.kubernetes, environment)


def _settings(config: Config, name: str) -> TargetConfig:
    return config.targets.get(name, TargetConfig())


class _EachTargets:
    """The port Locks where each target keeps its own lock."""

    def __init__(self, find: Callable[[str], Locks]) -> None:
        self._find = find

    def exclusive(self, name: str) -> AbstractContextManager[None]:
        return self._find(name).exclusive(name)


def _images(
    config: Config, state: Path, progress: Progress, environment: Mapping[str, str]
) -> Images:
    """Return what makes images; `.mlship/images` keeps them."""
    from mlship.images import artifact_repository  # noqa: PLC0415 (status pushes nothing)
    from mlship.images.registries import Registries  # noqa: PLC0415 (the same)

    registries, create = Registries(config.image, environment), config.image.create
    prepare = functools.partial(artifact_repository.prepare, create=create, progress=progress)
    match config.image.builder:
        case "oci":
            from mlship.images.oci import OciImages  # noqa: PLC0415 (one is used)

            return OciImages(config.image, state / "images", registries, progress, prepare=prepare)
        case "docker":
            from mlship.images import builds  # noqa: PLC0415 (one is used)
            from mlship.images.docker_images import DockerImages, Tools  # noqa: PLC0415 (the same)

            tools = Tools(builds.EngineBuild(environment, progress))
            return DockerImages(config.image, state.parent, registries, progress, tools, prepare)


def docker_engine(environment: Mapping[str, str]) -> AbstractContextManager[Engine]:
    """Return the connection to the container engine of this machine."""
    from mlship.images.engine import connect  # noqa: PLC0415 (one step runs containers)

    return connect(environment, lambda: datetime.now(UTC))


def publishing(pipeline: Pipeline, environment: Mapping[str, str]) -> "Publishing":
    """Return what a report is published with besides the forge: CML's program, the job's page."""
    from mlship.forges.cml import CmlComments  # noqa: PLC0415 (one command publishes)
    from mlship.forges.summary import StepSummary  # noqa: PLC0415 (the same)
    from mlship.job import of  # noqa: PLC0415 (the same)
    from mlship.steps.publish import Publishing  # noqa: PLC0415 (the same)

    job = of(environment)
    return Publishing(
        job=job,
        cml=CmlComments(environment, pipeline.forge.get),
        summary=StepSummary(job.summary),
    )


def _store(config: Config, state: Path, environment: Mapping[str, str]) -> Store:
    match config.store.kind:
        case "directory":
            from mlship.stores.directory import DirectoryStore  # noqa: PLC0415 (one is used)

            uri = config.store.uri
            # An address was meant for MLflow, before another layer changed the kind.
            folder = state.parent / uri if uri and "://" not in uri else state / "store"
            return DirectoryStore(folder, config.name)
        case "mlflow":
            from mlship.stores.mlflow import MlflowStore  # noqa: PLC0415 (one is used)

            uri = _absolute(config.store.uri or _MLFLOW, state.parent)
            return MlflowStore(uri, config.name, state / "mlflow-artifacts", environment)


def _ledger(config: Config, state: Path, environment: Mapping[str, str]) -> Ledger:
    match config.ledger.kind:
        case "directory":
            from mlship.ledgers.directory import DirectoryLedger  # noqa: PLC0415 (one is used)

            folder = state.parent / config.ledger.uri if config.ledger.uri else state / "ledger"
            return DirectoryLedger(folder)
        case "mlflow":
            from mlship.ledgers.mlflow import MlflowLedger  # noqa: PLC0415 (one is used)

            of_store = config.store.uri if config.store.kind == "mlflow" else None
            uri = _absolute(config.ledger.uri or of_store or _MLFLOW, state.parent)
            return MlflowLedger(uri, config.name, state / "mlflow-artifacts", environment)


def _observations(config: Config, state: Path, environment: Mapping[str, str]) -> Observations:
    if config.observations.url is not None:
        from mlship.observations.postgres import PostgresObservations  # noqa: PLC0415 (one is used)

        return PostgresObservations(config.observations.url, environment)
    from mlship.observations.directory import DirectoryObservations  # noqa: PLC0415 (one is used)

    outcomes = state / "outcomes" / f"{PRODUCTION}.jsonl"
    return DirectoryObservations([state / "predictions" / PRODUCTION], outcomes)


def _database(name: str, config: Config) -> str | None:
    """Return the database where a target's replicas log: production's where they are read from.

    Raises:
        ConfigError: the address has a password, which lists of processes and of pods would show.
    """
    url = config.observations.url
    if name != PRODUCTION or url is None:
        return None
    if ":" in url.partition("://")[2].rpartition("@")[0] or "password=" in url:
        message = "observations.url has a password, which lists of processes and of pods would show"
        raise ConfigError(message, hint="take it out of the address and set PGPASSWORD")
    return url


def _absolute(uri: str, root: Path) -> str:
    """Read a relative sqlite path from the project's folder, wherever the command runs."""
    prefix = "sqlite:///"
    if uri.startswith(prefix):
        return prefix + str((root / uri.removeprefix(prefix)).resolve())
    return uri


def actor(root: Path, environment: Mapping[str, str]) -> str:
    """Return who runs the command: GitHub's actor, git's user or the system's."""
    if environment.get("GITHUB_ACTOR"):
        return environment["GITHUB_ACTOR"]
    try:
        told = subprocess.run(
            ["git", "config", "user.email"], cwd=root, capture_output=True, text=True, check=False
        )
    except OSError:
        return environment.get("USER", "unknown")
    return told.stdout.strip() or environment.get("USER", "unknown")


def environment() -> Mapping[str, str]:
    """Return the process's environment; elsewhere it comes in as a parameter."""
    return os.environ
