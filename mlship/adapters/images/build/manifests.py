"""The JSON documents of images: configuration, manifest, index. Pure functions.

Specification: https://github.com/opencontainers/image-spec, version 1.1. They contain no time and
no machine of the build, so that images are reproducible.
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
from mlship.domain.untrusted import decoded
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
    """A reference to a blob."""

    media_type: str
    digest: Digest
    size: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The fields of an image manifest that mlship uses."""

    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: dict[str, str] | None = None


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
    """The settings of an image's process that mlship uses."""

    env: tuple[str, ...] | None = None
    labels: dict[str, str] | None = None
    entrypoint: tuple[str, ...] | None = None
    user: str | None = None


class Configuration(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of an image configuration that mlship uses."""

    architecture: str
    os: str
    rootfs: _RootFs
    created: str | None = None
    variant: str | None = None
    config: Process | None = None
    history: tuple[dict[str, Any], ...] | None = None

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables of the image."""
        pairs = (self.config.env if self.config else None) or ()
        return dict(pair.split("=", 1) for pair in pairs if "=" in pair)


class Base(msgspec.Struct, frozen=True, kw_only=True):
    """A base image for one platform.

    Attributes:
        reference: of the manifest or the index to which its name resolves, with the digest.
    """

    reference: Reference
    manifest: Manifest
    configuration: Configuration

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Its layers, which a build neither creates nor downloads."""
        pairs = zip(self.manifest.layers, self.configuration.rootfs.diff_ids, strict=True)
        return tuple(
            Layer(
                role="base",
                # The same bytes have another media type in Docker's format.
                media_type=MEDIA_TYPE if layer.media_type == _DOCKER_LAYER else layer.media_type,
                digest=layer.digest,
                diff_id=diff_id,
                size=layer.size,
                reused=True,
            )
            for layer, diff_id in pairs
        )


def decode_manifest(data: bytes, what: str) -> Manifest:
    """Decode an image manifest.

    Raises:
        IntegrityError: it is not a manifest.
    """
    return _decoded(data, Manifest, what)


def decode_configuration(data: bytes, what: str) -> Configuration:
    """Decode an image configuration.

    Raises:
        IntegrityError: it is not a configuration.
    """
    return _decoded(data, Configuration, what)


def choose(data: bytes, platform: Platform, what: str) -> Digest:
    """Return the digest of the manifest for a platform in an index.

    Raises:
        ConfigError: the index does not have the platform; the message names those it has.
        IntegrityError: it is not an index.
    """
    index = _decoded(data, _Index, what)
    platforms: dict[str, Digest] = {}
    for entry in index.manifests:
        if entry.platform and entry.platform.os != "unknown":
            name = f"{entry.platform.os}/{entry.platform.architecture}"
            platforms.setdefault(name, entry.digest)
    if platform not in platforms:
        raise other_platform(what, ", ".join(sorted(platforms)) or "no platform", platform)
    return platforms[platform]


def other_platform(what: str, actual: str, wanted: Platform) -> ConfigError:
    """Return the error for a base image for another platform."""
    message = f"base image {what} is for {actual}, not for {wanted}"
    hint = f"set image.base to an image for {wanted}, or change image.platforms"
    return ConfigError(message, hint=hint)


def configuration(
    base: Base, layers: Sequence[Layer], release: Release, labels: Mapping[str, str]
) -> bytes:
    """Return the configuration of a release's image on a base."""
    argv = entry_point.entry_point(release)
    return configured(base, layers, argv, entry_point.environment(release), labels)


def configured(
    base: Base,
    layers: Sequence[Layer],
    argv: Sequence[str],
    environment: Mapping[str, str],
    labels: Mapping[str, str],
) -> bytes:
    """Return the configuration of an image on a base, whose process is an unprivileged server.

    Args:
        base: what its image inherits from.
        layers: all layers, those of the base first.
        argv: the command of the process.
        environment: variables in addition to those of the base.
        labels: in addition to those of the base.
    """
    inherited = base.configuration
    inherited_labels = (inherited.config and inherited.config.labels) or {}
    variables = {**inherited.environment, **environment}
    run = {
        "Entrypoint": list(argv),
        "Env": [f"{name}={value}" for name, value in sorted(variables.items())],
        "ExposedPorts": {f"{entry_point.PORT}/tcp": {}},
        "Labels": {**inherited_labels, **labels},
        "StopSignal": entry_point.STOP_SIGNAL,
        "User": entry_point.USER,
        "WorkingDir": "/",
    }
    document = {
        "architecture": inherited.architecture,
        "os": inherited.os,
        "created": _EPOCH,
        "config": run,
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
        "history": [*(inherited.history or ()), *_history(layers)],
    }
    variant = {"variant": inherited.variant} if inherited.variant else {}
    return digests.canonical_json(document | variant)


def _history(layers: Sequence[Layer]) -> list[dict[str, str]]:
    own = [layer for layer in layers if layer.role != "base"]
    return [{"created": _EPOCH, "created_by": f"mlship: {layer.role}"} for layer in own]


def manifest(config: Descriptor, layers: Sequence[Layer], annotations: Mapping[str, str]) -> bytes:
    """Return an image's manifest."""
    described = [
        Descriptor(media_type=layer.media_type, digest=layer.digest, size=layer.size)
        for layer in layers
    ]
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": config,
        "layers": described,
        "annotations": dict(annotations),
    }
    return digests.canonical_json({name: value for name, value in document.items() if value})


