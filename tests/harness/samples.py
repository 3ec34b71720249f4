"""Values that tests build on: releases, evidence, records."""

from datetime import UTC, datetime, timedelta
from typing import Any

from mlship.domain import digests, evidence, shapes
from mlship.domain.evidence import Evidence, Record, Saw, Step, Verdict
from mlship.domain.facts import Evaluated, Facts
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
    step: Step,
    verdict: Verdict = "passed",
    facts: dict[str, Any] | None = None,
    *,
    saw: Saw | None = None,
    after: timedelta = timedelta(0),
) -> Record:
    """Return a record of evidence, so long after noon."""
    made = Evidence(
        release=about,
        step=step,
        verdict=verdict,
        facts=facts or {},
        saw=saw or Saw(),
        actor="ada",
        time=NOON + after,
    )
    return Record(digest=digests.of_bytes(evidence.encode(made)), evidence=made)


def nothing(step: Step) -> Facts:
    """Return the facts of a step that learnt nothing."""
    return shapes.SHAPES[step]()


def better(outcomes: int = 90) -> Evaluated:
    """Return the facts of an evaluation that the challenger has won."""
    return Evaluated(champion_n=outcomes, challenger_n=outcomes, estimate=0.2, low=0.1, high=0.3)
