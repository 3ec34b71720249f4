"""The contents that files of a repository had, as far as git knows them."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from mlship.adapters.checkout import changes, git
from mlship.adapters.checkout.changes import Entry
from mlship.domain.commit import FileVersion, Repository
from mlship.errors import ProjectError

_SETTINGS = ("log.showRoot=true", "log.follow=false", "log.diffMerges=separate")
_LOG = (
    *(part for setting in _SETTINGS for part in ("-c", setting)),
    *("log", "--format=", "--raw", "-z", "-m", "--full-history"),
    *("--no-abbrev", "--no-renames", "--no-color", "--no-show-signature"),
)
_REGULAR = "100"
"""How the mode of a file begins in git; links and submodules begin otherwise."""

_SHALLOW = "this clone is shallow: run `git fetch --unshallow`"


_LINK = "120000"
"""The mode of a symbolic link in git's index."""

_NEW = ("ls-files", "--others", "--exclude-standard", "-z")
_PROJECT = "mlship.yaml"

_FIRST = ("--is-shallow-repository", "--revs-only")
"""Asks whether the clone is shallow; what follows is left out if it is no commit."""


def repository(top: Path, paths: Sequence[str], folder: Path | None = None) -> Repository:
    """Return a repository with the versions of some files and folders in it.

    Args:
        top: its top folder.
        paths: of the files and folders, from there.
        folder: of the project, of which links that are not in git yet count too.

    Where git is missing or fails, there are no versions, and the repository says why.
    """
    wanted = [f":(literal){path}" for path in paths]
    try:
        entries = changes.index(top, ".")
        is_shallow, *head = git.run(top, "rev-parse", *_FIRST, "HEAD").split()
        commits = _of_commits(top, wanted) if head else ()
        is_below = _below(paths)
        blobs = [*_of_index(entries, is_below), *commits]
        data = _contents(top, [blob for blob, _ in blobs])
        links, sparse = _links(top, folder or top, entries), _sparse(top, is_below, entries)
    except ProjectError as error:
        return Repository(top=top, gap=error.message)
    versions = tuple(FileVersion(path, data[blob]) for blob, path in blobs if blob in data)
    return Repository(
        top=top,
        versions=versions,
        gap=_SHALLOW if is_shallow == "true" else "",
        branches=tuple(_branches(top)),
        links=tuple(links),
        sparse=tuple(sparse),
    )


def _links(top: Path, folder: Path, entries: Sequence[Entry]) -> list[str]:
    """Return the links that git tracks, and those in a folder that it would add, sorted."""
    links = {entry.name for entry in entries if entry.mode == _LINK}
    if folder.is_dir():
        place = f":(literal){folder.resolve().relative_to(top.resolve()).as_posix()}"
        links |= set(git.run(top, *_NEW, "--", place).split("\0")) - {""}
    return sorted(link for link in links if (top / link).is_symlink())


def _sparse(top: Path, is_below: Callable[[str], bool], entries: Sequence[Entry]) -> list[str]:
    """Return the files that a sparse checkout leaves out."""
    names = [entry.name for entry in entries if entry.flag.upper() == "S"]
    return [
        name
        for name in names
        if (is_below(name) or PurePosixPath(name).name == _PROJECT) and not (top / name).exists()
    ]


def _branches(top: Path) -> list[str]:
    """Return the names of all branches, sorted, without those of remotes' heads."""
    listed = git.run(top, "for-each-ref", "--format=%(refname)", "refs/heads", "refs/remotes")
    names = {
        name.removeprefix("refs/heads/")
        if name.startswith("refs/heads/")
        else name.removeprefix("refs/remotes/").partition("/")[2]
        for name in listed.splitlines()
    }
    return sorted(names - {"HEAD"})


def _of_index(
    entries: Sequence[Entry], is_below: Callable[[str], bool]
) -> Iterator[tuple[str, str]]:
    """Yield the blob and the path of each file in the index."""
    for entry in entries:
        if entry.mode.startswith(_REGULAR) and is_below(entry.name):
            yield entry.digest, entry.name


def _below(paths: Sequence[str]) -> Callable[[str], bool]:
    """Return what tells whether a file is one of some paths, or in one."""
    names, folders = frozenset(paths), tuple(f"{path}/" for path in paths)
    return lambda name: name in names or name.startswith(folders)


def _of_commits(top: Path, paths: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the blob and the path of each version in the commits, newest first.

    A commit has the blob after it and the one before it, which is all that is left of a file that
    it deleted.
    """
    entries = iter(git.run(top, *_LOG, "HEAD", "--", *paths).split("\0"))
    for entry in entries:
        if not entry.lstrip("\n").startswith(":"):
            continue
        before, after, old, new = entry.lstrip("\n:").split()[:4]
        path = next(entries)
        for mode, blob in ((after, new), (before, old)):
            if mode.startswith(_REGULAR):
                yield blob, path


def _contents(top: Path, blobs: Sequence[str]) -> dict[str, bytes]:
    """Return the contents of blobs, without those that this clone lacks."""
    asked = "".join(f"{blob}\n" for blob in dict.fromkeys(blobs))
    output = git.run(top, "cat-file", "--batch", given=asked).encode("utf-8", "surrogateescape")
    found, start = {}, 0
    while start < len(output):
        end = output.index(b"\n", start)
        blob, kind, *size = output[start:end].decode().split()
        start = end + 1
        if kind == "blob":
            found[blob] = output[start : start + int(size[0])]
            start += int(size[0]) + 1
    return found
