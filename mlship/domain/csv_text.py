"""CSV as bytes that a reader gets block by block."""

import codecs
import io
from typing import Any


class WholeLineEnds(io.RawIOBase):
    r"""A file whose reads never end between the two characters of a CRLF.

    The readers of Arrow drop a line feed at the begin of a block if the block before ended with a
    carriage return. Within quotes, that changes a value (apache/arrow issue 51368).

    Args:
        file: has `read`; it is left open.
    """

    def __init__(self, file: Any) -> None:
        super().__init__()
        self._file = file
        self._held = b""

    def read(self, size: int = -1, /) -> bytes:
        """Return the next bytes; none at the end only."""
        data: bytes = self._file.read(size if size < 0 else max(1, size - len(self._held)))
        data = self._held + data
        self._held = b""
        if data == b"\r":
            data += self._file.read(1)
        if len(data) > 1 and data.endswith(b"\r"):
            self._held, data = data[-1:], data[:-1]
        return data

    def readable(self) -> bool:
        """Return that it is."""
        return True


class Utf8Text(io.RawIOBase):
    """A file of another encoding as UTF-8.

    Args:
        file: has `read`; it is left open.
        encoding: of the file.
    """

    def __init__(self, file: Any, encoding: str) -> None:
        super().__init__()
        self._file = file
        self._decoder = codecs.getincrementaldecoder(encoding)()
        self._waiting = b""
        self._is_over = False

    def read(self, size: int = -1, /) -> bytes:
        """Return the next bytes; none at the end only.

        Raises:
            UnicodeDecodeError: the file is not of that encoding.
        """
        while not self._is_over and (size < 0 or len(self._waiting) < size):
            data: bytes = self._file.read(size)
            self._is_over = not data
            self._waiting += self._decoder.decode(data, final=self._is_over).encode()
        end = len(self._waiting) if size < 0 else size
        taken, self._waiting = self._waiting[:end], self._waiting[end:]
        return taken

    def readable(self) -> bool:
        """Return that it is."""
        return True


def is_utf8(encoding: str) -> bool:
    """Return whether text of an encoding need not be converted."""
    return not encoding or codecs.lookup(encoding).name in ("utf-8", "utf-8-sig", "ascii")
