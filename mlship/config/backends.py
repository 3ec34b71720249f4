"""Sections of mlship.yaml: where runs, evidence and observations are stored."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


def is_server(uri: str | None) -> bool:
    """Return whether a URI is that of a tracking server; its REST API needs no MLflow library."""
    return (uri or "").lower().startswith(("http://", "https://"))


Writes = Annotated[
    Literal["shared", "local"],
    Meta(
        description="kind registry: `local` reads what all share, and adds in the project's own "
        "folder, for jobs that may only read"
    ),
]


class StoreConfig(_Section, frozen=True):
    """The model registry."""

    kind: Annotated[
        Literal["mlflow", "directory", "registry"],
        Meta(description="MLflow, files in a folder, or artifacts in a container registry"),
    ] = "mlflow"
    uri: Annotated[
        str | None,
        Meta(
            description="tracking server (sqlite:/// or http(s)://; default MLFLOW_TRACKING_URI), "
            "the folder, or the repository in the registry (default `image.repository`)"
        ),
    ] = None
    writes: Writes = "shared"


class LedgerConfig(_Section, frozen=True):
    """Where evidence is stored. Jobs on several machines share it by MLflow or a registry."""

    kind: Annotated[
        Literal["directory", "mlflow", "registry"],
        Meta(description="files in a folder, MLflow, or artifacts in a container registry"),
    ] = "directory"
    uri: Annotated[
        str | None,
        Meta(
            description="the folder; the tracking server (default `store.uri`); or the repository "
            "in the registry (default that of the store, else `image.repository`)"
        ),
    ] = None
    writes: Writes = "shared"


class ObservationsConfig(_Section, frozen=True):
    """Where predictions in production and their outcomes are stored."""

    kind: Annotated[
        Literal["directory", "postgres"],
        Meta(description="folders on this machine, or PostgreSQL"),
    ] = "directory"
    url: Annotated[
        str | None,
        Meta(description="postgresql://user@host:5432/database; put the password in PGPASSWORD"),
    ] = None
    when_away: Annotated[
        Literal["refuse", "spool"],
        Meta(
            description="kind postgres: while the database is away, replicas answer with 503, or "
            "spool predictions to disk and deliver them later"
        ),
    ] = "refuse"
    spool_mb: Annotated[
        Annotated[int, Meta(ge=1)],
        Meta(description="size of a replica's spool at which requests are refused with 503"),
    ] = 256
    columns: Annotated[
        dict[str, Literal["never", "hash"]],
        Meta(
            description="what is logged of columns of requests and responses, such as {email: "
            "never, customer: hash}; a hash needs a key in the variable MLSHIP_HASH_KEY of each "
            "replica"
        ),
    ] = {}
    keep_days: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(
            description="`mlship predictions prune` removes predictions that are older, and their "
            "outcomes, except those that an evaluation of the challenger counts; default: never"
        ),
    ] = None
