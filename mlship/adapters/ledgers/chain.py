"""A chain of records that can be read while other processes append to it."""

from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from mlship.domain.digests import Digest
from mlship.domain.evidence import Record, in_order
from mlship.errors import IntegrityError

Stored = TypeVar("Stored")
"""The stored form of a record: its bytes, or a value that has them."""


class Chain(Generic[Stored]):
    """The records of a ledger at the last read.

    Args:
        look: reads all stored records, by digest.
        data: returns the bytes of a stored record.
        described: returns where a record is stored, for errors.

    Attributes:
        stored: the result of the last read that gave a complete chain.
    """

    def __init__(
        self,
        look: Callable[[], Mapping[Digest, Stored]],
        data: Callable[[Stored], bytes],
        described: Callable[[Digest], str],
    ) -> None:
        self.stored: Mapping[Digest, Stored] = {}
        self._look = look
        self._data = data
        self._described = described
        self._records: tuple[Record, ...] = ()

    def records(self) -> tuple[Record, ...]:
        """Read until the chain is complete or does not change; return it, parents before children.

        Raises:
            IntegrityError: a record was changed or removed.
            UnavailableError: the ledger cannot be read.
        """
        stored = self._look()
        while stored != self.stored:
            try:
                data = {digest: self._data(record) for digest, record in stored.items()}
                records = in_order(data, self._described)
            except IntegrityError:
                # A record that was appended during the read may be seen without its parent.
                again = self._look()
                if again == stored:
                    raise
                stored = again
            else:
                self.stored, self._records = stored, tuple(records)
        return self._records
