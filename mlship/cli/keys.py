"""`mlship keys`: the keys that sign evidence here: new, show, session."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlship.cli import output
from mlship.cli.options import group
from mlship.cli.session import session
from mlship.errors import IntegrityError, NotFoundError

if TYPE_CHECKING:
    from mlship.wire.signing import OwnKey

app = group("Keys that sign evidence: new, show, session.")


@app.command("new")
def new(context: typer.Context) -> None:
    """Make a key for this project, and print what mlship.yaml needs to trust it.

    The private key is a file outside of the repository, which only you can read. Jobs of a workflow
    get it as the secret MLSHIP_SIGNING_KEY. To replace a key, move its file, make a new one, and
    keep the former in `trust.signers` with `until`.

    Example: mlship keys new
    """
    from mlship import wire
    from mlship.wire import signing

    options = session(context)
    key = signing.new(options.resolved().config, wire.environment())
    if options.json:
        output.as_json(key)
        return
    output.line(f"wrote {key.where}; keep it secret, and keep a copy")
    _show_entry(key)
    output.line("for jobs of a workflow: gh secret set MLSHIP_SIGNING_KEY < " + key.where)


@app.command("show")
def show(
    context: typer.Context,
    as_pem: Annotated[
        bool, typer.Option("--pem", help="Print the public key in PEM, for tools such as cosign.")
    ] = False,
) -> None:
    """Show with which key records are signed here, and what mlship.yaml needs to trust it.

    Example: mlship keys show
    """
    from mlship import wire
    from mlship.domain.public_keys import pem
    from mlship.wire import signing
    from mlship.wire.backends import shares_ledger

    options = session(context)
    config = options.resolved().config
    shared = shares_ledger(config, options.root)
    key = signing.own(config, wire.environment(), options.root, shared=shared)
    if as_pem:
        output.line(pem(key.public).rstrip())
        return
    if options.json:
        output.as_json(key)
        return
    output.line(f"records are signed with the key in {key.where}")
    output.line(f"trusted here as: {', '.join(key.trusted) or 'nobody, so they do not count'}")
    if not key.ends:
        _show_entry(key)


@app.command("session")
def of_job(
    context: typer.Context,
    bundle: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Verify what GitHub attests of the key, the output `bundle-path` of "
            "actions/attest: from then on the key signs.",
        ),
    ] = None,
) -> None:
    """Make a key for this job of a GitHub workflow, so that it needs no secret.

    The private key is a file in the runner's folder for temporary files. The outputs of the step
    are `digest` and `predicate`: what the action actions/attest needs to attest whose key it is.
    Workflows of `mlship init` do all of this where `trust.signers` names a workflow.

    Example: mlship keys session --bundle "$BUNDLE"
    """
    from mlship import wire
    from mlship.wire import signing

    options = session(context)
    config, environment = options.resolved().config, wire.environment()
    if bundle is not None:
        signer = signing.keep_session(config, environment, options.root, _read(bundle))
        if options.json:
            output.as_json({"signer": signer.name, "key": signer.key, "may": sorted(signer.may)})
            return
        output.line(f"records of this job are signed as {signer.name}: {', '.join(signer.may)}")
        return
    key, predicate = signing.new_session(config, environment, options.root)
    output.set_outputs(digest=key.key, predicate=str(predicate))
    if options.json:
        output.as_json({"digest": key.key, "predicate": str(predicate)})
        return
    output.line(f"made the key {key.key} for this job; it signs once it is attested")


def _read(path: Path) -> str:
    from mlship import files
    from mlship.domain.identity import MOST

    hint = "give the output `bundle-path` of the step with actions/attest"
    try:
        return files.read_regular(path, MOST + 1).decode()
    except OSError as error:
        message = f"cannot read the bundle {path}: {error.strerror}"
        raise NotFoundError(message, hint=hint) from error
    except UnicodeDecodeError as error:
        raise IntegrityError(f"the file {path} is no bundle: it is not text", hint=hint) from error


def _show_entry(key: "OwnKey") -> None:
    output.line("to trust it, mlship.yaml needs:")
    output.line("trust:")
    output.line("  signers:")
    output.line(f'    {key.name}: {{key: "{key.public}"}}')
    output.line("with may: [build, staging], for example, it counts for these alone")
