"""Values of a git repository."""

import msgspec


class Commit(msgspec.Struct, frozen=True, kw_only=True):
    """A commit as it is checked out.

    Attributes:
        sha: 40 hexadecimal digits.
        dirty: whether the project has uncommitted changes or untracked files that git does not
            ignore.
        branch: empty if no branch is checked out.
        author: the author's email address.
        subject: the first line of the message; untrusted text: escape it.
    """

    sha: str
    dirty: bool
    branch: str
    author: str
    subject: str
