"""Files: written whole or not at all, and generated ones that tell whether a person edited them."""

import hashlib
import os
import re
from pathlib import Path


def signed(text: str, by: str) -> str:
    """Return a text below a line of comment that says what wrote it, with its digest.

    Args:
        text: of a file in which `#` begins a comment.
        by: what writes it, as `mlship init` in its quotes.
    """
    return f"{_head(by)}{_digest(text)}\n{text}"


def is_untouched(text: str, by: str) -> bool:
    """Tell whether a file is as something wrote it, be it of other settings."""
    made = re.match(re.escape(_head(by)) + r"([0-9a-f]{12})\n", text)
    return made is not None and made[1] == _digest(text[made.end() :])


def _head(by: str) -> str:
    return f"# Written by {by}; once edited, it is left alone. Digest: "


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def write_atomically(path: Path, data: bytes) -> None:
    """Put a file in place whole or not at all, on the disk when the call returns.

    A reader, and whoever comes after a kill at any byte, sees the old bytes or the new ones.

    Raises:
        OSError: the disk is full or the folder cannot be written; the old file stands.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        # A disk that is full does not say for which file.
        error.filename = error.filename or str(path)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable, where the system can (not on Windows)."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
