"""Where runs, evidence and observations are kept, as sections of mlship.yaml."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class StoreConfig(_Section, frozen=True):
    """The model registry."""

    kind: Annotated[
        Literal["mlflow", "directory"], Meta(description="MLflow, or plain files in a folder")
    ] = "mlflow"
    uri: Annotated[
        str | None,
        Meta(description="MLflow: sqlite:/// or http(s)://, also MLFLOW_TRACKING_URI; a folder"),
    ] = None


class LedgerConfig(_Section, frozen=True):
    """Where evidence is kept. Jobs on several machines share what they prove through MLflow."""

    kind: Annotated[
        Literal["directory", "mlflow"], Meta(description="files in a folder, or MLflow")
    ] = "directory"
    uri: Annotated[
        str | None, Meta(description="a folder; MLflow: as `store.uri`, which is its default")
    ] = None


class ObservationsConfig(_Section, frozen=True):
    """Where production's predictions are logged, and outcomes are taken in."""

    kind: Annotated[
        Literal["directory", "postgres"],
        Meta(description="folders of this machine, or PostgreSQL"),
    ] = "directory"
    url: Annotated[
        str | None,
        Meta(
            description="postgresql://user@host:5432/database; the password is best in PGPASSWORD"
        ),
    ] = None