def index(
    manifests: Sequence[tuple[Platform, Descriptor]], annotations: Mapping[str, str]
) -> bytes:
    """Return the index of an image's manifests by platform."""
    entries = []
    for platform, descriptor in manifests:
        system, architecture = platform.split("/")
        entry = {"platform": {"os": system, "architecture": architecture}}
        entries.append({**msgspec.to_builtins(descriptor), **entry})
    document = {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}
    return digests.canonical_json({**document, "annotations": dict(annotations)})


def annotations(
    release: Release, base: Reference, name: Reference, source: str | None
) -> dict[str, str]:
    """Return the annotations and labels of a release's image.

    Args:
        release: the release in the image.
        base: the base image by digest.
        name: the base image as mlship.yaml names it.
        source: the URL of the source code, if it is configured.

    Raises:
        ConfigError: the URL of the source code contains a credential.
    """
    if source and "@" in source.partition("://")[2].partition("/")[0]:
        message = "image.source contains a user or a password, but labels are public"
        raise ConfigError(message, hint="use a URL such as https://github.com/owner/name")
    labels = {
        "dev.mlship.bundle": release.bundle,
        "dev.mlship.release": release.id,
        "org.opencontainers.image.base.digest": base.digest or "",
        "org.opencontainers.image.base.name": f"{name.name}:{name.tag or 'latest'}",
        "org.opencontainers.image.revision": release.commit + ("-dirty" if release.dirty else ""),
        "org.opencontainers.image.title": release.name,
        "org.opencontainers.image.version": str(release),
    }
    return {**labels, "org.opencontainers.image.source": source} if source else labels


def dependencies(layer: Layer, platform: Platform) -> tuple[bytes, bytes]:
    """Return configuration and manifest of a small image by which a registry finds the layer."""
    system, architecture = platform.split("/")
    document = {
        "architecture": architecture,
        "os": system,
        "created": _EPOCH,
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id]},
    }
    config = digests.canonical_json(document)
    return config, manifest(describe(config, CONFIG), [layer], {})


def describe(data: bytes, media_type: str) -> Descriptor:
    """Return the descriptor of a blob."""
    return Descriptor(media_type=media_type, digest=digests.of_bytes(data), size=len(data))


def _decoded(data: bytes, kind: type[_Kind], what: str) -> _Kind:
    try:
        return decoded(msgspec.json.Decoder(kind).decode, data)
    except msgspec.DecodeError as error:
        message = f"{what} is not a valid image: {error}"
        raise IntegrityError(message, hint="use an image in OCI or Docker v2 format") from error
