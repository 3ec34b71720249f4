"""Sections of mlship.yaml: where runs, evidence and observations are stored."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


def is_server(uri: str | None) -> bool:
    """Return whether a URI is that of a tracking server; its REST API needs no MLflow library."""
    return (uri or "").lower().startswith(("http://", "https://"))


class StoreConfig(_Section, frozen=True):
    """The model registry."""

    kind: Annotated[
        Literal["mlflow", "directory"], Meta(description="MLflow, or files in a folder")
    ] = "mlflow"
    uri: Annotated[
        str | None,
        Meta(
            description="tracking server (sqlite:/// or http(s)://; default MLFLOW_TRACKING_URI), "
            "or the folder"
        ),
    ] = None


class LedgerConfig(_Section, frozen=True):
    """Where evidence is stored. Jobs on several machines share it through MLflow."""

    kind: Annotated[
        Literal["directory", "mlflow"], Meta(description="files in a folder, or MLflow")
    ] = "directory"
    uri: Annotated[
        str | None, Meta(description="the folder, or the tracking server (default `store.uri`)")
    ] = None


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
