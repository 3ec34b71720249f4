"""`mlship ledger`: which records of the ledger count: verify, sign."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
import typer

from mlship.cli import output
from mlship.cli.options import group
from mlship.cli.session import session
from mlship.errors import ConfigError, IntegrityError, NotFoundError

if TYPE_CHECKING:
    from mlship.steps.ledger import Contents

_MOST: Final = 1_000_000
"""Bytes of a checkpoint."""

app = group("Check the ledger: verify, checkpoint, sign.")


@app.command("verify")
def verify(
    context: typer.Context,
    checkpoints: Annotated[
        list[Path] | None,
        typer.Option(
            "--checkpoint",
            metavar="FILE",
            help="Check that nothing is gone that `mlship ledger checkpoint` has seen. May be "
            "repeated.",
        ),
    ] = None,
    forget: Annotated[
        bool,
        typer.Option("--forget", help="Forget what this machine has seen of the ledger before."),
    ] = False,
) -> None:
    """Verify the chain of records and their signatures.

    Shows who signed them, and which do not count, with the reasons. The exit code is 7 if there
    are such, or if records are gone that this machine, a checkpoint or an image in production has
    seen.

    Example: mlship ledger verify
    """
    from mlship.steps import ledger as steps
    from mlship.steps.verify_image import check_anchors

    options = session(context)
    pipeline = options.pipeline(purpose="read")
    if forget:
        pipeline.signatures.memory.keep(())
    records = pipeline.look()
    found = steps.contents(pipeline, records)
    check_anchors(pipeline, records.history.players, records)
    for path in checkpoints or ():
        steps.compare(pipeline, records, _read(path))
    if options.json and not found.untrusted:
        output.as_json(found)
        return
    if not options.json:
        _show(found)
    if found.untrusted:
        count = len(found.untrusted)
        message = f"{count} records do not count" if count > 1 else "1 record does not count"
        raise IntegrityError(
            message,
            hint="if you wrote those without a signature, run `mlship ledger sign`; name other "
            "keys in `trust.signers`, or find out who can write to the ledger",
            facts=msgspec.structs.asdict(found),
        )


@app.command("checkpoint")
def checkpoint(context: typer.Context) -> None:
    """Print what the ledger has now, signed, to be kept where it cannot be changed with it.

    With it, `verify` finds that the newest records were removed, also on another machine.

    Example: mlship ledger checkpoint > checkpoint.json
    """
    from mlship.steps import ledger as steps

    pipeline = session(context).pipeline(purpose="read")
    output.json_text(steps.seal(pipeline).decode())


@app.command("sign")
def sign(
    context: typer.Context,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    gone: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DIGEST",
            help="A record that the ledger lacks since you restored it. May be repeated.",
        ),
    ] = None,
) -> None:
    """Take over records that nobody signed, such as those of a former version.

    Look at them first: from then on they count as if you had written them. A record in the ledger
    says who took them over. Records that are added without a signature later do not count.

    Example: mlship ledger sign
    """
    from mlship.cli import results
    from mlship.cli.status_view import described
    from mlship.domain.digests import parse
    from mlship.steps import ledger as steps
    from mlship.steps.ignored import Doubted

    options = session(context)
    pipeline = options.pipeline()
    records = pipeline.look()
    found = steps.unsigned(records)
    if found and not yes:
        for each in found:
            pipeline.progress.note(described(Doubted.of(each)))
        if not sys.stdin.isatty():
            message = f"{len(found)} records would be taken over, and nobody can be asked"
            raise ConfigError(message, hint="look at them, then run `mlship ledger sign --yes`")
        if not typer.confirm(f"take over these {len(found)} records?", err=True):
            pipeline.progress.note("nothing was taken over")
            raise typer.Exit(1)
    lacks = [parse(each) for each in gone or ()]
    results.record(steps.sign(pipeline, records, lacks), json=options.json)


def _read(path: Path) -> bytes:
    from mlship import files

    try:
        return files.read_regular(path, _MOST)
    except OSError as error:
        message = f"cannot read the checkpoint {path}: {error.strerror}"
        raise NotFoundError(message, hint="`mlship ledger checkpoint` prints one") from error


def _show(found: "Contents") -> None:
    from mlship.cli.status_view import described
    from mlship.domain import digests

    output.line(f"{found.records} records count, the chain is whole")
    for name, count in found.signed.items():
        output.line(f"  {count} signed by {name}")
    if found.unsigned:
        output.line(f"  {found.unsigned} not signed")
    if found.void:
        output.line(f"  {found.void} more are void: see `mlship status`")
    for each in found.untrusted:
        digest = digests.short(each.record)
        output.line(f"does not count: {described(each)} (record {digest}): {each.reason}")
