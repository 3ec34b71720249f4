"""Values of a git repository."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

_NAMED: Final = 5


class Commit(msgspec.Struct, frozen=True, kw_only=True):
    """A commit as it is checked out.

    Attributes:
        sha: 40 hexadecimal digits.
        dirty: whether the project has uncommitted changes or untracked files that git does not
            ignore.
        branch: empty if no branch is checked out.
        author: the author's email address.
        subject: the first line of the message; untrusted text: escape it.
        changes: the files that make it dirty, by their path in the project. Evidence has none:
            `train` records those that count as a text.
    """

    sha: str
    dirty: bool
    branch: str
    author: str
    subject: str
    changes: tuple[str, ...] = ()


class FileVersion(NamedTuple):
    """The content that a file had at one time.

    Attributes:
        path: the file's path from the top of its repository.
        data: the content.
    """

    path: str
    data: bytes


class Repository(msgspec.Struct, frozen=True, kw_only=True):
    """The repository around a project, with what git knows of a few of its files.

    Attributes:
        top: its top folder.
        versions: of these files, newest first: those in the index, then those of the commits that
            lead to the one checked out. Those of a commit are sorted by path; of a file that it
            deletes, it has the last one.
        gap: why versions may be missing, such as a shallow clone; empty if none is.
        branches: its branches, also those that only a remote has; none before the first commit.
        links: the symbolic links in it, from its top, with those that git would add in the project.
        sparse: those of the files, and each mlship.yaml, that a sparse checkout leaves out.
    """

    top: Path
    versions: tuple[FileVersion, ...] = ()
    gap: str = ""
    branches: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    sparse: tuple[str, ...] = ()


class Merged(NamedTuple):
    """The result of a three-way merge.

    Attributes:
        text: with marks around each conflict, as git writes them.
        conflicts: their number.
    """

    text: str
    conflicts: int


Merger = Callable[[str, str, str], Merged]
"""A three-way merge of yours, what was generated before, and what is generated now."""


def named(paths: Sequence[str]) -> str:
    """Return paths for people: five of them, and how many there are beside these."""
    shown = ", ".join(map(_printable, paths[:_NAMED]))
    more = len(paths) - _NAMED
    return f"{shown} and {more} more" if more > 0 else shown


def unwanted(paths: Sequence[str]) -> str:
    """Return files that a step wrote into the project, and what to do about them."""
    it = "it" if len(paths) == 1 else "them"
    return f"{named(paths)}: commit {it}, or add {it} to .gitignore"


def _printable(path: str) -> str:
    return path if path.isprintable() else path.encode("unicode_escape").decode()
