"""The other projects around a project: above it, below it, and in the same repository."""

import shlex
from pathlib import Path

from mlship import files
from mlship.config import layers, projects
from mlship.domain.commit import named
from mlship.errors import ConfigError
from mlship.templates import names
from mlship.templates.site import CONFIG, Site

_LARGEST = 10_000_000
_SHOWN = 3


def warning(folder: Path, top: Path | None) -> str:
    """Return a warning for a new project inside or above other ones; else an empty text.

    Args:
        folder: of the project.
        top: the top folder of its repository.
    """
    here = folder.resolve()
    if (here / CONFIG).exists():
        return ""
    if inner := projects.below(here):
        folders = [shlex.quote(str(folder / each)) for each in inner[:_SHOWN]]
        which = "projects" if len(inner) > 1 else "project"
        return (
            f"this is a new project above the {which} in {named(inner)}; to update that one "
            f"instead: {' or '.join(f'`mlship init {each}`' for each in folders)}"
        )
    outer = _above(here, top)
    if outer is None:
        return ""
    return (
        f"this is a new project inside the project in {outer}; "
        "to update that one instead, run `mlship init` there"
    )


def _above(here: Path, top: Path | None) -> Path | None:
    for parent in here.parents if here != top else ():
        if (parent / CONFIG).is_file():
            return parent
        if parent == top:
            break
    return None


def names_of_others(site: Site) -> dict[str, str]:
    """Return the names of the repository's other projects, by their folders."""
    others = names.projects(site.present, site.inside)
    found = {other: _name_of(site.top / other / CONFIG) for other in others}
    return {other: name for other, name in found.items() if name}


def _name_of(settings: Path) -> str | None:
    """Return the name of another project; `None` if its settings cannot be read."""
    try:
        text = files.read_regular(settings, _LARGEST).decode("utf-8")
        values = layers.from_yaml(text, CONFIG).values
    except (OSError, UnicodeDecodeError, ConfigError):
        return None
    name = values.get("name")
    return name if isinstance(name, str) else None
