"""What every store checks of a run before it records anything."""

from collections.abc import Iterable
from pathlib import Path

from mlship.domain.versions import Run
from mlship.errors import NotFoundError


def check_files(run: Run, more: Iterable[Path] = ()) -> None:
    """Check that the files of a run, and more, exist.

    Raises:
        NotFoundError: one does not.
    """
    for path in (*run.files.values(), *more):
        if not path.is_file():
            message = f"cannot record {run.release}: {path} does not exist"
            raise NotFoundError(message, hint="run `mlship train` first")
