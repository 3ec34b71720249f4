"""Data at the addresses of fsspec: by their version where the store keeps one, else by bytes."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import msgspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from mlship.adapters.checkout import datafiles
from mlship.config.data import DataConfig
from mlship.errors import ConfigError, ProjectError


class Versioned(MemoryFileSystem):  # type: ignore[misc]  # it has no types
    """Keeps a version of each object, and counts what is opened."""

    protocol = "versioned"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    facts: ClassVar[dict[str, Any]] = {}
    openings: ClassVar[list[str]] = []

    def info(self, path: str, **options: Any) -> dict[str, Any]:
        return {**super().info(path, **options), **self.facts}

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        if "r" in mode:
            self.openings.append(path)
        return super()._open(path, mode, **options)


@pytest.fixture
def store() -> Iterator[type[Versioned]]:
    fsspec.register_implementation("versioned", Versioned, clobber=True)
    yield Versioned
    Versioned.store.clear()
    Versioned.facts.clear()
    Versioned.openings.clear()


def digest(text: str) -> str:
    return datafiles.sources(Path("/nowhere"), DataConfig(train=text, target="y"))[text]


def write(address: str, data: bytes) -> None:
    with fsspec.open(address, "wb") as file:
        file.write(data)


@pytest.mark.parametrize("name", ["generation", "VersionId", "version_id"])
def test_an_object_with_a_version_is_told_by_it_without_a_download(
    name: str, store: type[Versioned]
) -> None:
    address = "versioned://bucket/d.csv"
    write(address, b"a,y\n")
    store.facts[name] = "17"
    first = digest(address)
    assert digest(address) == first
    assert store.openings == []
    store.facts[name] = "18"
    assert digest(address) != first
    write("versioned://bucket/e.csv", b"a,y\n")
    store.facts[name] = "17"
    assert digest("versioned://bucket/e.csv") != first


@pytest.mark.parametrize("facts", [{}, {"VersionId": "null"}, {"VersionId": None}, {"ETag": "a"}])
def test_an_object_without_a_version_is_told_by_its_bytes(
    facts: dict[str, Any], store: type[Versioned]
) -> None:
    store.facts.update(facts)
    for address in ("versioned://bucket/d.csv", "memory://bucket/d.csv"):
        write(address, b"a,y\n1,0\n")
        assert digest(address) == "sha256:" + hashlib.sha256(b"a,y\n1,0\n").hexdigest()
    assert store.openings == ["versioned://bucket/d.csv"]


def test_the_held_out_part_follows_the_version(store: type[Versioned]) -> None:
    write("versioned://d.csv", b"a,y\n")
    whole = DataConfig(train="versioned://d.csv", test="versioned://d.csv", target="y")
    split = msgspec.convert({"train": "versioned://d.csv", "split": {}, "target": "y"}, DataConfig)
    digests = []
    for number in ("1", "2"):
        store.facts["generation"] = number
        digests += [datafiles.digest_of_held_out(Path(), config) for config in (whole, split)]
    assert len(set(digests)) == 4


def test_what_is_not_there_and_what_no_driver_reads_are_told_apart(store: type[Versioned]) -> None:
    with pytest.raises(ProjectError, match="no data at versioned://bucket/none"):
        digest("versioned://bucket/none.csv")
    with pytest.raises(ConfigError, match="data at s4://a cannot be found: Protocol not known"):
        digest("s4://a")
    with pytest.raises(ConfigError, match="data at s3://a/b needs a driver: Install s3fs"):
        digest("s3://a/b")
