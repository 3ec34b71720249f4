"""Commands by which jobs of a workflow hand evidence over: export-evidence, import-evidence."""

import re
from pathlib import Path
from typing import Annotated

import typer

from mlship.cli import output
from mlship.cli.options import ReleaseName
from mlship.cli.session import session
from mlship.errors import ConfigError

_COMMIT = re.compile(r"[0-9a-f]{40}")


def export_evidence(
    context: typer.Context,
    to: Annotated[Path, typer.Option("--to", metavar="FOLDER", help="A new folder.")],
    release: ReleaseName = None,
    commit: Annotated[
        str | None,
        typer.Option(
            metavar="SHA",
            help="Write what a job needs that trains this commit without access to the ledger: "
            "the champion and its bundle, the challenger, and the release of the commit.",
        ),
    ] = None,
) -> None:
    """Write evidence to a folder, for another job.

    Without --commit, this is the training and the tests of RELEASE, which `import-evidence` takes.
    With it, the folder is a ledger and a store: another job uses it as its .mlship, with
    ledger.kind and store.kind set to directory.

    Example: mlship export-evidence --to=handover
    """
    from mlship.steps import handover
    from mlship.wire import handover as folders

    options = session(context)
    pipeline = options.pipeline(purpose="read")
    records = pipeline.read()
    if commit is not None and release is not None:
        raise ConfigError(
            "RELEASE and --commit cannot be used together", hint="leave one of them out"
        )
    if commit is not None:
        written = handover.for_commit(pipeline, records, _checked(commit))
    else:
        written = handover.of_release(pipeline.release(release, records), records)
    folders.write(written, to, pipeline.config.name)
    releases = [str(run.release) for run in written.runs if run.bundle]
    if options.json:
        output.as_json({"records": len(written.evidence), "bundles": releases})
        return
    output.line(f"wrote {len(written.evidence)} records to {to}")
    for name in releases:
        output.line(f"wrote the bundle of {name}")


def import_evidence(
    context: typer.Context,
    source: Annotated[
        Path,
        typer.Option("--from", metavar="FOLDER", help="What `export-evidence` wrote elsewhere."),
    ],
    commit: Annotated[
        str,
        typer.Option(metavar="SHA", help="The commit that the other job was given to train."),
    ],
) -> None:
    """Record what a job that ran unreviewed code says.

    It is checked as data from a stranger, and recorded as unreviewed/train and unreviewed/test.
    No gate counts it, and no other step may be claimed. Nothing is recorded twice, or if the
    ledger is not shared.

    Example: mlship import-evidence --from=handover --commit=$(git rev-parse HEAD)
    """
    from mlship import wire
    from mlship.domain import job
    from mlship.steps import handover
    from mlship.wire import handover as folders

    options = session(context)
    pipeline = options.pipeline()
    commit = _checked(commit)
    handed_over = folders.read(source)
    added = []
    if pipeline.shares_ledger:
        added = handover.record(
            pipeline,
            handed_over,
            pipeline.read(),
            commit=commit,
            job=job.of(wire.environment()),
        )
    if options.json:
        output.as_json({"records": [record.digest for record in added]})
        return
    for record in added:
        evidence = record.evidence
        output.line(f"recorded {evidence.step} of {evidence.release}: {evidence.verdict}")
    if not pipeline.shares_ledger:
        output.line("nothing was recorded: the ledger is this machine's own")
    elif not added:
        output.line("nothing was recorded: the ledger has it already")


def _checked(commit: str) -> str:
    """Return a commit.

    Raises:
        ConfigError: it is not one by its full name.
    """
    if not _COMMIT.fullmatch(commit):
        raise ConfigError(
            f"--commit is not the full name of a commit: {commit[:80]!r}",
            hint="`git rev-parse HEAD` prints 40 hexadecimal digits",
        )
    return commit
