"""The summary of a step in a GitHub job: `publishing.Summary`."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from mlship.errors import ConfigError, UnavailableError

LIMIT: Final = 1_048_576
"""Bytes; GitHub rejects a larger file.

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
        """Append the text of `render`, called with the free bytes; `None` if no space is left.

        Raises:
            ConfigError: the command does not run in a GitHub job.
            UnavailableError: the file cannot be written.
        """
        if self._path is None:
            raise ConfigError(
                "GITHUB_STEP_SUMMARY is not set: this is not a step of a GitHub job",
                hint="use `mlship report --markdown` to print the report",
            )
        try:
            used = self._path.stat().st_size if self._path.exists() else 0
            text = render(LIMIT - used - 1)
            if not text or used + 1 + len(text.encode()) > LIMIT:
                return None
            with self._path.open("a", encoding="utf-8") as file:
                # The existing text may end without a newline.
                file.write(f"\n{text}" if used else text)
        except OSError as error:
            raise UnavailableError(
                f"cannot write the step summary {self._path}: {error.strerror}",
                hint="run the command again in a new step",
            ) from error
        return self._path
