"""Values of a git repository."""

from collections.abc import Sequence
from typing import Final

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


def named(paths: Sequence[str]) -> str:
    """Return paths for people: five of them, and how many there are beside these."""
    shown = ", ".join(map(_printable, paths[:_NAMED]))
    more = len(paths) - _NAMED
    return f"{shown} and {more} more" if more > 0 else shown


def _printable(path: str) -> str:
    return path if path.isprintable() else path.encode("unicode_escape").decode()
