"""Generated files: their texts, and whether somebody edited one since it was written."""

from codecs import BOM_UTF8
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from mlship.config.requirements import REQUIREMENTS
from mlship.templates import workflows

_IGNORED: Final = ".gitignore"

NEEDED: Final = (".dockerignore", _IGNORED, REQUIREMENTS)
"""The files that a project with an mlship.yaml gets besides the workflows."""

PIPELINE: Final = "pipeline.py"
MODULE_AND_TEST: Final = (PIPELINE, "tests/unit/test_pipeline.py")
"""The module of a new project and its test, for which a package of this name leaves no place."""

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


def beside_package(folder: Path, contents: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the files of a new project without the module that a package of its name rules out."""
    if not has_package(folder):
        return dict(contents)
    return {name: data for name, data in contents.items() if name not in MODULE_AND_TEST}


def has_package(folder: Path) -> bool:
    """Return whether a folder has modules in a folder with the name of `PIPELINE`."""
    return any((folder / PIPELINE.removesuffix(".py")).rglob("*.py"))
