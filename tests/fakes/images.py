"""Images in memory: a small honest stand-in for the port."""

from pathlib import Path

from mlship.domain import bundle as bundles
from mlship.domain import digests
from mlship.domain.digests import Digest
from mlship.domain.image import Builder, Image, Layer, PlatformImage, Pushed, Reference, Role
from mlship.domain.release import Release
from mlship.errors import IntegrityError, NotFoundError

BASE = Reference(registry="localhost:5000", repository="library/python")


class FakeImages:
    """Builds by digests alone. `base` is what the base's name means now; a test may move it."""

    def __init__(self) -> None:
        self.base = digests.of_bytes(b"base")
        self.tool = "1"
        self.builds = 0
        self.registry: dict[Digest, Image] = {}
        self.builder: Builder = "oci"
        self.kept: set[Digest] = set()

    def build(self, release: Release, bundle: Path, *, base: Digest | None) -> Image:
        bundles.read(bundle, expected=release.bundle)
        self.builds += 1
        built_on = base or self.base
        digest = digests.of_value((release, built_on, self.tool, self.builder))
        self.kept.add(digest)
        layers = (self._layer("base", built_on), self._layer("bundle", release.bundle))
        return Image(
            name="localhost:5000/iris",
            tag=digests.short(release.id),
            digest=digest,
            base=BASE.at(built_on),
            platforms=(
                PlatformImage(
                    platform="linux/amd64",
                    manifest=digest,
                    config=digests.of_value((digest, "config")),
                    layers=layers,
                ),
            ),
            builder=self.builder,
        )

    def router(self, *, base: Digest) -> Image:
        digest = digests.of_value(("router", base, self.tool))
        self.kept.add(digest)
        layers = (self._layer("base", base), self._layer("dependencies", digest))
        return Image(
            name="localhost:5000/iris",
            tag=f"router-{digests.short(digest)}",
            digest=digest,
            base=BASE.at(base),
            platforms=(
                PlatformImage(
                    platform="linux/amd64",
                    manifest=digest,
                    config=digests.of_value((digest, "config")),
                    layers=layers,
                ),
            ),
        )

    def push(self, image: Image) -> Pushed:
        if image.digest not in self.registry and image.digest not in self.kept:
            raise NotFoundError(f"{image.digest} is not here", hint="--from image.tar")
        sent = 0 if image.digest in self.registry else image.size
        self.registry[image.digest] = image
        reference = f"{image.name}@{image.digest}"
        return Pushed(reference=reference, digest=image.digest, sent=sent)

    def save(self, image: Image, into: Path) -> None:
        into.parent.mkdir(parents=True, exist_ok=True)
        into.write_text(image.digest)

    def load(self, image: Image, archive: Path) -> None:
        if not archive.is_file():
            raise NotFoundError(f"there is no {archive}", hint="--to writes it")
        if archive.read_text() != image.digest:
            raise IntegrityError(f"{archive} holds another image", hint="bring the right one")
        self.kept.add(image.digest)

    @staticmethod
    def _layer(role: Role, digest: Digest) -> Layer:
        return Layer(
            role=role,
            media_type="application/vnd.oci.image.layer.v1.tar+gzip",
            digest=digest,
            diff_id=digest,
            size=100,
        )
