"""The installed source files of mlship that load and serve a bundle."""

from pathlib import Path
from typing import Final

_PACKAGE: Final = Path(__file__).parents[1]
_VALUES: Final = (
    "__init__.py",
    "errors.py",
    "files.py",
    "domain/__init__.py",
    "domain/api_keys.py",
    "domain/batch.py",
    "domain/batch_profile.py",
    "domain/batch_sides.py",
    "domain/batch_work.py",
    "domain/bundle.py",
    "domain/columns.py",
    "domain/csv_text.py",
    "domain/digests.py",
    "domain/lines.py",
    "domain/predicted.py",
    "domain/prediction.py",
    "domain/private.py",
    "domain/profiles.py",
    "domain/stream.py",
    "domain/stream_cluster.py",
    "domain/stream_faults.py",
)
"""The modules of mlship that mlship.runtime imports; tests/architecture checks the list."""


def of_runtime() -> dict[str, bytes]:
    """Return the source files by their path in the package, such as `runtime/model.py`."""
    paths = [_PACKAGE / name for name in _VALUES]
    paths += [
        path
        for path in sorted((_PACKAGE / "runtime").rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    ]
    return {path.relative_to(_PACKAGE).as_posix(): path.read_bytes() for path in paths}
