"""Attachments: files of the project that its reports show, such as metrics.csv and plots.

All of it is data from elsewhere. A picture is one by its first bytes and its size, not by its name.
"""

import re
import struct
from pathlib import PurePosixPath
from typing import Final, Literal

import msgspec

from mlship.domain import outputs
from mlship.domain.digests import Digest

Kind = Literal["table", "text", "picture"]

KINDS: Final[dict[str, Kind]] = {
    ".csv": "table",
    ".tsv": "table",
    ".md": "text",
    ".txt": "text",
    ".json": "text",
    ".png": "picture",
    ".jpg": "picture",
    ".jpeg": "picture",
}
"""By the end of a file's name. SVG is not among them: it is a document that can contain scripts."""

FILES_MOST: Final = 10
"""Attachments of a release; pictures in a comment."""

PICTURE_MOST: Final = 1_000_000
"""Bytes of a picture."""

PICTURES_MOST: Final = 2_000_000
"""Bytes of all pictures in a comment."""

_SIDE_MOST: Final = 10_000
_PNG = b"\x89PNG\r\n\x1a\n"
_PLAIN = re.compile(r"\w[\w.-]*(/\w[\w.-]*)*", re.ASCII)
_UNNAMED = re.compile(r"[^A-Za-z0-9._-]+")


class Attachment(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A file that training wrote or the repository has, as it was when training ended.

    Path, cells and text are untrusted.

    Attributes:
        path: in the project, with `/`.
        size: in bytes.
        cells: the header and the first rows of a table, and of each the first columns.
        rows: of the table, without its header; `columns` likewise; both of the part that was read.
        text: the first lines of a text.
        is_cut: whether the file has more than is in `cells` or `text`.
    """

    path: str
    digest: Digest
    size: int
    cells: tuple[tuple[str, ...], ...] = ()
    rows: int = 0
    columns: int = 0
    text: str = ""
    is_cut: bool = False

    @property
    def place(self) -> str:
        """Its path in a folder of attachments, which stores and artifacts of jobs take.

        That is its path in the project, or its digest if the path has letters that some refuse.
        """
        if _PLAIN.fullmatch(self.path):
            return self.path
        end = PurePosixPath(self.path).suffix.lower()
        return f"{self.digest.removeprefix('sha256:')[:16]}{end}"

    @property
    def kind(self) -> Kind:
        """What it is shown as, by the end of its name."""
        return kind_of(self.path) or "text"


class Attachments(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The attachments of a release; `missing` says for people what is not among them, and why."""

    files: tuple[Attachment, ...] = ()
    missing: tuple[str, ...] = ()


def kind_of(path: str) -> Kind | None:
    """Return what a file is shown as; `None` if reports do not show such files."""
    return KINDS.get(PurePosixPath(path).suffix.lower())


def is_inside(pattern: str) -> bool:
    """Return whether a glob can only name files of the project."""
    return outputs.is_inside(pattern) and "\\" not in pattern


def fault_of_picture(content: bytes) -> str:
    """Return why a file is not shown as a picture; empty if it is a PNG or a JPEG of fair size."""
    if len(content) > PICTURE_MOST:
        return f"it is larger than {PICTURE_MOST / 1e6:g} MB"
    size = size_of_picture(content)
    if size is None:
        return "it is neither a PNG nor a JPEG"
    width, height = size
    if not 0 < width <= _SIDE_MOST or not 0 < height <= _SIDE_MOST:
        return f"it has {width} x {height} pixels"
    return ""


def size_of_picture(content: bytes) -> tuple[int, int] | None:
    """Return width and height in pixels by the header; `None` if it is no PNG or JPEG.

    Source: https://www.w3.org/TR/png-3/#11IHDR and ITU T.81, B.2.2 (frame header).
    """
    if content.startswith(_PNG):
        if content[12:16] != b"IHDR" or len(content) < 24:
            return None
        width, height = struct.unpack(">II", content[16:24])
        return width, height
    return _size_of_jpeg(content) if content.startswith(b"\xff\xd8\xff") else None


def _size_of_jpeg(content: bytes) -> tuple[int, int] | None:
    place = 2
    while place + 9 <= len(content) and content[place] == 0xFF:
        marker, length = content[place + 1], int.from_bytes(content[place + 2 : place + 4])
        # SOF0 to SOF15, without the three markers among them that begin no frame.
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", content[place + 5 : place + 9])
            return width, height
        place += 2 + max(length, 2)
    return None


def picture_name(path: str, content: bytes) -> str:
    """Return the name of a picture for a folder that others read: letters, digits, `.`, `_`, `-`.

    Its end is that of its contents.
    """
    end = ".png" if content.startswith(_PNG) else ".jpg"
    stem = _UNNAMED.sub("-", PurePosixPath(path).stem).strip("-.")[:60]
    return f"{stem or 'picture'}{end}"
