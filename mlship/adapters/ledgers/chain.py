"""A chain of records that is read while others append to it."""

from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from mlship.domain.digests import Digest
from mlship.domain.evidence import Record, in_order
from mlship.errors import IntegrityError

Stored = TypeVar("Stored")
"""What a place keeps of a record: its bytes, or something that has them."""


class Chain(Generic[Stored]):
    """The records of a place as they were when it was last looked at.

    Args:
        look: returns what the place has now, by the digests of the records.
        data: the bytes of a record.
        described: says where a record is kept, for errors.

    Attributes:
        stored: what the last look that made a whole chain has found.
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
        """Look until the chain is whole or no longer changes; return it, parents before children.

        Raises:
            IntegrityError: a record was changed or removed.
            UnavailableError: the place cannot be read.
        """
        stored = self._look()
        while stored != self.stored:
            try:
                data = {digest: self._data(record) for digest, record in stored.items()}
                records = in_order(data, self._described)
            except IntegrityError:
                # A record that was appended during the look may be seen without its parent.
                again = self._look()
                if again == stored:
                    raise
                stored = again
            else:
                self.stored, self._records = stored, tuple(records)
        return self._records
