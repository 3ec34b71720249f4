"""Base images: what a name means now, and the digest that pins it."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from mlship.domain import digests
from mlship.domain.digests import Digest
from mlship.domain.image import Platform, Reference, reference
from mlship.errors import ConfigError


class BaseImage(msgspec.Struct, frozen=True, kw_only=True):
    """A base image on one platform, as its registry describes it.

    Attributes:
        digest: of the image, or of its index for several platforms: the same for all of them.
        created: the time in its configuration; empty if it has none.
        python: the version of Python; empty if its configuration does not have it.
        size: of its layers, in compressed bytes.
        labels: its version and the image it is based on, as far as its makers wrote them.
    """

    digest: Digest
    platform: Platform
    created: str = ""
    python: str = ""
    size: int = 0
    labels: Mapping[str, str] = {}

    def __str__(self) -> str:
        """Return one line for people."""
        parts = [
            self.created and f"created {self.created[:10]}",
            self.python and f"Python {self.python}",
            f"{self.size / 1e6:.1f} MB",
            *(f"{name} {value}" for name, value in sorted(self.labels.items())),
        ]
        return f"{self.platform}: {', '.join(filter(None, parts))}"


class Bases(Protocol):
    """Describes base images in their registries."""

    def describe(
        self, image: Reference, platforms: Sequence[Platform]
    ) -> Mapping[Platform, BaseImage]:
        """Return what a reference means now, on each platform. Layers are not downloaded.

        Raises:
            ConfigError: the image does not exist, or not for a platform.
            UnavailableError: its registry does not answer, or denies access.
            IntegrityError: its manifest or configuration is invalid.
        """


class SettingsFile(Protocol):
    """The project's mlship.yaml, and what git has of it."""

    def read(self) -> str:
        """Return its text, with its line ends."""

    def write(self, text: str) -> None:
        """Replace its text atomically."""

    def committed(self) -> str:
        """Return its text in the current commit.

        Raises:
            ProjectError: there is no repository, or no commit that has the file.
        """

    def staged(self) -> Sequence[str]:
        """Return the other files with staged changes, by their path in the repository."""

    def commit(self, message: str) -> str:
        """Commit the file alone; return the hash of the commit.

        Raises:
            ProjectError: git refuses, such as a hook of the repository.
        """


class BaseUpdate(msgspec.Struct, frozen=True, kw_only=True):
    """What `images update` found, and whether it changed mlship.yaml.

    Attributes:
        name: the base image by its tag, as mlship.yaml has it.
        before: the digest that pinned it; `None` if none did.
        was: on each platform, the image of that digest; empty if its registry no longer has it.
        commit: the commit that has the change; empty if none was made.
    """

    name: str
    before: Digest | None
    after: Digest
    was: Sequence[BaseImage] = ()
    now: Sequence[BaseImage] = ()
    changed: bool = False
    commit: str = ""


def tagged(base: str) -> str:
    """Return a name of a base image with its tag and without a digest, as it is written.

    Raises:
        ConfigError: the name is invalid, or has a digest and no tag.
    """
    name = base.partition("@")[0]
    parsed = reference(base)
    if parsed.tag:
        return name
    if parsed.digest:
        message = f"image.base {base} has no tag, so there is nothing to update it from"
        raise ConfigError(message, hint=f"write the tag before the digest: {name}:TAG@sha256:...")
    return f"{name}:latest"


def unpinned(base: str) -> str:
    """Return that a base image is named by a tag; empty if its digest pins it."""
    if reference(base).digest is not None:
        return ""
    return f"image.base {base} is a tag, which may name another image tomorrow"


PIN = "`mlship images update` pins it by digest in mlship.yaml"


def message_of(update: BaseUpdate) -> str:
    """Return the message of the commit that has an update."""
    verb = "Update" if update.before else "Pin"
    short = digests.short(update.after)
    lines = [f"{verb} the base image {update.name} to {short}"[:99], "", *lines_of(update)]
    return "\n".join(lines) + "\n"


def lines_of(update: BaseUpdate) -> list[str]:
    """Return the old and the new image, for people."""
    if not update.changed:
        return [f"now {update.after}", *(f"    {image}" for image in update.now)]
    old = update.before or "not pinned"
    was = [f"    {image}" for image in update.was]
    return [f"was {old}", *was, f"now {update.after}", *(f"    {image}" for image in update.now)]
