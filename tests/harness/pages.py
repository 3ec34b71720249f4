"""Large pages of memory for a process that forks often.

A fork copies an entry for each page of memory that the process has, and removes it at its end: for
300 MB in pages of 4 kB that takes 30 ms of a processor, as long as `mlship status` itself.
"""

import ctypes
import re
from collections.abc import Iterator
from pathlib import Path

_MAPS = Path("/proc/self/maps")
_PAGE = 2 << 20
_COLLAPSE = 25
"""`MADV_COLLAPSE` of Linux 6.1, which earlier systems refuse."""
_ANONYMOUS = re.compile(r"(\w+)-(\w+) rw-p 00000000 00:00 0 +(?:\[heap\])?$", re.MULTILINE)


def collapse() -> None:
    """Put the memory of this process into large pages, where the system can."""
    if not _MAPS.exists():
        return
    advise = ctypes.CDLL(None).madvise
    for place in _places(_MAPS.read_text()):
        advise(ctypes.c_void_p(place), ctypes.c_size_t(_PAGE), _COLLAPSE)


def _places(maps: str) -> Iterator[int]:
    """Yield the addresses of large pages that lie in memory without a file."""
    for found in _ANONYMOUS.finditer(maps):
        first, end = (int(text, 16) for text in found.groups())
        yield from range(-(-first // _PAGE) * _PAGE, end - _PAGE + 1, _PAGE)
