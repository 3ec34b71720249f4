"""report --publish: post a release's report as a comment or in a job's summary."""

import dataclasses
from collections.abc import Mapping, Sequence

import msgspec

from mlship.domain.job import Job, Way
from mlship.domain.ports import Forge
from mlship.domain.publishing import Comments, Pictures, Summary
from mlship.domain.pullrequest import Change
from mlship.domain.records import Records
from mlship.domain.release import Release
from mlship.errors import MlshipError
from mlship.reports.publish import COMMENT_LIMIT, fitted, octets
from mlship.reports.report import Report, collect
from mlship.steps import pictures as files
from mlship.steps.pipeline import Pipeline


@dataclasses.dataclass(frozen=True, kw_only=True)
class Publishing:
    """The CI job that publishes, and the ports that it uses.

    Attributes:
        pictures: where pictures of comments are kept; `None` to post text only.
    """

    job: Job
    forge: Forge
    cml: Comments
    summary: Summary
    pictures: Pictures | None = None


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
    """Publish the report of a release in each way, once; see `post`.

    If nothing could be posted as a comment, the report goes to the job's summary instead.
    """
    report = collect(release, pipeline.read(records), pipeline.occupied, pipeline.signatures.people)
    job = publishing.job
    if job.pull is None and any(way != "summary" for way in ways):
        head = pipeline.source.commit()
        job = msgspec.structs.replace(
            job, branch=job.branch or head.branch, commit=job.commit or head.sha
        )
        publishing = dataclasses.replace(publishing, job=job)
    pictures = files.of_release(pipeline, report) if publishing.pictures else {}
    results = post(report, pictures, ways, publishing)
    is_replaced = any(result.change is None for result in results) and "summary" not in ways
    if is_replaced and job.summary is not None:
        results.append(_summarised(report, {}, publishing))
    return results


def post(
    report: Report, pictures: Mapping[str, bytes], ways: Sequence[Way], publishing: Publishing
) -> list[Published]:
    """Post a report in each way, once, for the pull request of the job's branch or commit.

    A comment needs a pull request and a token with write access. If there is no pull request, or
    the job runs for a fork, nothing is posted; this is not an error. If the program of CML is
    missing or fails, mlship posts the same comment. If pictures cannot be kept, it is text.

    Returns:
        A result for each way, in order.

    Raises:
        ConfigError: there is no token, it may not comment, or no job shows a summary.
        UnavailableError: the forge does not respond.
    """
    number: int | None = None
    urls: Mapping[str, str] = {}
    fault = ""
    if any(way != "summary" for way in ways):
        number = _pull(publishing)
        if number is not None:
            urls, fault = _kept(number, pictures, publishing)
    results: list[Published] = []
    for way in dict.fromkeys(ways):
        if way == "summary":
            results.append(_summarised(report, urls, publishing))
        elif number is None:
            results.append(Published(way=way, note="no pull request is open for this commit"))
        else:
            text = fitted(report, COMMENT_LIMIT, pictures=urls, run=publishing.job.url)
            results.append(_commented(number, text, way, publishing, fault))
    return results


def _pull(publishing: Publishing) -> int | None:
    job = publishing.job
    if job.pull is not None:
        return job.pull
    pull = publishing.forge.find(branch=job.branch, commit=job.commit)
    return pull.number if pull else None


def _kept(
    number: int, pictures: Mapping[str, bytes], publishing: Publishing
) -> tuple[Mapping[str, str], str]:
    """Return the URLs of the pictures, or why there are none: a report needs no pictures."""
    if publishing.pictures is None or not pictures:
        return {}, ""
    try:
        return publishing.pictures.keep(number, pictures), ""
    except MlshipError as error:
        return {}, error.message


def _commented(number: int, body: str, way: Way, publishing: Publishing, fault: str) -> Published:
    notes = []
    if way == "cml":
        try:
            posted = publishing.cml.comment(number, body)
        except MlshipError as error:
            posted = publishing.forge.comment(number, body)
            notes.append(f"by mlship instead of CML: {error.message}")
    else:
        posted = publishing.forge.comment(number, body)
    if fault:
        notes.append(f"without pictures: {fault}")
    note = f"posted {'; '.join(notes)}" if notes else ""
    if posted.change is None:
        note = f"the token of a fork may not comment on pull request {number}"
    return Published(way=way, where=posted.url, change=posted.change, note=note)


def _summarised(report: Report, urls: Mapping[str, str], publishing: Publishing) -> Published:
    run = publishing.job.url
    path = publishing.summary.append(
        lambda room: fitted(report, room, pictures=urls, run=run, measure=octets)
    )
    if path is None:
        return Published(way="summary", note="the step's summary is full")
    return Published(way="summary", where=str(path), change="updated")
