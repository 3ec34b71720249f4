"""The only module that prints: results on stdout, errors on stderr, JSON if requested."""

import io
import os
import sys
from collections.abc import Callable, Sequence
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from rich.console import Console

from mlship.cli import actions
from mlship.domain import digests
from mlship.domain.job import inert
from mlship.domain.notation import visible
from mlship.errors import MlshipError


def escape_foreign() -> None:
    """Let stdout and stderr escape characters that their encoding does not have.

    A log may be in ASCII or Latin-1, and a file name may hold bytes that are no text.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def as_json(value: Any) -> None:
    """Print a value as JSON, indented, with non-finite numbers as text."""
    json_text(msgspec.json.format(msgspec.json.encode(digests.plain(value)), indent=2).decode())


def json_text(text: str) -> None:
    """Print JSON. Its strings stay unchanged, and a GitHub runner sees no commands in them.

    Characters that stdout does not have are written in JSON's own form.
    """
    text = text.replace("##[", r"##\u005b")
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        # Only strings hold them.
        text = "".join(char if char.isascii() else dumps(char)[1:-1] for char in text)
    print(text)


def line(text: str) -> None:
    """Print a line of a result."""
    print(inert(visible(text)))


def alarm(text: str) -> None:
    """Print a line of a result in red, if the terminal has colours."""
    from rich.text import Text

    shown = Text(visible(text), style="red")
    drawn(lambda console: console.print(shown, soft_wrap=True))


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; cells are plain text without markup."""
    from mlship.reports import terminal

    drawn(lambda console: console.print(terminal.table(title, columns, rows)))


def drawn(draw: "Callable[[Console], None]") -> None:
    """Print a drawing. It is made inert as a whole: a wrapped cell may start a line."""
    with (drawing := console()).capture() as captured:
        draw(drawing)
    print(inert(captured.get()), end="")


def console() -> "Console":
    """Return a console as wide as the terminal, or wide enough for a log."""
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=160)


def warning(text: str) -> None:
    """Print a warning on stderr."""
    print(inert(visible(f"warning: {text}")), file=sys.stderr)


def notice(text: str) -> None:
    """Add a notice to the page of a GitHub run, without failing it."""
    if os.environ.get("GITHUB_ACTIONS") == "true":
        print(actions.annotation("notice", text), file=sys.stderr)


def set_outputs(**outputs: str) -> None:
    """Set outputs of the step of a GitHub job."""
    if path := os.environ.get("GITHUB_OUTPUT"):
        actions.set_outputs(Path(path), outputs)


def error(problem: MlshipError, *, json: bool, annotate: bool) -> None:
    """Print an error and its hint; optionally also a GitHub annotation."""
    if json:
        as_json(
            {
                **problem.facts,
                "error": type(problem).__name__,
                "message": problem.message,
                "hint": problem.hint,
                "exit_code": problem.exit_code,
            }
        )
    print(inert(visible(f"error: {problem.message}")), file=sys.stderr)
    if problem.hint:
        print(inert(visible(f" next: {problem.hint}")), file=sys.stderr)
    if annotate:
        print(actions.annotation("error", problem.message), file=sys.stderr)
