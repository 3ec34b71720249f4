"""A report: all evidence in the ledger about one release, structured."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final, NamedTuple, get_args

import msgspec

from mlship.domain import checks, digests, shapes
from mlship.domain.approvals import BY_NAME, Basis, how, standing
from mlship.domain.checks import Check
from mlship.domain.digests import Digest
from mlship.domain.evidence import Claim, Record, Step, Verdict
from mlship.domain.facts import (
    Between,
    Contained,
    Containerized,
    Deployed,
    Evaluated,
    GatePassed,
    Judged,
    Number,
    PushedImage,
    Staged,
    Tested,
    Trained,
    Verified,
)
from mlship.domain.history import History, fold, latest, overridden
from mlship.domain.override import Overridden
from mlship.domain.people import NOBODY, People
from mlship.domain.policy import Occupied
from mlship.domain.release import Release, is_name
from mlship.domain.shapes import Shape
from mlship.domain.suites import SuiteRun
from mlship.domain.watch import Watched
from mlship.errors import IntegrityError

GATES: Final[tuple[Step, ...]] = (
    "test",
    "test-container",
    "verify-staging-workload",
    "deploy-production",
    "evaluate",
    "watch",
    "batch",
    "promote/gate",
)
"""The steps with a gate, in the order of the pipeline."""


class MetricLine(msgspec.Struct, frozen=True, kw_only=True):
    """A metric on the held-out data: of the release, of the champion, and their difference."""

    name: str
    release: Number
    champion: Number = None
    difference: Number = None
    low: Number = None
    high: Number = None


class GateLine(msgspec.Struct, frozen=True, kw_only=True):
    """The decision of a gate: its checks, and a line of text for each."""

    name: Step
    verdict: Verdict
    reasons: tuple[str, ...]
    checks: tuple[Check, ...] = ()


class Approval(msgspec.Struct, frozen=True, kw_only=True):
    """The person who approved the release, the time, and their comment.

    Attributes:
        basis: what it is based on; with `name`, nothing verifies who it was.
    """

    by: str
    comment: str
    time: datetime
    basis: Basis = "name"

    @property
    def approver(self) -> str:
        """The person; for a name that nothing verifies, with a remark."""
        return self.by + BY_NAME if self.basis == "name" else self.by


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """The latest image of the release.

    Attributes:
        tested: the container test of this image; `None` if it was not tested.
        attached: the names of the documents at the image in the registry, such as `sbom`.
    """

    digest: Digest
    tested: Contained | None = None
    attached: tuple[str, ...] = ()


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """A record in the timeline; `seconds` is the step's duration, if known."""

    step: Step
    verdict: Verdict
    time: datetime
    seconds: Number
    actor: str


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The evidence about a release. A part is `None` or empty if its step has not run.

    Attributes:
        title: the release's name for people.
        verdict: `failed` if the last run of any step failed; `undecided` if one was undecided or
            the tests have not run; else `passed`.
        summary: one sentence with its role and the steps that did not pass.
        role: in production; empty if it has none.
        endpoint: the URL of production; empty if the release was not deployed there.
        staging: the URL of staging; empty if the release was not deployed there.
        production: what a merge of the release meets there: another challenger; empty for none.
        differing: the files that its training read and that the champion's read otherwise.
        override: by which it has more traffic than configured, if there is one.
    """

    title: str
    verdict: Verdict
    summary: str
    role: str
    endpoint: str
    id: str
    staging: str = ""
    production: str = ""
    release: Release
    metrics: tuple[MetricLine, ...] = ()
    gates: tuple[GateLine, ...] = ()
    suites: tuple[SuiteRun, ...] = ()
    trained: Trained | None = None
    differing: tuple[str, ...] = ()
    tested: Tested | None = None
    image: Image | None = None
    verified: Verified | None = None
    evaluated: Evaluated | None = None
    watched: Watched | None = None
    approvals: tuple[Approval, ...] = ()
    timeline: tuple[Moment, ...] = ()
    override: Overridden | None = None


class _Image(NamedTuple):
    digest: Digest
    record: Record | None
    attached: tuple[str, ...]

    def reported(self, tested: Contained | None) -> Image:
        """Return the image for the report, with its container test."""
        return Image(digest=self.digest, tested=tested, attached=self.attached)


_MEETS: Final[Mapping[Occupied, str]] = {
    "wait": "after the merge, this release waits for its place",
    "queue": "after the merge, this release queues up for its place",
    "replace": "after the merge, this release replaces it, and its outcomes are discarded",
    "refuse": "after the merge, this release is refused until it is promoted or retired",
}


def collect(
    release: Release,
    records: Sequence[Record],
    occupied: Occupied | None = None,
    people: People = NOBODY,
) -> Report:
    """Return the report of a release from all records of the ledger, oldest first.

    If a step ran several times, its last record counts.

    Args:
        release: the release.
        records: of the ledger.
        occupied: what a merge to main does while a challenger runs; `None` if it deploys nothing.
        people: whom `trust` names.

    Raises:
        IntegrityError: the facts of a record cannot be read.
    """
    own = [record for record in records if record.evidence.release == release]
    last = _last(own)
    trained = _facts(last, "train", Trained)
    tested = _facts(last, "test", Tested)
    image = _image(own)
    # The test of an earlier image does not apply to this one.
    last.pop("test-container", None)
    if image is not None and image.record is not None:
        last["test-container"] = image.record
    contained = _facts(last, "test-container", Contained)
    verified = _facts(last, "verify-staging-workload", Verified)
    deployed, staged = (
        _facts(last, "deploy-production", Deployed),
        _facts(last, "deploy-staging", Staged),
    )
    verdict = _verdict(last)
    history = fold(records)
    role = history.role(release)
    return Report(
        title=str(release),
        verdict=verdict,
        summary=_summary(role, verdict, last),
        role=role,
        endpoint=deployed.endpoint if deployed else "",
        staging=staged.endpoint if staged else "",
        production="" if role else _meets(history, occupied),
        id=release.id,
        release=release,
        metrics=_metrics(tested) if tested else (),
        gates=_gates(last),
        suites=_suites(tested, contained, verified),
        trained=trained,
        differing=_differing(trained, history.champion, records),
        tested=tested,
        image=image.reported(contained) if image else None,
        verified=verified,
        evaluated=_facts(last, "evaluate", Evaluated),
        watched=_facts(last, "watch", Watched),
        approvals=_approvals(release, own, people),
        timeline=_timeline(own),
        override=overridden(release, records),
    )


def _last(own: Sequence[Record]) -> dict[Step, Record]:
    """Return the last record of each step, without what unreviewed jobs claim."""
    claims = get_args(Claim)
    return {each.evidence.step: each for each in own if each.evidence.step not in claims}


def _differing(
    trained: Trained | None, champion: Release | None, records: Sequence[Record]
) -> tuple[str, ...]:
    """Return the files that a training read and that were others for the champion's training."""
    record = latest(records, "train", champion) if champion else None
    if trained is None or record is None:
        return ()
    before = shapes.of(record, Trained).opened.read
    read = trained.opened.read
    return tuple(sorted(path for path in read if read[path] != before.get(path)))


