"""A release: the frozen identity that travels the pipeline, and the grammar of its names."""

import re

import msgspec

from mlship.domain import digests
from mlship.domain.digests import Digest
from mlship.errors import NotFoundError

_REFERENCE = re.compile(r"(?:(?P<name>[a-z][a-z0-9-]{0,39})@)?(?P<digits>[0-9a-f]{6,64})")


class Release(msgspec.Struct, frozen=True, kw_only=True):
    """What a model was made from, and what came out. Two equal releases are one.

    Attributes:
        commit: the git commit, 40 hexadecimal digits.
        dirty: whether the tree differed from the commit; such a release stays out of production.
        data: the training and the held-out data, as read.
        params: the values given to the training function.
        code: the project's Python files and the settings that shape training.
        environment: the pinned requirements that it was trained with.
        bundle: the manifest of the bundle that came out.
    """

    name: str
    commit: str
    dirty: bool
    data: Digest
    params: Digest
    code: Digest
    environment: Digest
    bundle: Digest

    @property
    def id(self) -> Digest:
        """The digest of all fields."""
        return digests.of_value(self)

    @property
    def inputs(self) -> Digest:
        """The digest of all that goes in: training again with the same finds the same release."""
        return digests.of_value({**msgspec.to_builtins(self), "bundle": None})

    def __str__(self) -> str:
        """Return the name for people, `iris@3f9a0c12be77`, which `find` reads back."""
        return f"{self.name}@{digests.short(self.id)}"


def find(reference: str, releases: list[Release]) -> Release:
    """Return the one release that a person means by `iris@3f9a0c12be77`, `3f9a0c` or a full id.

    Raises:
        NotFoundError: none or several match, or the text is no reference.
    """
    match = _REFERENCE.fullmatch(reference.removeprefix("sha256:"))
    if not match:
        message = f"not a release: {reference[:80]!r}"
        raise NotFoundError(message, hint="name one as `mlship status` does: iris@3f9a0c12be77")
    found = {
        release.id: release
        for release in releases
        if release.id.removeprefix("sha256:").startswith(match["digits"])
        and match["name"] in (None, release.name)
    }
    if len(found) == 1:
        return next(iter(found.values()))
    if not found:
        message = f"no release {reference}"
        raise NotFoundError(message, hint="`mlship status --all` lists the releases of the ledger")
    message = f"{reference} may be any of {', '.join(sorted(map(str, found.values())))}"
    raise NotFoundError(message, hint="give more digits")
