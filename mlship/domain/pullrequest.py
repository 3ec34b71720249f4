"""Values of a forge: pull requests, mlship's comment, and reviews with their port."""

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Final, Literal, Protocol

import msgspec

State = Literal["open", "closed", "merged"]
Decision = Literal["approved", "changes requested", "dismissed"]
Change = Literal["created", "updated", "unchanged"]


_NUMBER: Final = re.compile(r"/pull/([1-9][0-9]{0,17})$")

_CML_ESCAPES = str.maketrans({letter: f"\\{letter}" for letter in "_*[<"})


def comment_title(name: str) -> str:
    """Return the title by which the program of CML finds the comment of a project again."""
    return f"mlship {name}"


def comment_begins(name: str) -> str:
    """Return the start of the comment of a project; it is the same in all versions of mlship."""
    return f"<!-- mlship report of {name} "


def comment_mark(name: str) -> str:
    """Return the invisible first line of the comment of a project.

    mlship and CML find the comment by it: it contains CML's own watermark, which CML searches for
    anywhere in a comment. It is in an HTML comment, so that no browser loads its picture.

    Source: src/watermark.js of https://github.com/iterative/cml at 0.20.6.
    """
    title = f"CML watermark {comment_title(name)}".translate(_CML_ESCAPES)
    watermark = f'![](https://cml.dev/watermark.png#0 "{title}")'
    return f"{comment_begins(name)}{watermark} -->"


class PullRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A pull request. Title, body and branch names are untrusted text: escape them.

    Attributes:
        number: its number in the repository.
        author: the account that opened it; empty if the account was deleted.
        head: the source branch, in the repository or in a fork of it.
        base: the branch to merge into.
        commit: the last commit of `head`.
        from_fork: whether `head` is in another repository, whose jobs may not write here.
    """

    number: int
    url: str
    state: State
    title: str
    body: str
    author: str
    head: str
    base: str
    commit: str
    from_fork: bool


class Posted(msgspec.Struct, frozen=True, kw_only=True):
    """The result of posting a comment or a pull request.

    Attributes:
        url: its page; empty if nothing was posted.
        change: `None` if the token of a fork may not write, which is not an error.
    """

    url: str
    change: Change | None


class Review(msgspec.Struct, frozen=True, kw_only=True):
    """The last decision of one account about a pull request. The text is untrusted.

    Attributes:
        by: the account.
        commit: the reviewed commit; empty if it was removed from the repository.
        is_person: whether the account belongs to a person, not a bot.
        may_write: whether the account may push; anybody may review in a public repository.
    """

    by: str
    decision: Decision
    commit: str
    text: str
    url: str
    time: datetime | None
    is_person: bool
    may_write: bool


class Reviews(msgspec.Struct, frozen=True, kw_only=True):
    """The reviews of a pull request, and what is needed to judge them.

    Attributes:
        authors: the accounts that opened the pull request or wrote its last commit. For a merge
            commit: the author of the last merged commit, and who merged unless the forge did.
        contents: the commits with the content of the last one: the commit itself and, if it was
            merged without other changes, the merge commit.
        latest: the last decision of each account.
    """

    pull: PullRequest
    authors: tuple[str, ...]
    contents: tuple[str, ...]
    latest: tuple[Review, ...]


def number_of(url: str) -> int | None:
    """Return the number of the pull request with a page; `None` if the URL is of something else."""
    match = _NUMBER.search(url)
    return int(match[1]) if match else None


class Reviewing(Protocol):
    """The reviews of pull requests, which are read again when a release is promoted.

    Raises:
        ConfigError: there is no token, or it may not read.
        NotFoundError: there is no such pull request.
        UnavailableError: the forge does not respond.
    """

    @property
    def is_set_up(self) -> bool:
        """Whether the environment names a repository and has a token; nothing is sent."""

    def containing(self, commit: str) -> Sequence[int]:
        """Return the pull requests, open or merged, that contain a commit, the newest first."""

    def reviews(self, number: int) -> Reviews:
        """Return the last decision of each account; a comment is not a decision."""
