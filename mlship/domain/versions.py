"""Values of a model registry: the run of a release, and its registered version."""

from datetime import datetime
from pathlib import Path
from typing import Final, Literal

import msgspec

from mlship.domain.digests import Digest
from mlship.domain.release import Release

Alias = Literal["champion", "challenger"]

VERDICT: Final = "mlship.test"
"""The tag of a run, and of a version, with the verdict of `mlship test`."""


class DataSet(msgspec.Struct, frozen=True, kw_only=True):
    """Data that a release was made from.

    Attributes:
        name: as the project's configuration names it: a path or a URL without credentials.
        digest: of the data of the release.
        use: `training`, or `testing` for held-out data.
    """

    name: str
    digest: Digest
    use: Literal["training", "testing"]


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """The run of a release in the store: training and tests. Recording again adds to it.

    Attributes:
        params: the parameters of the training function.
        metrics: finite numbers only; NaN and infinity are in the ledger.
        tags: more about its origin: commit, branch, author.
        files: files to store with the run, such as plots and reports, by their path in it.
        bundle: the folder of the bundle, stored under `bundle/`.
        data: the data sets of the training.
    """

    release: Release
    params: dict[str, str] = {}
    metrics: dict[str, float] = {}
    tags: dict[str, str] = {}
    files: dict[str, Path] = {}
    bundle: Path | None = None
    data: tuple[DataSet, ...] = ()


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """A registered version of the project's model.

    Attributes:
        number: the version number in the registry, such as `3`.
        release: the id of its release.
        aliases: `champion`, `challenger`, and others that people added.
        link: its page for people; empty if there is none.
    """

    number: str
    release: Digest
    aliases: tuple[str, ...]
    archived: bool
    created: datetime
    link: str = ""
