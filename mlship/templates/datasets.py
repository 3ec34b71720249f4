"""The files of data that a script names, or that lie in the folders of a repository."""

import re
from pathlib import Path
from typing import Final

from mlship.domain.outputs import is_inside
from mlship.templates.scripts import Script
from mlship.templates.sources import DATA, is_utf8
from mlship.templates.stages import locked

_NO_DATA: Final = re.compile(r"metric|report|result|predict|output|submission|score|params|history")
_HELD_OUT: Final = re.compile(r"test|valid|held|eval")


def named(folder: Path, script: Script | None) -> tuple[str, str]:
    """Return the files of training and of held-out data that a script names or a folder has.

    Outputs in dvc.lock count before they are pulled, too.
    """
    read = script.reads() if script else []
    named = [text for text in script.paths() if not _NO_DATA.search(text)] if script else []
    places = [folder / name for name in ("data", "datasets", "dataset", "data/raw", "input", ".")]
    present = [
        path.relative_to(folder).as_posix().removesuffix(".dvc")
        for place in places
        for path in (sorted(place.glob("*")) if place.is_dir() else ())
        if path.name.removesuffix(".dvc").endswith(DATA) and not _NO_DATA.search(path.name)
        if is_utf8(str(path.relative_to(folder))) and path.is_file()
    ]
    outputs = [name for name in locked(folder) if name.endswith(DATA)]
    known = [text for text in (*read, *named) if text.endswith(DATA)]
    known = [text for text in known if _is_there(folder, text) or text in outputs]
    later = [name for name in outputs if not _NO_DATA.search(Path(name).name)]
    known = list(dict.fromkeys([*known, *present, *later]))
    test = next((name for name in known if _HELD_OUT.search(Path(name).name)), "")
    rest = [name for name in known if name != test]
    train = next((name for name in rest if "train" in Path(name).name), rest[0] if rest else "")
    return train, test if train else ""


def _is_there(folder: Path, name: str) -> bool:
    return is_inside(name) and ((folder / name).is_file() or (folder / f"{name}.dvc").is_file())
