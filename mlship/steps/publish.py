"""report --publish: post a release's report as a comment or in a job's summary."""

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
    """The CI job that publishes, and the ports that it uses besides the pipeline's forge."""

    job: Job
    cml: Comments
    summary: Summary


class Published(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one way of publishing.

    Attributes:
        where: the comment's URL or the summary's file; empty if nothing was posted.
        change: what was done there; `None` if nothing was.
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

    A comment needs a pull request and a token with write access. If the branch has no pull request
    yet, or the job runs for a fork, the report goes to the job's summary instead; this is not an
    error. If the program of CML is missing or fails, mlship posts the same comment.

    Returns:
        A result for each way, in order; last, a summary that replaces a comment.

    Raises:
        ConfigError: there is no token, it may not comment, or no job shows a summary.
        UnavailableError: the forge does not respond.
    """
    report = collect(release, pipeline.read(records), pipeline.occupied)
    results: list[Published] = []
    for way in dict.fromkeys(ways):
        if way == "summary":
            results.append(_summarised(report, publishing))
        else:
            results.append(_commented(pipeline, report, way, publishing))
    is_replaced = any(result.change is None for result in results) and "summary" not in ways
    if is_replaced and publishing.job.summary is not None:
        results.append(_summarised(report, publishing))
    return results


def _commented(
    pipeline: Pipeline, report: Report, way: Literal["cml", "github"], publishing: Publishing
) -> Published:
    job = publishing.job
    number = job.pull
    if number is None:
        head = pipeline.source.commit()
        pull = pipeline.forge.find(branch=job.branch or head.branch, commit=job.commit or head.sha)
        if pull is None:
            return Published(way=way, note="no pull request is open for this commit")
        number = pull.number
    body = fitted(report, COMMENT_LIMIT, run=job.url)
    note = ""
    if way == "cml":
        try:
            posted = publishing.cml.comment(number, body)
        except MlshipError as error:
            posted = pipeline.forge.comment(number, body)
            note = f"posted by mlship instead of CML: {error.message}"
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
