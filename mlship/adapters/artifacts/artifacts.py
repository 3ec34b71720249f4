"""Documents as OCI artifacts in a repository of a container registry.

    tag         mlship.iris.record.3f9a0c...    kind and digest of a document
    manifest    artifactType application/vnd.mlship.record.v1+json, an empty configuration
    layers      the document, then files that belong to it

The tag is written last, so that a document is there with all its files or not at all. No tag is
written twice with another content: registries have no compare-and-set for tags, and some forbid to
change one. A document is read by the digest in its tag; nothing that a registry returns is used
before its digest is verified. https://github.com/opencontainers/distribution-spec
"""

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final, Protocol, TypeVar

from mlship.adapters.images.registry.registries import Registries
from mlship.adapters.images.registry.registry import PIECE
from mlship.adapters.images.registry.uploads import Content
from mlship.domain import digests
from mlship.domain.digests import Digest
from mlship.domain.image import Reference
from mlship.errors import IntegrityError, NotFoundError
from mlship.files import write_atomically

LARGEST: Final = 32 << 20
"""The largest document, in bytes."""
_PARALLEL: Final = 8
_EMPTY: Final = b"{}"
_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
_NOTHING: Final = digests.of_bytes(b"")
"""The digest of an empty file: some registries refuse a layer without bytes."""
_HEXADECIMAL: Final = re.compile(r"[0-9a-f]{64}")

Listing = Mapping[str, frozenset[Digest]]
"""The digests of the documents of each kind."""
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class Artifacts(Protocol):
    """The documents of one project. Methods raise UnavailableError if the place is not reached.

    Attributes:
        where: the place, for messages.
    """

    where: str

    def listing(self) -> Listing:
        """Return what is there. A document that was added just now may be missing."""

    def seen(self, kind: str) -> frozenset[Digest]:
        """Return the documents that this machine has read or added."""

    def has(self, kind: str, digest: Digest) -> bool:
        """Return whether a document is there, by its tag."""

    def read(self, kind: str, wanted: Iterable[Digest]) -> dict[Digest, bytes]:
        """Return documents.

        Raises:
            IntegrityError: one is listed, and its content is missing or another one.
        """

    def download(self, digest: Digest, size: int | None, into: Path) -> None:
        """Write a file that belongs to a document; without a size, one of at most `LARGEST`.

        Raises:
            NotFoundError: there is no such file.
            IntegrityError: it has another content.
        """

    def add(self, kind: str, data: bytes, attached: Mapping[Digest, Path] | None = None) -> Digest:
        """Add a document with the files that belong to it; return its digest."""

    def close(self) -> None:
        """Close the connections; the next call opens others."""


