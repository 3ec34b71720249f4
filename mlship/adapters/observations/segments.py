"""The lines of segments of the prediction log, each with its place, and whether it was changed."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec

from mlship.domain import lines
from mlship.errors import IntegrityError

_T = TypeVar("_T")
_HINT = "restore the file from a backup, or remove the line: then its prediction is lost"


class Line(NamedTuple):
    """A complete line of a file.

    Attributes:
        number: counted from 1.
        is_changed: it has another checksum than its text, or none where the lines before have one.
    """

    path: Path
    number: int
    text: bytes
    is_changed: bool = False

    @property
    def error(self) -> IntegrityError:
        """The error of a changed line."""
        message = f"{self.path}:{self.number} was changed: its text does not match its checksum"
        return IntegrityError(message, hint=_HINT)


def lines_of(segment: Path) -> Iterator[Line]:
    """Return the complete lines of a segment; former versions wrote lines without a checksum."""
    must_have = False
    for number, text in enumerate(complete_lines(segment), start=1):
        has = lines.has_checksum(text)
        is_changed = not lines.is_whole(text) if has else must_have
        must_have = must_have or has
        yield Line(segment, number, text, is_changed)


def complete_lines(path: Path) -> Iterator[bytes]:
    """Return the complete lines; an incomplete last line was never acknowledged."""
    try:
        with path.open("rb") as file:
            for line in file:
                if line.endswith(b"\n"):
                    yield line
    except FileNotFoundError:
        return


def decoded(decoder: "msgspec.json.Decoder[_T]", line: Line) -> _T:
    """Return what a line holds.

    Raises:
        IntegrityError: it was changed, or holds something else; the message has its place.
    """
    if line.is_changed:
        raise line.error
    try:
        return decoder.decode(line.text)
    except msgspec.MsgspecError as error:
        message = f"{line.path}:{line.number} is invalid: {error}"
        raise IntegrityError(message, hint="restore the file from a backup") from error
