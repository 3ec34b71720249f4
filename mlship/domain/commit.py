"""Values of a git repository."""

import msgspec


class Commit(msgspec.Struct, frozen=True, kw_only=True):
    """A commit as it is checked out.

    Attributes:
        sha: 40 hexadecimal digits.
        dirty: whether a tracked file of the project differs, or an untracked one is not ignored.
        branch: empty where no branch is checked out.
        author: the author's email address.
        subject: the first line of the message, made by a user: escape it.
    """

    sha: str
    dirty: bool
    branch: str
    author: str
    subject: str
