"""Pointers of DVC: which file or folder one stands for, and whether that is what is there.

The forms: https://dvc.org/doc/user-guide/project-structure/dvc-files. DVC 3 takes the MD5 of the
bytes; DVC 2, whose pointers have no field `hash`, that of text with LF line ends. The MD5 of a
folder is that of a manifest, which DVC keeps in its cache.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml

from mlship.errors import IntegrityError, ProjectError

SUFFIX: Final = ".dvc"
_FOLDER: Final = ".dir"
_CHUNK: Final = 1 << 20
_TESTED: Final = 512
_TEXT: Final = bytes(range(32, 127)) + b"\n\r\t\f\b"
_BINARY_SHARE: Final = 0.3


class Pointer(msgspec.Struct, frozen=True, kw_only=True):
    """What a `.dvc` file says.

    Attributes:
        file: the pointer itself.
        name: it, for people.
        target: the file or the folder that it stands for.
        md5: of the file, or of the folder's manifest.
        is_folder: whether it stands for a folder.
        is_legacy: whether DVC 2 made it.
    """

    file: Path
    name: str
    target: Path
    md5: str
    is_folder: bool
    is_legacy: bool

    def check(self, path: Path) -> None:
        """Check that the file, or the one in the folder, is what the pointer stands for.

        Raises:
            ProjectError: it is missing, or not in the folder.
            IntegrityError: it is another one.
        """
        shown = path.relative_to(self.file.parent).as_posix()
        if not path.is_file():
            message = f"data file {shown}, which {self.name} points to, is missing"
            raise ProjectError(message, hint=f"dvc pull {self.name}")
        if self._holds(path):
            return
        message = f"{shown} is not the file that {self.name} points to"
        keep = self.target.relative_to(self.file.parent).as_posix()
        hint = f"dvc checkout {self.name}, or dvc add {keep} to keep it"
        raise IntegrityError(message, hint=hint)

    def _holds(self, path: Path) -> bool:
        if not self.is_folder:
            return _md5(path, is_legacy=self.is_legacy) == self.md5
        manifest = self._manifest()
        if manifest is None:
            return self._md5_of_folder() == self.md5
        entry = manifest.get(path.relative_to(self.target).as_posix())
        return entry is not None and _md5(path, is_legacy=self.is_legacy) == entry

    def _manifest(self) -> dict[str, str] | None:
        """Return the MD5 of each file by its path, `None` where the cache does not have it."""
        begin, rest = self.md5[:2], self.md5[2:] + _FOLDER
        homes = (folder / SUFFIX for folder in self.file.parents)
        cache = next((home / "cache" for home in homes if home.is_dir()), None)
        if cache is None:
            return None
        for file in (cache / "files" / "md5" / begin / rest, cache / begin / rest):
            if file.is_file():
                data = file.read_bytes()
                if _hash(data) == self.md5:
                    return {entry["relpath"]: entry["md5"] for entry in json.loads(data)}
        return None

    def _md5_of_folder(self) -> str:
        paths = {path.relative_to(self.target).as_posix(): path for path in _below(self.target)}
        entries = [
            {"md5": _md5(paths[name], is_legacy=self.is_legacy), "relpath": name}
            for name in sorted(paths)
        ]
        return _hash(json.dumps(entries, sort_keys=True).encode())


def read(file: Path, name: str) -> Pointer:
    """Return what a pointer says.

    Raises:
        ProjectError: it is none.
    """
    try:
        outputs = yaml.safe_load(file.read_text("utf-8"))["outs"]
        entry: dict[str, Any] = outputs[0]
        path, md5 = str(entry["path"]), str(entry["md5"])
    except (yaml.YAMLError, KeyError, IndexError, TypeError, UnicodeDecodeError) as error:
        message = f"{name} is not a DVC pointer to a file or a folder"
        raise ProjectError(message, hint="make it with `dvc add`") from error
    return Pointer(
        file=file,
        name=name,
        target=file.parent / path,
        md5=md5.removesuffix(_FOLDER),
        is_folder=md5.endswith(_FOLDER),
        is_legacy="hash" not in entry,
    )


def pointer_to(root: Path, path: Path) -> Pointer | None:
    """Return the pointer beside a file of the project, or beside a folder that it lies in.

    Raises:
        ProjectError: a file of that name is no pointer.
    """
    for place in (path, *path.parents):
        if place == root or not place.is_relative_to(root):
            return None
        file = place.with_name(place.name + SUFFIX)
        if file.is_file():
            pointer = read(file, file.relative_to(root).as_posix())
            return pointer if path.is_relative_to(pointer.target) else None
    return None


def _below(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def _hash(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def _md5(path: Path, *, is_legacy: bool) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            is_text = is_legacy and _is_text(chunk[:_TESTED])
            digest.update(chunk.replace(b"\r\n", b"\n") if is_text else chunk)
    return digest.hexdigest()


def _is_text(block: bytes) -> bool:
    """Tell text as DVC 2 does: no zero byte, and at most 30 % of other bytes than ASCII's."""
    others = len(block.translate(None, _TEXT))
    return b"\0" not in block and others <= _BINARY_SHARE * len(block)
