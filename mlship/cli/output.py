"""The one place that prints: results on stdout, errors on stderr, JSON where it is asked for."""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from rich.console import Console

from mlship.cli import actions
from mlship.domain import digests, shapes
from mlship.domain.evidence import Record
from mlship.domain.facts import (
    Contained,
    Containerized,
    Deployed,
    Facts,
    PushedImage,
    Staged,
    Tested,
    Verified,
)
from mlship.domain.job import inert
from mlship.errors import MlshipError, RefusedError
from mlship.reports.summary import summary


def as_json(value: Any) -> None:
    """Print a value as JSON, indented, with non-finite numbers as text."""
    json_text(msgspec.json.format(msgspec.json.encode(digests.plain(value)), indent=2).decode())


def json_text(text: str) -> None:
    """Print JSON. Its strings stay what they are, and are no commands to a GitHub runner."""
    print(text.replace("##[", r"##\u005b"))  # noqa: T201


def line(text: str) -> None:
    """Print one line of a result."""
    print(inert(text))  # noqa: T201


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; cells are data and hold no markup."""
    from mlship.reports import terminal

    drawn(lambda console: console.print(terminal.table(title, columns, rows)))


def drawn(draw: "Callable[[Console], None]") -> None:
    """Print what is drawn on a console; a cell that is wrapped may begin a line."""
    with (drawing := console()).capture() as captured:
        draw(drawing)
    print(inert(captured.get()), end="")  # noqa: T201


def console() -> "Console":
    """Return where tables are drawn: as wide as the terminal, or wide enough for a log."""
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=160)


def record(found: Record, *, json: bool, refuse: bool = True) -> None:
    """Print what a step learnt; in a GitHub job, set the step's outputs too.

    The outputs are `release`, `verdict` and, where the step tells them, `endpoint`, `reference` and
    `digest`.

    Raises:
        RefusedError: the verdict is not `passed` and `refuse` is set.
    """
    evidence, detail = found.evidence, summary(found)
    _set_outputs(found)
    known = {
        "release": str(evidence.release),
        "step": evidence.step,
        "verdict": evidence.verdict,
        "facts": evidence.facts,
        "record": found.digest,
    }
    if refuse and evidence.verdict != "passed":
        if not json:
            for failure in _failures(found):
                line(f"  {failure}")
        raise RefusedError(
            f"{evidence.step} of {evidence.release}: {evidence.verdict}. {detail}".rstrip(". "),
            hint=f"`mlship report {evidence.release}` shows all of it; mend it, then run again",
            facts=known,
        )
    if json:
        as_json(known)
    else:
        line(f"{evidence.step} {evidence.release}: {evidence.verdict}. {detail}".strip())


def notice(text: str) -> None:
    """Show something on the page of a GitHub job's run, which succeeds all the same."""
    if os.environ.get("GITHUB_ACTIONS") == "true":
        print(actions.annotation("notice", text), file=sys.stderr)  # noqa: T201


def _set_outputs(record: Record) -> None:
    path = os.environ.get("GITHUB_OUTPUT")
    if path:
        outputs = {"release": str(record.evidence.release), "verdict": record.evidence.verdict}
        actions.set_outputs(Path(path), outputs | _outputs(shapes.read(record)))


def _outputs(facts: Facts) -> dict[str, str]:
    """Return what the steps of a job after this one may need."""
    match facts:
        case Staged() | Verified() | Deployed():
            return {"endpoint": facts.endpoint}
        case Containerized() | PushedImage():
            return {"reference": facts.reference, "digest": facts.digest}
        case Contained():
            return {"reference": facts.reference}
        case _:
            return {}


def _failures(record: Record) -> list[str]:
    """Return a line for each test that failed and for each request that differed."""
    facts = shapes.read(record)
    match facts:
        case Tested():
            return [failure for run in facts.tests for failure in run.failures]
        case Contained() | Verified():
            failures = [failure for run in facts.tests for failure in run.failures]
            return [*failures, *facts.differences]
        case _:
            return []


def error(problem: MlshipError, *, json: bool, annotate: bool) -> None:
    """Print an error: what is wrong, then the next action; as an annotation for GitHub too."""
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
    print(inert(f"error: {problem.message}"), file=sys.stderr)  # noqa: T201
    if problem.hint:
        print(inert(f" next: {problem.hint}"), file=sys.stderr)  # noqa: T201
    if annotate:
        print(actions.annotation("error", problem.message), file=sys.stderr)  # noqa: T201
