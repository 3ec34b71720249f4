"""The backends that the configuration selects. Each is imported only when it is used."""

import functools
import os
import socket
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec

from mlship.config import access
from mlship.config.project import Config, TargetConfig
from mlship.config.repositories import Backend, repository_of
from mlship.domain import digests
from mlship.domain.dsse import Signing
from mlship.domain.fence import KERNEL, Fence
from mlship.domain.home import UNKNOWN
from mlship.domain.ports import Engine, Images, Ledger, Progress, Store
from mlship.errors import ConfigError
from mlship.steps.pipeline import PRODUCTION

if TYPE_CHECKING:
    from mlship.adapters.artifacts.artifacts import Artifacts
    from mlship.adapters.http.retries import Patience
    from mlship.adapters.images.build.builder import ImageBuilder
    from mlship.adapters.targets.google import GoogleParent
    from mlship.adapters.targets.kubernetes import (
        Access,
        ClustersTarget,
        KubernetesTarget,
        LeaseLocks,
        Member,
    )
    from mlship.adapters.targets.local import LocalTarget

Purpose = Literal["change", "read", "check"]
"""What a command does: it decides how long a tracking server is waited for."""

_MLFLOW = "sqlite:///.mlship/mlflow.db"


def local_target(name: str, config: Config, state: Path, progress: Progress) -> "LocalTarget":
    """Return a local target; its state is in `.mlship/targets/<name>`."""
    from mlship.adapters.targets.local import LocalTarget
    from mlship.adapters.targets.local.state import Logging, Spooling

    spool = Spooling(
        folder=str((state / "spool" / name).absolute()), max_mb=config.observations.spool_mb
    )
    logs = Logging(
        place=database(name, config) or str((state / "predictions" / name).absolute()),
        spool=spool if _spools(name, config) else None,
        columns=config.observations.columns,
    )
    settings = access.absolute(target_config(config, name), state.parent.absolute())
    return LocalTarget(name, state / "targets" / name, settings, logs, progress)


def cluster_target(
    name: str,
    config: Config,
    home: str,
    progress: Progress,
    environment: Mapping[str, str],
    fence: Fence = KERNEL,
) -> "KubernetesTarget | ClustersTarget":
    """Return a target in one cluster or several, without connecting to any.

    Args:
        name: of the target.
        config: of the project.
        home: of the project.
        progress: receives progress notes.
        environment: the environment variables.
        fence: of the lock of the target, if it is held.
    """
    from mlship.adapters.targets.kubernetes import ClustersTarget, KubernetesTarget, Scope

    settings = target_config(config, name)
    variables = {"MLSHIP_LOG": url} if (url := database(name, config)) else {}
    if columns := config.observations.columns:
        variables["MLSHIP_LOG_COLUMNS"] = msgspec.json.encode(columns, order="sorted").decode()
    if variables:
        pods = settings.kubernetes
        pods = msgspec.structs.replace(pods, env={**variables, **pods.env})
        settings = msgspec.structs.replace(settings, kubernetes=pods)
    scope = Scope(project=config.name, target=name, home=home)
    spool_mb = config.observations.spool_mb if _spools(name, config) else None
    if settings.clusters:
        clusters = members(settings, environment, fence)
        above = parent(settings, fence)
        return ClustersTarget(scope, settings, clusters, progress, spool_mb=spool_mb, parent=above)
    access = cluster_access(settings, environment)
    return KubernetesTarget(scope, settings, access, progress, spool_mb=spool_mb, fence=fence)


def parent(settings: TargetConfig, fence: Fence = KERNEL) -> "GoogleParent | None":
    """Return what is above a target's clusters, if it is in none of them; nothing is connected."""
    if settings.load_balancer is None:
        return None
    from mlship.adapters.targets import google

    return google.parent(settings, fence)


def members(
    settings: TargetConfig, environment: Mapping[str, str], fence: Fence = KERNEL
) -> "list[Member]":
    """Return the clusters of a target that has several, without connecting."""
    from mlship.adapters.targets.kubernetes import Member

    return [
        Member(name, settings, cluster_access(settings.in_cluster(name), environment), fence)
        for name in settings.clusters
    ]


