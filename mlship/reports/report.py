"""A report: what the ledger knows of one release, put in order. Made from evidence alone."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

import msgspec

from mlship.domain import digests, facts
from mlship.domain.approvals import standing
from mlship.domain.evidence import Record, Verdict
from mlship.domain.facts import (
    Approved,
    Changed,
    Contained,
    Evaluated,
    Judged,
    Made,
    Number,
    SuiteRun,
    Tested,
    Trained,
    Verified,
)
from mlship.domain.history import fold, latest
from mlship.domain.release import Release

CONTAINER: Final = "test-container"
GATES: Final = (
    "test",
    CONTAINER,
    "verify-staging-workload",
    "deploy-production",
    "evaluate",
    "promote/gate",
)
"""The steps that decide, in the order of the pipeline."""


class MetricLine(msgspec.Struct, frozen=True, kw_only=True):
    """A metric on the held-out data: of the release, of the champion, and between them."""

    name: str
    release: Number
    champion: Number = None
    difference: Number = None
    low: Number = None
    high: Number = None


class GateLine(msgspec.Struct, frozen=True, kw_only=True):
    """What a gate said, with a line for each thing that it looked at."""

    name: str
    verdict: Verdict
    reasons: tuple[str, ...]


class Approval(msgspec.Struct, frozen=True, kw_only=True):
    """Who approved the release, when, and what they added."""

    by: str
    comment: str
    time: datetime


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """The image of the release that was made or pushed last.

    Attributes:
        tested: what this very image showed in a container; `None` where it never ran in one.
    """

    digest: str
    tested: Contained | None = None


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """A record of the timeline; `seconds` where the step's duration is known."""

    step: str
    verdict: Verdict
    time: datetime
    seconds: Number
    actor: str


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a release. A part is `None` or empty where its step has not run.

    Attributes:
        title: the release's name for people.
        verdict: `failed` if the last run of any step failed, `undecided` if one was or the tests
            have not run, else `passed`.
        summary: one sentence: the role that it plays, and what keeps it from passing.
        role: in production, empty for none.
        endpoint: where production answers, empty where the release is not in production.
        staging: where staging answers, empty where the release was not deployed there.
    """

    title: str
    verdict: Verdict
    summary: str
    role: str
    endpoint: str
    id: str
    staging: str = ""
    release: Release
    metrics: tuple[MetricLine, ...] = ()
    gates: tuple[GateLine, ...] = ()
    suites: tuple[SuiteRun, ...] = ()
    trained: Trained | None = None
    tested: Tested | None = None
    image: Image | None = None
    verified: Verified | None = None
    evaluated: Evaluated | None = None
    approvals: tuple[Approval, ...] = ()
    timeline: tuple[Moment, ...] = ()


def collect(release: Release, records: Sequence[Record]) -> Report:
    """Return the report of a release from all records of the ledger, oldest first.

    Where a step ran several times its last record counts.

    Raises:
        IntegrityError: the facts of a record cannot be read.
    """
    own = [record for record in records if record.evidence.release == release]
    last = {record.evidence.step: record for record in own}
    trained = facts.of(last["train"], Trained) if "train" in last else None
    tested = facts.of(last["test"], Tested) if "test" in last else None
    digest, test = _image(own)
    # The test of an earlier image tells nothing of this one.
    last = {step: record for step, record in last.items() if step != CONTAINER}
    last |= {CONTAINER: test} if test else {}
    contained = facts.of(test, Contained) if test else None
    workload = last.get("verify-staging-workload")
    verified = facts.of(workload, Verified) if workload else None
    evaluated = facts.of(last["evaluate"], Evaluated) if "evaluate" in last else None
    deployed, staged = last.get("deploy-production"), last.get("deploy-staging")
    verdict = _verdict(last)
    role = fold(records).role(release)
    return Report(
        title=str(release),
        verdict=verdict,
        summary=_summary(role, verdict, last),
        role=role,
        endpoint=facts.of(deployed, Changed).endpoint if deployed else "",
        staging=facts.of(staged, Changed).endpoint if staged else "",
        id=release.id,
        release=release,
        metrics=_metrics(tested) if tested else (),
        gates=_gates(last),
        suites=_suites(tested, contained, verified),
        trained=trained,
        tested=tested,
        image=Image(digest=digest, tested=contained) if digest else None,
        verified=verified,
        evaluated=evaluated,
        approvals=_approvals(release, own),
        timeline=_timeline(own),
    )


def as_json(report: Report) -> str:
    """Return the report as one JSON text, for machines."""
    return digests.canonical_json(digests.plain(report)).decode()


def _verdict(last: Mapping[str, Record]) -> Verdict:
    verdicts = {record.evidence.verdict for record in last.values()}
    if "failed" in verdicts:
        return "failed"
    return "undecided" if "undecided" in verdicts or "test" not in last else "passed"


def _summary(role: str, verdict: Verdict, last: Mapping[str, Record]) -> str:
    place = f"It is {role} in production" if role else "It is not in production"
    if verdict == "passed":
        return f"{place}; every step that ran has passed."
    if "test" not in last and verdict == "undecided":
        return f"{place}; it has not been tested yet."
    blamed = [step for step, record in last.items() if record.evidence.verdict == verdict]
    return f"{place}; {verdict}: {', '.join(blamed)}."


def _metrics(tested: Tested) -> tuple[MetricLine, ...]:
    lines = []
    for name, value in tested.metrics.items():
        between = tested.differences.get(name, facts.Between())
        lines.append(
            MetricLine(
                name=name,
                release=value,
                champion=tested.champion.get(name),
                difference=between.estimate,
                low=between.low,
                high=between.high,
            )
        )
    return tuple(lines)


def _image(own: Sequence[Record]) -> tuple[str, Record | None]:
    """Return the digest of the last image, with the record of its own test in a container."""
    made = [one for one in own if one.evidence.step in ("containerize", "push-to-registry")]
    digest = facts.of(made[-1], Made).digest if made else ""
    return digest, latest(
        (one for one in own if one.evidence.saw.get("image") == digest), CONTAINER
    )


def _suites(
    tested: Tested | None, contained: Contained | None, verified: Verified | None
) -> tuple[SuiteRun, ...]:
    elsewhere = [
        msgspec.structs.replace(run, suite=f"{run.suite} {place}")
        for place, found in (("in a container", contained), ("on staging", verified))
        for run in (found.tests if found else ())
    ]
    return (*(tested.tests if tested else ()), *elsewhere)


def _gates(last: Mapping[str, Record]) -> tuple[GateLine, ...]:
    judged = {step: facts.of(last[step], Judged) for step in GATES if step in last}
    return tuple(
        GateLine(
            name=step,
            verdict=last[step].evidence.verdict,
            reasons=found.reasons or ((found.reason,) if found.reason else ()),
        )
        for step, found in judged.items()
    )


def _approvals(release: Release, own: Sequence[Record]) -> tuple[Approval, ...]:
    given = [(record, facts.of(record, Approved)) for record in standing(release, own)]
    return tuple(
        Approval(by=approved.by, comment=approved.comment, time=record.evidence.time)
        for record, approved in given
    )


def _timeline(own: Sequence[Record]) -> tuple[Moment, ...]:
    return tuple(
        Moment(
            step=record.evidence.step,
            verdict=record.evidence.verdict,
            time=record.evidence.time,
            seconds=facts.of(record, Changed).seconds,
            actor=record.evidence.actor,
        )
        for record in own
    )
