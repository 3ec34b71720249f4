"""The files outside of a project's folder that it depends on, for the paths of its workflows."""

import os
import posixpath
import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from mlship.config import commands, requirements
from mlship.config.project import Config
from mlship.config.requirements import REQUIREMENTS
from mlship.domain.commit import Repository
from mlship.domain.storage import NOTHING, Kept

_SEPARATORS = re.compile(r"[\s=,;'\"()]+")
_GLOB = re.compile(r"[*?\[]")


def patterns_of(
    config: Config, folder: str, kept: Kept = NOTHING, repository: Repository | None = None
) -> list[str]:
    """Return patterns of the files elsewhere in a repository that a project depends on.

    These are what its settings and its requirements.txt name, and where links lead.

    Args:
        config: of the project.
        folder: of the project, from the top of its repository.
        kept: what DVC keeps of its data.
        repository: that has the folder; `None` to look at no file.

    Raises:
        ConfigError: requirements.txt cannot be read.
    """
    top = repository.top if repository else None
    data = [name for name in (config.data.train, config.data.test, config.workload) if name]
    data += kept.pointers
    files = [name for name in data if "://" not in name]
    places = [place for name in files for place in _places((name, f"{name}.dvc"), folder)]
    # These two are from the top of the repository.
    settings = msgspec.structs.replace(
        config, workflows=msgspec.structs.replace(config.workflows, mlship=None, paths=())
    )
    texts = list(_texts(msgspec.to_builtins(settings)))
    named = [place for place in _places(_words(texts), folder) if place not in places]
    if top is not None:
        named += _of_requirements(top, folder)
    reached = [*places, *named]
    if repository is not None:
        reached += _behind_links(repository, folder, reached)
    scripts = _places(commands.sources_of(config.model.command or ""), folder)
    # Python finds the modules beside a script.
    modules = [f"{escaped(posixpath.dirname(place))}/*.py" for place in scripts if "/" in place]
    patterns = [pattern for place in reached for pattern in _patterns(top, place)]
    return list(dict.fromkeys([*patterns, *modules]))


def escaped(path: str) -> str:
    """Return a pattern of GitHub that matches this path only."""
    return re.sub(r"([\\*?+\[\]!])", r"\\\1", path)


def _patterns(top: Path | None, place: str) -> Iterator[str]:
    """Yield the patterns of a file or a folder: of both, if it may be either."""
    if place == ".":
        yield "**"
        return
    is_folder = top is not None and (top / place).is_dir()
    is_file = top is not None and (top / place).is_file()
    # For git, a link to a folder is a file, and so is a submodule.
    if not is_folder or _is_file_of_git(top, place):
        yield escaped(place)
    if is_folder or not (is_file or PurePosixPath(place).suffix):
        yield f"{escaped(place)}/**"
    yield from (escaped(up) for up in _above(place) if top is not None and _is_file_of_git(top, up))


def _is_file_of_git(top: Path | None, place: str) -> bool:
    return top is not None and ((top / place).is_symlink() or (top / place / ".git").exists())


def _above(place: str) -> list[str]:
    return [str(up) for up in PurePosixPath(place).parents if up != PurePosixPath()]


def _places(names: Iterable[str], folder: str) -> list[str]:
    """Return those of some paths in a folder that are outside of it, from the top."""
    normal = (posixpath.normpath(posixpath.join(folder, name)) for name in names)
    places = dict.fromkeys(
        place
        for place in normal
        if place not in ("..", folder) and not place.startswith((f"{folder}/", "../", "/"))
    )
    return list(places)


def _texts(value: Any) -> Iterator[str]:
    """Yield all texts of settings."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list | tuple):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _texts(part)


def _words(texts: Iterable[str]) -> Iterator[str]:
    """Yield what may be the path of something outside, such as in `python ../../train.py`.

    Of a glob, it is the folder of all that it can match.
    """
    for text in texts:
        for word in (text, *_SEPARATORS.split(text)):
            path = word.partition("::")[0]
            if ".." in path.split("/") and "://" not in path and "\n" not in path:
                glob = _GLOB.search(path)
                yield posixpath.dirname(path[: glob.start()]) if glob else path


def _of_requirements(top: Path, folder: str) -> list[str]:
    """Return the files outside that requirements.txt includes, and the folders it installs."""
    path = top / folder / REQUIREMENTS
    names = requirements.included(path)
    lines = requirements.read(path)
    words = [
        posixpath.join(base, re.sub(r"\[[^\]]*\]$", "", word))
        for line in lines
        for word in _words([line.text.replace("file:", " ")])
        for base in {"", posixpath.dirname(line.file)}
    ]
    installed = [place for place in _places(words, folder) if (top / place).exists()]
    return [*_places(names, folder), *installed]


def _behind_links(repository: Repository, folder: str, places: Iterable[str]) -> list[str]:
    """Return what is outside of the folder, and behind a link that is in it or in a place."""
    reached: list[str] = []
    waiting = [folder, *places]
    while waiting:
        place = waiting.pop()
        # A link to a folder around a place is on the way to it.
        links = (link for link in repository.links if _is_in(link, place) or _is_in(place, link))
        for target in (target for link in links for target in _targets(repository.top, link)):
            if target not in reached and target != ".." and not target.startswith(("../", "/")):
                reached.append(target)
                waiting.append(target)
    return [place for place in reached if not _is_in(place, folder)]


def _targets(top: Path, link: str) -> Iterator[str]:
    """Yield where a link leads from the top: by its own text, and behind all other links."""
    yield posixpath.normpath(posixpath.join(posixpath.dirname(link), os.readlink(top / link)))  # noqa: PTH115
    yield os.path.relpath(os.path.realpath(top / link), os.path.realpath(top))


def _is_in(place: str, folder: str) -> bool:
    return place == folder or place.startswith(f"{folder}/")
