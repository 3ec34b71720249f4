"""Values of container images: references, layers, pushes."""

import re
from typing import Literal

import msgspec

from mlship.domain import digests
from mlship.domain.digests import Digest
from mlship.errors import ConfigError, IntegrityError

Platform = Literal["linux/amd64", "linux/arm64"]
Role = Literal["base", "system", "dependencies", "runtime", "bundle"]
Builder = Literal["oci", "docker"]
"""Who makes an image: mlship itself, the same bytes anywhere, or a Docker engine."""

DOCKER_HUB = "docker.io"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_PART = r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_PART}(?:/{_PART})*")
_HOST = re.compile(r"(?:[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*|\[[0-9a-fA-F:]+\])(?::[0-9]{1,5})?")


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """Where an image is: registry, repository, and which one of it.

    Grammar: https://github.com/distribution/reference. A name without a registry is Docker Hub's.
    """

    registry: str
    repository: str
    tag: str | None = None
    digest: Digest | None = None

    def __str__(self) -> str:
        """Return the whole reference, which `reference` reads back."""
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.name}{tag}{digest}"

    @property
    def name(self) -> str:
        """The registry and the repository, without tag and digest."""
        return f"{self.registry}/{self.repository}"

    @property
    def wanted(self) -> str:
        """What a registry is asked for: the digest where there is one, else the tag."""
        return self.digest or self.tag or "latest"

    def tagged(self, tag: str) -> "Reference":
        """Return the reference of that tag in the same repository."""
        return Reference(registry=self.registry, repository=self.repository, tag=tag)

    def at(self, digest: Digest) -> "Reference":
        """Return the reference of that digest in the same repository."""
        return Reference(registry=self.registry, repository=self.repository, digest=digest)


def reference(text: str) -> Reference:
    """Return what `localhost:5000/iris:1`, `python:3.11-slim` or `ghcr.io/a/b@sha256:...` means.

    Raises:
        ConfigError: the text is no reference.
    """
    rest, at, found = text.partition("@")
    if at and not _DIGEST.fullmatch(found):
        raise _no_reference(text, "the digest after @ is sha256: and 64 hexadecimal digits")
    name, tag = rest, None
    if ":" in rest.rpartition("/")[2]:
        name, _, tag = rest.rpartition(":")
        if not _TAG.fullmatch(tag):
            raise _no_reference(text, f"{tag!r} is no tag")
    first, slash, path = name.partition("/")
    if not slash or not (first == "localhost" or set(".:") & set(first)):
        first, path = DOCKER_HUB, name if slash else f"library/{name}"
    if not _HOST.fullmatch(first):
        raise _no_reference(text, f"{first!r} is no registry's address")
    if not _PATH.fullmatch(path):
        raise _no_reference(text, "a repository has lower-case letters, digits, and . _ - between")
    digest = Digest(found) if at else None
    return Reference(registry=first, repository=path, tag=tag, digest=digest)


def is_google(registry: str) -> bool:
    """Tell whether a registry is Google's: `europe-west1-docker.pkg.dev`, `gcr.io`."""
    return registry == "gcr.io" or registry.endswith(("-docker.pkg.dev", ".gcr.io"))


def _no_reference(text: str, why: str) -> ConfigError:
    message = f"not an image's name: {text[:120]!r}"
    return ConfigError(message, hint=f"{why}; write one as localhost:5000/iris:1")


class Layer(msgspec.Struct, frozen=True, kw_only=True):
    """One layer.

    Attributes:
        digest: of the bytes as they travel, compressed.
        diff_id: of the archive inside.
        size: of the bytes as they travel.
        reused: it was found in a registry; nothing was downloaded or made for it.
        tag: under which a registry finds it again; empty where it has none.
    """

    role: Role
    media_type: str
    digest: Digest
    diff_id: Digest
    size: int
    reused: bool = False
    tag: str = ""


class PlatformImage(msgspec.Struct, frozen=True, kw_only=True):
    """The image for one platform. Docker calls an image by the digest of its `config`."""

    platform: Platform
    manifest: Digest
    config: Digest
    layers: tuple[Layer, ...]


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """An image as it was built.

    Attributes:
        name: registry and repository, or the project's name where there is no repository.
        tag: follows from the release.
        digest: of its manifest, or of its index where it is for several platforms.
        base: the image that it is built on, by digest.
        builder: who made it.
    """

    name: str
    tag: str
    digest: Digest
    base: Reference
    platforms: tuple[PlatformImage, ...]
    builder: Builder = "oci"

    @property
    def size(self) -> int:
        """The bytes of all layers as they travel, each once."""
        layers = {layer.digest: layer.size for one in self.platforms for layer in one.layers}
        return sum(layers.values())


class Pushed(msgspec.Struct, frozen=True, kw_only=True):
    """What a push did.

    Attributes:
        reference: registry/repository@digest, as the registry itself names it.
        sent: bytes of blobs and manifests that were uploaded.
        there: blobs that the registry had.
        mounted: blobs that it took over from another of its repositories.
    """

    reference: str
    digest: Digest
    sent: int = 0
    there: int = 0
    mounted: int = 0


def check(data: bytes, expected: Digest, what: str) -> bytes:
    """Return bytes that have the expected digest.

    Raises:
        IntegrityError: they have another one.
    """
    found = digests.of_bytes(data)
    if found != expected:
        message = f"{what} has digest {found}, not {expected}"
        raise IntegrityError(message, hint="the registry gave other bytes; ask its operator")
    return data
