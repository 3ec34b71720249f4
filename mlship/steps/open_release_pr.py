"""open-release-pr: open or update the pull request that brings a release to main."""

import re
from typing import Final

from mlship.domain import shapes
from mlship.domain.evidence import Record, Step
from mlship.domain.facts import Proposed
from mlship.domain.pullrequest import Posted, PullRequest
from mlship.domain.records import Records
from mlship.domain.release import Release
from mlship.errors import RefusedError
from mlship.reports.publish import COMMENT_LIMIT, characters, fitted
from mlship.reports.report import collect
from mlship.steps.pipeline import Pipeline

STEP: Final[Step] = "open-release-pr"
_BEGIN: Final = "<!-- mlship: begin -->"
_END: Final = "<!-- mlship: end -->"
_OURS = re.compile(re.escape(_BEGIN) + ".*?" + re.escape(_END), re.DOTALL)
_NEEDED: Final[tuple[Step, ...]] = ("test", "verify-staging-workload")


def open_release_pr(
    pipeline: Pipeline,
    release: Release,
    head: str,
    base: str,
    *,
    run: str = "",
    records: Records | None = None,
) -> tuple[Record, Posted]:
    """Open the pull request `head` -> `base` with the release's report, or bring it up to date.

    What people wrote around the report stays, and so does a title that they chose. Where nothing
    of the report has changed, nothing is written.

    Args:
        pipeline: the project.
        release: what the pull request is to bring.
        head: the branch that has it, `develop`.
        base: the branch that it goes to, `main`.
        run: the page of the CI run, to link to.
        records: what the command has read; by default the ledger is read.

    Returns:
        The evidence `open-release-pr`, and what was done to the pull request.

    Raises:
        RefusedError: a test has not passed, or there is nothing to bring.
        ConfigError: there is no token, or it may not open pull requests.
    """
    records = pipeline.read(records)
    _refuse_unproven(release, records)
    # The evidence of this step is left out: the second run would differ by that of the first.
    seen = [record for record in records if record.evidence.step != STEP]
    old = pipeline.forge.find(branch=head, base=base)
    before, after = _around(old.body if old else "")
    room = COMMENT_LIMIT - characters(before + after) - len(_BEGIN) - len(_END)
    report = fitted(collect(release, seen), room, run=run)
    body = f"{before}{_BEGIN}\n{report}{_END}{after}" if report else before + after
    posted = pipeline.forge.open(head, base, _title(release, old), body)
    known = records.latest(STEP, release)
    if known and shapes.of(known, Proposed).url == posted.url:
        return known, posted
    facts = Proposed(url=posted.url, head=head, base=base)
    return pipeline.learn(release, STEP, "passed", facts, after=records), posted


def _refuse_unproven(release: Release, records: Records) -> None:
    for step in _NEEDED:
        record = records.latest(step, release)
        verdict = record.evidence.verdict if record else "never run"
        if verdict != "passed":
            raise RefusedError(
                f"{release} is not ready for main: {step}: {verdict}",
                hint=f"run `mlship {step} {release}`; `mlship report {release}` shows why",
            )


def _title(release: Release, old: PullRequest | None) -> str:
    """Return our title, or the one that a person gave."""
    prefix = f"Release {release.name}@"
    if old and not old.title.startswith(prefix):
        return old.title
    return f"Release {release}"


def _around(body: str) -> tuple[str, str]:
    """Return what stands before and after our part of a text."""
    text = body.replace("\r\n", "\n")
    ours = _OURS.search(text)
    if ours:
        return text[: ours.start()], text[ours.end() :]
    return (f"{text.rstrip()}\n\n" if text.strip() else ""), ""
