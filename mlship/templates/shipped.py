"""Files that travel with mlship: in the wheel in `_shipped`, in a checkout beside the package."""

from pathlib import Path

_PACKAGE = Path(__file__).parents[1]
_IGNORED = {"__pycache__", ".mlship", ".pytest_cache"}


def folder(name: str) -> Path:
    """Return where a shipped folder lies, such as `templates/project`."""
    packed = _PACKAGE / "_shipped" / name
    return packed if packed.is_dir() else _PACKAGE.parent / name


def files(name: str) -> dict[str, bytes]:
    """Return every file of a shipped folder by its path in it, sorted."""
    source = folder(name)
    found = {path.relative_to(source): path for path in sorted(source.rglob("*")) if path.is_file()}
    return {
        name.as_posix(): path.read_bytes()
        for name, path in found.items()
        if not _IGNORED & set(name.parts)
    }
