"""The summary of a step in a GitHub job, a file that GitHub shows: `ports.Summary`."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from mlship.errors import ConfigError, UnavailableError

LIMIT: Final = 1_048_576
"""Bytes; GitHub drops a larger file whole.

Source: https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands
"""


class StepSummary:
    """Appends to the file that GITHUB_STEP_SUMMARY names.

    Args:
        path: the file; `None` outside of a job.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def append(self, render: Callable[[int], str]) -> Path | None:
        """Add what `render` makes of so many bytes of room; `None` where no room is left.

        Raises:
            ConfigError: no job runs that would show it.
            UnavailableError: the file cannot be written.
        """
        if self._path is None:
            raise ConfigError(
                "GITHUB_STEP_SUMMARY names no file: this is no step of a GitHub job",
                hint="`mlship report --markdown` prints the report",
            )
        try:
            used = self._path.stat().st_size if self._path.exists() else 0
            text = render(LIMIT - used - 1)
            if not text or used + 1 + len(text.encode()) > LIMIT:
                return None
            with self._path.open("a", encoding="utf-8") as file:
                # What was there may end in the middle of a line.
                file.write(f"\n{text}" if used else text)
        except OSError as error:
            raise UnavailableError(
                f"the step summary {self._path} cannot be written: {error.strerror}",
                hint="run the command again in a new step",
            ) from error
        return self._path