def _meets(history: History, occupied: Occupied | None) -> str:
    """Return what a merge of a release meets in production: the challenger that runs."""
    challenger, since = history.challenger, history.challenger_since
    if challenger is None or occupied is None:
        return ""
    if history.challenger_by == "rollback":
        return f"{challenger} was rolled back and gives way."
    began = f" since {since:%Y-%m-%d %H:%M} UTC" if since else ""
    return f"{challenger} is challenger{began}: {_MEETS[occupied]}."


def as_json(report: Report) -> str:
    """Return the report as one JSON text, for machines."""
    return digests.canonical_json(digests.plain(report)).decode()


def of_json(content: bytes, path: Path) -> Report:
    """Return the report of a text that `as_json` made.

    Args:
        content: data from elsewhere.
        path: of its file, for the message.

    Raises:
        IntegrityError: it is no report of this version, or its release has no valid name.
    """
    try:
        report = msgspec.json.decode(content, type=Report)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise IntegrityError(
            f"{path} is not a report: {error}", hint="write it with this version of mlship"
        ) from error
    if not is_name(report.release.name):
        raise IntegrityError(
            f"{path} is the report of a project without a valid name",
            hint="write it with `mlship report --to FOLDER`",
        )
    return report


def _facts(last: Mapping[Step, Record], step: Step, shape: type[Shape]) -> Shape | None:
    record = last.get(step)
    return shapes.of(record, shape) if record else None


