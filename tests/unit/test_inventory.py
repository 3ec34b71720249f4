"""What is installed in an image, as its layers say it; and its bill of materials."""

import gzip
import io
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from mlship.adapters.images.build import inventory
from mlship.domain import digests
from mlship.domain.digests import Digest
from mlship.errors import IntegrityError
from tests.fakes.registry import FakeRegistry
from tests.harness.images import Project, base_image

SITE = "usr/local/lib/python3.11/site-packages"


def archive(files: Mapping[str, bytes]) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as written:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            written.addfile(info, io.BytesIO(data))
    return target.getvalue()


def metadata(name: str, version: str, *lines: str) -> bytes:
    return "\n".join(
        ["Metadata-Version: 2.4", f"Name: {name}", f"Version: {version}", *lines]
    ).encode()


def installed(name: str, version: str, *lines: str) -> dict[str, bytes]:
    return {f"{SITE}/{name}-{version}.dist-info/METADATA": metadata(name, version, *lines)}


def pieces(data: bytes, size: int = 700) -> Iterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


def read(data: bytes) -> inventory.LayerContents:
    return inventory.of_layer(digests.of_bytes(data), pieces(data))


def names(*layers: Mapping[str, bytes]) -> list[str]:
    """Return the distributions of an image with these layers, the lowest first."""
    contents = [read(gzip.compress(archive(files))) for files in layers]
    merged = inventory.merged([(Digest(str(at)), each) for at, each in enumerate(contents)])
    return [f"{each.name} {each.version}" for each in merged.distributions]


@pytest.mark.parametrize("compress", [gzip.compress, lambda data: data])
def test_distributions_are_found_with_their_licenses(compress: type[bytes]) -> None:
    files = installed("numpy", "2.1.0", "License-Expression: BSD-3-Clause")
    files |= installed("old", "1", "License: MIT")
    files |= installed(
        "older", "1", "Classifier: License :: OSI Approved :: Apache Software License"
    )
    files |= installed("long", "1", "License: " + "x" * 81)
    files |= {f"{SITE}/egg-1.egg-info/PKG-INFO": metadata("egg", "1")}
    files |= {f"./{SITE}/one-1.egg-info": metadata("one", "1")}
    files |= {f"{SITE}/numpy/METADATA": metadata("no", "1"), f"{SITE}/x.dist-info/METADATA": b"?"}
    contents = read(compress(archive(files)))
    assert {each.name: each.expression or each.license for each in contents.distributions} == {
        "numpy": "BSD-3-Clause",
        "old": "MIT",
        "older": "Apache Software License",
        "long": "",
        "egg": "",
        "one": "",
    }
    assert {each.path for each in contents.distributions} >= {f"{SITE}/one-1.egg-info"}


def test_a_layer_replaces_and_removes_what_is_below() -> None:
    base = installed("pip", "23.0") | installed("wheel", "0.40") | installed("setuptools", "65")
    gone = {f"{SITE}/.wh.pip-23.0.dist-info": b""} | installed("pip", "24.0")
    assert names(base, gone) == ["pip 24.0", "setuptools 65", "wheel 0.40"]
    emptied = {f"{SITE}/.wh..wh..opq": b""} | installed("pip", "24.0")
    assert names(base, emptied) == ["pip 24.0"]
    assert names(base, {".wh.usr": b""}) == []
    assert names(base, {f"{SITE}/.wh.pip": b""}) == ["pip 23.0", "setuptools 65", "wheel 0.40"]


def test_what_is_not_an_archive_is_told() -> None:
    for data in (b"\x28\xb5\x2f\xfd zstd", gzip.compress(b"no archive" * 1000), b"\x1f\x8bx"):
        contents = read(data)
        assert not contents.is_read
        assert inventory.merged([(Digest("a"), contents)]).unread == (Digest("a"),)


def test_other_bytes_than_announced_are_refused() -> None:
    data = gzip.compress(archive(installed("pip", "24.0")))
    with pytest.raises(IntegrityError, match="other bytes"):
        inventory.of_layer(digests.of_bytes(b"other"), pieces(data))


def test_a_large_metadata_file_is_not_read() -> None:
    files = {f"{SITE}/big-1.dist-info/METADATA": metadata("big", "1") + b"\n\n" + b"x" * (1 << 20)}
    assert names(files | installed("pip", "24.0")) == ["pip 24.0"]


def test_each_layer_is_read_once_and_the_base_comes_from_its_registry(tmp_path: Path) -> None:
    fake = FakeRegistry()
    base_image(fake, archive=archive(installed("pip", "24.0")))
    project = Project(tmp_path, fake)
    image = project.images.build(project.release, project.bundle, base=None)
    (found,) = project.images.inventory(image).values()
    assert [each.name for each in found.distributions] == ["click", "pip", "uvloop"]
    assert not found.unread
    fake.log.clear()
    assert project.again().inventory(image)["linux/amd64"] == found
    assert fake.log == []


def test_an_interrupted_download_of_a_base_is_resumed(tmp_path: Path) -> None:
    fake = FakeRegistry()
    base_image(fake, archive=archive(installed("pip", "24.0")))
    project = Project(tmp_path, fake)
    image = project.images.build(project.release, project.bundle, base=None)
    fake.cuts = [100]
    (found,) = project.images.inventory(image).values()
    assert "pip" in [each.name for each in found.distributions]
