"""Files shipped with mlship: in `_shipped` of the wheel, or beside the package in a checkout."""

from pathlib import Path

_PACKAGE = Path(__file__).parents[1]
_IGNORED = {"__pycache__", ".mlship", ".pytest_cache"}


def folder(name: str) -> Path:
    """Return the path of a shipped folder, such as `templates/project`."""
    packed = _PACKAGE / "_shipped" / name
    return packed if packed.is_dir() else _PACKAGE.parent / name


def files(name: str) -> dict[str, bytes]:
    """Return the files of a shipped folder by their paths in it, sorted."""
    source = folder(name)
    paths = {path.relative_to(source): path for path in sorted(source.rglob("*")) if path.is_file()}
    return {
        name.as_posix(): path.read_bytes()
        for name, path in paths.items()
        if not _IGNORED & set(name.parts)
    }
