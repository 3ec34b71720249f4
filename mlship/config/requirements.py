"""Requirements files as pip and uv read them: encodings, continued lines, files in files.

The format: https://pip.pypa.io/en/stable/reference/requirements-file-format/.
"""

import codecs
import configparser
import contextlib
import os
import re
import shlex
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import unquote, urlsplit

from mlship import files
from mlship.errors import ConfigError

REQUIREMENTS: Final = "requirements.txt"

_LARGEST: Final = 10_000_000
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    # Before UTF-16, whose little-endian mark is a prefix of this one.
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_CODING = re.compile(rb"coding[:=]\s*([-\w.]+)")
_ASCII = bytes(range(32, 127))
# pip accepts unambiguous abbreviations of options.
_OPTION = re.compile(r"(-r|-c|-e|--requirem\w*|--cons\w*|--ed\w*)(?:=(.*))?", re.DOTALL)
_GLUED = re.compile(r"-[rce](?=[^-=\s])")
_NAME = re.compile(r"([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)\s*(?=[\[@=<>!~;(,#\s]|$)")
_ARCHIVE = re.compile(r"(.+?)-\d[^-]*(?:-.*)?\.(?:whl|tar\.gz)$")
_SETUP = re.compile(r"\bname\s*=\s*[\"']([^\"']+)[\"']")


class Line(NamedTuple):
    """A requirement of a requirements file, or of a file that it includes.

    Attributes:
        file: the file's path from the project's folder.
        number: of the first line, if it is continued.
        text: without comments and without `-e`.
        is_constraint: whether it only limits versions, and installs nothing.
        is_editable: whether it is a folder or an address after `-e`, never a name.
        names: the distributions that it asks for, as far as can be known, normalised.
    """

    file: str
    number: int
    text: str
    is_constraint: bool = False
    is_editable: bool = False
    names: frozenset[str] = frozenset()


class _File(NamedTuple):
    path: Path
    name: str
    place: str  # the line that includes it, for messages
    is_constraint: bool


def read(path: Path, data: bytes | None = None) -> list[Line]:
    """Return the requirements of a file and its includes; an empty list if there is no file.

    Args:
        path: of the file.
        data: the content that it will have; `None` for the one that it has.

    Raises:
        ConfigError: a file is missing, too large, no regular file, or cannot be decoded; or an
            option cannot be parsed.
    """
    if not path.is_file():
        return []
    lines: list[Line] = []
    pending = [_File(path, path.name, "", is_constraint=False)]
    known: set[tuple[str, bool]] = set()
    while pending:
        file = pending.pop()
        key = (os.path.realpath(file.path), file.is_constraint)
        if key in known:
            continue
        known.add(key)
        bases = (path.parent, file.path.parent)
        is_given = data is not None and file.path == path
        for number, text in joined(decoded(data or b"", file.name) if is_given else _text_of(file)):
            place = f"{file.name}:{number}"
            requirements, included = _parsed(text, place)
            lines += [
                Line(
                    file=file.name,
                    number=number,
                    text=requirement,
                    is_constraint=file.is_constraint,
                    is_editable=text.startswith("-"),
                    names=names_of(requirement, bases),
                )
                for requirement in requirements
            ]
            for name, is_constraint in included:
                inner = file.path.parent / name
                shown = os.path.relpath(inner, path.parent)
                if "://" not in name:
                    pending.append(_File(inner, shown, place, file.is_constraint or is_constraint))
                elif not (file.is_constraint or is_constraint):
                    raise ConfigError(
                        f"{place}: {name} cannot be checked",
                        hint="copy the file into the repository and include it from there",
                    )
    return lines


def of_text(text: str, name: str = REQUIREMENTS) -> list[Line]:
    """Return the requirements of a text; included files are not read."""
    return [
        Line(
            file=name,
            number=number,
            text=requirement,
            is_editable=line.startswith("-"),
            names=names_of(requirement),
        )
        for number, line in joined(text)
        for requirement in _parsed(line, f"{name}:{number}")[0]
    ]


def decoded(data: bytes, name: str) -> str:
    """Return the text of a requirements file, decoded like pip in a UTF-8 locale.

    Raises:
        ConfigError: it cannot be decoded.
    """
    mark, encoding = next((pair for pair in _BOMS if data.startswith(pair[0])), (b"", ""))
    comments = [line for line in data.split(b"\n")[:2] if line.startswith(b"#")]
    declared = next((match[1] for line in comments if (match := _CODING.search(line))), b"utf-8")
    hint = "save it as UTF-8"
    encoding = encoding or declared.decode("ascii", "replace")
    try:
        # uv ignores the comment, so ASCII characters must be the same in both encodings.
        if not mark and _ASCII.decode(encoding, "replace") != _ASCII.decode("ascii"):
            raise ConfigError(f"{name}: encoding {encoding} is not supported", hint=hint)
        text = data[len(mark) :].decode(encoding)
    except LookupError as error:
        raise ConfigError(f"{name}: unknown encoding {encoding}", hint=hint) from error
    except UnicodeError as error:
        raise ConfigError(f"{name} is not valid {encoding.upper()}", hint=hint) from error
    if "\0" in text:
        raise ConfigError(f"{name} has NUL characters and is not {encoding.upper()}", hint=hint)
    return text


