"""The real Apache Beam, which does not fit into the tests' own environment."""

import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.harness.services import require

_KEPT: Final = Path.home() / ".cache" / "mlship-beam" / "2.77.0"


def environment() -> Mapping[str, str]:
    """Return variables with which Python finds Beam; the test is skipped where there is none.

    It is looked for where TEST_BEAM says and where `.ci/beam` puts it.
    """
    folder = Path(os.environ.get("TEST_BEAM", _KEPT))
    is_there = (folder / "apache_beam").is_dir()
    is_there = is_there or importlib.util.find_spec("apache_beam") is not None
    require("Apache Beam", is_there, "run .ci/beam")
    # Before all else: its protobuf is another one than that of the tests' environment.
    paths = [str(folder), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
