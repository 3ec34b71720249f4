"""The real Spark, which is too large for the tests' own environment."""

import importlib.util
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.harness.services import require

_KEPT: Final = Path.home() / ".cache" / "mlship-spark" / "4.0.0"


def environment() -> Mapping[str, str]:
    """Return variables with which Python finds pyspark; the test is skipped where there is none.

    It is looked for where TEST_SPARK says and where `.ci/spark` puts it.
    """
    folder = Path(os.environ.get("TEST_SPARK", _KEPT))
    is_there = (folder / "pyspark").is_dir() or importlib.util.find_spec("pyspark") is not None
    require("Spark", is_there, "run .ci/spark")
    require("Java", shutil.which("java") is not None, "install Java 17")
    paths = [str(folder), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
