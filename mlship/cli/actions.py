"""Commands to a GitHub runner, in a job's log and files: outputs, groups, annotations.

Source: https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands
"""

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

from mlship.errors import UnavailableError

Level = Literal["notice", "warning", "error"]

GROUP_END: Final = "::endgroup::"


def annotation(level: Level, message: str, title: str = "mlship") -> str:
    """Return the line that adds a message to the run as an annotation."""
    return f"::{level} title={_property(title)}::{_data(message)}"


def group(title: str) -> str:
    """Return the line that starts a group of log lines, which `GROUP_END` ends."""
    return f"::group::{_data(title)}"


def set_outputs(path: Path, values: Mapping[str, str], delimiter: str | None = None) -> None:
    """Set outputs of the step. A value with several lines cannot set another output.

    Args:
        path: the file that GITHUB_OUTPUT names.
        values: by name; the names come from mlship, never from users.
        delimiter: ends each value; by default a random one.

    Raises:
        UnavailableError: the file cannot be written.
        ValueError: a value contains the delimiter.
    """
    end = delimiter or f"mlship-{secrets.token_hex(16)}"
    if any(end in value for value in values.values()):
        raise ValueError(end)
    text = "".join(f"{name}<<{end}\n{value}\n{end}\n" for name, value in values.items())
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise UnavailableError(
            f"cannot write the step's outputs to {path}: {error.strerror}",
            hint="set GITHUB_OUTPUT to a writable file, or unset it",
        ) from error


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
