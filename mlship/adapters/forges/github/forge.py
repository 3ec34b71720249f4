"""Pull requests on GitHub, by its REST API: `ports.Forge`.

The server, the repository and the token come from the environment variables GITHUB_API_URL,
GITHUB_REPOSITORY and GITHUB_TOKEN, as in a GitHub job.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from mlship.adapters.forges.github import models, reviews
from mlship.adapters.forges.github.connection import Connection
from mlship.adapters.forges.github.responses import Purpose, Response, forbidden
from mlship.domain.pullrequest import (
    Posted,
    PullRequest,
    Reviews,
    State,
    comment_begins,
    comment_mark,
)
from mlship.errors import ConfigError, MlshipError, NotFoundError, RefusedError

if TYPE_CHECKING:
    import httpx

    from mlship.adapters.forges.github.client import Rest
    from mlship.adapters.http.retries import Timing

_READ: Final = "pull-requests: read"
_WRITE: Final = "pull-requests: write"
_BOT: Final = "Bot"
_GITHUB: Final = "web-flow"
_MERGES: Final = 10
"""The most nested merges that are followed to find the authors."""


class GitHubForge:
    """Pull requests of one repository on GitHub. It connects on first use.

    Args:
        environment: names the API, the repository and the token.
        name: the project, which distinguishes its comments from those of other projects.
        transport: replaces GitHub in tests.
        timing: time and randomness.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        name: str,
        *,
        transport: "httpx.BaseTransport | None" = None,
        timing: "Timing | None" = None,
    ) -> None:
        self._connection = Connection(environment, transport=transport, timing=timing)
        self._mark, self._begins = comment_mark(name), comment_begins(name)

    @property
    def _rest(self) -> "Rest":
        return self._connection.rest

    @property
    def _repository(self) -> str:
        return self._connection.repository

    @property
    def _path(self) -> str:
        return self._connection.path

    def get(self, number: int) -> PullRequest:
        """Return a pull request, open or closed."""
        return self._value(self._pull(number))

    def find(self, *, branch: str = "", commit: str = "", base: str = "") -> PullRequest | None:
        """Return the newest open pull request from a branch, else one that contains a commit."""
        pulls: list[models.Pull] = []
        if branch:
            pulls = self._listed(branch, base)
        if not pulls and commit:
            pulls = [
                pull
                for pull in self._with(commit)
                if pull.state == "open" and base in ("", pull.base.ref)
            ]
        newest = max(pulls, key=lambda pull: pull.number, default=None)
        return self._value(newest) if newest else None

    def open(self, head: str, base: str, title: str, body: str) -> Posted:
        """Open a pull request between two branches, or update title and body of the open one.

        Raises:
            RefusedError: `head` has no commits that `base` lacks.
            NotFoundError: there is no such branch.
        """
        wanted = {"title": title, "body": body}
        for attempt in range(2):
            pulls = self._listed(head, base)
            if pulls:
                return self._edit(max(pulls, key=lambda pull: pull.number), wanted)
            response = self._rest.write(
                "POST",
                f"{self._path}/pulls",
                {**wanted, "head": head, "base": base},
                Purpose(f"open a pull request from {head} to {base}", _WRITE),
                accept=frozenset({403, 422}),
            )
            if response.status < 400:
                return Posted(url=response.read(models.Pull).html_url, change="created")
            # Another process may have opened it since the list was read.
            if attempt or "already exists" not in response.message():
                break
        raise _not_opened(response, head, base)

    @property
    def is_set_up(self) -> bool:
        """Whether the environment names a repository and has a token; nothing is sent."""
        return self._connection.is_set_up

    def containing(self, commit: str) -> list[int]:
        """Return the pull requests, open or merged, that contain a commit, the newest first.

        A commit that was not pushed is in none. Of a merged one, GitHub knows only the commits that
        are in the default branch.
        """
        if self._commit(commit) is None:
            return []
        pulls = [pull for pull in self._with(commit) if pull.state == "open" or pull.merged_at]
        return sorted((pull.number for pull in pulls), reverse=True)

    def _with(self, commit: str) -> Iterator[models.Pull]:
        purpose = Purpose(f"list the pull requests of commit {commit[:12]}", _READ)
        path = f"{self._path}/commits/{quote(commit, safe='')}/pulls"
        return self._rest.pages(path, {}, purpose, models.Pull)

    def _edit(self, pull: models.Pull, wanted: Mapping[str, str]) -> Posted:
        if (pull.title, _lines(pull.body)) == (wanted["title"], _lines(wanted["body"])):
            return Posted(url=pull.html_url, change="unchanged")
        purpose = Purpose(f"change pull request {pull.number}", _WRITE)
        self._rest.write("PATCH", f"{self._path}/pulls/{pull.number}", wanted, purpose)
        return Posted(url=pull.html_url, change="updated")

    def comment(self, number: int, body: str) -> Posted:
        """Post mlship's comment, or update it if it was posted before."""
        text = f"{self._mark}\n{body}"
        old = self._own_comment(number)
        if old and _lines(old.body) == _lines(text):
            return Posted(url=old.html_url, change="unchanged")
        issues = f"{self._path}/issues"
        path = f"{issues}/comments/{old.id}" if old else f"{issues}/{number}/comments"
        purpose = Purpose(f"comment on pull request {number}", _WRITE)
        response = self._rest.write(
            "PATCH" if old else "POST", path, {"body": text}, purpose, accept=frozenset({403})
        )
        if response.status == 403:
            if self.get(number).from_fork:
                return Posted(url="", change=None)
            raise forbidden(response, purpose)
        url = response.read(models.Comment).html_url
        return Posted(url=url, change="updated" if old else "created")

    def _own_comment(self, number: int) -> models.Comment | None:
        """Return mlship's first comment, identified by its author and by the mark at its start.

        Anybody can write the mark, so the author must match too. A job's token cannot read its own
        account, but its comments are by a bot. A bot does not start a comment with text of other
        accounts.
        """
        purpose = Purpose(f"read the comments of pull request {number}", _READ)
        comments = self._rest.pages(
            f"{self._path}/issues/{number}/comments", {}, purpose, models.Comment
        )
        marked = [item for item in comments if (item.body or "").startswith(self._begins)]
        if not marked:
            return None
        response = self._rest.get(
            "/user", Purpose("read the account of the token", "none"), accept=frozenset({403})
        )
        login = None if response.status == 403 else response.read(models.User).login
        for comment in marked:
            user = comment.user or models.User()
            if user.type == _BOT if login is None else user.login == login:
                return comment
        return None

    def reviews(self, number: int) -> Reviews:
        """Return the last decision of each account; a comment is not a decision."""
        pull = self._pull(number)
        last = self._commit(pull.head.sha)
        purpose = Purpose(f"read the reviews of pull request {number}", _READ)
        path = f"{self._path}/pulls/{number}/reviews"
        listed = list(self._rest.pages(path, {}, purpose, models.Review))
        contents = [pull.head.sha]
        if pull.merged_at and pull.merge_commit_sha:
            merge = self._commit(pull.merge_commit_sha)
            if last and merge and merge.commit.tree == last.commit.tree:
                contents.append(merge.sha)
        accounts = [user.login for user in (pull.user, *self._writers(last)) if user and user.login]
        return Reviews(
            pull=self._value(pull),
            authors=tuple(dict.fromkeys(accounts)),
            contents=tuple(dict.fromkeys(contents)),
            latest=reviews.latest(listed, self._may_write),
        )

    def _writers(self, commit: models.Commit | None) -> list[models.User | None]:
        """Return the author of a commit and, for a merge, the author of the last merged commit.

        A merge commit that GitHub created and signed has no author of its own.
        """
        authors: list[models.User | None] = []
        for _ in range(_MERGES):
            if commit is None:
                break
            if not _is_made_by_github(commit):
                authors.append(commit.author)
            if len(commit.parents) < 2:
                break
            commit = self._commit(commit.parents[1].sha)
        return authors

    def _may_write(self, login: str) -> bool:
        """Return whether an account may push. Anybody may approve in a public repository."""
        purpose = Purpose(f"read the permissions of {login}", "metadata: read")
        path = f"{self._path}/collaborators/{quote(login, safe='')}/permission"
        response = self._rest.get(path, purpose, accept=frozenset({404}))
        return response.status < 400 and response.read(models.Permission).permission in (
            "admin",
            "write",
        )

    def _commit(self, sha: str) -> models.Commit | None:
        purpose = Purpose(f"read commit {sha[:12]}", "contents: read")
        path = f"{self._path}/commits/{quote(sha, safe='')}"
        response = self._rest.get(path, purpose, accept=frozenset({404, 422}))
        return response.read(models.Commit) if response.status < 400 else None

    def _pull(self, number: int) -> models.Pull:
        purpose = Purpose(f"read pull request {number}", _READ)
        return self._rest.get(f"{self._path}/pulls/{number}", purpose).read(models.Pull)

    def _listed(self, head: str, base: str) -> list[models.Pull]:
        owner = self._repository.partition("/")[0]
        params = {"state": "open", "head": f"{owner}:{head}", **({"base": base} if base else {})}
        purpose = Purpose(f"list the pull requests of {self._repository}", _READ)
        return list(self._rest.pages(f"{self._path}/pulls", params, purpose, models.Pull))

    def _value(self, pull: models.Pull) -> PullRequest:
        state: State = "open" if pull.state == "open" else "closed"
        source = pull.head.repo.full_name if pull.head.repo else ""
        return PullRequest(
            number=pull.number,
            url=pull.html_url,
            state="merged" if pull.merged_at else state,
            title=pull.title,
            body=pull.body or "",
            author=pull.user.login if pull.user else "",
            head=pull.head.ref,
            base=pull.base.ref,
            commit=pull.head.sha,
            from_fork=source.casefold() != self._repository.casefold(),
        )


