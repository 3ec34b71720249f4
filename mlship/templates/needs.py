"""What jobs install: extras of mlship by the kind of job, and where targets run."""

from typing import Literal, NamedTuple

from mlship.config import installation
from mlship.config.project import Config, TargetConfig
from mlship.domain.image import is_google, reference
from mlship.templates.registries import Registry, registry_of_documents

Needs = dict[str, tuple[str, ...]]
"""Arguments of the installer by the kind of job, such as `release`."""


class Place(NamedTuple):
    """The place of a target, for a job."""

    kind: Literal["local", "kubernetes", "gke"]
    project: str


def place_of(config: Config, name: str) -> Place:
    """Return the place of a target, by its name."""
    target = config.targets.get(name, TargetConfig())
    if target.clusters:
        target = target.in_cluster(target.parent_cluster)
    return Place(kind=target.kind, project=target.gke.project if target.gke else "")


def needs_of(
    config: Config,
    source: str,
    folder: str,
    staging: Place,
    production: Place,
    registry: Registry | None,
) -> tuple[Needs, Needs]:
    """Return what jobs install: mlship alone, and with the requirements of the project."""
    extras = _extras(config, staging, production, registry)
    alone = {kind: installation.arguments(source, names, folder) for kind, names in extras.items()}
    return alone, {kind: installation.with_requirements(each) for kind, each in alone.items()}


def _extras(
    config: Config, staging: Place, production: Place, registry: Registry | None
) -> dict[str, list[str]]:
    """Return the extras of mlship that each kind of job needs: with fewer, it starts sooner.

    A tracking server needs no MLflow library. A job without a server, such as a fork's, keeps its
    records in an embedded database, which needs the library.
    """
    backends = (config.store, config.ledger)
    tracking = ["mlflow"] if any(backend.kind == "mlflow" for backend in backends) else []
    # Reading the ledger takes what verifies the identities of jobs.
    jobs = any(signer.workflow for signer in config.trust.named.values())
    identity = ["identity"] if jobs else []
    remote = tracking if any(_is_database(backend.uri) for backend in backends) else []
    # The credentials of Google's registry are found by Google's library.
    shared = ["gcp"] if registry_of_documents(config) == "google" else []
    release = ["train", *tracking, *shared, *identity]
    if staging.kind == "local":
        release.append("local")
    if registry is not None:
        by_docker = config.image.builder == "docker"
        release += [] if by_docker else ["images"]
        release += ["docker"] if by_docker or config.gates.container else []
        # The base image is pulled here.
        is_near = is_google(reference(config.image.base).registry)
        release += ["gcp"] if is_near and not shared else []
    kinds = {staging.kind, production.kind}
    deploy = ["kubernetes"] if kinds - {"local"} else []
    deploy += ["gcp"] if registry == "google" or "gke" in kinds or shared else []
    # The job that pushes builds the image again with the same digest; Docker's comes as a file.
    push = [] if config.image.builder == "docker" else ["images"]
    postgres = ["postgres"] if config.observations.url else []
    return {
        "review": ["train"],
        "ledger": [*remote, *identity],
        "release": release,
        "verify": ["train", *remote, *shared, *identity],
        "push": [*deploy, *push, *remote, *identity],
        "deploy": [*deploy, *remote, *identity],
        "evaluate": [*remote, *shared, *identity, *postgres],
    }


def _is_database(uri: str | None) -> bool:
    """Return whether a URI is a database that jobs share; sqlite is local to a job."""
    scheme, is_address, _ = (uri or "").partition("://")
    return bool(is_address) and scheme not in ("http", "https", "sqlite")
