"""Generated files: their texts, and whether somebody edited one since it was written."""

from codecs import BOM_UTF8
from typing import Final

from mlship.config.requirements import REQUIREMENTS
from mlship.templates import workflows

_IGNORED: Final = ".gitignore"

NEEDED: Final = (".dockerignore", _IGNORED, REQUIREMENTS)
"""The files that a project with an mlship.yaml gets besides the workflows."""

FORMER = {
    REQUIREMENTS: (
        "mlship[all]\nscikit-learn\npandas\n",
        "mlship[all]\npandas\nscikit-learn\n",
    ),
    _IGNORED: (".mlship/\n.venv/\n__pycache__/\n",),
}
"""Unedited texts from former versions, of files that are not signed."""


def text_of(data: bytes) -> str:
    """Return the text of a file without a byte order mark, and with git's line ends."""
    return data.removeprefix(BOM_UTF8).decode("utf-8", "surrogateescape").replace("\r\n", "\n")


def data_of(text: str, like: bytes) -> bytes:
    """Return a text as a file, with the line ends that most lines of another file have."""
    if 2 * like.count(b"\r\n") > like.count(b"\n"):
        text = text.replace("\n", "\r\n")
    return text.encode("utf-8", "surrogateescape")


def is_untouched(name: str, text: str) -> bool:
    """Return whether a file is as a version of mlship wrote it."""
    return workflows.is_untouched(text) or text in FORMER.get(name, ())
