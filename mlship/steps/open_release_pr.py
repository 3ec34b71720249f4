"""open-release-pr: open or update the pull request that merges a release into main."""

import re
from typing import Final

from mlship.domain import checkpoint, gates, shapes
from mlship.domain.evidence import Record, Step
from mlship.domain.facts import Proposed
from mlship.domain.pullrequest import Posted, PullRequest
from mlship.domain.records import Records
from mlship.domain.release import Release
from mlship.errors import RefusedError
from mlship.reports.publish import COMMENT_LIMIT, characters, fitted
from mlship.reports.report import Report, collect
from mlship.steps.ledger import sealed
from mlship.steps.pipeline import Pipeline

STEP: Final[Step] = "open-release-pr"
_SECTION = re.compile(
    r"<!-- mlship(?P<project> [a-z][a-z0-9-]*)?: begin -->.*?"
    r"<!-- mlship(?(project)(?P=project)): end -->",
    re.DOTALL,
)
"""The report of one project. Older versions of mlship did not name the project."""

_TITLE = re.compile(r"Release ((?:[a-z][a-z0-9-]*@[0-9a-f]+(?:, )?)+)")
_TITLE_LIMIT: Final = 256
_WRITES: Final = 3
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
    """Open the pull request `head` -> `base` with the release's report, or update it.

    Text that people wrote around the report is kept, and so is a title that they chose. If the
    report is unchanged, nothing is written. Projects of one repository share the pull request,
    with a section each. GitHub has no compare-and-set for its text, so the section is read back,
    and written again if another job replaced it at the same time.

    An invisible line of the section says, signed, what the ledger has, so that a promotion finds
    what is removed from it later.

    Args:
        pipeline: the project.
        release: the release to merge.
        head: the branch with the release, such as `develop`.
        base: the branch to merge into, such as `main`.
        run: the page of the CI run, to link to.
        records: the records that the command has read; by default the ledger is read.

    Returns:
        The evidence `open-release-pr`, and what was done to the pull request.

    Raises:
        RefusedError: a test has not passed, or there is nothing to merge.
        ConfigError: there is no token, or it may not open pull requests.
    """
    records = pipeline.read(records)
    _refuse_unproven(release, records)
    # Without the evidence of this step itself, a second run gives the same report.
    others = [record for record in records if record.evidence.step != STEP]
    report = collect(release, others, pipeline.occupied, pipeline.signatures.people)
    anchor = sealed(pipeline, others)
    mark = checkpoint.mark(release.name, anchor) if anchor else ""
    posted = _propose(pipeline, report, head, base, run=run, mark=mark)
    known = records.latest(STEP, release)
    if known and shapes.of(known, Proposed).url == posted.url:
        return known, posted
    facts = Proposed(url=posted.url, head=head, base=base)
    return pipeline.learn(release, STEP, "passed", facts, after=records), posted


def _propose(
    pipeline: Pipeline, report: Report, head: str, base: str, *, run: str, mark: str
) -> Posted:
    """Write a project's section and read it back; try a few times."""
    release = report.release
    begin, end = (f"<!-- mlship {release.name}: {place} -->" for place in ("begin", "end"))
    begin = f"{begin}\n{mark}" if mark else begin
    old = pipeline.forge.find(branch=head, base=base)
    writes: list[Posted] = []
    while len(writes) < _WRITES:
        before, after = _around(old.body if old else "", release.name)
        room = COMMENT_LIMIT - characters(before + after + begin + end)
        text = fitted(report, room, run=run)
        section = f"{begin}\n{text}{end}" if text else ""
        body = f"{before}{section}{after}"
        writes.append(pipeline.forge.open(head, base, _title(release, old), body))
        old = pipeline.forge.find(branch=head, base=base)
        if old is None or section in old.body.replace("\r\n", "\n"):
            break
    return writes[0]


def _refuse_unproven(release: Release, records: Records) -> None:
    for step in _NEEDED:
        check = gates.on_step(step, records.latest(step, release))
        if not check.holds:
            raise RefusedError(
                f"{release} is not ready for main: {check.text}",
                hint=f"run `mlship {step} {release}`; `mlship report {release}` has the reasons",
            )


def _title(release: Release, old: PullRequest | None) -> str:
    """Return our title with the releases of all projects, or the title that a person chose."""
    if old is None:
        return f"Release {release}"
    ours = _TITLE.fullmatch(old.title)
    if ours is None:
        return old.title
    names = {name.partition("@")[0]: name for name in ours[1].split(", ")}
    title = f"Release {', '.join((names | {release.name: str(release)}).values())}"
    return title if len(title) <= _TITLE_LIMIT else old.title


def _around(body: str, project: str) -> tuple[str, str]:
    """Return the text before and after a project's section."""
    text = body.replace("\r\n", "\n")
    sections = {(match["project"] or "").strip(): match for match in _SECTION.finditer(text)}
    section = sections.get(project) or sections.get("")
    if section:
        return text[: section.start()], text[section.end() :]
    return (f"{text.rstrip()}\n\n" if text.strip() else ""), ""
