"""Images in memory: a small honest stand-in for the port."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from mlship.domain import bundle as bundles
from mlship.domain import digests
from mlship.domain.digests import Digest
from mlship.domain.image import (
    Builder,
    Image,
    Layer,
    Platform,
    PlatformImage,
    Pushed,
    Reference,
    Role,
)
from mlship.domain.inventory import Distribution, Inventory
from mlship.domain.referrers import Damaged, Document, Referrer
from mlship.domain.release import Release
from mlship.errors import IntegrityError, NotFoundError

BASE = Reference(registry="localhost:5000", repository="library/python")


class FakeImages:
    """Builds by digests alone. `base` is what the base's name means now; a test may move it.

    Attributes:
        documents: what is attached to each image of the registry.
        damaged: what is listed as attached to any image, but cannot be read.
        refuses: is raised where something shall be attached, if it is set.
    """

    def __init__(self) -> None:
        self.base = digests.of_bytes(b"base")
        self.tool = "1"
        self.builds = 0
        self.registry: dict[Digest, Image] = {}
        self.builder: Builder = "oci"
        self.kept: set[Digest] = set()
        self.documents: dict[Digest, dict[Digest, Document]] = {}
        self.damaged: list[Damaged] = []
        self.refuses: Exception | None = None

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

    def inventory(self, image: Image) -> Mapping[Platform, Inventory]:
        pip = Distribution(name="pip", version="24.0", path="usr/lib/pip-24.0.dist-info/METADATA")
        return {each.platform: Inventory(distributions=(pip,)) for each in image.platforms}

    def attach(self, image: Reference, document: Document) -> Digest:
        if self.refuses is not None:
            raise self.refuses
        if image.digest not in self.registry or image.digest is None:
            raise NotFoundError(f"{image} does not exist", hint="push it")
        digest = digests.of_value(document)
        self.documents.setdefault(image.digest, {})[digest] = document
        return digest

    def attached(self, image: Reference, artifact_type: str) -> Iterator[Referrer | Damaged]:
        yield from self.damaged
        documents = self.documents.get(image.digest or Digest(""), {})
        for digest, document in documents.items():
            if document.artifact_type == artifact_type:
                yield Referrer(digest=digest, document=document)

    @staticmethod
    def _layer(role: Role, digest: Digest) -> Layer:
        return Layer(
            role=role,
            media_type="application/vnd.oci.image.layer.v1.tar+gzip",
            digest=digest,
            diff_id=digest,
            size=100,
        )
