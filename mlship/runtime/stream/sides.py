"""Which release answers a message: the same that Envoy chooses for the same key over HTTP."""

from collections.abc import Sequence
from itertools import accumulate

from mlship.domain.stream import Side


class Choice:
    """Chooses a side by key.

    Envoy takes the xxHash64 of the header, modulo the sum of the weights, and the first cluster
    whose weights up to it are more. Source: `HashUtil::xxHash64` and `pickWeightedCluster` in
    https://github.com/envoyproxy/envoy/tree/main/source/common

    Args:
        sides: in the order in which the load balancer has them.
    """

    def __init__(self, sides: Sequence[Side]) -> None:
        import xxhash

        self._hash = xxhash.xxh64_intdigest
        self._ends = list(accumulate(side.weight for side in sides))
        self._sides = sides

    def of(self, key: bytes) -> Side:
        """Return the side for a key, or for what stands for a message without one."""
        place = self._hash(key) % self._ends[-1]
        return next(side for side, end in zip(self._sides, self._ends, strict=True) if place < end)
