"""What a release must reach: limits of metrics, and the conditions of a promotion."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta


class Bound(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits of one metric. Differences are counted in the metric's own unit."""

    min: Annotated[float | None, Meta(description="not less than this")] = None
    max: Annotated[float | None, Meta(description="not more than this")] = None
    below_champion: Annotated[
        float | None, Meta(description="at most so much below the champion on the same data")
    ] = None
    above_champion: Annotated[
        float | None, Meta(description="at most so much above the champion, for errors")
    ] = None


class PromotePolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What it takes to become champion."""

    metric: Annotated[
        Literal["accuracy", "mae", "mse"],
        Meta(description="compared on outcomes; one number a prediction"),
    ] = "accuracy"
    min_labels: Annotated[
        Annotated[int, Meta(ge=1)], Meta(description="outcomes needed for each of the two")
    ] = 200
    confidence: Annotated[
        Annotated[float, Meta(gt=0, lt=1)], Meta(description="of the interval of the difference")
    ] = 0.95
    margin: Annotated[
        Annotated[float, Meta(ge=0)],
        Meta(description="how much worse the challenger may be and still pass, in the metric"),
    ] = 0.0
    approvals: Annotated[
        Annotated[int, Meta(ge=0)], Meta(description="distinct people, the author not counted")
    ] = 1
    max_age_hours: Annotated[
        Annotated[float, Meta(gt=0)], Meta(description="an older evaluation does not count")
    ] = 24.0
