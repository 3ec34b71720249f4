"""Values that tests build on: releases, evidence, records."""

from datetime import UTC, datetime, timedelta
from typing import Any

from mlship.domain import digests, evidence
from mlship.domain.digests import Digest
from mlship.domain.evidence import Evidence, Record, Verdict
from mlship.domain.release import Release

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def release(seed: str = "one", *, dirty: bool = False) -> Release:
    """Return a release; another seed gives another one."""
    digest = digests.of_bytes(seed.encode())
    return Release(
        name="iris",
        commit=digest[7:47],
        dirty=dirty,
        data=digest,
        params=digest,
        code=digest,
        environment=digest,
        bundle=digest,
    )


def record(
    about: Release,
    step: str,
    verdict: Verdict = "passed",
    facts: dict[str, Any] | None = None,
    *,
    saw: dict[str, Digest] | None = None,
    after: timedelta = timedelta(0),
) -> Record:
    """Return a record of evidence, so long after noon."""
    made = Evidence(
        release=about,
        step=step,
        verdict=verdict,
        facts=facts or {},
        saw=saw or {},
        actor="ada",
        time=NOON + after,
    )
    return Record(digest=digests.of_bytes(evidence.encode(made)), evidence=made)
