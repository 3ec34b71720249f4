"""A release: the immutable identity that moves through the pipeline, and its name."""

import re
from functools import lru_cache
from typing import Final

import msgspec

from mlship.domain import digests
from mlship.domain.digests import Digest
from mlship.errors import NotFoundError

_NAME = re.compile(r"[a-z][a-z0-9-]{0,39}")
_REFERENCE = re.compile(r"(?:(?P<name>[a-z][a-z0-9-]{0,39})@)?(?P<digits>[0-9a-f]{6,64})")

_REMEMBERED: Final = 4096


class Release(msgspec.Struct, frozen=True, kw_only=True):
    """The inputs of a training and its result, as digests. Equal releases are the same release.

    Attributes:
        commit: the git commit, 40 hexadecimal digits.
        dirty: whether there were uncommitted changes; such a release never goes to production.
        data: the training data and the held-out data.
        params: the parameters of the training function.
        code: the project's files that training depends on, and the settings that affect it.
        environment: the pinned requirements of the training environment.
        bundle: the manifest of the resulting bundle.
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
        return _id(self)

    @property
    def parts(self) -> dict[str, Digest]:
        """The digests of what it was made from and of what came out, by name."""
        return {
            "data": self.data,
            "params": self.params,
            "code": self.code,
            "environment": self.environment,
            "bundle": self.bundle,
        }

    @property
    def inputs(self) -> Digest:
        """The digest of all inputs: training again with the same inputs reuses the release."""
        return digests.of_value({**msgspec.to_builtins(self), "bundle": None})

    def __str__(self) -> str:
        """Return the name for people, `iris@3f9a0c12be77`; `find` parses it."""
        return f"{self.name}@{digests.short(self.id)}"


@lru_cache(maxsize=_REMEMBERED)
def _id(release: Release) -> Digest:
    """Return the digest of all fields; each record of a ledger is compared with it."""
    return digests.of_value(release)


def is_name(text: str) -> bool:
    """Return whether a text can be the name of a project, which is the name of its releases."""
    return _NAME.fullmatch(text) is not None


def find(reference: str, releases: list[Release]) -> Release:
    """Return the release named by `iris@3f9a0c12be77`, `3f9a0c` or a full id.

    Raises:
        NotFoundError: no release or several match, or the name is not valid.
    """
    match = _REFERENCE.fullmatch(reference.removeprefix("sha256:"))
    if not match:
        message = f"invalid release name: {reference[:80]!r}"
        raise NotFoundError(
            message, hint="use a name that `mlship status` shows, such as iris@3f9a0c12be77"
        )
    matches = {
        release.id: release
        for release in releases
        if release.id.removeprefix("sha256:").startswith(match["digits"])
        and match["name"] in (None, release.name)
    }
    if len(matches) == 1:
        return next(iter(matches.values()))
    if not matches:
        message = f"release {reference} not found"
        raise NotFoundError(message, hint="run `mlship status --all` to list all releases")
    message = f"{reference} is ambiguous: {', '.join(sorted(map(str, matches.values())))}"
    raise NotFoundError(message, hint="give more digits")
