"""Builds images in a Docker engine, from a generated Dockerfile that the user may extend.

A build with `apt-get` is not reproducible. So the result is exported from the engine right after
the build, into this machine's layout. Its digest is known before anything is pushed, and no part
of it is ever built again.
"""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

from mlship.adapters.images.build import (
    contents,
    dockerfile,
    entry_point,
    exports,
    layers,
    manifests,
)
from mlship.adapters.images.build.builder import ResolvedBase, VerifiedBundle, image_of
from mlship.adapters.images.build.exports import Export
from mlship.adapters.images.build.image_layers import ImageLayers
from mlship.adapters.images.build.layers import MEDIA_TYPE
from mlship.adapters.images.build.layout import Layout
from mlship.adapters.images.build.manifests import CONFIG, Base, Configuration, Process
from mlship.adapters.images.engine.builds import Make
from mlship.config.project import ImageConfig
from mlship.domain import digests
from mlship.domain.digests import Digest
from mlship.domain.image import Builder, Image, Layer, Platform, PlatformImage, Reference
from mlship.domain.ports import Progress
from mlship.domain.release import Release
from mlship.errors import ConfigError, IntegrityError


class DockerBuilder:
    """Builds images in an engine: an `ImageBuilder`.

    Args:
        config: names the user's instructions, and says where the source code is published.
        root: the project's folder; build contexts are stored in its `.mlship`.
        repository: the project's repository, which images are named after.
        layout: stores what the engine exported.
        layers: returns the layers that are put above the user's instructions.
        make: builds a context in the engine and exports the image.
        progress: receives progress notes.
    """

    name: ClassVar[Builder] = "docker"

    def __init__(
        self,
        config: ImageConfig,
        root: Path,
        repository: Reference | None,
        layout: Layout,
        layers: ImageLayers,
        *,
        make: Make,
        progress: Progress,
    ) -> None:
        self._config = config
        self._root = root
        self._repository = repository
        self._layout = layout
        self._layers = layers
        self._make = make
        self._progress = progress
        self._contexts = root / ".mlship" / "docker"

    def build(self, release: Release, bundle: VerifiedBundle, base: ResolvedBase) -> Image:
        """Build an image in the engine, or return it if the layout has it; see `ImageBuilder`."""
        ((platform, platform_base),) = base.platforms.items()
        by_digest = platform_base.reference
        notes = manifests.annotations(release, by_digest, base.name, self._config.source)
        text = dockerfile.text(by_digest, release, notes, self._extension())
        lock = contents.lock(bundle.manifest, platform)
        own = {
            "dependencies": self._layers.unpacked(lock).digest,
            "runtime": self._layers.runtime().digest,
            "bundle": self._layers.bundle(*bundle, release.bundle).digest,
        }
        recipe = digests.of_value((text, own, platform))
        known = self._layout.built(recipe)
        if known is not None:
            return self._image(release, known.digest, by_digest, known.platforms)
        context = self._context(release, text, own)
        with TemporaryDirectory(prefix=".built-", dir=self._layout.folder) as folder:
            archive = Path(folder, "image.tar")
            self._make(context, platform, archive)
            with exports.opened(archive) as export:
                built = self._import(export, platform, platform_base, notes)
        _check(self._layout.read(built.config), platform_base, release, notes)
        image = self._image(release, built.manifest, by_digest, (built,))
        self._layout.keep(recipe, image)
        return image

    def _image(
        self,
        release: Release,
        digest: Digest,
        base: Reference,
        platforms: tuple[PlatformImage, ...],
    ) -> Image:
        return image_of(release, self._repository, digest, base, platforms, builder=self.name)

    def _extension(self) -> str:
        name = self._config.extend
        if name is None:
            return ""
        try:
            return dockerfile.checked((self._root / name).read_bytes(), name)
        except (OSError, ValueError) as error:
            message = f"cannot read {name!r}, which image.extend names: "
            message += getattr(error, "strerror", None) or str(error)
            hint = "create it with Dockerfile instructions, or remove image.extend"
            raise ConfigError(message, hint=hint) from error

    def _context(self, release: Release, text: str, own: Mapping[str, Digest]) -> Path:
        """Write the build context: only the Dockerfile and the archives of our layers."""
        folder = self._contexts / digests.short(release.id)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / dockerfile.NAME).write_text(text, encoding="utf-8")
        for role in dockerfile.ARCHIVES:
            blob, place = self._layout.path(own[role]), folder / dockerfile.archive(role)
            try:
                os.link(blob, place)
            except OSError:  # another file system, or no support for links
                shutil.copyfile(blob, place)
        self._progress.note(f"building {folder / dockerfile.NAME}")
        return folder

    def _import(
        self, export: Export, platform: Platform, base: Base, notes: Mapping[str, str]
    ) -> PlatformImage:
        """Import a built image into the layout, without the layers of its base."""
        config = export.config
        built = manifests.decode_configuration(config, "the image that Docker built")
        if f"{built.os}/{built.architecture}" != platform:
            actual = f"{built.os}/{built.architecture}"
            raise manifests.other_platform(str(base.reference), actual, platform)
        below, count = len(base.layers), len(built.rootfs.diff_ids)
        if built.rootfs.diff_ids[:below] != base.configuration.rootfs.diff_ids:
            message = "the image that Docker built is not based on image.base"
            raise ConfigError(message, hint="remove FROM from the file that image.extend names")
        own = [self._layer(export, number, built) for number in range(below, count)]
        all_layers = (*base.layers, *own)
        data = manifests.manifest(manifests.describe(config, CONFIG), all_layers, notes)
        return PlatformImage(
            platform=platform,
            manifest=self._layout.put(data),
            config=self._layout.put(config),
            layers=all_layers,
        )

    def _layer(self, export: Export, number: int, built: Configuration) -> Layer:
        diff_ids = built.rootfs.diff_ids
        from_top = number - len(diff_ids) + len(dockerfile.ARCHIVES)
        role = dockerfile.ARCHIVES[from_top] if from_top >= 0 else "system"
        diff_id = diff_ids[number]
        blob = self._layout.remembered(diff_id)
        if blob is None:
            with export.layer(number) as archive:
                is_compressed = role in ("system", "dependencies")
                blob = layers.pack(archive, self._layout.blobs, compressed=is_compressed)
            if blob.diff_id != diff_id:
                message = f"the Docker engine exported layer {blob.diff_id} instead of {diff_id}"
                raise IntegrityError(message, hint="check the engine's disk, then run it again")
            self._layout.remember(diff_id, blob)
        return Layer(
            role=role,
            media_type=MEDIA_TYPE,
            digest=blob.digest,
            diff_id=diff_id,
            size=blob.size,
        )


def _check(data: bytes, base: Base, release: Release, notes: Mapping[str, str]) -> None:
    """Refuse an image in which the user's instructions overrode ours.

    Raises:
        ConfigError: its entry point, user, variables or labels are not ours.
    """
    config = manifests.decode_configuration(data, "the image that Docker built")
    process = config.config or Process()
    differs = [
        what
        for what, is_right in (
            ("ENTRYPOINT", process.entrypoint == tuple(entry_point.entry_point(release))),
            ("USER", process.user == entry_point.USER),
            ("ENV", entry_point.environment(release).items() <= config.environment.items()),
            ("LABEL", notes.items() <= (process.labels or {}).items()),
        )
        if not is_right
    ]
    if differs:
        message = f"the image that Docker built on {base.reference} has a wrong {differs[0]}"
        hint = "check that the last instruction in the file that image.extend names is complete"
        raise ConfigError(message, hint=hint)
