"""A forge in memory, small and honest: it passes the contract of the real one."""

from collections.abc import Sequence

import msgspec

from mlship.domain.pullrequest import Posted, PullRequest, Review, Reviews
from mlship.errors import ConfigError, MlshipError, NotFoundError, RefusedError


class FakeForge:
    """Keeps pull requests, one comment each and reviews. A test turns what is public.

    Attributes:
        branches: the last commit of each branch.
        pulls: by number.
        comments: the comment of ours, by number.
        latest: each account's last decision, by number.
        contents: further commits with the content of a pull request's last one, by number.
        authors: who wrote a pull request's last commit, by number.
        may_write: whether the token may.
        is_set_up: whether the environment has what is needed.
        fault: raised by whatever reads reviews.
        writes: what was changed, in order.
    """

    def __init__(self) -> None:
        self.branches: dict[str, str] = {"main": "b" * 40, "develop": "a" * 40}
        self.pulls: dict[int, PullRequest] = {}
        self.comments: dict[int, str] = {}
        self.latest: dict[int, Sequence[Review]] = {}
        self.contents: dict[int, tuple[str, ...]] = {}
        self.authors: dict[int, tuple[str, ...]] = {}
        self.may_write = True
        self.is_set_up = True
        self.fault: MlshipError | None = None
        self.writes: list[str] = []

    def get(self, number: int) -> PullRequest:
        if number not in self.pulls:
            raise NotFoundError(f"no pull request {number}", hint="look at the number")
        return self.pulls[number]

    def find(self, *, branch: str = "", commit: str = "", base: str = "") -> PullRequest | None:
        found = [
            pull for pull in self.pulls.values() if pull.state == "open" and base in ("", pull.base)
        ]
        ours = [pull for pull in found if pull.head == branch and not pull.from_fork]
        chosen = ours or [pull for pull in found if pull.commit == commit]
        return chosen[-1] if chosen else None

    def open(self, head: str, base: str, title: str, body: str) -> Posted:
        old = self.find(branch=head, base=base)
        if old and (old.title, old.body) == (title, body):
            return Posted(url=old.url, change="unchanged")
        self._may_write("open a pull request")
        for branch in (head, base):
            if branch not in self.branches:
                raise NotFoundError(f"no branch {branch}", hint="push it")
        if not old and self.branches[head] == self.branches[base]:
            raise RefusedError(
                f"branch {head} has no commits that {base} lacks", hint="nothing to do"
            )
        self.writes.append("open")
        if old:
            self.pulls[old.number] = msgspec.structs.replace(old, title=title, body=body)
            return Posted(url=old.url, change="updated")
        return Posted(url=self.add(head, base, title, body).url, change="created")

    def comment(self, number: int, body: str) -> Posted:
        pull = self.get(number)
        url = f"{pull.url}#issuecomment-{number}"
        if self.comments.get(number) == body:
            return Posted(url=url, change="unchanged")
        if not self.may_write and pull.from_fork:
            return Posted(url="", change=None)
        self._may_write("comment")
        is_known = number in self.comments
        self.comments[number] = body
        self.writes.append("comment")
        return Posted(url=url, change="updated" if is_known else "created")

    def containing(self, commit: str) -> list[int]:
        if self.fault is not None:
            raise self.fault
        return [
            pull.number
            for pull in reversed(self.pulls.values())
            if pull.state != "closed"
            and commit in (pull.commit, *self.contents.get(pull.number, ()))
        ]

    def reviews(self, number: int) -> Reviews:
        if self.fault is not None:
            raise self.fault
        pull = self.get(number)
        return Reviews(
            pull=pull,
            authors=(pull.author, *self.authors.get(number, ())),
            contents=(pull.commit, *self.contents.get(number, ())),
            latest=tuple(self.latest.get(number, ())),
        )

    def add(
        self, head: str, base: str, title: str = "", body: str = "", *, from_fork: bool = False
    ) -> PullRequest:
        """Open a pull request as somebody else would."""
        number = len(self.pulls) + 1
        self.pulls[number] = PullRequest(
            number=number,
            url=f"https://github.com/ada/iris/pull/{number}",
            state="open",
            title=title,
            body=body,
            author="ada",
            head=head,
            base=base,
            commit="f" * 40 if from_fork else self.branches[head],
            from_fork=from_fork,
        )
        return self.pulls[number]

    def _may_write(self, what: str) -> None:
        if not self.may_write:
            raise ConfigError(f"the token may not {what}", hint="add pull-requests: write")
