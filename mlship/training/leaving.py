"""How a job's process ends: as Python ends, without freeing what was imported.

To free it takes a third of the processor time of a small training: in a fork, each page of what
the server has imported is copied before its objects are freed.
"""

import atexit
import gc
import io
import os
import sys
import threading
from contextlib import suppress
from typing import Any, Final, NoReturn
from zipfile import ZipFile

_STDERR: Final = 2


def leave(code: int) -> NoReturn:
    """Wait for threads, call what was registered for the end, close files, and end."""
    # Tells pools of threads that no work comes, and waits for all threads that are not daemons.
    threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001 (there is no other way)
    atexit._run_exitfuncs()  # noqa: SLF001 (the same)
    _close_files()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _close_files() -> None:
    """Close what the user's code left open: some files only then get the last of their content."""
    files = [one for one in gc.get_objects() if isinstance(one, io.IOBase | ZipFile)]
    for file in sorted(files, key=_height, reverse=True):
        # It may be closed, or its disk full: Python would only print that.
        with suppress(Exception):
            below: Any = file.fp if isinstance(file, ZipFile) else file
            if below.fileno() > _STDERR:
                file.close()


def _height(file: io.IOBase | ZipFile) -> int:
    """Return a number by which what is written through another file is before that one.

    A text is above a buffer, and a compressed file or an archive above another file.
    """
    if isinstance(file, io.TextIOBase):
        return 2
    return 0 if isinstance(file, io.BufferedWriter | io.BufferedRandom | io.RawIOBase) else 1
