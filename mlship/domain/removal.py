"""Removal of logged predictions and their outcomes, and of images that nothing needs."""

import math
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Literal, Protocol

import msgspec

from mlship.domain.bundle import Row, Value
from mlship.domain.digests import Digest
from mlship.domain.facts import Facts
from mlship.domain.prediction import Prediction, Spool

Kind = Literal["image", "load balancer", "dependencies", "bundle"]
"""What a prune removes."""


class Condition(msgspec.Struct, frozen=True, kw_only=True):
    """A column with a value.

    Attributes:
        text: the value, as a person types it: numbers are compared as such.
        hashed: the value as the log has it if only its hash is logged; empty without a key.
    """

    column: str
    text: str
    hashed: str = ""

    def holds(self, inputs: Row, outputs: Row) -> bool:
        """Return whether a row has the value, in its inputs or its outputs."""
        return any(
            self.column in row and (row[self.column] == self.hashed or self._agrees(row))
            for row in (inputs, outputs)
        )

    def _agrees(self, row: Row) -> bool:
        value: Value = row[self.column]
        if isinstance(value, bool):
            return str(value).lower() == self.text.lower()
        if isinstance(value, int | float):
            return value == _number(self.text)
        return value == self.text

    @property
    def marks(self) -> tuple[bytes, ...]:
        """The bytes of which a log has one wherever it has the value as text."""
        texts = (self.text, *((self.hashed,) if self.hashed else ()))
        return tuple(msgspec.json.encode(text) for text in texts)


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """The predictions to remove: those with an id, those that meet all conditions, or old ones.

    All predictions of an id are removed, also those of a shadow. Age removes each for itself.

    Attributes:
        before: earlier predictions; `None` if age does not matter.
    """

    ids: frozenset[str] = frozenset()
    where: tuple[Condition, ...] = ()
    before: datetime | None = None

    def has(self, prediction: Prediction) -> bool:
        """Return whether a prediction is to be removed."""
        if self.before is not None and prediction.time < self.before:
            return True
        return prediction.id in self.ids or (
            bool(self.where)
            and all(each.holds(prediction.inputs, prediction.outputs) for each in self.where)
        )

    def marks(self, text: bytes) -> bool:
        """Return whether bytes that are no whole line may be of a prediction to remove."""
        # In a spool, inputs and outputs are JSON texts within JSON.
        plain = text.replace(b'\\"', b'"')
        if any(msgspec.json.encode(name) in text for name in self.ids):
            return True
        return bool(self.where) and all(
            any(mark in plain for mark in each.marks) for each in self.where
        )


class Removed(msgspec.Struct, frozen=True, kw_only=True):
    """How many predictions and outcomes were removed, or would be.

    Attributes:
        predictions: by release.
    """

    predictions: Mapping[Digest, int] = {}
    outcomes: int = 0

    @property
    def total(self) -> int:
        """The number of predictions."""
        return sum(self.predictions.values())

    def plus(self, other: "Removed") -> "Removed":
        """Return the sum."""
        releases = dict.fromkeys([*self.predictions, *other.predictions])
        return Removed(
            predictions={
                each: self.predictions.get(each, 0) + other.predictions.get(each, 0)
                for each in releases
            },
            outcomes=self.outcomes + other.outcomes,
        )


class Erased(Facts, frozen=True):
    """The facts of `predictions erase`: no value of what was erased.

    Attributes:
        operation: the same in the record before, with the verdict `undecided`, and the one after.
        selection: a salted hash of what was to be erased.
        predictions: their number by the id of their release.
    """

    operation: str = ""
    salt: str = ""
    selection: str = ""
    predictions: dict[Digest, int] = msgspec.field(default_factory=dict)
    outcomes: int = 0


class Pruned(Facts, frozen=True):
    """The facts of `predictions prune`: what was earlier than a time, by the id of its release."""

    before: datetime | None = None
    predictions: dict[Digest, int] = msgspec.field(default_factory=dict)
    outcomes: int = 0


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """Something that is removed, or would be.

    Attributes:
        name: its release; for dependencies, their tag.
        parts: digests of manifests that only its index has.
        size: in bytes; 0 if it is not known.
    """

    kind: Kind
    name: str
    digest: Digest
    parts: tuple[Digest, ...] = ()
    size: int = 0


class PrunedImages(Facts, frozen=True):
    """The facts of `images prune`.

    There is one record before the removal, with the verdict `undecided`, and one after it.

    Attributes:
        repository: from which they were removed.
        keep_days: releases with later evidence were kept.
    """

    repository: str = ""
    keep_days: int = 0
    removed: tuple[Item, ...] = ()


class Removals(Protocol):
    """Removes logged predictions and their outcomes, wherever a project keeps them."""

    def count(self, selection: Selection, releases: Collection[Digest]) -> Removed:
        """Return what `remove` would remove. Changes nothing."""

    def remove(self, selection: Selection, releases: Collection[Digest]) -> Removed:
        """Remove predictions of releases, with their outcomes, durably. It is idempotent.

        An outcome whose prediction is gone is removed before it, so that after a crash the same
        call removes the rest.

        Raises:
            ConflictError: a process of a former version is writing there; nothing was removed.
        """

    def unreached(self, releases: Collection[Digest]) -> Sequence[Spool]:
        """Return the spools that may have predictions which `remove` does not reach."""


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
