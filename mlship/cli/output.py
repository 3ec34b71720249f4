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

    from mlship.steps.restore import Standing

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
from mlship.domain.notation import visible
from mlship.errors import MlshipError, RefusedError
from mlship.reports.summary import summary


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


def record(result: Record, *, json: bool, refuse: bool = True) -> None:
    """Print the result of a step; in a GitHub job, also set outputs.

    The outputs are `release`, `verdict` and, if the step has them, `endpoint`, `reference` and
    `digest`.

    Raises:
        RefusedError: the verdict is not `passed` and `refuse` is set.
    """
    evidence, detail = result.evidence, summary(result)
    _set_outputs(result)
    details = _details(result)
    if refuse and evidence.verdict != "passed":
        if not json:
            for failure in _failures(result):
                line(f"  {failure}")
        raise RefusedError(
            f"{evidence.step} of {evidence.release}: {evidence.verdict}. {detail}".rstrip(". "),
            hint=f"run `mlship report {evidence.release}` for details",
            facts=details,
        )
    if json:
        as_json(details)
    else:
        line(f"{evidence.step} {evidence.release}: {evidence.verdict}. {detail}".strip())


def beside(result: Record, shadow: Record | None, *, json: bool) -> None:
    """Print what is published, and what a challenger answered in its shadow: one document as JSON.

    Raises:
        RefusedError: a verdict is not `passed`. If it is the shadow's, the message says that the
            other result stays published.
    """
    if shadow is None or result.evidence.verdict != "passed":
        record(result, json=json)
        return
    if shadow.evidence.verdict == "passed" and json:
        _set_outputs(result)
        as_json(_details(result) | {"shadow": _details(shadow)})
        return
    if not json:
        record(result, json=json)
    try:
        record(shadow, json=json)
    except RefusedError as error:
        _set_outputs(result)
        error.message = f"{error.message}; what {result.evidence.release} answered is published"
        error.facts = _details(result) | {"shadow": _details(shadow)}
        raise
    _set_outputs(result)


def _details(result: Record) -> dict[str, Any]:
    evidence = result.evidence
    return {
        "release": str(evidence.release),
        "step": evidence.step,
        "verdict": evidence.verdict,
        "facts": evidence.facts,
        "record": result.digest,
    }


def deployed(result: Record, found: "Standing | None", *, json: bool) -> None:
    """Print the result of a deployment to production; of a release that was there, what it has.

    Raises:
        RefusedError: the verdict is not `passed`.
    """
    if found is None:
        record(result, json=json)
        return
    release = str(result.evidence.release)
    set_outputs(release=release, verdict=result.evidence.verdict, endpoint=found.endpoint)
    if json:
        details = {"release": release, "step": "deploy-production", "verdict": "passed"}
        as_json({**details, "facts": found, "record": result.digest})
    else:
        line(f"deploy-production {release}: passed. {found}")


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


def _set_outputs(record: Record) -> None:
    release, verdict = str(record.evidence.release), record.evidence.verdict
    set_outputs(release=release, verdict=verdict, **_outputs(shapes.read(record)))


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
