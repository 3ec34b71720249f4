"""Folders that jobs hand over to each other, in the form of a ledger and a store in a directory."""

from pathlib import Path

from mlship import files
from mlship.adapters.ledgers import handover as ledgers
from mlship.domain import digests
from mlship.errors import ConfigError, UnavailableError
from mlship.steps.handover import Handover

read = ledgers.read


def write(handover: Handover, folder: Path, project: str) -> None:
    """Write what a job hands over to a folder, which another uses as its `.mlship`.

    Args:
        handover: the evidence, and the runs with their bundles.
        folder: it need not exist, and must be empty.
        project: the name of the project.

    Raises:
        ConfigError: the folder is not empty.
        UnavailableError: it cannot be written.
    """
    from mlship.adapters.stores.directory import DirectoryStore

    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise ConfigError(f"{folder} is not empty", hint="give --to a new folder")
        ledgers.write(handover.evidence, folder)
        if handover.about:
            # An artifact has at least one file.
            files.write_atomically(
                folder / "handover.json", digests.canonical_json(dict(handover.about))
            )
    except OSError as error:
        message = f"cannot write {error.filename or folder}: {error.strerror}"
        raise UnavailableError(message, hint="free disk space or give another folder") from error
    store = DirectoryStore(folder / "store", project)
    for run in handover.runs:
        store.record(run)
