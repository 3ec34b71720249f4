"""What tests of images build on: a base in a registry, wheels made on the spot, a project."""

import atexit
import functools
import gzip
import hashlib
import io
import json
import os
import random
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

from mlship.adapters.images.build import wheels
from mlship.adapters.images.build.builder import ImageBuilder
from mlship.adapters.images.build.contents import Lock
from mlship.adapters.images.build.docker import DockerBuilder
from mlship.adapters.images.build.image_layers import Fetch, ImageLayers
from mlship.adapters.images.build.layers import Blob
from mlship.adapters.images.build.layout import Layout
from mlship.adapters.images.build.oci import OciBuilder
from mlship.adapters.images.engine.builds import Make
from mlship.adapters.images.local import LocalImages
from mlship.adapters.images.publisher import Publisher
from mlship.adapters.images.registry.registries import Registries
from mlship.config.project import ImageConfig
from mlship.domain.digests import Digest
from mlship.domain.image import Reference
from mlship.domain.release import Release
from tests.fakes.registry import FakeRegistry, digest_of
from tests.fakes.store import tiny_bundle, tiny_release
from tests.fakes.timing import patient
from tests.harness.places import Notes

BASE = "localhost:5000/library/python:3.11-slim"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
LAYER = gzip.compress(b"the base's archive" * 1000, mtime=0)
LIBRARY = random.Random(7).randbytes(1_300_000)
"""More than is sent to a registry in one request, and no more: each image compresses it."""
SMALL_LIBRARY = LIBRARY[:13_000]
"""For tests of other things than uploads: an image of it takes a third of the time."""


def base_image(
    fake: FakeRegistry,
    machine: str = "amd64",
    environment: Mapping[str, str] | None = None,
    archive: bytes | None = None,
) -> tuple[bytes, str]:
    """Put an image for a machine into a registry's library/python; return manifest and digest.

    Its layer is an archive, or bytes that are none.
    """
    content = LAYER if archive is None else gzip.compress(archive, mtime=0)
    layer = fake.put("library/python", content)
    pairs = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", **(environment or {})}
    config = {
        "architecture": machine,
        "os": "linux",
        "config": {"Env": [f"{k}={v}" for k, v in pairs.items()], "Cmd": ["python3"]},
        "rootfs": {"type": "layers", "diff_ids": [digest_of(gzip.decompress(content))]},
        "history": [{"created_by": "debootstrap"}],
    }
    data = json.dumps(config).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": fake.put("library/python", data),
            "size": len(data),
        },
        "layers": [
            {
                "mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip",
                "digest": layer,
                "size": len(content),
            }
        ],
    }
    text = json.dumps(manifest).encode()
    kept = fake.manifests.setdefault("library/python", {})
    kept["3.11-slim"] = kept[digest_of(text)] = (text, MANIFEST)
    return text, digest_of(text)


def base_index(fake: FakeRegistry) -> None:
    """Put a base image for two machines into a registry."""
    entries = []
    for machine in ("amd64", "arm64"):
        text, digest = base_image(fake, machine)
        where = {"os": "linux", "architecture": machine}
        entries.append(
            {"mediaType": MANIFEST, "digest": digest, "size": len(text), "platform": where}
        )
    index = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).encode()
    kept = fake.manifests["library/python"]
    kept["3.11-slim"] = kept[digest_of(index)] = (index, INDEX)


def wheel(folder: Path, name: str, files: Mapping[str, bytes], needs: str = "") -> Path:
    """Write a wheel of these files, with all that a real one has besides."""
    path = folder / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{needs}\n".encode()
    with zipfile.ZipFile(path, "w") as archive:
        for place, data in files.items():
            archive.writestr(place, data)
        archive.writestr(f"{info}/METADATA", metadata)
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", os.urandom(8))
        archive.writestr(f"{info}/direct_url.json", os.urandom(8))
    return path


class Wheels:
    """Makes the wheels that a build asks for, and counts how often."""

    library = LIBRARY

    def __init__(self) -> None:
        self.fetched: list[Lock] = []

    def __call__(self, lock: Lock, into: Path) -> list[Path]:
        self.fetched.append(lock)
        code = {
            "uvloop/__init__.py": b"x = 1\n",
            "uvloop/loop.so": self.library,
        }
        return [
            wheel(into, "uvloop", code),
            wheel(into, "click", {"click/__init__.py": b"", "click/old.pyc": b"?"}),
        ]


