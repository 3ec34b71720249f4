"""The JSON of images: configuration, manifest, index. Pure functions; the same in, the same out.

Specification: https://github.com/opencontainers/image-spec, version 1.1. Nothing in them tells
when or where an image was made.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeVar

import msgspec

from mlship.adapters.images.build import entry_point
from mlship.adapters.images.build.layers import MEDIA_TYPE
from mlship.domain import digests
from mlship.domain.digests import Digest
from mlship.domain.image import Layer, Platform, Reference
from mlship.domain.release import Release
from mlship.errors import ConfigError, IntegrityError

MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
INDEX: Final = "application/vnd.oci.image.index.v1+json"
CONFIG: Final = "application/vnd.oci.image.config.v1+json"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
_DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
_EPOCH = "1970-01-01T00:00:00Z"
_Kind = TypeVar("_Kind")


class Descriptor(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What a manifest says of a blob."""

    media_type: str
    digest: Digest
    size: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """An image's manifest, as far as it matters here."""

    config: Descriptor
    layers: tuple[Descriptor, ...]


class _Where(msgspec.Struct, frozen=True, kw_only=True):
    os: str
    architecture: str


class _Entry(Descriptor, frozen=True, kw_only=True):
    platform: _Where | None = None


class _Index(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    manifests: tuple[_Entry, ...]


class _RootFs(msgspec.Struct, frozen=True, kw_only=True):
    diff_ids: tuple[Digest, ...]


class Process(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """How an image starts its process, as far as it matters here."""

    env: tuple[str, ...] | None = None
    labels: dict[str, str] | None = None
    entrypoint: tuple[str, ...] | None = None
    user: str | None = None


class Configuration(msgspec.Struct, frozen=True, kw_only=True):
    """An image's configuration, as far as it matters here."""

    architecture: str
    os: str
    rootfs: _RootFs
    variant: str | None = None
    config: Process | None = None
    history: tuple[dict[str, Any], ...] | None = None

    @property
    def environment(self) -> dict[str, str]:
        """The variables that it sets."""
        pairs = (self.config.env if self.config else None) or ()
        return dict(pair.split("=", 1) for pair in pairs if "=" in pair)


class Base(msgspec.Struct, frozen=True, kw_only=True):
    """A base image for one platform.

    Attributes:
        reference: of the manifest or the index that its name means, with its digest.
    """

    reference: Reference
    manifest: Manifest
    configuration: Configuration

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Its layers, never made nor downloaded for a build."""
        pairs = zip(self.manifest.layers, self.configuration.rootfs.diff_ids, strict=True)
        return tuple(
            Layer(
                role="base",
                # The same bytes have another name in Docker's own format.
                media_type=MEDIA_TYPE if one.media_type == _DOCKER_LAYER else one.media_type,
                digest=one.digest,
                diff_id=diff_id,
                size=one.size,
                reused=True,
            )
            for one, diff_id in pairs
        )


def decode_manifest(data: bytes, what: str) -> Manifest:
    """Return an image's manifest from its JSON.

    Raises:
        IntegrityError: it is none.
    """
    return _decoded(data, Manifest, what)


def decode_configuration(data: bytes, what: str) -> Configuration:
    """Return an image's configuration from its JSON.

    Raises:
        IntegrityError: it is none.
    """
    return _decoded(data, Configuration, what)


def choose(data: bytes, platform: Platform, what: str) -> Digest:
    """Return the digest of a platform's manifest in an index.

    Raises:
        ConfigError: the index has no such platform; both are named.
        IntegrityError: it is no index.
    """
    index = _decoded(data, _Index, what)
    there: dict[str, Digest] = {}
    for entry in index.manifests:
        if entry.platform and entry.platform.os != "unknown":
            where = f"{entry.platform.os}/{entry.platform.architecture}"
            there.setdefault(where, entry.digest)
    if platform not in there:
        raise other_platform(what, ", ".join(sorted(there)) or "no platform", platform)
    return there[platform]


def other_platform(what: str, there: str, wanted: Platform) -> ConfigError:
    """Return the error for a base image of another architecture."""
    message = f"the base image {what} is for {there}, not for {wanted}"
    return ConfigError(message, hint="set image.base to one that is, or image.platforms to that")


def configuration(
    base: Base, layers: Sequence[Layer], release: Release, labels: Mapping[str, str]
) -> bytes:
    """Return the configuration of a release's image on a base."""
    found = base.configuration
    inherited = (found.config and found.config.labels) or {}
    environment = found.environment | entry_point.environment(release)
    run = {
        "Entrypoint": entry_point.entry_point(release),
        "Env": [f"{name}={value}" for name, value in sorted(environment.items())],
        "ExposedPorts": {f"{entry_point.PORT}/tcp": {}},
        "Labels": {**inherited, **labels},
        "StopSignal": entry_point.STOP_SIGNAL,
        "User": entry_point.USER,
        "WorkingDir": "/",
    }
    made = {
        "architecture": found.architecture,
        "os": found.os,
        "created": _EPOCH,
        "config": run,
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
        "history": [*(found.history or ()), *_history(layers)],
    }
    return digests.canonical_json(made | ({"variant": found.variant} if found.variant else {}))


def _history(layers: Sequence[Layer]) -> list[dict[str, str]]:
    own = [layer for layer in layers if layer.role != "base"]
    return [{"created": _EPOCH, "created_by": f"mlship: {layer.role}"} for layer in own]


def manifest(config: Descriptor, layers: Sequence[Layer], annotations: Mapping[str, str]) -> bytes:
    """Return an image's manifest."""
    described = [
        Descriptor(media_type=layer.media_type, digest=layer.digest, size=layer.size)
        for layer in layers
    ]
    made = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": config,
        "layers": described,
        "annotations": dict(annotations),
    }
    return digests.canonical_json({name: value for name, value in made.items() if value})


def index(
    manifests: Sequence[tuple[Platform, Descriptor]], annotations: Mapping[str, str]
) -> bytes:
    """Return an index of an image's manifests by platform."""
    entries = []
    for platform, descriptor in manifests:
        system, architecture = platform.split("/")
        where = {"os": system, "architecture": architecture}
        entries.append({**msgspec.to_builtins(descriptor), "platform": where})
    made = {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}
    return digests.canonical_json({**made, "annotations": dict(annotations)})


def annotations(
    release: Release, base: Reference, name: Reference, source: str | None
) -> dict[str, str]:
    """Return what annotations and labels tell of a release's image.

    Args:
        release: what is in it.
        base: the base image by digest.
        name: the base image as mlship.yaml names it.
        source: where the source code is, if that is configured.

    Raises:
        ConfigError: the address of the source code holds a credential.
    """
    if source and "@" in source.partition("://")[2].partition("/")[0]:
        message = "image.source holds a user or a password, and a label is for everybody to read"
        raise ConfigError(message, hint="write https://github.com/owner/name")
    found = {
        "dev.mlship.bundle": release.bundle,
        "dev.mlship.release": release.id,
        "org.opencontainers.image.base.digest": base.digest or "",
        "org.opencontainers.image.base.name": f"{name.name}:{name.tag or 'latest'}",
        "org.opencontainers.image.revision": release.commit + ("-dirty" if release.dirty else ""),
        "org.opencontainers.image.title": release.name,
        "org.opencontainers.image.version": str(release),
    }
    return {**found, "org.opencontainers.image.source": source} if source else found


def dependencies(layer: Layer, platform: Platform) -> tuple[bytes, bytes]:
    """Return configuration and manifest of a tiny image by which a layer is found again."""
    system, architecture = platform.split("/")
    made = {
        "architecture": architecture,
        "os": system,
        "created": _EPOCH,
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id]},
    }
    config = digests.canonical_json(made)
    return config, manifest(describe(config, CONFIG), [layer], {})


def describe(data: bytes, media_type: str) -> Descriptor:
    """Return the descriptor of bytes."""
    return Descriptor(media_type=media_type, digest=digests.of_bytes(data), size=len(data))


def _decoded(data: bytes, kind: type[_Kind], what: str) -> _Kind:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        message = f"{what} is no image that mlship can read: {error}"
        raise IntegrityError(
            message, hint="name an image of the OCI or Docker v2 format"
        ) from error
