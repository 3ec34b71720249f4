"""What `mlship init` writes: files of templates/, and of the example. Nothing is overwritten."""

from pathlib import Path

from mlship import digests
from mlship.config import json_schema
from mlship.errors import ConfigError

_PACKAGE = Path(__file__).parent
_IGNORED = {"__pycache__", ".mlship", ".pytest_cache"}

SCHEMA = ".mlship/schema.json"
"""Where the JSON schema for editors lies; the first line of mlship.yaml names it."""


def write(folder: Path, example: str | None) -> tuple[list[str], list[str]]:
    """Write the skeleton of a project, or a whole example, into a folder.

    Returns:
        The names of the files that were written, and of those that were there and stay.

    Raises:
        ConfigError: there is no such example.
        OSError: the folder cannot be written.
    """
    if example not in (None, "iris"):
        raise ConfigError(f"no example {example}", hint="there is one: mlship init --example iris")
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is no folder", hint="name a new folder, or an empty one")
    source = _source("iris_example" if example else "templates/project")
    written, kept = [], []
    for path in sorted(source.rglob("*")):
        name = path.relative_to(source).as_posix()
        if not path.is_file() or _IGNORED & set(path.relative_to(source).parts):
            continue
        place = folder / name
        if place.exists():
            kept.append(name)
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        digests.write_atomically(place, path.read_bytes())
        written.append(name)
    schema = folder / SCHEMA
    schema.parent.mkdir(parents=True, exist_ok=True)
    digests.write_atomically(schema, digests.canonical_json(json_schema()))
    return written, kept


def _source(name: str) -> Path:
    """Find shipped files: in the wheel under `_shipped`, in a checkout beside the package."""
    shipped = _PACKAGE / "_shipped" / name
    return shipped if shipped.is_dir() else _PACKAGE.parent / name
