"""The projects in the folders below another one."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

SETTINGS: Final = "mlship.yaml"

LEFT_OUT: Final = frozenset(
    {"venv", "env", "node_modules", "site-packages", "build", "dist", "__pycache__"}
)
"""Folders of tools, which have no code or settings of a person."""

_DEEPEST: Final = 5
_MOST: Final = 5_000


def below(folder: Path) -> list[str]:
    """Return the folders of the projects below a folder, by their paths from it, sorted.

    Hidden folders, those of tools and those that are very deep are left out.
    """
    return sorted(_found(folder))


def _found(folder: Path) -> Iterator[str]:
    for number, (place, folders, names) in enumerate(os.walk(folder)):
        inside = Path(place).relative_to(folder)
        if number and SETTINGS in names:
            folders.clear()
            yield inside.as_posix()
        is_deep = len(inside.parts) >= _DEEPEST or number > _MOST
        folders[:] = [] if is_deep else [name for name in folders if _may_have(place, name)]


def _may_have(place: str, name: str) -> bool:
    return not (
        name.startswith(".") or name in LEFT_OUT or Path(place, name, "pyvenv.cfg").exists()
    )
