"""The facts of each step as values: what a report needs of the evidence that steps write.

Every field has a default, so that a step that writes less is still read.
"""

from typing import Any, TypeVar

import msgspec

from mlship.domain import digests
from mlship.domain.bundle import Value
from mlship.domain.commit import Commit
from mlship.domain.evidence import Record
from mlship.domain.profiles import Profile
from mlship.domain.scores import Slices
from mlship.domain.shifts import Shifts
from mlship.errors import IntegrityError

Number = float | str | None
"""A number of evidence: one that is not finite is the text of it, one that is missing null."""


class _Facts(msgspec.Struct, frozen=True, kw_only=True):
    seconds: Number = None


class Trained(_Facts, frozen=True):
    """What `train` learnt."""

    commit: Commit | None = None
    notes: tuple[str, ...] = ()
    format: str = ""
    metrics: dict[str, Number] = {}
    params: dict[str, Any] = {}
    profile: Profile | None = None


class Between(msgspec.Struct, frozen=True, kw_only=True):
    """A difference with its interval: this release minus the champion."""

    estimate: Number = None
    low: Number = None
    high: Number = None


class SuiteRun(msgspec.Struct, frozen=True, kw_only=True):
    """A suite of the project's own tests."""

    suite: str
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: Number = None
    failures: tuple[str, ...] = ()


class Tested(_Facts, frozen=True):
    """What `test` learnt."""

    task: str = ""
    samples: int = 0
    metrics: dict[str, Number] = {}
    champion: dict[str, Number] = {}
    champion_release: str | None = None
    champion_error: str = ""
    differences: dict[str, Between] = {}
    method: str = ""
    confidence: Number = None
    labels: tuple[Value, ...] = ()
    confusion: tuple[tuple[int, ...], ...] = ()
    plots: tuple[str, ...] = ()
    slices: Slices | None = None
    shifts: Shifts | None = None
    tests: tuple[SuiteRun, ...] = ()
    reasons: tuple[str, ...] = ()


class Made(_Facts, frozen=True):
    """What `containerize` made, or `push-to-registry` pushed."""

    digest: str = ""


class Contained(_Facts, frozen=True):
    """What `test --container` learnt; sizes in bytes, but `max_mb`."""

    ready_seconds: Number = None
    size: Number = None
    max_mb: int | None = None
    memory: str = ""
    requests: int = 0
    errors: int = 0
    mismatches: int = 0
    p99_ms: Number = None
    differences: tuple[str, ...] = ()
    tests: tuple[SuiteRun, ...] = ()
    reasons: tuple[str, ...] = ()


class Verified(_Facts, frozen=True):
    """What `verify-staging-workload` learnt."""

    requests: int = 0
    errors: int = 0
    mismatches: int = 0
    p50_ms: Number = None
    p99_ms: Number = None
    differences: tuple[str, ...] = ()
    tests: tuple[SuiteRun, ...] = ()
    reasons: tuple[str, ...] = ()


class Evaluated(_Facts, frozen=True):
    """What `evaluate` learnt."""

    champion: str = ""
    metric: str = ""
    method: str = ""
    confidence: Number = None
    champion_mean: Number = None
    challenger_mean: Number = None
    champion_n: int = 0
    challenger_n: int = 0
    estimate: Number = None
    low: Number = None
    high: Number = None
    reason: str = ""


class Approved(_Facts, frozen=True):
    """What `approve` recorded."""

    by: str = ""
    comment: str = ""


class Changed(_Facts, frozen=True):
    """What a deployment, a promotion or a rollback recorded, and their sub-steps."""

    endpoint: str = ""


class Judged(_Facts, frozen=True):
    """Why a gate said what it said: a line for each thing, or one for all."""

    reasons: tuple[str, ...] = ()
    reason: str = ""


Shape = TypeVar("Shape", bound=_Facts)


def of(record: Record, shape: type[Shape]) -> Shape:
    """Return the facts of a record in their shape; facts that the shape lacks are left out.

    Raises:
        IntegrityError: a fact has another type; another version of mlship wrote it.
    """
    try:
        return msgspec.convert(record.evidence.facts, shape)
    except msgspec.ValidationError as error:
        evidence = record.evidence
        message = (
            f"record {digests.short(record.digest)} ({evidence.step}, mlship {evidence.tool}) "
            f"has facts that cannot be read: {error}"
        )
        raise IntegrityError(message, hint="update mlship") from error
