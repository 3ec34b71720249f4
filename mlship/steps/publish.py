"""report --publish: put a release's report where people read it."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import msgspec

from mlship.domain.job import Job, Way
from mlship.domain.ports import Comments, Summary
from mlship.domain.pullrequest import Change
from mlship.domain.records import Records
from mlship.domain.release import Release
from mlship.errors import MlshipError
from mlship.reports.publish import COMMENT_LIMIT, fitted, octets
from mlship.reports.report import Report, collect
from mlship.steps.pipeline import Pipeline


@dataclasses.dataclass(frozen=True, kw_only=True)
class Publishing:
    """The job that publishes, and what it publishes with besides the pipeline's forge."""

    job: Job
    cml: Comments
    summary: Summary


class Published(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one way of publishing.

    Attributes:
        where: a comment's address or the summary's file; empty where nothing was posted.
        change: what was done there; `None` where nothing was.
        note: why it was posted in another way, or not at all.
    """

    way: Way
    where: str = ""
    change: Change | None = None
    note: str = ""


def publish(
    pipeline: Pipeline,
    release: Release,
    ways: Sequence[Way],
    publishing: Publishing,
    records: Records | None = None,
) -> list[Published]:
    """Publish the report of a release in each way, once.

    A comment needs a pull request and a token that may write. If the branch has no pull request
    yet, or the job is a fork's, the report goes to the job's summary instead; this is not an error.
    If CML's program is missing or fails, mlship posts the same comment itself.

    Returns:
        What became of each way, in their order; a summary that stood in for a comment at the end.

    Raises:
        ConfigError: there is no token, it may not comment, or no job shows a summary.
        UnavailableError: the forge does not answer.
    """
    report = collect(release, pipeline.read(records))
    done: list[Published] = []
    for way in dict.fromkeys(ways):
        if way == "summary":
            done.append(_summarised(report, publishing))
        else:
            done.append(_commented(pipeline, report, way, publishing))
    stands_in = any(one.change is None for one in done) and "summary" not in ways
    if stands_in and publishing.job.summary is not None:
        done.append(_summarised(report, publishing))
    return done


def _commented(
    pipeline: Pipeline, report: Report, way: Literal["cml", "github"], publishing: Publishing
) -> Published:
    job = publishing.job
    number = job.pull
    if number is None:
        here = pipeline.source.commit()
        found = pipeline.forge.find(branch=job.branch or here.branch, commit=job.commit or here.sha)
        if found is None:
            return Published(way=way, note="no pull request is open for this commit")
        number = found.number
    body = fitted(report, COMMENT_LIMIT, run=job.url)
    note = ""
    if way == "cml":
        try:
            posted = publishing.cml.comment(number, body)
        except MlshipError as error:
            posted = pipeline.forge.comment(number, body)
            note = f"posted by mlship itself: {error.message}"
    else:
        posted = pipeline.forge.comment(number, body)
    if posted.change is None:
        note = f"the token of a fork may not comment on pull request {number}"
    return Published(way=way, where=posted.url, change=posted.change, note=note)


def _summarised(report: Report, publishing: Publishing) -> Published:
    run = publishing.job.url
    path = publishing.summary.append(lambda room: fitted(report, room, run=run, measure=octets))
    if path is None:
        return Published(way="summary", note="the step's summary is full")
    return Published(way="summary", where=str(path), change="updated")
