"""Outputs that are kept, so that a row which is asked again is not computed again."""

from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, Final

import msgspec

from mlship.domain.bundle import Bundle
from mlship.domain.digests import Digest
from mlship.runtime.jobs import Answer, Computed, Computer, Health, Job

KEY_BYTES: Final = 4096
"""Rows with more values than that are computed each time: they are rarely asked twice."""


class Cached:
    """Answers jobs from memory if all their rows were computed before, and passes others on.

    It belongs to one release, and a release computes the same outputs for the same row. Rows are
    the same if all values are, with their types: 1, 1.0 and true are three, 0.0 and -0.0 are two.

    Args:
        computer: computes what is not kept.
        rows: how many are kept; the one that was not asked for the longest time goes first.
        found: hears how many rows of a request were answered from memory.
    """

    def __init__(self, computer: Computer, rows: int, found: Callable[[int], None]) -> None:
        self._computer = computer
        self._found = found
        self._most = rows
        self._outputs: dict[bytes, Sequence[Any]] = {}
        self._names: tuple[str, ...] = ()
        self._encode = msgspec.msgpack.Encoder().encode

    @property
    def bundle(self) -> Bundle:
        """The bundle's manifest."""
        return self._computer.bundle

    @property
    def digest(self) -> Digest:
        """The bundle's digest."""
        return self._computer.digest

    def admit(self, size: int) -> None:
        """Refuse a request of so many bytes if there is no room for it.

        Raises:
            RefusedRequest: there is none.
        """
        self._computer.admit(size)

    def submit(self, job: Job) -> None:
        """Answer a job at once, or compute it and keep its outputs.

        Raises:
            RefusedRequest: it cannot be computed before its deadline.
        """
        keys = [self._encode(row) for row in job.rows]
        if all(key in self._outputs for key in keys):
            for key in keys:
                self._outputs[key] = self._outputs.pop(key)
            self._found(len(keys))
            job.queued = job.sent = monotonic()
            rows = [self._outputs[key] for key in keys]
            job.finish(Computed(self._names, list(map(list, zip(*rows, strict=True)))))
            return
        job.hear(lambda answer: self._keep(keys, answer))
        self._computer.submit(job)

    def cancel(self, job: Job) -> None:
        """Drop a job, unless its computation has begun."""
        self._computer.cancel(job)

    def health(self) -> Health:
        """Return the state of what computes."""
        return self._computer.health()

    def _keep(self, keys: Sequence[bytes], answer: Answer) -> None:
        if not isinstance(answer, Computed):
            return
        if answer.names != self._names:
            # A hook may name the outputs of one row otherwise than those of another.
            self._outputs.clear()
            self._names = answer.names
        for key, outputs in zip(keys, answer.outputs(), strict=True):
            if len(key) <= KEY_BYTES:
                self._outputs.pop(key, None)
                self._outputs[key] = outputs
        while len(self._outputs) > self._most:
            del self._outputs[next(iter(self._outputs))]