def joined(text: str) -> Iterator[tuple[int, str]]:
    """Yield numbered lines without comments and blanks; continued lines are joined."""
    start, partial = 0, ""
    for number, line in enumerate(text.splitlines(), start=1):
        start = start if partial else number
        partial += re.sub(r"(^|\s)#.*$", "", line)
        if partial.endswith("\\"):
            partial = partial[:-1]
            continue
        if partial.strip():
            yield start, partial.strip()
        partial = ""
    if partial.strip():
        yield start, partial.strip()


def names_of(text: str, bases: Sequence[Path] = ()) -> frozenset[str]:
    """Return the normalised names of the distributions of a requirement, as far as known.

    Args:
        text: a requirement, a URL, or the path of a folder or an archive.
        bases: folders that a path is relative to; without them, no folder is read.
    """
    head = re.split(r"\s--", text)[0].strip()
    is_address = re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", head) is not None
    named = None if is_address else _NAME.match(head)
    names = {named[1]} if named else set()
    for egg in re.findall(r"[#&]egg=([^&\[\s;]+)", head):
        names.add(re.split(r"-\d", unquote(egg))[0])
    # In a path, any semicolon starts a marker; in a URL, only a semicolon beside a space.
    end = r"[#?]|\s;|;\s" if "://" in head or is_address else r"[#;]"
    place = re.split(end, head.partition(" @ ")[2] or head)[0].strip()
    if archive := _ARCHIVE.match(unquote(place.rpartition("/")[2])):
        names.add(archive[1])
    if not named:
        path = unquote(urlsplit(place).path) if is_address else re.sub(r"\[[^\]]*\]$", "", place)
        if not is_address or place.startswith("file:"):
            names |= {name for base in bases for name in _provided(base / path)}
    return frozenset(map(normalised, names))


def normalised(name: str) -> str:
    """Return the normalised name of a distribution, for comparison."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _text_of(file: _File) -> str:
    place = f"{file.place}: " if file.place else ""
    try:
        data = files.read_regular(file.path, _LARGEST + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigError(
            f"{place}cannot read {file.name}: {reason}", hint="name a text file of requirements"
        ) from error
    if len(data) > _LARGEST:
        raise ConfigError(
            f"{place}{file.name} is larger than {_LARGEST:,} bytes",
            hint="name a text file of requirements",
        )
    return decoded(data, file.name)


def _parsed(text: str, place: str) -> tuple[list[str], list[tuple[str, bool]]]:
    """Return the requirements of a line, and its includes with whether each is a constraint."""
    if not text.startswith("-"):
        return [text], []
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ConfigError(f"{place}: cannot parse {text[:80]!r}: {error}") from error
    words = [part for word in words for part in _separated(word)]
    requirements, included = [], []
    for option, value in zip(words, [*words[1:], ""], strict=True):
        match = _OPTION.fullmatch(option)
        if match is None:
            continue
        wanted = match[2] if match[2] is not None else value
        if match[1].startswith(("-e", "--e")):
            requirements.append(wanted)
        else:
            included.append((wanted, match[1].startswith(("-c", "--c"))))
    return requirements, included


def _separated(word: str) -> tuple[str, ...]:
    """Return an option and its value, which may be joined to a short option: -rother.txt."""
    return (word[:2], word[2:]) if _GLUED.match(word) else (word,)


def _provided(folder: Path) -> set[str]:
    """Return the names of the distribution in a source folder, from its metadata."""
    names: set[object] = set()
    try:
        project = tomllib.loads(_metadata(folder / "pyproject.toml"))
        names.add(project.get("project", {}).get("name"))
        names.add(project.get("tool", {}).get("poetry", {}).get("name"))
    except (OSError, ValueError, AttributeError):
        pass
    try:
        setup = configparser.ConfigParser(interpolation=None)
        setup.read_string(_metadata(folder / "setup.cfg"))
        names.add(setup.get("metadata", "name", fallback=None))
    except (OSError, ValueError, configparser.Error):
        pass
    with contextlib.suppress(OSError, ValueError):
        names.update(_SETUP.findall(_metadata(folder / "setup.py", "replace")))
    return {name for name in names if isinstance(name, str)}


def _metadata(path: Path, errors: str = "strict") -> str:
    return files.read_regular(path, _LARGEST).decode("utf-8", errors)
