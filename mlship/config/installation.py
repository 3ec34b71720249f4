"""How this mlship was installed, and which requirements install it verifiably elsewhere.

The distribution is called `mlship-cd`; the module and the command are `mlship`. On package indexes,
`mlship` is an unrelated package with the same module and command, so it must never be installed.
Installers record the origin of a distribution as specified in PEP 610:
https://packaging.python.org/specifications/direct-url/.
"""

import functools
import os
import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from typing import Final, Literal
from urllib.parse import unquote, urlsplit

import msgspec

from mlship.config.requirements import REQUIREMENTS, Line, normalised
from mlship.errors import ConfigError

DISTRIBUTION: Final = "mlship-cd"
MODULE: Final = "mlship"
FORM: Final = (
    "git+https://HOST/PATH@COMMIT with a full commit hash, the https URL of a wheel with "
    "#sha256=HASH, or a folder in the repository such as ./tools/mlship"
)
"""The accepted forms of a source, for hints."""

INSTALLS_ITSELF: Final = "the workflows install mlship themselves"

_COMMIT = re.compile(r"git\+(?:https|ssh|file)://[^@\s]*(?:git@[^@\s]+)?@[0-9a-f]{40}(?:#.*)?")
_SHA256 = re.compile(r"#(?:.*&)?sha256=[0-9a-f]{64}(?:&.*)?$")
_VERSION = re.compile(r"([A-Za-z0-9][\w.-]*)(?:\[[^\]]*\])?\s*(.*)", re.DOTALL)
_ARCHIVE = re.compile(r"(.+?)-\d[^-]*(?:-.*)?\.(?:whl|tar\.gz)$")
_STRANGER = re.compile(
    r"(?<![\w./@-])mlship(?:\[[\w, -]*\])?\s*(?:[=~!<>]=|[<>]|@\s)"  # mlship==1.0, mlship @ ...
    r"|(?<![\w./@-])mlship\[[\w, -]+\]"  # mlship[all]
    r"|\b(?:pip[\d.]*[ \t]+install|pipx[ \t]+(?:install|run)|uv[ \t]+add|uvx"
    r"|uv[ \t]+tool[ \t]+(?:install|run)|poetry[ \t]+add|pdm[ \t]+add)"
    r"(?:[ \t]+(?!--from)[^\s;&|]+)*?[ \t]+[\"']?mlship(?![\w./:@=\[-])"
)


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """The source from which mlship was installed.

    Attributes:
        kind: `index` for a version from a package index, `archive` for a wheel or a source archive
            by its URL, `none` if mlship runs without being installed.
        url: of the git repository or the archive, without user and password; or a folder's path.
        pin: a git commit, or the sha256 of an archive; empty if the installer recorded none.
        subdirectory: of the git repository or the archive.
    """

    kind: Literal["index", "git", "archive", "folder", "none"]
    version: str = ""
    url: str = ""
    pin: str = ""
    subdirectory: str = ""
    is_editable: bool = False


class _Folder(msgspec.Struct, frozen=True):
    editable: bool = False


class _Repository(msgspec.Struct, frozen=True):
    vcs: str
    commit_id: str


class _Archive(msgspec.Struct, frozen=True):
    hash: str = ""  # from installers older than `hashes`
    hashes: dict[str, str] = {}


class _DirectUrl(msgspec.Struct, frozen=True):
    """`direct_url.json` of PEP 610."""

    url: str
    subdirectory: str = ""
    dir_info: _Folder | None = None
    vcs_info: _Repository | None = None
    archive_info: _Archive | None = None


class Installation(msgspec.Struct, frozen=True, kw_only=True):
    """How this mlship was installed, for generated workflows and doctor.

    Attributes:
        source: where jobs can install it from, in the form of `workflows.mlship`; empty if unknown.
        reason: why the source is unknown.
        others: other distributions that provide the module or the command.
    """

    origin: Origin
    source: str = ""
    reason: str = ""
    others: tuple[str, ...] = ()


