"""Values of a forge: pull requests, the comment of ours in one, and people's reviews."""

from datetime import datetime
from typing import Literal

import msgspec

State = Literal["open", "closed", "merged"]
Decision = Literal["approved", "changes requested", "dismissed"]
Change = Literal["created", "updated", "unchanged"]


class PullRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A pull request. Title, body and branch names are made by users: escape them.

    Attributes:
        number: its number in the repository.
        author: the account that opened it; empty where the account is gone.
        head: the branch that it brings, in the repository or in a fork of it.
        base: the branch that it goes to.
        commit: the last commit of `head`.
        from_fork: whether `head` lies in another repository, whose jobs may not write here.
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
    """What became of a comment or of a pull request that was to be posted.

    Attributes:
        url: where people read it; empty where nothing was posted.
        change: `None` where a fork's token may not write, which is no fault of anybody's.
    """

    url: str
    change: Change | None


class Review(msgspec.Struct, frozen=True, kw_only=True):
    """The last decision of one account about a pull request. The text is made by a user.

    Attributes:
        by: the account.
        commit: the commit that was looked at; empty where it is gone from the repository.
        is_person: whether the account is no bot.
        may_write: whether the account may push to the repository: anybody may review a public one.
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
    """The reviews of a pull request, with what it takes to judge them.

    Attributes:
        authors: the accounts that opened the pull request or wrote its last commit. Of a merge, who
            wrote the last commit that it brought; who made it too, unless the forge itself did.
        contents: the commits with the content of the last one: itself and, where it was merged
            and nothing else came in, the merge.
        latest: each account's last decision.
    """

    pull: PullRequest
    authors: tuple[str, ...]
    contents: tuple[str, ...]
    latest: tuple[Review, ...]