class SharedLayers(ImageLayers):
    """Layers of which real packages are unpacked once in this process, and linked into a layout.

    To download and pack them again takes several seconds of a processor.
    """

    def unpacked(self, lock: Lock) -> Blob:
        """Return the layer of unpacked wheels."""
        if self._fetch is wheels.fetch and self._layout.remembered(lock.digest) is None:
            common = _common()
            blob = ImageLayers(common, self._registries, self._progress).unpacked(lock)
            path = self._layout.path(blob.digest)
            path.unlink(missing_ok=True)
            os.link(common.path(blob.digest), path)
            self._layout.remember(lock.digest, blob)
        return super().unpacked(lock)


@functools.cache
def _common() -> Layout:
    """Return a layout that lives as long as this process."""
    folder = tempfile.mkdtemp(prefix="mlship-tests-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    layout = Layout(Path(folder))
    layout.prepare()
    return layout


def oci_images(
    config: ImageConfig,
    folder: Path,
    registries: Registries,
    notes: Notes,
    fetch: Fetch = wheels.fetch,
    prepare: Callable[[Reference], None] | None = None,
) -> LocalImages:
    """Return images that mlship builds itself, in a folder."""
    layout = Layout(folder)
    layers = SharedLayers(layout, registries, notes, fetch)
    builder: ImageBuilder = OciBuilder(config, registries.repository, layout, layers)
    publisher = Publisher(layout, registries, notes, prepare)
    return LocalImages(config, layout, registries, builder, publisher, layers)


def docker_images(
    config: ImageConfig,
    root: Path,
    registries: Registries,
    notes: Notes,
    make: Make,
    fetch: Fetch = wheels.fetch,
) -> LocalImages:
    """Return images that `make` builds, of the project in a folder."""
    layout = Layout(root / ".mlship" / "images")
    layers = SharedLayers(layout, registries, notes, fetch)
    builder: ImageBuilder = DockerBuilder(
        config, root, registries.repository, layout, layers, make=make, progress=notes
    )
    publisher = Publisher(layout, registries, notes)
    return LocalImages(config, layout, registries, builder, publisher, layers)


class Project:
    """A release with its bundle, and what makes its image, in a folder of its own.

    With `make`, that is a Docker engine's build.
    """

    def __init__(
        self,
        folder: Path,
        fake: FakeRegistry | None,
        make: Make | None = None,
        **config: object,
    ) -> None:
        self.folder = folder
        self.release, self.bundle = a_release(folder / "bundle")
        settings = {"repository": "localhost:5000/iris", "base": BASE, **config}
        settings["builder"] = "docker" if make else "oci"
        self.config = ImageConfig(**settings)  # type: ignore[arg-type]
        self.waits: list[float] = []
        self.notes, self.wheels = Notes(), Wheels()
        self.registries = Registries(
            self.config, {}, transport=fake.transport if fake else None, timing=patient(self.waits)
        )
        self._make = make
        self.images = self.again()

    def again(self) -> LocalImages:
        """Return what makes images on this machine, as the next command opens it."""
        if self._make:
            return docker_images(
                self.config, self.folder, self.registries, self.notes, self._make, self.wheels
            )
        folder = self.folder / "images"
        return oci_images(self.config, folder, self.registries, self.notes, self.wheels)

    def another(self, text: str) -> tuple[Release, Path]:
        """Return a release with another model and the same requirements."""
        return a_release(self.folder / f"bundle-{text}", text)


def a_release(folder: Path, text: str = "model") -> tuple[Release, Path]:
    """Return a release and the folder of its bundle."""
    return tiny_release(tiny_bundle(folder, text)), folder


def unpacked(blob: bytes) -> tuple[dict[str, tarfile.TarInfo], dict[str, bytes], Digest]:
    """Return the members of a layer, the bytes of its files, and the archive's digest."""
    inside = gzip.decompress(blob)
    with tarfile.open(fileobj=io.BytesIO(inside)) as archive:
        infos = {info.name: info for info in archive.getmembers()}
        files = {}
        for name, info in infos.items():
            data = archive.extractfile(info)
            if data is not None:
                files[name] = data.read()
    return infos, files, Digest(f"sha256:{hashlib.sha256(inside).hexdigest()}")
