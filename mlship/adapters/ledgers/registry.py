"""A ledger in a container registry: one artifact per record, so that all machines share it.

    tag         mlship.<project>.record.<64 hex>    the digest of the record's bytes
    layer       the bytes, as JSON

A registry has no lock: two concurrent writers fork the chain, and the next record joins it. A
registry cannot prevent that a tag is moved or deleted, but the chain of digests detects it.
"""

from collections.abc import Mapping, Sequence
from contextlib import closing

import msgspec

from mlship.adapters.artifacts.artifacts import Artifacts
from mlship.adapters.artifacts.collection import Collection
from mlship.adapters.ledgers.chain import Chain
from mlship.domain import digests
from mlship.domain.digests import Digest
from mlship.domain.dsse import Signing
from mlship.domain.evidence import Evidence, Record, decode, encode, heads
from mlship.domain.evidence import parents as parents_of
from mlship.errors import IntegrityError


class RegistryLedger:
    """Stores evidence as artifacts in a repository of a container registry.

    Args:
        artifacts: the documents of the project.
        packs: whether records that are added may be packed.
        by: signs the records; `None` for records without a signature.
    """

    def __init__(
        self, artifacts: Artifacts, *, packs: bool = True, by: Signing | None = None
    ) -> None:
        self._artifacts, self._by = artifacts, by
        self._collection = Collection(artifacts, "record", packs=packs)
        self._chain: Chain[bytes] = Chain(
            self._look,
            lambda data: data,
            lambda digest: f"record {digests.short(digest)} in {artifacts.where}",
        )

    def append(self, evidence: Evidence, *, after: Sequence[Digest] | None = None) -> Record:
        """Append evidence after the heads of the chain, durably; return it with its digest.

        The tag of the new record is read back.

        Args:
            evidence: the evidence to append.
            after: the heads, if the caller has read them; by default all records are read.

        Raises:
            UnavailableError: the registry does not answer, or denies access; nothing was added.
            IntegrityError: the chain is broken, or the registry returns another record.
        """
        with closing(self._artifacts):
            parents = heads(self._chain.records()) if after is None else tuple(after)
            data = encode(msgspec.structs.replace(evidence, parents=parents), self._by)
            record = decode(data)
            self._collection.add(data)
        return record

    def records(self) -> Sequence[Record]:
        """Return all records, verified, parents before children.

        Raises:
            IntegrityError: a record was changed or removed.
            UnavailableError: the registry does not answer, or denies access.
        """
        with closing(self._artifacts):
            return self._chain.records()

    def _look(self) -> dict[Digest, bytes]:
        documents = self._collection.read()
        if documents.removed:
            names = ", ".join(digests.short(each) for each in sorted(documents.removed)[:3])
            message = f"records that were in {self._collection.where} were removed: {names}"
            hint = "restore the repository from a backup; if it was deleted to begin anew, delete "
            raise IntegrityError(message, hint=f"{hint}.mlship/registry")
        stored = documents.stored
        while wanted := _parents(stored) - stored.keys():
            found = self._collection.find(wanted)
            if not found:
                break
            stored |= found
        return stored


def _parents(stored: Mapping[Digest, bytes]) -> frozenset[Digest]:
    """Return the parents of all records; what is no record has none, and is refused later."""
    return frozenset(parent for data in stored.values() for parent in parents_of(data))
