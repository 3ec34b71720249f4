"""Progress on stderr: lines in a log, a live view on a terminal."""

import errno
import sys
import time
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from rich.live import Live

from mlship.cli import actions
from mlship.domain.evidence import Record
from mlship.domain.job import inert
from mlship.domain.notation import visible
from mlship.reports.summary import summary

_SYMBOLS = {"passed": "✔", "failed": "✘", "undecided": "?"}


class Lines:
    """Prints one line for each event, for logs and pipes.

    Args:
        folded: whether to group the lines of a step, for a GitHub runner.
    """

    def __init__(self, *, folded: bool = False) -> None:
        self._since = time.monotonic()
        self._folded = folded

    def __enter__(self) -> Self:
        """Start showing progress."""
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing: every line has been printed."""

    def note(self, text: str) -> None:
        """Print a note of the step, unless the disk of the log is full."""
        try:
            print(inert(visible(f"  {text}")), file=sys.stderr, flush=True)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise

    def started(self, step: str) -> None:
        """Print that a step started."""
        self._since = time.monotonic()
        started = actions.group(step) if self._folded else f"{step}: started"
        print(started, file=sys.stderr, flush=True)

    def finished(self, record: Record, *, reused: bool) -> None:
        """Print the verdict of a step and its duration."""
        duration = "already done" if reused else f"{time.monotonic() - self._since:.1f} s"
        evidence = record.evidence
        detail = summary(record)
        line = f"{evidence.step}: {evidence.verdict} ({duration}){': ' if detail else ''}{detail}"
        if self._folded:
            print(actions.GROUP_END, file=sys.stderr, flush=True)
        print(inert(visible(line)), file=sys.stderr, flush=True)

    def skipped(self, step: str, reason: str) -> None:
        """Print that a step is skipped."""
        print(f"{step}: skipped ({reason})", file=sys.stderr, flush=True)


class View:
    """A live table of the steps, for a terminal."""

    def __init__(self, steps: tuple[str, ...]) -> None:
        self._rows: dict[str, tuple[str, str, str]] = dict.fromkeys(steps, ("", "", ""))
        self._since = time.monotonic()
        self._running = ""
        self._note = ""
        self._live: Live | None = None

    def __enter__(self) -> Self:
        """Start the live view."""
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
        """Show a note beside the running step."""
        self._note = text

    def started(self, step: str) -> None:
        """Show that a step started."""
        self._since, self._running, self._note = time.monotonic(), step, ""

    def finished(self, record: Record, *, reused: bool) -> None:
        """Show the verdict of a step, its duration and its links."""
        duration = "already done" if reused else f"{time.monotonic() - self._since:.1f} s"
        verdict = record.evidence.verdict
        self._rows[self._running] = (f"{_SYMBOLS[verdict]} {verdict}", duration, summary(record))
        self._running = ""

    def skipped(self, step: str, reason: str) -> None:
        """Show that a step is skipped."""
        self._rows[step] = ("- skipped", "", reason)

    def _table(self) -> Any:
        from rich.spinner import Spinner
        from rich.table import Table

        table = Table(box=None, padding=(0, 2, 0, 0))
        for column in ("step", "verdict", "time", ""):
            table.add_column(column, style="bold" if column == "step" else None)
        colours = {"✔": "green", "✘": "red", "?": "yellow", "-": "dim"}
        for step, (verdict, duration, detail) in self._rows.items():
            if step == self._running:
                elapsed = f"{time.monotonic() - self._since:.1f} s"
                table.add_row(
                    step, Spinner("dots", "running"), elapsed, f"[dim]{_plain(self._note)}"
                )
            elif verdict:
                colour = colours[verdict[0]]
                table.add_row(step, f"[{colour}]{verdict}", duration, _plain(detail))
            else:
                table.add_row(f"[dim]{step}", "", "", "")
        return table


def _plain(text: str) -> str:
    return text.replace("[", r"\[")
