"""The gate of a batch: whether a run may be published."""

from collections.abc import Mapping

import msgspec

from mlship.domain import shifts
from mlship.domain.batch import Manifest
from mlship.domain.checks import Check
from mlship.domain.facts import Number
from mlship.domain.gates import on_metrics
from mlship.domain.policy import Bound
from mlship.domain.profiles import Profile


def values(profile: Profile | None, rows: int, before: Profile | None) -> dict[str, Number]:
    """Return what the gates of a batch bound; without an earlier run, there is no shift.

    Args:
        profile: of the predictions.
        rows: those with a prediction.
        before: the profile of the last run that was published.
    """
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

    In a split, nulls and shift of each side are checked apart: a small one would not show in both.

    Args:
        manifest: of the run.
        before: the profile of the last run that was published.
        bounds: of rows, nulls and shift.
        max_rejected: rows that may be rejected.
    """
    rows = manifest.rows - manifest.rejected
    checks = [on_rejected(manifest.rejected, max_rejected)]
    if not manifest.players:
        return [*checks, *_on_profile(manifest.profile, rows, before, bounds)]
    # What the run lacks, its reader lacks, whoever is to blame. What is answered is each one's own.
    whole = {name: bound for name, bound in bounds.items() if name == "rows"}
    checks += on_metrics({"rows": rows}, whole)
    own = {name: bound for name, bound in bounds.items() if name != "rows"}
    for player in manifest.players:
        if player.profile is None or not player.profile.rows:
            text = f"{player.role}: no row is on this side"
            checks.append(Check(name=f"{player.role} rows", holds=True, text=text, warns=True))
            continue
        checks += [
            msgspec.structs.replace(
                check, name=f"{player.role} {check.name}", text=f"{player.role}: {check.text}"
            )
            for check in _on_profile(player.profile, player.profile.rows, before, own)
        ]
    return checks


def _on_profile(
    profile: Profile | None, rows: int, before: Profile | None, bounds: Mapping[str, Bound]
) -> list[Check]:
    bounds = dict(bounds)
    checks = []
    if before is None and bounds.pop("shift", None) is not None:
        text = "shift: no earlier run to compare with"
        checks.append(Check(name="shift", holds=True, text=text, warns=True))
    return [*checks, *on_metrics(values(profile, rows, before), bounds)]