class SharedArtifacts:
    """The documents of a project in a repository, for all machines that reach it.

    Args:
        registries: give the registry of the repository.
        repository: it may have images too, and documents of other projects.
        name: of the project.
        cache: a folder for what was read; documents never change.
        prepare: creates the repository, if necessary; called before the first document is added.
        source: the URL of the source code, by which some registries find their own repository.
    """

    def __init__(
        self,
        registries: Registries,
        repository: Reference,
        name: str,
        cache: Path,
        *,
        prepare: Callable[[Reference], None] | None = None,
        source: str | None = None,
    ) -> None:
        self.where = f"{repository.name} (project {name})"
        self._registries = registries
        self._registry = registries.of(repository)
        self._repository = repository
        self._prefix = f"mlship.{name}."
        self._cache = cache
        self._prepare = prepare
        self._source = source

    def listing(self) -> Listing:
        """Return what is there; see `Artifacts`.

        Raises:
            IntegrityError: a tag of the project names no digest.
        """
        found: dict[str, set[Digest]] = {}
        for tag in self._registry.tags(self._repository.repository):
            if not tag.startswith(self._prefix):
                continue
            kind, _, digits = tag.removeprefix(self._prefix).partition(".")
            if not _HEXADECIMAL.fullmatch(digits):
                message = f"tag {tag} of {self._repository.name} is not mlship's"
                raise IntegrityError(message, hint="delete the tag; mlship writes no such one")
            found.setdefault(kind, set()).add(Digest(f"sha256:{digits}"))
        return {kind: frozenset(named) for kind, named in found.items()}

    def seen(self, kind: str) -> frozenset[Digest]:
        """Return the documents that this machine has read or added."""
        return stored_in(self._cache / kind)

    def has(self, kind: str, digest: Digest) -> bool:
        """Return whether a document is there, by its tag."""
        return self._registry.tagged(self._tagged(kind, digest)) is not None

    def read(self, kind: str, wanted: Iterable[Digest]) -> dict[Digest, bytes]:
        """Return documents; see `Artifacts`."""
        documents: dict[Digest, bytes] = {}
        missing = []
        for digest in wanted:
            data = read_from(self._cache / kind, digest)
            if data is None:
                missing.append(digest)
            else:
                documents[digest] = data
        fetched = _in_parallel(lambda digest: self._fetch(kind, digest), missing)
        return documents | dict(zip(missing, fetched, strict=True))

    def download(self, digest: Digest, size: int | None, into: Path) -> None:
        """Write a file that belongs to a document; see `Artifacts`."""
        if digest == _NOTHING:
            into.touch()
            return
        pieces = self._registry.read_blob(self._repository.repository, digest)
        what = f"{digest} in {self._repository.name}"
        hashed, written = hashlib.sha256(), 0
        with into.open("wb") as file:
            for piece in pieces:
                written += len(piece)
                if written > (LARGEST if size is None else size):
                    raise _other_content(what)
                hashed.update(piece)
                file.write(piece)
        if size not in (None, written) or f"sha256:{hashed.hexdigest()}" != digest:
            raise _other_content(what)

    def add(self, kind: str, data: bytes, attached: Mapping[Digest, Path] | None = None) -> Digest:
        """Add a document with the files that belong to it; see `Artifacts`."""
        if self._prepare is not None:
            self._prepare(self._repository)
            self._prepare = None
        digest = digests.of_bytes(data)
        repository = self._repository.repository
        contents = {digest: _of_bytes(data)}
        files = {each: path for each, path in (attached or {}).items() if each != _NOTHING}
        contents |= {each: _of_file(each, path) for each, path in files.items()}
        empty = _of_bytes(_EMPTY)
        blobs = [empty, *contents.values()]
        _in_parallel(lambda content: self._registry.bring(repository, content), blobs)
        annotations = {"org.opencontainers.image.source": self._source} if self._source else {}
        manifest = {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "artifactType": _kind(kind),
            "config": _described("application/vnd.oci.empty.v1+json", empty),
            "layers": [
                _described(_kind(kind) if each == digest else "application/octet-stream", content)
                for each, content in contents.items()
            ],
            "annotations": annotations,
        }
        encoded = digests.canonical_json(manifest)
        self._registry.put_manifest(self._tagged(kind, digest), encoded, _MANIFEST)
        self._remember(kind, digest, data)
        return digest

    def close(self) -> None:
        """Close the connections; see `Artifacts`."""
        self._registries.close()

    def _fetch(self, kind: str, digest: Digest) -> bytes:
        try:
            data = self._registry.small_blob(self._repository.repository, digest, LARGEST)
        except NotFoundError as error:
            tag = self._tagged(kind, digest)
            message = f"{tag} is listed, and its content was removed"
            raise IntegrityError(message, hint="restore the repository from a backup") from error
        self._remember(kind, digest, data)
        return data

    def _remember(self, kind: str, digest: Digest, data: bytes) -> None:
        """Write a document into the cache; one that is lost or damaged is read again."""
        path = self._cache / kind / digest.removeprefix("sha256:")
        draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            draft.write_bytes(data)
            draft.replace(path)

    def _tagged(self, kind: str, digest: Digest) -> Reference:
        return self._repository.tagged(f"{self._prefix}{kind}.{digest.removeprefix('sha256:')}")


def stored_in(folder: Path) -> frozenset[Digest]:
    """Return the digests of the documents in a folder, each a file named by its digest."""
    try:
        names = [path.name for path in folder.iterdir()]
    except OSError:
        return frozenset()
    return frozenset(Digest(f"sha256:{name}") for name in names if _HEXADECIMAL.fullmatch(name))


def read_from(folder: Path, digest: Digest) -> bytes | None:
    """Return a document in a folder; `None` if it is not there, or damaged."""
    try:
        data = (folder / digest.removeprefix("sha256:")).read_bytes()
    except OSError:
        return None
    return data if digests.of_bytes(data) == digest else None


def store_in(folder: Path, digest: Digest, data: bytes) -> None:
    """Write a document into a folder.

    Raises:
        OSError: the disk is full, or the folder is not writable.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / digest.removeprefix("sha256:"), data)


def _in_parallel(work: Callable[[_Item], _Result], items: list[_Item]) -> list[_Result]:
    """Return the results for all items, in order; the first error cancels what did not start."""
    if len(items) <= 1:
        return [work(item) for item in items]
    with ThreadPoolExecutor(_PARALLEL) as pool:
        futures = [pool.submit(work, item) for item in items]
        try:
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _kind(kind: str) -> str:
    return f"application/vnd.mlship.{kind}.v1+json"


def _described(media_type: str, content: Content) -> dict[str, object]:
    return {"mediaType": media_type, "digest": content.digest, "size": content.size}


def _of_bytes(data: bytes) -> Content:
    def read(offset: int) -> Iterator[bytes]:
        yield data[offset:]

    return Content(digest=digests.of_bytes(data), size=len(data), read=read)


def _of_file(digest: Digest, path: Path) -> Content:
    def read(offset: int) -> Iterator[bytes]:
        with path.open("rb") as file:
            file.seek(offset)
            yield from iter(partial(file.read, PIECE), b"")

    return Content(digest=digest, size=path.stat().st_size, read=read)


def _other_content(what: str) -> IntegrityError:
    message = f"the content of {what} does not match its digest or its size"
    return IntegrityError(message, hint="the registry sent other content; ask its operator")
