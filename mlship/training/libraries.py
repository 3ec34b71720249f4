"""Libraries that only some trainings import, and that are compiled once for all of them."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def compiled() -> Iterator[None]:
    """Write the compiled files of what is imported here, unless Python was started not to.

    A job writes none, because those of the project would lie among the user's files. Import
    nothing but libraries here.
    """
    before = sys.dont_write_bytecode
    sys.dont_write_bytecode = bool(sys.flags.dont_write_bytecode)
    try:
        yield
    finally:
        sys.dont_write_bytecode = before
