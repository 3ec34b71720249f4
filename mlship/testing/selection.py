"""A pytest plugin: how many of the collected tests were deselected, by options or by a hook.

`mlship test` loads it, and reads the number from the file that `MLSHIP_SANITY_DESELECTED` names.
"""

import os
from collections.abc import Generator
from pathlib import Path
from typing import Final

import pytest

DESELECTED: Final = "MLSHIP_SANITY_DESELECTED"


@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Generator[None, None, None]:
    """Count what options such as `-k`, or hooks of the project, take away."""
    before = set(items)
    yield
    Path(os.environ[DESELECTED]).write_text(str(len(before.difference(items))))
