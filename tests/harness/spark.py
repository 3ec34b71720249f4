"""The real Spark, which is too large for the tests' own environment."""

import importlib.util
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from tests.harness.services import require


def environment() -> Mapping[str, str]:
    """Return variables with which Python finds pyspark; the test is skipped where there is none.

    It is looked for where TEST_SPARK says, a folder of `pip install --target`.
    """
    folder = os.environ.get("TEST_SPARK", "")
    found = (
        Path(folder, "pyspark").is_dir() if folder else bool(importlib.util.find_spec("pyspark"))
    )
    require("Spark", found, "pip install --target FOLDER pyspark==4.0.0, and set TEST_SPARK=FOLDER")
    require("Java", shutil.which("java") is not None, "install Java 17")
    paths = [folder, *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
