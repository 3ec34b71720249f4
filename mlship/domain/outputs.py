"""Outputs: the files that a training writes into the project, such as its model and its metrics.

They are kept with the release. Tests of the project read them, and must find them on a machine
that reuses the release.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Final

from mlship.domain import digests
from mlship.domain.digests import Digest

FOLDER: Final = "outputs"
"""Of the run of a release in the store."""

FILES_MOST: Final = 200
BYTES_MOST: Final = 1_000_000_000

_LEFT_OUT: Final = frozenset(
    (".git", ".mlship", "__pycache__", ".ipynb_checkpoints", "mlruns", "mlartifacts", "wandb")
)
"""Folders of tools, whose files say nothing to tests."""


def chosen(root: Path, written: Iterable[str]) -> tuple[dict[str, Path], str]:
    """Return the files that are kept, by their path in the project, and why others are not.

    Args:
        root: the project's folder.
        written: paths of files below it that a training wrote.
    """
    found: dict[str, Path] = {}
    size = 0
    top = root.resolve()
    for name in sorted(set(written)):
        path = root / name
        if not is_inside(name) or _LEFT_OUT & set(PurePosixPath(name).parts):
            continue
        if path.is_symlink() or not path.is_file() or not path.resolve().is_relative_to(top):
            continue
        found[name] = path
        size += path.stat().st_size
    if len(found) > FILES_MOST:
        return {}, f"training wrote {len(found)} files, and at most {FILES_MOST} are kept: none is"
    if size > BYTES_MOST:
        return {}, f"training wrote {size / 1e6:.0f} MB, more than is kept"
    return found, ""


def is_inside(name: str) -> bool:
    """Return whether a path can only be that of a file in the project."""
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts


def missing(root: Path, kept: Mapping[str, Digest]) -> list[str]:
    """Return the kept files that a project's folder does not have."""
    return [name for name in kept if is_inside(name) and not (root / name).exists()]


def digested(files: Mapping[str, Path]) -> dict[str, Digest]:
    """Return the digests of files, without those that are gone."""
    return {name: digests.of_file(path) for name, path in files.items() if path.is_file()}