def cluster_locks(
    name: str, config: Config, user: str, environment: Mapping[str, str]
) -> "LeaseLocks":
    """Return the locks of a target: in its cluster, or the parent's, for all machines."""
    from mlship.adapters.targets.kubernetes import Elsewhere, LeaseLocks, Scope

    def elsewhere(target: str) -> int:
        return above.highest(Scope(project=config.name, target=target)) if above else 0

    settings = target_config(config, name)
    above = parent(settings)
    others = {}
    if settings.clusters:
        for other in settings.clusters:
            place = settings.in_cluster(other)
            access = cluster_access(place, environment)
            others[other] = Elsewhere(place.kubernetes.namespace, access)
        del others[settings.parent_cluster]
        settings = settings.in_cluster(settings.parent_cluster)
    holder = f"{user} at {socket.gethostname()}, process {os.getpid()}"
    own = settings.kubernetes
    return LeaseLocks(
        config.name,
        own.namespace,
        cluster_access(settings, environment),
        holder,
        route="ConfigMap" if own.gateway is None else "HTTPRoute",
        others=others,
        elsewhere=elsewhere,
    )


def cluster_access(
    settings: TargetConfig, environment: Mapping[str, str]
) -> "Callable[[], Access]":
    """Return a function that connects to the cluster of a target."""
    if settings.gke is not None:
        from mlship.adapters.targets import gke

        return functools.partial(gke.find, settings.gke)
    from mlship.adapters.targets import kubernetes

    return functools.partial(kubernetes.find, settings.kubernetes, environment)


def target_config(config: Config, name: str) -> TargetConfig:
    """Return the settings of a target; the defaults if mlship.yaml does not name it."""
    return config.targets.get(name, TargetConfig())


def images(
    config: Config, state: Path, progress: Progress, environment: Mapping[str, str]
) -> Images:
    """Return what builds and publishes images; `.mlship/images` stores them."""
    from mlship.adapters.images.build.image_layers import ImageLayers
    from mlship.adapters.images.build.layout import Layout
    from mlship.adapters.images.local import LocalImages
    from mlship.adapters.images.publisher import Publisher
    from mlship.adapters.images.registry import google_repository
    from mlship.adapters.images.registry.registries import Registries

    layout, registries = Layout(state / "images"), Registries(config.image, environment)
    layers = ImageLayers(layout, registries, progress)
    create = config.image.create
    prepare = functools.partial(google_repository.prepare, create=create, progress=progress)
    publisher = Publisher(layout, registries, progress, prepare)
    builder: ImageBuilder
    match config.image.builder:
        case "oci":
            from mlship.adapters.images.build.oci import OciBuilder

            builder = OciBuilder(config.image, registries.repository, layout, layers)
        case "docker":
            from mlship.adapters.images.build.docker import DockerBuilder
            from mlship.adapters.images.engine.builds import EngineBuild

            builder = DockerBuilder(
                config.image,
                state.parent,
                registries.repository,
                layout,
                layers,
                make=EngineBuild(environment, progress),
                progress=progress,
            )
    return LocalImages(config.image, layout, registries, builder, publisher, layers)


def docker_engine(environment: Mapping[str, str]) -> AbstractContextManager[Engine]:
    """Return the connection to the container engine of this machine."""
    from mlship.adapters.images.engine.engine import connect

    return connect(environment, lambda: datetime.now(UTC))


def store(
    config: Config,
    home: str,
    state: Path,
    environment: Mapping[str, str],
    progress: Progress,
    purpose: Purpose = "change",
) -> Store:
    """Return the model registry. It has others' models if it is shared."""
    match config.store.kind:
        case "registry":
            from mlship.adapters.stores.registry import RegistryStore

            shared = _artifacts(config, "store", state, environment, progress, purpose)
            packs = config.store.writes == "shared"
            return RegistryStore(shared, config.name, home, packs=packs)
        case "directory":
            from mlship.adapters.stores.directory import DirectoryStore

            uri = config.store.uri
            # A URL was meant for MLflow, before another layer of settings changed the kind.
            folder = state.parent / uri if uri and "://" not in uri else state / "store"
            own = home if is_shared(config.store.uri, state.parent) else UNKNOWN
            return DirectoryStore(folder, config.name, own)
        case "mlflow":
            from mlship.adapters.stores.mlflow import MlflowStore

            uri = _absolute(config.store.uri or _MLFLOW, state.parent)
            artifacts = state / "mlflow-artifacts"
            patience = _patience(purpose)
            own = home if is_shared(config.store.uri, state.parent) else UNKNOWN
            return MlflowStore(uri, config.name, artifacts, environment, patience, home=own)


class Ahead(NamedTuple):
    """Preparations that make the first write to a store faster.

    Attributes:
        prepare: runs during a training.
        load: starts in a thread, while replicas start.
    """

    prepare: Callable[[], None] = lambda: None
    load: Callable[[], None] = lambda: None


def ahead(config: Config, store: Store) -> Ahead:
    """Return the preparations for a store."""
    if config.store.kind == "mlflow":
        from mlship.adapters.stores.mlflow import MlflowStore

        if isinstance(store, MlflowStore):
            return Ahead(prepare=store.prepare, load=store.load_ahead)
    return Ahead()


