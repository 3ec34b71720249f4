"""Pull requests on GitHub, by its REST API: `ports.Forge`.

Which GitHub, which repository and who we are come from the environment: GITHUB_API_URL,
GITHUB_REPOSITORY and GITHUB_TOKEN, as a job has them.
"""

import functools
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from mlship.adapters.forges.github import models, reviews
from mlship.adapters.forges.github.answers import Answer, Purpose, forbidden
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

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
_READ: Final = "pull-requests: read"
_WRITE: Final = "pull-requests: write"
_BOT: Final = "Bot"
_GITHUB: Final = "web-flow"
_MERGES: Final = 10
"""So many merges of merges are looked through for who wrote what they brought."""


class GitHubForge:
    """Pull requests of one repository on GitHub. Nothing is sent before it is needed.

    Args:
        environment: names the API, the repository and the token.
        name: the project; its comments are told from those of another in the same repository.
        transport: answers in GitHub's place, in tests.
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
        self._environment = environment
        self._mark, self._begins = comment_mark(name), comment_begins(name)
        self._transport = transport
        self._timing = timing

    @functools.cached_property
    def _rest(self) -> "Rest":
        # Most commands ask no forge, and start sooner without it.
        from mlship.adapters.forges.github.client import Rest
        from mlship.adapters.http.clients import Reach
        from mlship.adapters.http.retries import Timing

        token = self._environment.get("GITHUB_TOKEN", "").strip()
        if not token:
            raise ConfigError(
                "GITHUB_TOKEN is not set, and GitHub cannot be reached without it",
                hint="add `GITHUB_TOKEN: ${{ secrets.GITHUB_TOKEN }}` to the env of the step",
            )
        url = self._environment.get("GITHUB_API_URL") or "https://api.github.com"
        if not url.startswith(("https://", "http://")):
            raise ConfigError(
                f"GITHUB_API_URL is not a URL: {url[:200]}", hint="https://api.github.com is one"
            )
        reach = Reach(environment=self._environment, transport=self._transport)
        return Rest(url, token, reach=reach, timing=self._timing or Timing())

    @functools.cached_property
    def _repository(self) -> str:
        name = self._environment.get("GITHUB_REPOSITORY", "")
        if not _REPOSITORY.fullmatch(name):
            raise ConfigError(
                f"GITHUB_REPOSITORY is not a repository: {name[:80]!r}",
                hint="set it to owner/name; a GitHub job has it",
            )
        return name

    @property
    def _path(self) -> str:
        return f"/repos/{self._repository}"

    def get(self, number: int) -> PullRequest:
        """Return a pull request, open or not."""
        return self._value(self._pull(number))

    def find(self, *, branch: str = "", commit: str = "", base: str = "") -> PullRequest | None:
        """Return the newest open pull request from a branch, else one that brings a commit."""
        found: list[models.Pull] = []
        if branch:
            found = self._listed(branch, base)
        if not found and commit:
            purpose = Purpose(f"list the pull requests of commit {commit[:12]}", _READ)
            path = f"{self._path}/commits/{quote(commit, safe='')}/pulls"
            found = [
                pull
                for pull in self._rest.pages(path, {}, purpose, models.Pull)
                if pull.state == "open" and base in ("", pull.base.ref)
            ]
        newest = max(found, key=lambda pull: pull.number, default=None)
        return self._value(newest) if newest else None

    def open(self, head: str, base: str, title: str, body: str) -> Posted:
        """Open a pull request between two branches, or set title and body of the open one.

        Raises:
            RefusedError: the one branch has no commit that the other lacks.
            NotFoundError: there is no such branch.
        """
        wanted = {"title": title, "body": body}
        for attempt in range(2):
            pulls = self._listed(head, base)
            if pulls:
                return self._edit(max(pulls, key=lambda pull: pull.number), wanted)
            answer = self._rest.write(
                "POST",
                f"{self._path}/pulls",
                {**wanted, "head": head, "base": base},
                Purpose(f"open a pull request from {head} to {base}", _WRITE),
                accept=frozenset({403, 422}),
            )
            if answer.status < 400:
                return Posted(url=answer.read(models.Pull).html_url, change="created")
            # Somebody else may have opened it since it was looked for.
            if attempt or "already exists" not in answer.said():
                break
        raise _not_opened(answer, head, base)

    def _edit(self, pull: models.Pull, wanted: Mapping[str, str]) -> Posted:
        if (pull.title, _lines(pull.body)) == (wanted["title"], _lines(wanted["body"])):
            return Posted(url=pull.html_url, change="unchanged")
        purpose = Purpose(f"change pull request {pull.number}", _WRITE)
        self._rest.write("PATCH", f"{self._path}/pulls/{pull.number}", wanted, purpose)
        return Posted(url=pull.html_url, change="updated")

    def comment(self, number: int, body: str) -> Posted:
        """Post the comment of ours, or replace the text of the one that was posted before."""
        text = f"{self._mark}\n{body}"
        old = self._own_comment(number)
        if old and _lines(old.body) == _lines(text):
            return Posted(url=old.html_url, change="unchanged")
        issues = f"{self._path}/issues"
        path = f"{issues}/comments/{old.id}" if old else f"{issues}/{number}/comments"
        purpose = Purpose(f"comment on pull request {number}", _WRITE)
        answer = self._rest.write(
            "PATCH" if old else "POST", path, {"body": text}, purpose, accept=frozenset({403})
        )
        if answer.status == 403:
            if self.get(number).from_fork:
                return Posted(url="", change=None)
            raise forbidden(answer, purpose)
        url = answer.read(models.Comment).html_url
        return Posted(url=url, change="updated" if old else "created")

    def _own_comment(self, number: int) -> models.Comment | None:
        """Return the first comment of ours: told by its author and by the mark at its start.

        Anybody can write the mark, so it alone proves nothing. A job's token cannot ask who it is;
        its comments are a bot's, and no bot begins a comment with what another account wrote.
        """
        purpose = Purpose(f"read the comments of pull request {number}", _READ)
        comments = self._rest.pages(
            f"{self._path}/issues/{number}/comments", {}, purpose, models.Comment
        )
        marked = [one for one in comments if (one.body or "").startswith(self._begins)]
        if not marked:
            return None
        asked = self._rest.get(
            "/user", Purpose("tell whose token it is", "none"), accept=frozenset({403})
        )
        login = None if asked.status == 403 else asked.read(models.User).login
        for one in marked:
            user = one.user or models.User()
            if user.type == _BOT if login is None else user.login == login:
                return one
        return None

    def reviews(self, number: int) -> Reviews:
        """Return each account's last decision; a comment is not a decision and changes none."""
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
        """Return who wrote a commit, and behind a merge who wrote the last one that it brought.

        A merge that GitHub made, and signed, was written by nobody: its author pressed a button.
        """
        found: list[models.User | None] = []
        for _ in range(_MERGES):
            if commit is None:
                break
            if not _is_made_by_github(commit):
                found.append(commit.author)
            if len(commit.parents) < 2:
                break
            commit = self._commit(commit.parents[1].sha)
        return found

    def _may_write(self, login: str) -> bool:
        """Tell whether an account may push. Anybody may approve in a public repository."""
        purpose = Purpose(f"ask what {login} may do", "metadata: read")
        path = f"{self._path}/collaborators/{quote(login, safe='')}/permission"
        answer = self._rest.get(path, purpose, accept=frozenset({404}))
        return answer.status < 400 and answer.read(models.Permission).permission in (
            "admin",
            "write",
        )

    def _commit(self, sha: str) -> models.Commit | None:
        purpose = Purpose(f"read commit {sha[:12]}", "contents: read")
        path = f"{self._path}/commits/{quote(sha, safe='')}"
        answer = self._rest.get(path, purpose, accept=frozenset({404, 422}))
        return answer.read(models.Commit) if answer.status < 400 else None

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
    """Tell whether GitHub itself merged. Its name can be forged, its signature cannot."""
    committer = commit.committer.login if commit.committer else ""
    is_merge = len(commit.parents) > 1
    return is_merge and committer == _GITHUB and commit.commit.verification.verified


def _lines(text: str | None) -> str:
    """Return a text as it is compared: GitHub's pages write other line ends, and trim."""
    return (text or "").replace("\r\n", "\n").strip()


def _not_opened(answer: Answer, head: str, base: str) -> MlshipError:
    said = answer.said()
    if "not permitted to create" in said:
        return ConfigError(
            f"GitHub does not allow jobs to open pull requests here: {said}",
            hint="Settings > Actions > General: allow GitHub Actions to create pull requests",
        )
    if answer.status == 403:
        return forbidden(answer, Purpose(f"open a pull request from {head} to {base}", _WRITE))
    if "No commits between" in said:
        return RefusedError(
            f"{head} has no commit that {base} lacks", hint="there is nothing to release"
        )
    if " invalid" in said:
        return NotFoundError(
            f"GitHub has no branch {head} or no branch {base}: {said}",
            hint="push both, or name others with --head and --base",
        )
    return RefusedError(
        f"GitHub refused to open a pull request from {head} to {base}: {said}",
        hint="correct that, then run it again",
    )
