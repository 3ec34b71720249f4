"""Predictions that were answered and are not in the database yet, in words."""

from collections.abc import Sequence
from datetime import UTC

from mlship.domain.prediction import Spool


def sentences(spools: Sequence[Spool]) -> list[str]:
    """Return what is still on its way from some spools, and what may be; nothing if all is there.

    Args:
        spools: those of the releases that matter.
    """
    found = []
    rows = sum(spool.rows for spool in spools)
    if rows:
        slots = ", ".join(sorted({spool.slot for spool in spools if spool.rows}))
        times = [spool.since for spool in spools if spool.since is not None]
        since = f", since {min(times).astimezone(UTC):%Y-%m-%d %H:%M} UTC" if times else ""
        found.append(f"{rows} predictions are still on their way to the database ({slots}{since})")
    found += [
        f"a replica of {spool.slot} has not reported for {spool.silent_seconds:.0f} s and may "
        f"have more predictions in its spool {spool.name}"
        for spool in spools
        if spool.is_silent
    ]
    return found