def origin_of(direct_url: str | None, version: str) -> Origin:
    """Return the source from which a distribution was installed.

    Args:
        direct_url: the text of its `direct_url.json`; `None` if it came from an index.
        version: of the distribution.
    """
    if direct_url is None:
        return Origin(kind="index", version=version)
    try:
        record = msgspec.json.decode(direct_url, type=_DirectUrl)
    except msgspec.MsgspecError:
        return Origin(kind="none", version=version)
    if record.dir_info is not None:
        path = unquote(urlsplit(record.url).path)
        editable = record.dir_info.editable
        return Origin(kind="folder", version=version, url=path, is_editable=editable)
    unknown = Origin(kind="none", version=version)
    place = msgspec.structs.replace(
        unknown, url=_bare(record.url), subdirectory=record.subdirectory
    )
    if record.vcs_info is not None and record.vcs_info.vcs == "git":
        return msgspec.structs.replace(place, kind="git", pin=record.vcs_info.commit_id)
    if record.archive_info is not None:
        old = record.archive_info.hash.partition("sha256=")[2]
        digest = record.archive_info.hashes.get("sha256", old)
        return msgspec.structs.replace(place, kind="archive", pin=digest)
    return unknown


@functools.cache
def current() -> Origin:
    """Return the source from which the running mlship was installed."""
    try:
        distribution = metadata.distribution(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return Origin(kind="none")
    return origin_of(distribution.read_text("direct_url.json"), distribution.version)


def hint(*extras: str) -> str:
    """Return the command that adds extras to the running mlship, from the same source."""
    return command(current(), extras)


def command(origin: Origin, extras: Sequence[str]) -> str:
    """Return the command that installs mlship with extras from a source."""
    names = f"[{','.join(extras)}]" if extras else ""
    match origin.kind:
        case "folder":
            editable = "-e " if origin.is_editable else ""
            return f'pip install {editable}"{origin.url}{names}"'
        case "index":
            return f'pip install "{DISTRIBUTION}{names}=={origin.version}"'
        case "git" | "archive":
            return f'pip install "{DISTRIBUTION}{names} @ {address(origin)}"'
        case "none":
            return f"install mlship again from its source, with extras {', '.join(extras)}"


def address(origin: Origin) -> str:
    """Return the URL of a git commit or an archive with its pin, for an installer."""
    folder = f"subdirectory={origin.subdirectory}" if origin.subdirectory else ""
    if origin.kind == "git":
        return f"git+{origin.url}@{origin.pin}" + (f"#{folder}" if folder else "")
    digest = f"sha256={origin.pin}" if origin.pin else ""
    fragment = "&".join(filter(None, (digest, folder)))
    return origin.url + (f"#{fragment}" if fragment else "")


def described(origin: Origin) -> str:
    """Return a short description of how mlship was installed."""
    version = f"{DISTRIBUTION} {origin.version}".strip()
    match origin.kind:
        case "none":
            return f"{DISTRIBUTION} is not installed, it runs from its source"
        case "index":
            return f"{version} from a package index"
        case "folder":
            return f"{version} from {origin.url}" + (", editable" if origin.is_editable else "")
        case "git" | "archive":
            return f"{version} from {origin.url}"


def refusal(source: str, *, is_hashed: bool = False) -> str:
    """Return why a source does not verifiably install this mlship; empty if it does.

    Args:
        source: in the form of `workflows.mlship`, or a line of a requirements file.
        is_hashed: whether all requirements in the project's requirements.txt have hashes.
    """
    line = re.split(r" --| \\| ;", source)[0].strip()
    name, is_direct, url = line.partition(" @ ")
    if is_direct:
        return _wrong_name(name) or refusal(url.strip())
    if line.startswith("."):
        return _wrong_path(line)
    if "://" in line:
        return _wrong_address(line)
    return _wrong_version(line, is_hashed=is_hashed)


def source_for_jobs(
    setting: str | None, requirements: Sequence[Line], installed: Installation
) -> str:
    """Return the source from which jobs install mlship; empty if it is unknown.

    Args:
        setting: `workflows.mlship` of the project.
        requirements: the lines of its requirements.txt and of the files that it includes.
        installed: this installation.

    Raises:
        ConfigError: the setting or the file does not verifiably install this mlship.
    """
    check_requirements(requirements, installed.origin)
    pinned = hashed_version(requirements)
    if setting is None:
        return pinned or installed.source
    if problem := refusal(setting, is_hashed=setting == pinned):
        hint = f"set it to {FORM}"
        if setting.startswith(f"{DISTRIBUTION}=="):
            hint = f"pin {setting} in {REQUIREMENTS}, with a --hash for every requirement"
        raise ConfigError(f"mlship.yaml: workflows.mlship: {problem}", hint=hint)
    return setting


def arguments(source: str, extras: Sequence[str], folder: str) -> tuple[str, ...]:
    """Return the arguments for an installer to install mlship with extras.

    Args:
        source: a verifiable source, see `refusal`.
        extras: their names; for a version from an index, the requirements file has the extras.
        folder: the folder in which the installer runs, relative to the top of the repository.
    """
    names = f"[{','.join(extras)}]" if extras else ""
    if source.startswith("."):
        path = os.path.relpath(source, folder or ".")
        return ((path if path.startswith(".") else f"./{path}") + names,)
    if "://" in source:
        return (f"{DISTRIBUTION}{names} @ {source}",)
    return ("--require-hashes", "-r", REQUIREMENTS)


def with_requirements(needs: tuple[str, ...]) -> tuple[str, ...]:
    """Return the arguments that also install the project's requirements.txt."""
    return needs if REQUIREMENTS in needs else (*needs, "-r", REQUIREMENTS)


def hashed_version(lines: Sequence[Line]) -> str:
    """Return `mlship-cd==1.2.0` if the requirements pin it and all have hashes; else empty."""
    if _without_hash(lines):
        return ""
    return next(filter(None, map(_pinned, lines)), "")


def check_requirements(lines: Sequence[Line], origin: Origin) -> None:
    """Refuse requirements that name this mlship but do not verifiably install it.

    Raises:
        ConfigError: a line names `mlship`, or this distribution without a commit or hashes.
    """
    bare = _without_hash(lines)
    for line in lines:
        delete = f"delete the line; {INSTALLS_ITSELF}; on this machine, run "
        delete += command(origin, ["all"])
        if re.search(r"\$\{[A-Z0-9_]+\}", line.text.partition("://")[0]):
            problem = f"{line.text[:80]} contains an environment variable and cannot be checked"
            raise ConfigError(
                f"{line.file}:{line.number}: {problem}",
                hint="replace the variable by its value",
            )
        if MODULE in line.names:
            raise ConfigError(f"{line.file}:{line.number}: {_wrong_name(MODULE)}", hint=delete)
        # A constraint installs nothing, and a folder of the project is under its own control.
        is_folder = re.match(r"\.|[\w.-]*/", line.text) and not _ARCHIVE.match(line.text)
        if line.is_constraint or DISTRIBUTION not in line.names or is_folder:
            continue
        if bare and _pinned(line) and "--hash=sha256:" in line.text:
            raise ConfigError(
                f"{bare[0].file}:{bare[0].number}: {bare[0].text[:80]} has no hash: "
                f"{_pinned(line)} is verified only if all requirements have one",
                hint="add --hash=sha256:... to the line",
            )
        if problem := refusal(line.text, is_hashed=not bare):
            raise ConfigError(f"{line.file}:{line.number}: {problem}", hint=delete)


def strangers_named(text: str) -> list[str]:
    """Return the lines of a text that install the unrelated package `mlship`."""
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [line.strip() for line in lines if _STRANGER.search(line)]


def others(
    providers: Mapping[str, Iterable[str]], scripts: Iterable[tuple[str, str]]
) -> tuple[str, ...]:
    """Return other distributions that provide the module or the command `mlship`, sorted.

    Args:
        providers: distributions by the modules that they provide.
        scripts: pairs of a command and the distribution that provides it.
    """
    names = {*providers.get(MODULE, ()), *(owner for name, owner in scripts if name == MODULE)}
    return tuple(sorted(name for name in names if normalised(name) != DISTRIBUTION))


def _without_hash(lines: Sequence[Line]) -> list[Line]:
    return [line for line in lines if not line.is_constraint and "--hash=sha256:" not in line.text]


def _pinned(line: Line) -> str:
    """Return `mlship-cd==1.2.0` if a requirement names one version of this distribution."""
    match = _VERSION.match(line.text)
    pinned = re.match(r"==\s*([\w.!+-]+)", match[2]) if match else None
    is_ours = match is not None and normalised(match[1]) == DISTRIBUTION
    return f"{DISTRIBUTION}=={pinned[1]}" if pinned and is_ours and not line.is_constraint else ""


def _wrong_version(line: str, *, is_hashed: bool) -> str:
    if re.match(r"[\w.-]+/", line):
        return f"{line} is not a source of {DISTRIBUTION}; a folder must begin with ./"
    name, rest = re.match(r"([\w.-]*(?:\[[^\]]*\])?)\s*(.*)", line, re.DOTALL).groups()  # type: ignore[union-attr]
    if problem := _wrong_name(name):
        return problem
    if not re.fullmatch(r"==\s*[\w.!+-]+", rest):
        return f"{line} does not name one version"
    return "" if is_hashed else f"{line} has no hash: the index may serve other files"


def _wrong_address(url: str) -> str:
    if _bare(url) != url:
        return "its URL has a user or a password, which the workflows would show"
    folders = re.findall(r"[#&]subdirectory=([^&#]*)", url)
    if any(folder[:1] == "/" or ".." in folder.split("/") for folder in map(unquote, folders)):
        return f"{url}: its subdirectory is outside of the repository or the archive"
    if url.startswith("git+"):
        return _wrong_commit(url)
    if _SHA256.search(url.lower()) and not _SHA256.search(url):
        return f"{url}: write the sha256 in lower case"
    return _wrong_archive(url) or ("" if _SHA256.search(url) else f"{url} has no #sha256=")


def _wrong_commit(url: str) -> str:
    if url.partition("://")[0] not in ("git+https", "git+ssh", "git+file"):
        return f"{url} does not use HTTPS or SSH, and could be changed in transit"
    if _COMMIT.fullmatch(url):
        return ""
    if _COMMIT.fullmatch(url.lower()):
        return f"{url}: write the commit hash in lower case"
    return f"{url} has no full commit hash; branches and tags can move"


def _wrong_path(path: str) -> str:
    if posixpath.normpath(path).startswith(".."):
        return f"{path} is outside the repository"
    return _wrong_archive(path)


def _wrong_name(requirement: str) -> str:
    name = normalised(requirement.partition("[")[0].strip())
    if name == MODULE:
        return f"on package indexes, {MODULE} is an unrelated package; use {DISTRIBUTION}"
    return "" if name == DISTRIBUTION else f"{name} is not {DISTRIBUTION}"


def _wrong_archive(path: str) -> str:
    """Return the problem of a wheel or a source archive if its name is of another distribution."""
    file = path.partition("#")[0].rpartition("/")[2]
    match = _ARCHIVE.match(file)
    return "" if match is None else _wrong_name(match[1])


def _bare(url: str) -> str:
    """Return a URL without user and password; the user `git` of SSH is not a secret."""
    netloc = urlsplit(url).netloc
    user, _, host = netloc.rpartition("@")
    return url if user in ("", "git") else url.replace(netloc, host, 1)
