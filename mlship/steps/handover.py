"""export-evidence and import-evidence: what jobs hand over, where one of them is trusted with more.

A job that runs unreviewed code has no access to the shared ledger and store. One that runs none
hands it what it needs to compare its release with production, and another one records what it
says, as claims.
"""

import dataclasses
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from mlship.domain import claims, outputs, shapes
from mlship.domain.evidence import Claim, Evidence, Record, Step
from mlship.domain.facts import Claimed, Tested, Trained
from mlship.domain.job import Job
from mlship.domain.records import Records
from mlship.domain.release import Release
from mlship.domain.versions import Run
from mlship.errors import MlshipError
from mlship.reports.attachments import FOLDER as ATTACHMENTS
from mlship.reports.attachments import PLOTS
from mlship.steps.pipeline import Pipeline

_STAYS: Final[frozenset[Step]] = frozenset(
    ("approve", "withdraw-approval", "evaluate", *claims.CLAIMED.values())
)
"""Steps that stay where they are: names and comments of people, outcomes, claims."""

_NO_ARTIFACT: Final = re.compile(r'[":<>|*?\r\n]')
"""Characters that a file in an artifact may not have in its path."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Handover:
    """What one job hands over to another.

    Attributes:
        evidence: in order; in another place it is a chain of its own.
        runs: of the releases whose bundles go with it.
        about: what is in it, for people who open it; empty for none.
    """

    evidence: tuple[Evidence, ...] = ()
    runs: tuple[Run, ...] = ()
    about: Mapping[str, str] = dataclasses.field(default_factory=dict)


def for_commit(pipeline: Pipeline, records: Records, commit: str) -> Handover:
    """Return what a job needs that trains a commit, and reads neither ledger nor store.

    That is the champion with its bundle, the challenger, and the last release that a job of
    reviewed code has trained from the commit, which need not be trained again.

    Raises:
        NotFoundError: the store has not the bundle of one of them.
        UnavailableError: the store does not respond.
    """
    champion, challenger = records.history.champion, records.history.challenger
    made = [
        record.evidence.release
        for record in records
        if record.evidence.step == "train" and record.evidence.release.commit == commit
    ]
    own = made[-1] if made else None
    chosen = {champion, challenger, own}
    evidence = tuple(
        record.evidence
        for record in records
        if record.evidence.release in chosen and record.evidence.step not in _STAYS
    )
    runs = [
        Run(release=release, bundle=pipeline.bundle(release))
        for release in dict.fromkeys((champion, own))
        if release is not None
    ]
    if own is not None:
        runs.append(Run(release=own, files=_files(pipeline, records, own)))
    roles = {"champion": champion, "challenger": challenger, "release": own}
    about = {role: str(release) for role, release in roles.items() if release is not None}
    return Handover(evidence=evidence, runs=tuple(runs), about={"commit": commit, **about})


def of_release(release: Release, records: Records) -> Handover:
    """Return what a job that ran unreviewed code may claim of its release."""
    own = [record.evidence for record in records if record.evidence.release == release]
    return Handover(evidence=tuple(fact for fact in own if fact.step in claims.CLAIMED))


def record(
    pipeline: Pipeline, handed_over: Sequence[Record], records: Records, *, commit: str, job: Job
) -> list[Record]:
    """Record what a job that ran unreviewed code claims; return what was new.

    Everything is checked before anything is recorded. Of a step that ran several times, the last
    run counts. Actor and time are those of this command, and nothing else of the records than
    their numbers is kept.

    Args:
        pipeline: the project.
        handed_over: the records of the other job, untrusted.
        records: of the ledger.
        commit: that the other job was given to train, from this job's own workflow.
        job: this job.

    Raises:
        IntegrityError: they claim what such a job may not claim; nothing was recorded.
        UnavailableError: the ledger cannot be written.
    """
    release = claims.check(handed_over, name=pipeline.config.name, own=pipeline.home, commit=commit)
    last = {each.evidence.step: each for each in handed_over}
    new = {step: _claimed(last[step], job) for step in claims.CLAIMED if step in last}
    added: list[Record] = []
    for step, claim in new.items():
        if claims.is_known(last[step], claim, records):
            continue
        name: Claim = claims.CLAIMED[step]
        verdict = last[step].evidence.verdict
        added.append(pipeline.learn(release, name, verdict, claim, after=records))
        records = records.plus(added[-1])
    return added


def _claimed(handed_over: Record, job: Job) -> Claimed:
    return claims.claimed(handed_over, branch=job.branch, run=job.url)


def _files(pipeline: Pipeline, records: Records, release: Release) -> dict[str, Path]:
    """Return the files that the tests of a release read and its reports show, from the store."""
    trained, tested = records.latest("train", release), records.latest("test", release)
    names: list[str] = []
    if trained is not None:
        facts = shapes.of(trained, Trained)
        names += [f"{outputs.FOLDER}/{name}" for name in facts.outputs]
        names += [f"{ATTACHMENTS}{file.place}" for file in facts.attachments.files]
    if tested is not None:
        names += [f"{PLOTS}{name}" for name in shapes.of(tested, Tested).plots]
    top = pipeline.state / "handover"
    shutil.rmtree(top, ignore_errors=True)
    found: dict[str, Path] = {}
    fit = (name for name in names if outputs.is_inside(name) and not _NO_ARTIFACT.search(name))
    for number, name in enumerate(fit):
        try:
            folder = pipeline.store.fetch(release, top / str(number), files=[name])
            found[name] = folder / name
        except MlshipError as error:
            pipeline.progress.note(f"{name} of {release} is left out: {error.message}")
    return found
