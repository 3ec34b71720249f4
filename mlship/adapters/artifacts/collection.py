"""All documents of one kind, read with few requests.

A registry gives one document a request. So whoever adds one when many are loose also adds a pack: a
document of another kind with their bytes, one a line. A pack is not a source of truth: of it, only
documents that have a tag of their own count, and without it they are read one by one.
"""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from mlship.adapters.artifacts.artifacts import LARGEST, Artifacts, Listing
from mlship.domain import digests
from mlship.domain.digests import Digest
from mlship.errors import IntegrityError, MlshipError

LOOSE: Final = 100
"""So many documents outside of packs are packed."""


class Documents(msgspec.Struct, frozen=True, kw_only=True):
    """What a collection has.

    Attributes:
        stored: the bytes of each document.
        removed: documents that were there when this machine, or who packed them, looked before.
    """

    stored: dict[Digest, bytes]
    removed: frozenset[Digest] = frozenset()


class Collection:
    """The documents of one kind; none of them has a line break.

    Args:
        artifacts: where they are.
        kind: such as `record`.
        packs: whether documents that are added may be packed.
    """

    def __init__(self, artifacts: Artifacts, kind: str, *, packs: bool = True) -> None:
        self.where = artifacts.where
        self._artifacts = artifacts
        self._kind = kind
        self._pack = f"{kind}s"
        self._packs = packs
        self._loose: dict[Digest, bytes] = {}

    def read(self) -> Documents:
        """Return all documents, verified.

        A document that a listing lacks is looked for by its tag: listings of some registries are
        late.

        Raises:
            UnavailableError: the registry does not answer, or denies access.
            IntegrityError: a document is listed, and its content was removed.
        """
        listing = self._artifacts.listing()
        packed = self._packed(listing)
        listed = listing.get(self._kind, frozenset())
        unlisted = (self._artifacts.seen(self._kind) | frozenset(packed)) - listed
        late = frozenset(each for each in unlisted if self._artifacts.has(self._kind, each))
        present = listed | late
        self._loose = self._artifacts.read(self._kind, sorted(present - packed.keys()))
        stored = {each: data for each, data in packed.items() if each in present} | self._loose
        return Documents(stored=stored, removed=unlisted - late)

    def find(self, wanted: frozenset[Digest]) -> dict[Digest, bytes]:
        """Return those of some documents that are there, listed or not."""
        present = [each for each in sorted(wanted) if self._artifacts.has(self._kind, each)]
        return self._artifacts.read(self._kind, present)

    def add(self, data: bytes, attached: Mapping[Digest, Path] | None = None) -> Digest:
        """Add a document with the files that belong to it, durably; return its digest.

        Raises:
            UnavailableError: the registry does not answer, or denies access; nothing was added.
        """
        digest = self._artifacts.add(self._kind, data, attached)
        self._loose[digest] = data
        if self._packs and len(self._loose) >= LOOSE:
            pack = b"\n".join(self._loose[each] for each in sorted(self._loose))
            if len(pack) <= LARGEST:
                # The document is stored by now; the next one that is added packs it too.
                with suppress(MlshipError):
                    self._artifacts.add(self._pack, pack)
                    self._loose = {}
        return digest

    def _packed(self, listing: Listing) -> dict[Digest, bytes]:
        """Return the documents in packs; a pack that cannot be read is none."""
        named = sorted(listing.get(self._pack, frozenset()) | self._artifacts.seen(self._pack))
        try:
            packs = self._artifacts.read(self._pack, named)
        except IntegrityError:
            packs = {}
            for each in named:
                with suppress(IntegrityError):
                    packs |= self._artifacts.read(self._pack, [each])
        documents = (data for pack in packs.values() for data in pack.split(b"\n"))
        return {digests.of_bytes(data): data for data in documents}
