"""Logged predictions, and the outcomes that arrive for them later."""

from datetime import datetime
from typing import Final, TypeAlias

import msgspec

from mlship.domain.bundle import Row, Value
from mlship.domain.digests import Digest


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
    """The prediction for one row: one line of the log.

    Attributes:
        id: the id of the request and the number of the row, `6f1c...e2.0`; a shadow prediction has
            the id of the prediction that it shadows, and another release.
        release: the id of the release that computed it.
        slot: the slot in which that release ran.
        inputs: the row as received, before any hook.
        outputs: the response; that of a shadow prediction is dropped.
        latency_ms: the time to compute the whole request, in milliseconds.
    """

    id: str
    release: Digest
    slot: str
    time: datetime
    inputs: Row
    outputs: Row
    latency_ms: float
    shadow: bool = False


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a bundle answers to one row: outputs, or why the row is refused.

    Attributes:
        refusal: the message of the refusal; empty if there are outputs.
        column: the column that the refusal names; empty if it names none.
    """

    outputs: Row = {}
    refusal: str = ""
    column: str = ""


Truth: TypeAlias = Value | dict[str, Value]
"""The true value for a prediction; with several targets, the true value of each that is known."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The true value for a prediction, and the time when mlship received it.

    Attributes:
        is_corrected: it replaces an earlier one. A correction is a record of its own.
    """

    prediction: str
    value: Truth
    time: datetime
    is_corrected: bool = False


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """The result of adding outcomes: counts, and the ids that no prediction has.

    Attributes:
        known: outcomes that were added before, with the same value.
        corrected: of the new ones, those that replace another outcome.
    """

    new: int
    known: int
    corrected: int = 0
    unknown: tuple[str, ...] = ()


SILENT_SECONDS: Final = 15.0
"""A spool that has not been reported for so long may have predictions that nobody knows of."""


class Spool(msgspec.Struct, frozen=True, kw_only=True):
    """What a replica last reported about its spool: predictions that the database lacks.

    Attributes:
        name: identifies the spool; it is the name of its folder.
        rows: the number of predictions that were not delivered.
        since: the time of the oldest one.
        silent_seconds: the time since the report, by the database's clock.
    """

    name: str
    slot: str
    release: Digest
    rows: int
    since: datetime | None
    silent_seconds: float

    @property
    def is_silent(self) -> bool:
        """Whether its replica cannot reach the database, or is gone."""
        return self.silent_seconds > SILENT_SECONDS
