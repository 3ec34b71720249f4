"""What goes to a forge: the command open-release-pr, and `report --publish`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, cast, get_args

import typer

from mlship.cli import output
from mlship.cli.making import ReleaseName
from mlship.cli.session import Session, session
from mlship.errors import ConfigError
from mlship.job import Way

if TYPE_CHECKING:
    from mlship.release import Release
    from mlship.steps.pipeline import Pipeline


def open_release_pr(
    context: typer.Context,
    release: ReleaseName = None,
    head: Annotated[str, typer.Option(help="The branch that has the release.")] = "develop",
    base: Annotated[str, typer.Option(help="The branch that it is to go to.")] = "main",
) -> None:
    """Open or update the pull request to main.

    It has the release's report. In a GitHub job the output `url` names it.

    Example: mlship open-release-pr
    """
    from mlship import job, wire
    from mlship.cli import actions
    from mlship.steps.open_release_pr import open_release_pr as open_step

    given = session(context)
    pipeline = given.pipeline()
    here = job.of(wire.environment())
    chosen = pipeline.release(release)
    found, posted = open_step(pipeline, chosen, head, base, run=here.url)
    if here.outputs is not None:
        actions.set_outputs(here.outputs, {"url": posted.url})
    if given.json:
        output.as_json(
            {"release": str(chosen), "url": posted.url, "change": posted.change}
            | {"record": found.digest}
        )
    else:
        output.line(f"{posted.url} ({posted.change})")


def publish_report(
    given: Session, pipeline: "Pipeline", release: "Release", names: Sequence[str]
) -> None:
    """Publish a release's report and say where it went.

    Raises:
        ConfigError: a name is no way of publishing.
    """
    from mlship import wire
    from mlship.steps.publish import publish

    ways = [_way(name) for name in names]
    publishing = wire.publishing(pipeline, wire.environment())
    done = publish(pipeline, release, ways, publishing)
    for one in done:
        if one.note and publishing.job.pull is not None:
            output.notice(f"the report of {release} was not posted: {one.note}")
    if given.json:
        output.as_json(done)
        return
    for one in done:
        where = f"{one.change}: {one.where}" if one.change else "not posted"
        output.line(f"{one.way}: {where}{f'; {one.note}' if one.note else ''}")


def _way(name: str) -> Way:
    if name not in get_args(Way):
        raise ConfigError(
            f"{name[:80]!r} is no way to publish a report",
            hint=f"one of {', '.join(get_args(Way))}",
        )
    return cast("Way", name)
