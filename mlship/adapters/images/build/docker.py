"""Builds images in a Docker engine, from a generated Dockerfile that the user may extend.

A build with `apt-get` is not reproducible. So the result is exported from the engine right after
the build, into this machine's layout. Its digest is known before anything is pushed, and no part
of it is ever built again.
"""

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar, NamedTuple

from mlship.adapters.images.build import (
    contents,
    dockerfile,
    entry_point,
    exports,
    layers,
    manifests,
    wheels,
)
from mlship.adapters.images.build.exports import Export
from mlship.adapters.images.build.image_layers import Building, Fetch
from mlship.adapters.images.build.layers import MEDIA_TYPE
from mlship.adapters.images.build.layout import Layout
from mlship.adapters.images.build.local import LocalImages
from mlship.adapters.images.build.manifests import CONFIG, Base, Configuration, Process
from mlship.adapters.images.engine.builds import Make
from mlship.adapters.images.registry.registries import Registries
from mlship.config.project import ImageConfig
from mlship.domain import digests
from mlship.domain.bundle import Bundle
from mlship.domain.digests import Digest
from mlship.domain.image import Builder, Image, Layer, Platform, PlatformImage, Reference
from mlship.domain.ports import Progress
from mlship.domain.release import Release
from mlship.errors import ConfigError, IntegrityError


class Tools(NamedTuple):
    """The functions that do the work: the engine's build, and the download of wheels."""

    make: Make
    fetch: Fetch = wheels.fetch


class DockerImages(LocalImages):
    """Builds images in an engine.

    Args:
        config: names the base, the platform, the repository and the user's instructions.
        root: the project's folder; images and Dockerfiles are stored in its `.mlship`.
        registries: returns the registry of a reference.
        progress: receives progress notes.
        tools: the functions that do the work.
        prepare: creates the repository to push to, if necessary.
    """

    builder: ClassVar[Builder] = "docker"

    def __init__(
        self,
        config: ImageConfig,
        root: Path,
        registries: Registries,
        progress: Progress,
        tools: Tools,
        prepare: Callable[[Reference], None] | None = None,
    ) -> None:
        state = root / ".mlship"
        super().__init__(config, Layout(state / "images"), registries, progress, prepare)
        self._root = root
        self._contexts = state / "docker"
        self._make = tools.make
        self._building = Building(self._layout, registries, progress, tools.fetch)

    def build_on(
        self,
        release: Release,
        bundle: tuple[Path, Bundle],
        bases: Mapping[Platform, Base],
        named: Reference,
    ) -> Image:
        """Build an image in the engine, or return it if this machine has it."""
        (platform,) = bases
        base = bases[platform]
        notes = manifests.annotations(release, base.reference, named, self._config.source)
        text = dockerfile.text(base.reference, release, notes, self._extension())
        own = {
            "dependencies": self._building.unpacked(contents.lock(bundle[1], platform)).digest,
            "runtime": self._building.runtime().digest,
            "bundle": self._building.bundle(*bundle, release.bundle).digest,
        }
        recipe = digests.of_value((text, own, platform))
        known = self._layout.built(recipe)
        if known is not None:
            return self._named(release, known.digest, base.reference, known.platforms)
        context = self._context(release, text, own)
        with TemporaryDirectory(prefix=".built-", dir=self._layout.folder) as folder:
            archive = Path(folder, "image.tar")
            self._make(context, platform, archive)
            with exports.opened(archive) as export:
                built = self._import(export, platform, base, notes)
        _check(self._layout.read(built.config), base, release, notes)
        image = self._named(release, built.manifest, base.reference, [built])
        self._layout.keep(recipe, image)
        return image

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
