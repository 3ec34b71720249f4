"""Values of a model registry: what is recorded of a release, and its registered version."""

from datetime import datetime
from pathlib import Path
from typing import Literal

import msgspec

from mlship.domain.digests import Digest
from mlship.domain.release import Release

Alias = Literal["champion", "challenger"]


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """What a store keeps of the making and testing of a release; recording again adds to it.

    Attributes:
        params: the values given to the training function.
        metrics: finite numbers only; what came out as NaN is in the ledger.
        tags: what else identifies it: commit, branch, author.
        files: files to keep with the run, by their path in it: plots, reports.
        bundle: the folder of the bundle, kept under `bundle/`.
    """

    release: Release
    params: dict[str, str] = {}
    metrics: dict[str, float] = {}
    tags: dict[str, str] = {}
    files: dict[str, Path] = {}
    bundle: Path | None = None


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """A registered version of the project's model.

    Attributes:
        number: the registry's own number, `3`.
        release: the id of the release that it carries.
        aliases: `champion`, `challenger`, and any that people added.
        link: where a person may look at it, empty where there is no page.
    """

    number: str
    release: Digest
    aliases: tuple[str, ...]
    archived: bool
    created: datetime
    link: str = ""
