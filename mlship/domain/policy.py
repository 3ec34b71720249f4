"""The limits of metrics, and the conditions of a promotion."""

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

# In Python, $ also matches before a final newline; in JSON schema it does not.
METRIC: Final = (
    r"^(none|accuracy|brier|log_loss|mae|mse|pinball\[0?\.[0-9]*[1-9][0-9]*\]"
    r"|[A-Za-z_][\w.]*:[A-Za-z_]\w*)(?!\n)$"
)


Occupied = Literal["wait", "queue", "replace", "refuse"]
"""What happens with a release while another one is challenger."""


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
        str,
        Meta(
            pattern=METRIC,
            description="the metric to compare on outcomes, a mean over predictions: accuracy, "
            "brier, log_loss, mae, mse, pinball[QUANTILE], or a function "
            "cost(truth: Series, outputs: DataFrame) -> a number for each row; `none` without "
            "a target, or without outcomes: approvals alone decide",
            extra={"form": "such as accuracy, pinball[0.9] or pipeline:cost"},
        ),
    ] = "accuracy"
    better: Annotated[
        Literal["higher", "lower"] | None,
        Meta(description="which mean of your own function is better; required for one"),
    ] = None
    range: Annotated[
        tuple[float, float] | None,
        Meta(
            description="least and greatest number that your own function can return, such as "
            "[0, 1]; then the interval is exact, for any number of outcomes"
        ),
    ] = None
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


class ChallengerBounds(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When `mlship watch` takes a challenger off traffic; the champion never is."""

    errors: Annotated[
        Annotated[float, Meta(ge=0, le=1)] | None,
        Meta(
            description="by how much the share of its requests that fail, or that another release "
            "has to answer, may be above the champion's; 0.02 is 2 %; null: no bound"
        ),
    ] = 0.02
    slower: Annotated[
        Annotated[float, Meta(ge=1)] | None,
        Meta(
            description="its p99 may be so many times the champion's, and 10 ms more in any case; "
            "null: no bound"
        ),
    ] = 2.0
    min_requests: Annotated[
        Annotated[int, Meta(ge=1)],
        Meta(
            description="requests of each of them that are required, without those of the "
            "challenger's worst look"
        ),
    ] = 100
    seconds: Annotated[
        Annotated[float, Meta(gt=0)], Meta(description="how far back requests are compared")
    ] = 60.0
