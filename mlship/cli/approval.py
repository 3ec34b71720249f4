"""The command approve: a person's approval of a release, or those of its pull request."""

from pathlib import Path
from typing import Annotated

import typer

from mlship.cli import output
from mlship.cli.options import FromPullRequest, ReleaseName
from mlship.cli.session import session
from mlship.errors import ConfigError


def approve(
    context: typer.Context,
    release: ReleaseName = None,
    by: Annotated[
        str | None,
        typer.Option(
            help="The email of the approver. Default: whose key signs, else git's user.email."
        ),
    ] = None,
    comment: Annotated[str, typer.Option(help="A comment to record.")] = "",
    number: FromPullRequest = None,
    key: Annotated[
        Path | None,
        typer.Option(
            help="Sign with this SSH key of the approver: a private key, or FILE.pub if ssh-agent "
            "has it."
        ),
    ] = None,
) -> None:
    """Record an approval of a release.

    It is valid for this release only, and the commit's author cannot approve. Where records are
    signed, an approval is one of the person whose key signs it; a name alone is enough only where
    `trust.names` says so. With --from-pull-request, reviews count if they approve this commit and
    the reviewer may push.

    Example: mlship approve challenger --key ~/.ssh/id_ed25519.pub
    """
    from mlship.cli import results
    from mlship.domain import shapes
    from mlship.domain.facts import Withdrawn
    from mlship.steps.approve import approve_by_hand, approve_from_pull_request

    options = session(context)
    if number is not None and (by or comment or key):
        message = "--from-pull-request cannot be used with --by, --comment or --key"
        raise ConfigError(message, hint="omit these; the approvers come from the reviews")
    pipeline = options.pipeline(key=key)
    if number is not None:
        records = pipeline.read()
        chosen = pipeline.release(release, records)
        result = approve_from_pull_request(pipeline, chosen, number, records)
        if options.json:
            output.as_json(result)
            return
        output.line(f"approve {chosen}: {result.count}, by {', '.join(result.people)}")
        for record in result.withdrawn:
            withdrawal = shapes.of(record, Withdrawn)
            output.line(f"  withdrawn: {withdrawal.by}: {withdrawal.reason}")
        for reason in result.left_out:
            output.line(f"  not counted: {reason}")
        return
    records = pipeline.read()
    chosen = pipeline.release(release, records)
    record = approve_by_hand(pipeline, chosen, by, comment, records=records)
    results.record(record, json=options.json)
