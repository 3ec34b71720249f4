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
"""What builds an image: mlship, reproducibly, or a Docker engine."""

DOCKER_HUB = "docker.io"
GITHUB = "ghcr.io"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_PART = r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_PART}(?:/{_PART})*")
_HOST = re.compile(r"(?:[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*|\[[0-9a-fA-F:]+\])(?::[0-9]{1,5})?")


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """A reference to an image: registry, repository, tag and digest.

    Grammar: https://github.com/distribution/reference. A name without a registry is on Docker Hub.
    """

    registry: str
    repository: str
    tag: str | None = None
    digest: Digest | None = None

    def __str__(self) -> str:
        """Return the whole reference; `reference` parses it."""
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.name}{tag}{digest}"

    @property
    def name(self) -> str:
        """The registry and the repository, without the tag and the digest."""
        return f"{self.registry}/{self.repository}"

    @property
    def wanted(self) -> str:
        """What to request from the registry: the digest if there is one, else the tag."""
        return self.digest or self.tag or "latest"

    def tagged(self, tag: str) -> "Reference":
        """Return the reference of that tag in the same repository."""
        return Reference(registry=self.registry, repository=self.repository, tag=tag)

    def at(self, digest: Digest) -> "Reference":
        """Return the reference of that digest in the same repository."""
        return Reference(registry=self.registry, repository=self.repository, digest=digest)


def reference(text: str) -> Reference:
    """Parse `localhost:5000/iris:1`, `python:3.11-slim` or `ghcr.io/a/b@sha256:...`.

    Raises:
        ConfigError: the text is not a valid reference.
    """
    rest, at, digest = text.partition("@")
    if at and not _DIGEST.fullmatch(digest):
        raise _invalid(text, "the digest after @ must be sha256: and 64 hexadecimal digits")
    name, tag = rest, None
    if ":" in rest.rpartition("/")[2]:
        name, _, tag = rest.rpartition(":")
        if not _TAG.fullmatch(tag):
            raise _invalid(text, f"{tag!r} is not a valid tag")
    first, slash, path = name.partition("/")
    if not slash or not (first == "localhost" or set(".:") & set(first)):
        first, path = DOCKER_HUB, name if slash else f"library/{name}"
    if not _HOST.fullmatch(first):
        raise _invalid(text, f"{first!r} is not a valid registry address")
    port = first.rpartition(":")[2] if not first.endswith("]") else ""
    if port.isdecimal() and not 0 < int(port) < 1 << 16:
        raise _invalid(text, f"port {port} is not between 1 and 65535")
    if not _PATH.fullmatch(path):
        raise _invalid(text, "a repository has lowercase letters and digits, separated by . _ -")
    return Reference(
        registry=first, repository=path, tag=tag, digest=Digest(digest) if at else None
    )


def is_google(registry: str) -> bool:
    """Return whether a registry belongs to Google: `europe-west1-docker.pkg.dev`, `gcr.io`."""
    return registry == "gcr.io" or registry.endswith(("-docker.pkg.dev", ".gcr.io"))


def _invalid(text: str, reason: str) -> ConfigError:
    message = f"invalid image reference: {text[:120]!r}"
    return ConfigError(message, hint=f"{reason}; example: localhost:5000/iris:1")


class Layer(msgspec.Struct, frozen=True, kw_only=True):
    """One layer.

    Attributes:
        digest: of the compressed bytes, as they are transferred.
        diff_id: of the uncompressed archive.
        size: of the compressed bytes.
        reused: a registry has it already; nothing was downloaded or built.
        tag: the tag by which a registry finds it again; empty if it has none.
    """

    role: Role
    media_type: str
    digest: Digest
    diff_id: Digest
    size: int
    reused: bool = False
    tag: str = ""


class PlatformImage(msgspec.Struct, frozen=True, kw_only=True):
    """The image for one platform. Docker identifies an image by the digest of its `config`."""

    platform: Platform
    manifest: Digest = msgspec.field(name="digest")
    config: Digest
    layers: tuple[Layer, ...]


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """A built image.

    Attributes:
        name: registry and repository, or the name of the project without a repository.
        tag: derived from the release.
        digest: of its manifest, or of its index if it has several platforms.
        base: the base image, by digest.
        builder: what built it.
    """

    name: str
    tag: str
    digest: Digest
    base: Reference
    platforms: tuple[PlatformImage, ...]
    builder: Builder = "oci"

    @property
    def size(self) -> int:
        """The compressed size of all layers, each counted once."""
        layers = {
            layer.digest: layer.size for platform in self.platforms for layer in platform.layers
        }
        return sum(layers.values())


class Pushed(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a push.

    Attributes:
        reference: registry/repository@digest, as the registry reports it.
        sent: uploaded bytes of blobs and manifests.
        there: blobs that the registry already had.
        mounted: blobs that it mounted from another of its repositories.
    """

    reference: str
    digest: Digest
    sent: int = 0
    there: int = 0
    mounted: int = 0


def check(data: bytes, expected: Digest, name: str) -> bytes:
    """Return bytes after checking their digest.

    Raises:
        IntegrityError: they have another digest.
    """
    digest = digests.of_bytes(data)
    if digest != expected:
        message = f"{name} has digest {digest}, expected {expected}"
        hint = "the registry sent other content than it announced; ask its operator"
        raise IntegrityError(message, hint=hint)
    return data
