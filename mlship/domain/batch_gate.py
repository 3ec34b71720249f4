"""The gate of a batch: whether a run may be published."""

from collections.abc import Mapping

from mlship.domain import shifts
from mlship.domain.batch import Manifest
from mlship.domain.checks import Check
from mlship.domain.facts import Number
from mlship.domain.gates import on_metrics
from mlship.domain.policy import Bound
from mlship.domain.profiles import Profile


def values(manifest: Manifest, before: Profile | None) -> dict[str, Number]:
    """Return what the gates of a batch bound; without an earlier run, there is no shift.

    Rows are those with a prediction.
    """
    profile, rows = manifest.profile, manifest.rows - manifest.rejected
    if profile is None:
        return {"rows": rows}
    shares = [column.missing / max(profile.rows, 1) for column in profile.columns]
    found: dict[str, Number] = {"rows": rows, "nulls": max(shares, default=0.0)}
    if before is not None:
        compared = shifts.between(before, profile)
        told = [shift.psi for shift in compared.listed if shift.psi > shift.chance]
        found["shift"] = round(max(told, default=0.0), 4)
    return found


def on_rejected(rejected: int, limit: int) -> Check:
    """Check how many rows the model did not accept."""
    text = f"{rejected} rows rejected, at most {limit} allowed"
    return Check(name="rejected", holds=rejected <= limit, text=text)


def judge(
    manifest: Manifest, before: Profile | None, bounds: Mapping[str, Bound], max_rejected: int
) -> list[Check]:
    """Return the checks of a run before it is published.

    Args:
        manifest: of the run.
        before: the profile of the last run that was published.
        bounds: of rows, nulls and shift.
        max_rejected: rows that may be rejected.
    """
    bounds = dict(bounds)
    checks = [on_rejected(manifest.rejected, max_rejected)]
    if before is None and bounds.pop("shift", None) is not None:
        text = "shift: no earlier run to compare with"
        checks.append(Check(name="shift", holds=True, text=text, warns=True))
    return [*checks, *on_metrics(values(manifest, before), bounds)]
