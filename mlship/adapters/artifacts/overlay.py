"""Documents that are read from a registry and added on this machine only.

For jobs that may read what all share and must not write it, such as those of a pull request.
"""

import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from mlship.adapters.artifacts.artifacts import Artifacts, Listing, read_from, store_in, stored_in
from mlship.domain import digests
from mlship.domain.digests import Digest
from mlship.errors import UnavailableError

_FILES = "files"


class LocalArtifacts:
    """The documents of a registry, and those of a folder that gets what is added.

    Args:
        shared: is only read.
        folder: has a folder for each kind, and one for files; created when something is added.
    """

    def __init__(self, shared: Artifacts, folder: Path) -> None:
        self.where = f"{shared.where}, with {folder}"
        self._shared = shared
        self._folder = folder

    def listing(self) -> Listing:
        """Return what is there; see `Artifacts`."""
        shared = self._shared.listing()
        kinds = {path.name for path in self._folder.glob("*") if path.name != _FILES}
        return {
            kind: shared.get(kind, frozenset()) | stored_in(self._folder / kind)
            for kind in {*shared, *kinds}
        }

    def seen(self, kind: str) -> frozenset[Digest]:
        """Return the documents that this machine has read or added."""
        return self._shared.seen(kind) | stored_in(self._folder / kind)

    def has(self, kind: str, digest: Digest) -> bool:
        """Return whether a document is there."""
        return digest in stored_in(self._folder / kind) or self._shared.has(kind, digest)

    def read(self, kind: str, wanted: Iterable[Digest]) -> dict[Digest, bytes]:
        """Return documents; see `Artifacts`."""
        named = tuple(wanted)
        own = {digest: read_from(self._folder / kind, digest) for digest in named}
        found = {digest: data for digest, data in own.items() if data is not None}
        rest = [digest for digest in named if digest not in found]
        return found | self._shared.read(kind, rest)

    def download(self, digest: Digest, size: int | None, into: Path) -> None:
        """Write a file that belongs to a document; see `Artifacts`."""
        path = self._folder / _FILES / digest.removeprefix("sha256:")
        if path.is_file() and digests.of_file(path) == digest:
            shutil.copyfile(path, into)
        else:
            self._shared.download(digest, size, into)

    def add(self, kind: str, data: bytes, attached: Mapping[Digest, Path] | None = None) -> Digest:
        """Add a document with the files that belong to it, on this machine; see `Artifacts`."""
        digest = digests.of_bytes(data)
        try:
            for each, path in (attached or {}).items():
                _copy(path, self._folder / _FILES / each.removeprefix("sha256:"))
            store_in(self._folder / kind, digest, data)
        except OSError as error:
            message = f"cannot write {self._folder}: {error.strerror or error}"
            hint = "free disk space or make the folder writable, then run the command again"
            raise UnavailableError(message, hint=hint) from error
        return digest

    def close(self) -> None:
        """Close the connections; see `Artifacts`."""
        self._shared.close()


def _copy(path: Path, into: Path) -> None:
    """Copy a file, which may be large, atomically."""
    into.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".", dir=into.parent) as temporary:
        draft = Path(temporary) / into.name
        shutil.copyfile(path, draft)
        draft.replace(into)
