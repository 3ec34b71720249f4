"""A report as a folder, which one job writes and another reads.

report.json         the evidence, for `read`
report.md           for people
plots/              pictures by mlship
attachments/        pictures of `report.include`

A picture's path in this folder is its name everywhere.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from mlship import files
from mlship.errors import IntegrityError, NotFoundError
from mlship.reports import markdown
from mlship.reports.report import Report, as_json, of_json

_JSON: Final = "report.json"
_MOST: Final = 4_000_000


def write(report: Report, pictures: Mapping[str, bytes], folder: Path) -> Path:
    """Write a report with its pictures, and return the Markdown file.

    Args:
        report: the report.
        pictures: by their path in the folder.
        folder: it need not exist.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in pictures.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        files.write_atomically(folder / name, content)
    files.write_atomically(folder / _JSON, as_json(report).encode())
    text = markdown.render(report, pictures={name: name for name in pictures})
    files.write_atomically(folder / "report.md", text.encode())
    return folder / "report.md"


def read(folder: Path) -> Report:
    """Return the report that a folder holds. It is data from elsewhere: its text is untrusted.

    It has no links to staging and production, which could lead anywhere.

    Raises:
        NotFoundError: there is none.
        IntegrityError: it is too large, or is no report of this version.
    """
    path = folder / _JSON
    try:
        content = files.read_regular(path, _MOST + 1)
    except OSError as error:
        raise NotFoundError(
            f"no report in {folder}: {path.name} cannot be read: {error.strerror}",
            hint="write it with `mlship report --to FOLDER`",
        ) from error
    if len(content) > _MOST:
        raise IntegrityError(
            f"{path} is larger than {_MOST / 1e6:g} MB", hint="nothing of it was posted"
        )
    return msgspec.structs.replace(of_json(content, path), staging="", endpoint="")
