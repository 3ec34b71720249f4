"""Predictions as they are logged, and the outcomes that arrive for them later."""

from datetime import datetime

import msgspec

from mlship.domain.bundle import Row, Value
from mlship.domain.digests import Digest


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
    """One row that was answered (or, shadowed, computed and dropped). One line of a log.

    Attributes:
        id: the request's id and the row's number in it, `6f1c...e2.0`; a shadow has the id of
            the prediction that it shadows, and another release.
        release: the id of the release that computed it.
        slot: where that release ran.
        inputs: the row as it came in, before any hook.
        outputs: the answer.
        latency_ms: the time that the whole request took to compute, in milliseconds.
    """

    id: str
    release: Digest
    slot: str
    time: datetime
    inputs: Row
    outputs: Row
    latency_ms: float
    shadow: bool = False


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What turned out to be true for a prediction, and when mlship was told."""

    prediction: str
    value: Value
    time: datetime


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """What became of outcomes that were handed in: counts, and the ids that no log knows."""

    new: int
    known: int
    unknown: tuple[str, ...] = ()
