"""Pointers of DVC: which file or folder one stands for, and whether that is what is there.

The forms: https://dvc.org/doc/user-guide/project-structure/dvc-files. DVC 3 takes the MD5 of the
bytes; DVC 2, whose pointers have no field `hash`, that of text with LF line ends. The MD5 of a
folder is that of a manifest, which DVC keeps in its cache.
"""

import hashlib
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, Final

import msgspec

from mlship.errors import IntegrityError, ProjectError

SUFFIX: Final = ".dvc"
LOCK: Final = "dvc.lock"
"""The file with the outputs of the stages in dvc.yaml."""

_MD5: Final = re.compile(r"[0-9a-f]{32}")
_FOLDER: Final = ".dir"
_CHUNK: Final = 1 << 20
_TESTED: Final = 512
_TEXT: Final = bytes(range(32, 127)) + b"\n\r\t\f\b"
_BINARY_SHARE: Final = 0.3


class Pointer(msgspec.Struct, frozen=True, kw_only=True):
    """What a `.dvc` file says, or a `dvc.lock` of one output.

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
        shown = self._shown(path)
        if not path.is_file():
            message = f"data file {shown}, which {self.name} points to, is missing"
            raise ProjectError(message, hint=f"dvc pull {shlex.quote(self.name)}")
        if self._holds(path):
            return
        message = f"{shown} is not the file that {self.name} points to"
        pointer, target = shlex.quote(self.name), shlex.quote(self._shown(self.target))
        hint = f"dvc checkout {pointer}, or dvc add {target} to keep it"
        raise IntegrityError(message, hint=hint)

    def _shown(self, path: Path) -> str:
        """Return a path from where the pointer's name is from: the project's folder."""
        inner = path.relative_to(self.file.parent).as_posix()
        return (PurePosixPath(self.name).parent / inner).as_posix()

    def _holds(self, path: Path) -> bool:
        if not self.is_folder:
            return md5_of(path, is_legacy=self.is_legacy) == self.md5
        manifest = self._manifest()
        if manifest is None:
            return self._md5_of_folder() == self.md5
        entry = manifest.get(path.relative_to(self.target).as_posix())
        return entry is not None and md5_of(path, is_legacy=self.is_legacy) == entry

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
                    return manifest_of(data)
        return None

    def _md5_of_folder(self) -> str:
        paths = {path.relative_to(self.target).as_posix(): path for path in _below(self.target)}
        entries = [
            {"md5": md5_of(paths[name], is_legacy=self.is_legacy), "relpath": name}
            for name in sorted(paths)
        ]
        return _hash(json.dumps(entries, sort_keys=True).encode())


def read(file: Path, name: str) -> Pointer:
    """Return what a pointer says.

    Raises:
        ProjectError: it is none.
    """
    import yaml

    try:
        return _pointer(file, name, yaml.safe_load(file.read_text("utf-8"))["outs"][0])
    except (yaml.YAMLError, LookupError, TypeError, ValueError) as error:
        message = f"{name} is not a DVC pointer to a file or a folder"
        raise ProjectError(message, hint="make it with `dvc add`") from error


def _pointer(file: Path, name: str, entry: Any) -> Pointer:
    path, md5 = str(entry["path"]), str(entry["md5"])
    digest = md5.removesuffix(_FOLDER)
    if not is_md5(digest):
        raise ValueError(md5)
    return Pointer(
        file=file,
        name=name,
        target=file.parent / path,
        md5=digest,
        is_folder=md5.endswith(_FOLDER),
        is_legacy="hash" not in entry,
    )


def output_of(root: Path, path: Path) -> Pointer | None:
    """Return the output of a stage of DVC that a file of the project is, or lies in.

    Unlike data with a pointer, it may be made by the stage instead of DVC's storage.

    Raises:
        ProjectError: a dvc.lock cannot be read.
    """
    for place in path.parents:
        if not place.is_relative_to(root):
            return None
        file = place / LOCK
        if file.is_file():
            for pointer in _outputs(file, file.relative_to(root).as_posix()):
                if path.is_relative_to(pointer.target):
                    return pointer
    return None


def _outputs(file: Path, name: str) -> list[Pointer]:
    import yaml

    try:
        stages = yaml.safe_load(file.read_text("utf-8")).get("stages", {})
        outputs = [out for stage in stages.values() for out in stage.get("outs", ())]
        return [_pointer(file, name, out) for out in outputs if "md5" in out]
    except (yaml.YAMLError, LookupError, TypeError, ValueError, AttributeError) as error:
        message = f"{name} is not a lock file of DVC"
        raise ProjectError(message, hint="make it anew with `dvc repro`") from error


def is_md5(text: str) -> bool:
    """Return whether a text is an MD5 as DVC writes it."""
    return _MD5.fullmatch(text) is not None


def manifest_of(data: bytes) -> dict[str, str]:
    """Return the MD5 of each file of a folder by its path in it, from the folder's manifest."""
    return {str(entry["relpath"]): str(entry["md5"]) for entry in json.loads(data)}


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


def md5_of(path: Path, *, is_legacy: bool) -> str:
    """Return the MD5 of a file as DVC takes it; that of DVC 2 is of text with LF line ends."""
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