def _is_made_by_github(commit: models.Commit) -> bool:
    """Return whether GitHub created a merge commit, by its name and its signature."""
    committer = commit.committer.login if commit.committer else ""
    is_merge = len(commit.parents) > 1
    return is_merge and committer == _GITHUB and commit.commit.verification.verified


def _lines(text: str | None) -> str:
    """Normalise a text for comparison: GitHub changes line ends and trims."""
    return (text or "").replace("\r\n", "\n").strip()


def _not_opened(response: Response, head: str, base: str) -> MlshipError:
    message = response.message()
    if "not permitted to create" in message:
        return ConfigError(
            f"GitHub does not allow jobs to open pull requests here: {message}",
            hint="Settings > Actions > General: allow GitHub Actions to create pull requests",
        )
    if response.status == 403:
        return forbidden(response, Purpose(f"open a pull request from {head} to {base}", _WRITE))
    if "No commits between" in message:
        return RefusedError(
            f"branch {head} has no commits that {base} lacks", hint="there is nothing to release"
        )
    if " invalid" in message:
        return NotFoundError(
            f"branch {head} or {base} does not exist on GitHub: {message}",
            hint="push both branches, or name others with --head and --base",
        )
    return RefusedError(
        f"GitHub refused to open a pull request from {head} to {base}: {message}",
        hint="fix the problem, then run the command again",
    )
