"""Checks the quotes of CSV, which readers are lenient with: they lose rows, and say nothing.

A quote that is not closed takes all rows up to the next one into its field. So quotes must be as
RFC 4180 has them: one begins a field and another one ends it, and in between they are doubled.
Near a NUL, Arrow overlooks separators and line ends (apache/arrow issue 50481), so none is taken.
"""

from typing import Any, Final

import numpy as np

from mlship.errors import ProjectError

_QUOTE: Final = ord('"')
_CHUNK: Final = 4 << 20
_SHOWN: Final = 30
_MARK: Final = b"\xef\xbb\xbf"
_HINT: Final = 'put the whole field in quotes, and double those in it: "a 5"" pipe"'
_NO_NUL: Final = "remove the NUL characters; if the file is UTF-16, set data.read.encoding"


class QuoteCheck:
    """Checks one chunk of bytes after another, from the begin of a line on.

    Args:
        path: of the file, for the message.
        sep: between fields.
    """

    def __init__(self, path: str, sep: str) -> None:
        self._path = path
        ends = (*sep.encode(), *b"\r\n", _QUOTE)
        self._is_border = np.zeros(256, dtype=bool)
        self._is_border[list(ends)] = True
        self._before = ord("\n")
        self._last = b""
        self._is_first = True
        self._inside = False
        self._opened = b""

    def feed(self, data: bytes) -> None:
        """Check bytes.

        Raises:
            ProjectError: a quote is neither at the begin nor at the end of a field, or there is a
                NUL.
        """
        if (place := data.find(b"\0")) >= 0:
            around = data[max(0, place - _SHOWN) : place + _SHOWN]
            message = f"{self._path} has a NUL character, at {_shown(around)}"
            raise ProjectError(f"{message}; nothing was published", hint=_NO_NUL)
        for start in range(0, len(data), _CHUNK):
            self._feed(data[start : start + _CHUNK])

    def finish(self) -> None:
        """Check the end of the text.

        Raises:
            ProjectError: it is within quotes.
        """
        self._feed(b"\n", is_last=True)
        if self._inside:
            message = f"{self._path} ends within quotes, which begin at {_shown(self._opened)}"
            raise ProjectError(f"{message}; nothing was published", hint=_HINT)

    def _feed(self, data: bytes, *, is_last: bool = False) -> None:
        text = self._last + data
        if self._is_first and not is_last and len(text) < len(_MARK):
            self._last = text
            return
        if self._is_first:
            self._is_first = False
            text = text.removeprefix(_MARK)
        if not text:
            self._last = b""
            return
        # The last byte waits for the one after it.
        known = np.frombuffer(text, dtype="uint8")
        places = np.flatnonzero(known[:-1] == _QUOTE)
        if len(places):
            self._check(text, known, places)
            self._inside ^= bool(len(places) % 2)
        self._before = text[-2] if len(text) > 1 else self._before
        self._last = text[-1:]

    def _check(self, text: bytes, known: Any, places: Any) -> None:
        opens = (np.arange(len(places)) + self._inside) % 2 == 0
        before = known[places - 1]
        if places[0] == 0:
            before[0] = self._before
        neighbour = np.where(opens, before, known[places + 1])
        wrong = ~self._is_border[neighbour]
        if wrong.any():
            place = int(places[int(wrong.argmax())])
            around = text[max(0, place - _SHOWN) : place + _SHOWN]
            message = f"{self._path} has a quote within a field, at {_shown(around)}"
            raise ProjectError(f"{message}; nothing was published", hint=_HINT)
        if opens.any():
            last = int(places[opens][-1])
            self._opened = text[last : last + _SHOWN]


class CheckedText:
    """A file of CSV that is checked as it is read.

    Args:
        file: is read.
        check: of its bytes.
    """

    def __init__(self, file: Any, check: QuoteCheck) -> None:
        self._file = file
        self._check = check
        self.closed = False

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes.

        Raises:
            ProjectError: they have a quote in a wrong place.
        """
        data: bytes = self._file.read(size)
        if data:
            self._check.feed(data)
        elif size:
            self._check.finish()
        return data

    def readable(self) -> bool:
        """Return that it is."""
        return True

    def seekable(self) -> bool:
        """Return that it is not."""
        return False

    def writable(self) -> bool:
        """Return that it is not."""
        return False

    def close(self) -> None:
        """Leave the file open, which its opener closes."""
        self.closed = True


def _shown(data: bytes) -> str:
    return repr(data.decode("utf-8", "replace"))
