"""Claims: what a job that ran unreviewed code says of the release that it trained.

It arrives as records that the job itself wrote, which are data from elsewhere: their digests show
that they are whole, not that they are true. `check` says whether they may be recorded at all. They
are recorded under names of their own, which no gate looks for.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

import msgspec

from mlship.domain import checks, digests, home, shapes
from mlship.domain.evidence import Claim, Record, Step
from mlship.domain.facts import Claimed, Tested, Trained
from mlship.domain.release import Release
from mlship.errors import IntegrityError

CLAIMED: Final[Mapping[Step, Claim]] = MappingProxyType(
    {"train": "unreviewed/train", "test": "unreviewed/test"}
)
"""The steps that such a job may claim, and the names under which they are recorded."""

BYTES_MOST: Final = 100_000
"""Of one claim in the ledger."""

_HINT: Final = "nothing of it was recorded; the next push of the branch hands over a new one"


def check(records: Sequence[Record], *, name: str, own: str, commit: str) -> Release:
    """Return the release that records claim to be about, after a look at all of them.

    Args:
        records: that the job handed over.
        name: of the project.
        own: its home.
        commit: that the job was given to train, as the workflow itself knows it.

    Raises:
        IntegrityError: they are about anything else than a training and a test of one release of
            this project, made from this commit.
    """
    for record in records:
        _check_subject(record, name, own, commit)
        _check_verdict(record)
    claimed = {record.evidence.release for record in records}
    if len(claimed) != 1:
        raise refused(f"it is about {len(claimed)} releases, not one")
    if not any(record.evidence.step == "train" for record in records):
        raise refused("it has a test, and no training")
    return claimed.pop()


def claimed(record: Record, *, branch: str, run: str) -> Claimed:
    """Return what is recorded of a record that `check` has passed: its numbers, no more.

    Args:
        record: of `train` or `test`.
        branch: of the workflow run.
        run: the URL of its page.

    Raises:
        IntegrityError: the record is too large, or nested too deeply.
    """
    facts = shapes.read(record)
    value = Claimed(branch=branch, run=run)
    if isinstance(facts, Trained):
        value = msgspec.structs.replace(value, metrics=facts.metrics, params=facts.params)
    if isinstance(facts, Tested):
        value = msgspec.structs.replace(value, metrics=facts.metrics, checks=facts.checks)
    step = record.evidence.step
    try:
        size = len(digests.canonical_json(digests.plain(value)))
    except RecursionError as error:
        raise refused(f"{step} has parameters that are nested too deeply") from error
    if size > BYTES_MOST:
        raise refused(f"{step} has {size:,} bytes of metrics and parameters, more than allowed")
    return value


def is_known(record: Record, claim: Claimed, records: Sequence[Record]) -> bool:
    """Return whether a ledger has a claim already, or the same of a job of reviewed code.

    Two runs that say the same of a release, such as one for a push and one for its pull request,
    make one record.
    """
    new = record.evidence
    own = [known for known in records if known.evidence.release == new.release]
    if new.step == "train" and any(known.evidence.step == "train" for known in own):
        return True
    return any(
        known.evidence.step == CLAIMED[new.step]
        and known.evidence.verdict == new.verdict
        and _said(shapes.of(known, Claimed)) == _said(claim)
        for known in own
    )


def refused(reason: str) -> IntegrityError:
    """Return the error for evidence that another job handed over."""
    return IntegrityError(f"evidence of another job was refused: {reason}", hint=_HINT)


def _said(claim: Claimed) -> object:
    """Return what a claim says, without the run that said it, as a ledger gives it back."""
    return digests.plain(msgspec.structs.replace(claim, branch="", run=""))


def _check_subject(record: Record, name: str, own: str, commit: str) -> None:
    """Check what a record is about.

    Raises:
        IntegrityError: a job that ran unreviewed code may not claim it.
    """
    evidence = record.evidence
    release, step = evidence.release, evidence.step
    if step not in CLAIMED:
        may = " and ".join(CLAIMED)
        raise refused(f"it claims {step}, and a job that runs unreviewed code may claim {may}")
    if release.name != name:
        raise refused(f"{step} is about project {release.name[:80]!r}, and this one is {name}")
    if not evidence.home or not home.is_same(evidence.home, own):
        of = home.shown(evidence.home[:200])
        raise refused(f"{step} is about a project {of}; this one is {home.shown(own)}")
    if release.commit != commit:
        raise refused(f"{step} is about commit {release.commit[:12]!r}, and {commit[:12]} was run")
    for part, digest in release.parts.items():
        try:
            digests.parse(digest)
        except IntegrityError as error:
            raise refused(f"{step} has no digest of its {part}: {error.message}") from error


def _check_verdict(record: Record) -> None:
    """Check that the facts of a record can be read, and that its verdict follows from them.

    Raises:
        IntegrityError: they cannot, or it does not.
    """
    evidence = record.evidence
    try:
        facts = shapes.read(record)
    except (IntegrityError, RecursionError) as error:
        raise refused(f"{evidence.step} has facts that cannot be read: {error}") from error
    verdict = "passed"
    if isinstance(facts, Tested):
        verdict = checks.decide(facts.checks).verdict
    if evidence.verdict != verdict:
        reason = f"{evidence.step} claims {evidence.verdict}, and its facts say {verdict}"
        raise refused(reason)
