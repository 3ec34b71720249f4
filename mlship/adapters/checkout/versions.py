"""The contents that files of a repository had, as far as git knows them."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from mlship.adapters.checkout import git
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


def repository(top: Path, paths: Sequence[str]) -> Repository:
    """Return a repository with the versions of some files and folders in it.

    Args:
        top: its top folder.
        paths: of the files and folders, from there.

    Where git is missing or fails, there are no versions, and the repository says why.
    """
    wanted = [f":(literal){path}" for path in paths]
    try:
        blobs = [*_of_index(top, wanted), *_of_commits(top, wanted)]
        data = _contents(top, [blob for blob, _ in blobs])
        is_shallow = git.run(top, "rev-parse", "--is-shallow-repository").strip() == "true"
    except ProjectError as error:
        return Repository(top=top, gap=error.message)
    versions = tuple(FileVersion(path, data[blob]) for blob, path in blobs if blob in data)
    return Repository(
        top=top,
        versions=versions,
        gap=_SHALLOW if is_shallow else "",
        branches=tuple(_branches(top)),
    )


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


def _of_index(top: Path, paths: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the blob and the path of each file in the index."""
    for entry in git.run(top, "ls-files", "--stage", "-z", "--", *paths).split("\0"):
        fields, _, path = entry.partition("\t")
        if fields.startswith(_REGULAR):
            yield fields.split()[1], path


def _of_commits(top: Path, paths: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the blob and the path of each version in the commits, newest first.

    A commit has the blob after it and the one before it, which is all that is left of a file that
    it deleted.
    """
    if not git.run(top, "rev-parse", "--verify", "--quiet", "HEAD", check=False):
        return
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
