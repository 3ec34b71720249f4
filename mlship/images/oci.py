"""Images straight from bundles, without a container engine.

An image is four parts: the base, by digest; the dependencies, a layer that is named by the digest
of its lock and found again in the registry; mlship's runtime; the bundle. Only the last two are
made for a new release. The layers of the base are never read here: they are mounted, or pass
through on their way from one registry to another.
"""

from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path

from mlship import bundle as bundles
from mlship import digests
from mlship.bundle import Bundle
from mlship.config import ImageConfig
from mlship.digests import Digest
from mlship.errors import ConfigError, UnavailableError
from mlship.image import Form, Image, Layer, Platform, PlatformImage, Pushed, Reference, reference
from mlship.images import contents, manifests, wheels
from mlship.images.building import Building, Fetch
from mlship.images.delivery import Delivery
from mlship.images.layout import Layout
from mlship.images.manifests import CONFIG, MANIFEST, Base
from mlship.images.registries import Registries
from mlship.ports import Progress
from mlship.release import Release


class OciImages:
    """Builds, pushes and saves images.

    Args:
        config: names the base, the platforms and the repository.
        folder: keeps this machine's images, as an OCI layout.
        registries: gives the registry of a reference.
        progress: hears what is done.
        fetch: downloads the wheels of a lock.
        prepare: sees to it that there is a repository to push to.
    """

    def __init__(
        self,
        config: ImageConfig,
        folder: Path,
        registries: Registries,
        progress: Progress,
        fetch: Fetch = wheels.fetch,
        prepare: Callable[[Reference], None] | None = None,
    ) -> None:
        self._config = config
        self._prepare = prepare
        self._layout = Layout(folder)
        self._registries = registries
        self._progress = progress
        self._building = Building(self._layout, registries, progress, fetch)

    def build(self, release: Release, bundle: Path, *, base: Digest | None) -> Image:
        """Make the image of a release, or find it; see `mlship.ports.Images`."""
        manifest = bundles.read(bundle, expected=release.bundle)
        named = reference(self._config.base)
        wanted = named if base is None else named.at(base)
        try:
            with closing(self._registries):
                found = self._registries.base(wanted, self._config.platforms)
                for one in found.values():
                    _check_python(one, manifest)
                self._layout.prepare()
                return self._build(release, (bundle, manifest), found, named)
        except OSError as error:
            message = f"the image of {release} cannot be written to {self._layout.folder}"
            hint = "make room on that disk, and run it again"
            raise UnavailableError(f"{message}: {error.strerror or error}", hint=hint) from error

    def push(self, image: Image) -> Pushed:
        """Bring a built image to the registry; see `mlship.ports.Images`."""
        target = self._registries.own()
        if self._prepare is not None:
            self._prepare(target)
        with closing(self._registries):
            return Delivery(image, self._layout, self._registries, self._progress).push(target)

    def save(self, image: Image, into: Path, form: Form) -> None:
        """Write a built image, whole, to a folder or a file; see `mlship.ports.Images`."""
        try:
            with closing(self._registries):
                Delivery(image, self._layout, self._registries, self._progress).complete()
            into.parent.mkdir(parents=True, exist_ok=True)
            if form == "tarball":
                self._layout.tarball(image, into)
                return
            copy = Layout(into)
            copy.prepare()
            for digest in self._layout.digests(image):
                if not copy.path(digest).exists():
                    copy.take(digest, self._layout.pieces(digest, 0))
            copy.name(image)
        except OSError as error:
            message = f"{into} cannot be written: {error.strerror or error}"
            raise UnavailableError(
                message, hint="make room there, or name another place"
            ) from error

    def _build(
        self,
        release: Release,
        bundle: tuple[Path, Bundle],
        bases: Mapping[Platform, Base],
        named: Reference,
    ) -> Image:
        base = next(iter(bases.values())).reference
        notes = manifests.annotations(release, base, named, self._config.source)
        own = (self._building.runtime(), self._building.bundle(*bundle, release.bundle))
        made = []
        for platform, one in bases.items():
            dependencies = self._building.dependencies(contents.lock(bundle[1], platform))
            layers = (*one.layers, dependencies, *own)
            made.append(self._platform(release, platform, one, layers, notes))
        digest = made[0].manifest if len(made) == 1 else self._index(made, notes)
        where = self._registries.repository
        image = Image(
            name=where.name if where else release.name,
            tag=digests.short(release.id),
            digest=digest,
            base=base,
            platforms=tuple(made),
        )
        self._layout.name(image)
        return image

    def _platform(
        self,
        release: Release,
        platform: Platform,
        base: Base,
        layers: tuple[Layer, ...],
        notes: Mapping[str, str],
    ) -> PlatformImage:
        config = manifests.configuration(base, layers, release, notes)
        data = manifests.manifest(manifests.describe(config, CONFIG), layers, notes)
        return PlatformImage(
            platform=platform,
            manifest=self._layout.put(data),
            config=self._layout.put(config),
            layers=layers,
        )

    def _index(self, made: list[PlatformImage], notes: Mapping[str, str]) -> Digest:
        entries = [
            (one.platform, manifests.describe(self._layout.read(one.manifest), MANIFEST))
            for one in made
        ]
        return self._layout.put(manifests.index(entries, notes))


def _check_python(base: Base, manifest: Bundle) -> None:
    """Refuse a base of another Python, where it tells which it has.

    Raises:
        ConfigError: wheels for the bundle's Python would not load there.
    """
    version = base.configuration.environment.get("PYTHON_VERSION", "")
    minor = ".".join(version.split(".")[:2])
    if minor and minor != manifest.python:
        message = f"the base image {base.reference} has Python {minor}, and the model was made "
        message += f"with {manifest.python}"
        raise ConfigError(message, hint=f"set image.base to one with Python {manifest.python}")
