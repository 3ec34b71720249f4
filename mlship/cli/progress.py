"""Progress on stderr: lines where nobody looks, a live view where somebody does."""

import sys
import time
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from rich.live import Live

from mlship.cli import actions
from mlship.domain.evidence import Record
from mlship.domain.job import inert
from mlship.reports.summary import summary

_SYMBOLS = {"passed": "✔", "failed": "✘", "undecided": "?"}


class Lines:
    """One line for each thing that happens, for logs and pipes.

    Args:
        folded: whether a GitHub runner reads them, which can fold what a step says.
    """

    def __init__(self, *, folded: bool = False) -> None:
        self._since = time.monotonic()
        self._folded = folded

    def __enter__(self) -> Self:
        """Begin to show."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop showing."""

    def note(self, text: str) -> None:
        """Print a step's note."""
        print(inert(f"  {text}"), file=sys.stderr, flush=True)  # noqa: T201

    def started(self, step: str) -> None:
        """Print that a step begins."""
        self._since = time.monotonic()
        started = actions.group(step) if self._folded else f"{step}: started"
        print(started, file=sys.stderr, flush=True)  # noqa: T201

    def finished(self, record: Record, *, reused: bool) -> None:
        """Print a step's verdict and how long it took."""
        took = "proven before" if reused else f"{time.monotonic() - self._since:.1f} s"
        evidence = record.evidence
        detail = summary(record)
        line = f"{evidence.step}: {evidence.verdict} ({took}){': ' if detail else ''}{detail}"
        if self._folded:
            print(actions.GROUP_END, file=sys.stderr, flush=True)  # noqa: T201
        print(inert(line), file=sys.stderr, flush=True)  # noqa: T201

    def skipped(self, step: str, why: str) -> None:
        """Print that a step is left out."""
        print(f"{step}: left out ({why})", file=sys.stderr, flush=True)  # noqa: T201


class View:
    """A table of the steps that moves, for a terminal."""

    def __init__(self, steps: tuple[str, ...]) -> None:
        self._rows: dict[str, tuple[str, str, str]] = dict.fromkeys(steps, ("", "", ""))
        self._since = time.monotonic()
        self._running = ""
        self._note = ""
        self._live: Live | None = None

    def __enter__(self) -> Self:
        """Begin to show."""
        from rich.console import Console
        from rich.live import Live

        self._live = Live(
            get_renderable=self._table, console=Console(stderr=True), refresh_per_second=8
        )
        self._live.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the last state on the screen."""
        self._running = ""
        if self._live:
            self._live.__exit__(None, None, None)

    def note(self, text: str) -> None:
        """Show a step's note beside it."""
        self._note = text

    def started(self, step: str) -> None:
        """Show that a step begins."""
        self._since, self._running, self._note = time.monotonic(), step, ""

    def finished(self, record: Record, *, reused: bool) -> None:
        """Show a step's verdict, its time, and where to click."""
        took = "before" if reused else f"{time.monotonic() - self._since:.1f} s"
        verdict = record.evidence.verdict
        self._rows[self._running] = (f"{_SYMBOLS[verdict]} {verdict}", took, summary(record))
        self._running = ""

    def skipped(self, step: str, why: str) -> None:
        """Show that a step is left out."""
        self._rows[step] = ("- left out", "", why)

    def _table(self) -> Any:
        from rich.spinner import Spinner
        from rich.table import Table

        table = Table(box=None, padding=(0, 2, 0, 0))
        for column in ("step", "verdict", "time", ""):
            table.add_column(column, style="bold" if column == "step" else None)
        colours = {"✔": "green", "✘": "red", "?": "yellow", "-": "dim"}
        for step, (verdict, took, detail) in self._rows.items():
            if step == self._running:
                elapsed = f"{time.monotonic() - self._since:.1f} s"
                table.add_row(
                    step, Spinner("dots", "running"), elapsed, f"[dim]{_plain(self._note)}"
                )
            elif verdict:
                colour = colours[verdict[0]]
                table.add_row(step, f"[{colour}]{verdict}", took, _plain(detail))
            else:
                table.add_row(f"[dim]{step}", "", "", "")
        return table


def _plain(text: str) -> str:
    return text.replace("[", r"\[")
