"""The command guide: the pages of the guide and the reference, as shipped with this version."""

import difflib
import sys
from collections.abc import Mapping
from typing import Annotated, Final

import typer

from mlship.cli import output
from mlship.cli.session import session
from mlship.errors import NotFoundError

_PAGES: Final[Mapping[str, tuple[str, ...]]] = {
    "docs/guide": (
        *("first-promotion", "from-a-script", "your-own-model", "what-belongs-to-a-release"),
        *("clients", "when-it-fails", "github", "pull-requests", "monorepo", "without-a-server"),
        *("tracking-server", "docker", "kubernetes", "gke", "clusters", "predictions"),
        *("batch", "stream", "schedules", "personal-data", "api-keys", "signatures", "watching"),
        "load-test",
    ),
    "docs/reference": ("commands", "settings", "errors"),
}
"""The pages by their folders, in the order in which a newcomer reads them, as in the README."""


def guide(
    context: typer.Context,
    page: Annotated[
        str | None, typer.Argument(help="The name of a page. Default: list all pages.")
    ] = None,
) -> None:
    """Show a page of the guide or the reference.

    Example: mlship guide github
    """
    from mlship.templates import shipped

    options = session(context)
    texts = {
        name: (shipped.folder(folder) / f"{name}.md").read_text("utf-8")
        for folder, names in _PAGES.items()
        for name in names
    }
    if page is None:
        titles = {name: _title(text) for name, text in texts.items()}
        if options.json:
            output.as_json(titles)
        else:
            output.table("", ("page", "title"), list(titles.items()))
        return
    wanted = page.removesuffix(".md").rpartition("/")[2]
    if wanted not in texts:
        near = difflib.get_close_matches(wanted, texts, n=1)
        message = f"the guide has no page {page[:60]!r}"
        hint = f"`mlship guide {near[0]}`" if near else f"its pages are {', '.join(texts)}"
        raise NotFoundError(message, hint=hint)
    if options.json:
        output.as_json({"page": wanted, "text": texts[wanted]})
    elif sys.stdout.isatty():
        from rich.markdown import Markdown

        output.drawn(lambda console: console.print(Markdown(texts[wanted])))
    else:
        output.line(texts[wanted])


def _title(text: str) -> str:
    return text.partition("\n")[0].lstrip("# ")
