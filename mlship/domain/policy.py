"""The limits of metrics, and the conditions of a promotion."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta


class Bound(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits of one metric. Differences are in the metric's own unit."""

    min: Annotated[float | None, Meta(description="the minimum")] = None
    max: Annotated[float | None, Meta(description="the maximum")] = None
    below_champion: Annotated[
        float | None, Meta(description="how far it may be below the champion on the same data")
    ] = None
    above_champion: Annotated[
        float | None, Meta(description="how far it may be above the champion; for error metrics")
    ] = None


class PromotePolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The conditions for a promotion to champion."""

    metric: Annotated[
        Literal["accuracy", "mae", "mse", "none"],
        Meta(
            description="the metric to compare on outcomes; `none` for a task without a target: "
            "approvals alone decide"
        ),
    ] = "accuracy"
    min_labels: Annotated[
        Annotated[int, Meta(ge=1)], Meta(description="outcomes required for each release")
    ] = 200
    confidence: Annotated[
        Annotated[float, Meta(gt=0, lt=1)],
        Meta(description="confidence level of the interval of the difference"),
    ] = 0.95
    margin: Annotated[
        Annotated[float, Meta(ge=0)],
        Meta(description="how much worse the challenger may be, in the unit of the metric"),
    ] = 0.0
    approvals: Annotated[
        Annotated[int, Meta(ge=0)],
        Meta(description="people who must approve; the author does not count"),
    ] = 1
    max_age_hours: Annotated[
        Annotated[float, Meta(gt=0)], Meta(description="an older evaluation does not count")
    ] = 24.0