def _verdict(last: Mapping[Step, Record]) -> Verdict:
    verdicts = {record.evidence.verdict for record in last.values()}
    if "failed" in verdicts:
        return "failed"
    return "undecided" if "undecided" in verdicts or "test" not in last else "passed"


def _summary(role: str, verdict: Verdict, last: Mapping[Step, Record]) -> str:
    place = f"It is {role} in production" if role else "It is not in production"
    if verdict == "passed":
        return f"{place}; every step that ran has passed."
    if "test" not in last and verdict == "undecided":
        return f"{place}; it has not been tested yet."
    steps: list[str] = [step for step, record in last.items() if record.evidence.verdict == verdict]
    return f"{place}; {verdict}: {', '.join(steps)}."


def _metrics(tested: Tested) -> tuple[MetricLine, ...]:
    lines = []
    for name, value in tested.metrics.items():
        between = tested.differences.get(name, Between())
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


def _image(own: Sequence[Record]) -> _Image | None:
    """Return the latest image, with the record of its container test."""
    digest, attached = Digest(""), tuple[str, ...]()
    for record in own:
        facts = shapes.read(record)
        if isinstance(facts, Containerized | PushedImage):
            digest = facts.digest
            attached = tuple(facts.attached) if isinstance(facts, PushedImage) else ()
    if not digest:
        return None
    of_image = (record for record in own if record.evidence.saw.image == digest)
    tested = latest(of_image, "test-container")
    return _Image(digest=digest, record=tested, attached=attached)


def _suites(
    tested: Tested | None, contained: Contained | None, verified: Verified | None
) -> tuple[SuiteRun, ...]:
    elsewhere = [
        msgspec.structs.replace(run, suite=f"{run.suite} {place}")
        for place, facts in (("in a container", contained), ("on staging", verified))
        for run in (facts.tests if facts else ())
    ]
    return (*(tested.tests if tested else ()), *elsewhere)


def _gates(last: Mapping[Step, Record]) -> tuple[GateLine, ...]:
    return tuple(_gate(step, last[step]) for step in GATES if step in last)


def _gate(step: Step, record: Record) -> GateLine:
    facts, verdict = shapes.read(record), record.evidence.verdict
    match facts:
        case Judged() | Deployed() | GatePassed():
            lines = tuple(map(checks.line, facts.checks))
            return GateLine(name=step, verdict=verdict, reasons=lines, checks=facts.checks)
        case Evaluated() | Watched():
            reasons = (facts.reason,) if facts.reason else ()
            return GateLine(name=step, verdict=verdict, reasons=reasons)
        case _:
            return GateLine(name=step, verdict=verdict, reasons=())


def _approvals(release: Release, own: Sequence[Record], people: People) -> tuple[Approval, ...]:
    return tuple(
        Approval(
            by=approved.by,
            comment=approved.comment,
            time=record.evidence.time,
            basis=how(record, approved, people),
        )
        for record, approved in standing(release, own, people)
    )


def _timeline(own: Sequence[Record]) -> tuple[Moment, ...]:
    return tuple(
        Moment(
            step=record.evidence.step,
            verdict=record.evidence.verdict,
            time=record.evidence.time,
            seconds=shapes.seconds(record),
            actor=record.evidence.actor,
        )
        for record in own
    )