def ledger(
    config: Config,
    state: Path,
    environment: Mapping[str, str],
    progress: Progress,
    purpose: Purpose = "change",
    by: Signing | None = None,
) -> Ledger:
    """Return the ledger: a folder, MLflow, or a container registry.

    Args:
        config: of the project.
        state: mlship's own folder in it.
        environment: the environment variables.
        progress: receives progress notes.
        purpose: what the command does.
        by: signs the records; `None` for records without a signature.
    """
    match config.ledger.kind:
        case "registry":
            from mlship.adapters.ledgers.registry import RegistryLedger

            shared = _artifacts(config, "ledger", state, environment, progress, purpose)
            return RegistryLedger(shared, packs=config.ledger.writes == "shared", by=by)
        case "directory":
            from mlship.adapters.ledgers.directory import DirectoryLedger

            folder = state.parent / config.ledger.uri if config.ledger.uri else state / "ledger"
            return DirectoryLedger(folder, by)
        case "mlflow":
            from mlship.adapters.ledgers.mlflow import MlflowLedger

            of_store = config.store.uri if config.store.kind == "mlflow" else None
            uri = _absolute(config.ledger.uri or of_store or _MLFLOW, state.parent)
            artifacts = state / "mlflow-artifacts"
            patience = _patience(purpose)
            return MlflowLedger(uri, config.name, artifacts, environment, patience, by)


def _artifacts(
    config: Config,
    backend: Backend,
    state: Path,
    environment: Mapping[str, str],
    progress: Progress,
    purpose: Purpose,
) -> "Artifacts":
    """Return the documents of a ledger or a store in a container registry.

    Credentials in the environment are for the registry of the images; without images, for this one.
    """
    from mlship.adapters.artifacts.artifacts import SharedArtifacts
    from mlship.adapters.artifacts.overlay import LocalArtifacts
    from mlship.adapters.images.registry import client, google_repository
    from mlship.adapters.images.registry.registries import Registries, repository

    text = repository_of(config, backend) or ""
    place = repository(text, f"{backend}.uri")
    image = msgspec.structs.replace(config.image, repository=config.image.repository or text)
    patience = client.PATIENCE if purpose == "change" else client.READING
    create = config.image.create
    shared = SharedArtifacts(
        Registries(image, environment, patience=patience),
        place,
        config.name,
        state / "registry" / digests.short(digests.of_bytes(place.name.encode())) / config.name,
        prepare=functools.partial(google_repository.prepare, create=create, progress=progress),
        source=config.image.source,
    )
    writes = config.ledger.writes if backend == "ledger" else config.store.writes
    return shared if writes == "shared" else LocalArtifacts(shared, state / "registry" / "local")


def shares_ledger(config: Config, root: Path) -> bool:
    """Return whether the ledger may have records of other projects."""
    if config.ledger.kind == "registry":
        return True
    of_store = config.store.uri if config.store.kind == "mlflow" else None
    uri = config.ledger.uri or (of_store if config.ledger.kind == "mlflow" else None)
    return is_shared(uri, root)


def is_shared(uri: str | None, root: Path) -> bool:
    """Return whether a backend at a URI is outside of the project's own folder."""
    if uri is None:
        return False
    path = uri.removeprefix("sqlite:///")
    return "://" in path or not (root / path).resolve().is_relative_to(root.resolve())


def database(name: str, config: Config) -> str | None:
    """Return the database in which a target's replicas log predictions; only for production.

    Raises:
        ConfigError: the URL has a password, which lists of processes and pods would show.
    """
    url = config.observations.url
    if name != PRODUCTION or url is None:
        return None
    if ":" in url.partition("://")[2].rpartition("@")[0] or "password=" in url:
        message = "observations.url has a password, which lists of processes and pods would show"
        raise ConfigError(message, hint="remove it from the URL and set PGPASSWORD")
    return url


def _spools(name: str, config: Config) -> bool:
    """Return whether a target's replicas spool predictions while their database is away."""
    return name == PRODUCTION and config.observations.when_away == "spool"


def _patience(purpose: Purpose) -> "Patience":
    """Return how long a tracking server is waited for."""
    from mlship.adapters.mlflow import rest

    match purpose:
        case "change":
            return rest.PATIENCE
        case "read":
            return rest.READING
        case "check":
            return rest.CHECKING


def _absolute(uri: str, root: Path) -> str:
    """Resolve a relative sqlite path against the project's folder, not the working directory."""
    prefix = "sqlite:///"
    if uri.startswith(prefix):
        return prefix + str((root / uri.removeprefix(prefix)).resolve())
    return uri
