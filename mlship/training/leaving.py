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
from typing import NoReturn


def leave(code: int) -> NoReturn:
    """Wait for threads, call what was registered for the end, write what files hold, and end."""
    # Tells pools of threads that no work comes, and waits for all threads that are not daemons.
    threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001 (there is no other way)
    atexit._run_exitfuncs()  # noqa: SLF001 (the same)
    _write_what_is_held()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _write_what_is_held() -> None:
    """Write to files that the user's code left open, as their end would do."""
    objects = gc.get_objects()
    # A text is above the buffer of its file.
    texts = [one for one in objects if isinstance(one, io.TextIOWrapper)]
    for file in (*texts, *(one for one in objects if isinstance(one, io.BufferedWriter))):
        # It may be closed, or read only, or its disk full: Python would only print that.
        with suppress(OSError, ValueError):
            file.flush()
