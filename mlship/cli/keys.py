"""`mlship keys`: the keys that sign evidence here: new, show."""

from typing import TYPE_CHECKING, Annotated

import typer

from mlship.cli import output
from mlship.cli.session import session

if TYPE_CHECKING:
    from mlship.wire.signing import OwnKey

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Keys that sign evidence: new, show.",
)


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
    key = signing.own(config, wire.environment(), shared=shared)
    if as_pem:
        output.line(pem(key.public).rstrip())
        return
    if options.json:
        output.as_json(key)
        return
    output.line(f"records are signed with the key in {key.where}")
    output.line(f"trusted here as: {', '.join(key.trusted) or 'nobody, so they do not count'}")
    _show_entry(key)


def _show_entry(key: "OwnKey") -> None:
    output.line("to trust it, mlship.yaml needs:")
    output.line("trust:")
    output.line("  signers:")
    output.line(f'    {key.name}: {{key: "{key.public}"}}')
    output.line("with may: [build, staging], for example, it counts for these alone")
