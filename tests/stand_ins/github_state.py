"""What the stand-in for GitHub knows: repositories, accounts, tokens, pull requests and their talk.

All of it is plain JSON, so that a program can be started on a file and leave the file for a test
to read. A repository's commits come from a bare git repository where one is named.
"""

import itertools
import json
import subprocess
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.stand_ins.github_shapes import GITHUB, Json

ROLES = ("none", "read", "write", "admin")


class RefusedRequestError(Exception):
    """A request that the rules refuse, with the status and the errors that GitHub gives."""

    def __init__(self, status: int, message: str, *errors: Json) -> None:
        super().__init__(message)
        self.status, self.message, self.errors = status, message, errors


def empty() -> Json:
    """Return a GitHub without anybody on it."""
    return {
        "accounts": {},
        "tokens": {},
        "repositories": {},
        "pulls": [],
        "comments": [],
        "reviews": [],
        "planned": [],
        "calls": [],
        "ticks": 0,
    }


class State:
    """The data and the rules, without HTTP. Every change is written to the file, if there is one.

    Attributes:
        data: everything, as JSON.
    """

    def __init__(self, data: Json | None = None, file: Path | None = None) -> None:
        self.data: Json = {**empty(), **(data or {})}
        self.lock = threading.RLock()
        self._file = file

    def save(self) -> None:
        """Write everything to the file."""
        if self._file is not None:
            beside = self._file.with_suffix(".new")
            beside.write_text(json.dumps(self.data, indent=1))
            beside.replace(self._file)

    def add_account(self, login: str, email: str = "") -> None:
        self.data["accounts"][login] = {
            "id": len(self.data["accounts"]) + 1,
            "email": email or f"{login}@example.org",
        }

    def add_token(self, token: str, login: str, **permissions: str) -> None:
        """Add a token: a person's own, or with a login of `...[bot]` that of a job."""
        if login not in self.data["accounts"]:
            self.add_account(login)
        given = {name.replace("_", "-"): level for name, level in permissions.items()}
        self.data["tokens"][token] = {"login": login, "permissions": given}

    def add_repository(self, name: str, git: Path | None = None, **roles: str) -> Json:
        """Add a repository; `roles` are what accounts may do in it."""
        self.data["repositories"][name] = {
            "git": str(git) if git else None,
            "roles": roles,
            "is_public": True,
            "jobs_may_open_pulls": True,
            "branches": {},
            "commits": {},
            "objects": {},
            "signed": [],
        }
        return self.repository(name)

    def commit(self, repository: str, branch: str, sha: str, email: str, tree: str = "") -> None:
        """Put a commit on a branch of a repository without git."""
        kept = self.repository(repository)
        before = kept["branches"].get(branch)
        kept["commits"][sha] = {
            "tree": tree or sha[::-1],
            "email": email,
            "message": "Change it",
            "date": self.now(),
            "parents": [before] if before else [],
        }
        kept["branches"][branch] = sha

    def repository(self, name: str) -> Json:
        for known, kept in self.data["repositories"].items():
            if known.casefold() == name.casefold():
                return kept  # type: ignore[no-any-return]
        raise RefusedRequestError(404, "Not Found")

    def now(self) -> str:
        """Return a time that moves by a second at each look."""
        self.data["ticks"] += 1
        time = datetime(2026, 11, 21, 8, tzinfo=UTC) + timedelta(seconds=self.data["ticks"])
        return time.strftime("%Y-%m-%dT%H:%M:%SZ")

    def new_id(self) -> int:
        """Return a number that no comment and no review has yet."""
        kept = (*self.data["comments"], *self.data["reviews"])
        return max((one["id"] for one in kept), default=1_000) + 1

    def head_of(self, repository: str, branch: str) -> str | None:
        kept = self.repository(repository)
        if kept["git"] is None:
            return kept["branches"].get(branch)  # type: ignore[no-any-return]
        return git(kept, "rev-parse", "--verify", "--quiet", f"refs/heads/{branch}") or None

    def commit_of(self, repository: str, sha: str) -> Json:
        kept = self.repository(repository)
        if kept["git"] is None:
            found = kept["commits"].get(sha)
            if found is None:
                raise RefusedRequestError(422, f"No commit found for SHA: {sha}")
            return {"committer": found["email"], **found, "is_signed": sha in kept["signed"]}
        told = git(kept, "log", "-1", "--format=%T%x00%ae%x00%ce%x00%cI%x00%P%x00%s", sha, "--")
        if not told:
            raise RefusedRequestError(422, f"No commit found for SHA: {sha}")
        tree, email, committer, date, parents, message = told.split("\0")
        return {
            "tree": tree,
            "email": email,
            "committer": committer,
            "is_signed": sha in kept["signed"],
            "date": date,
            "parents": parents.split(),
            "message": message,
        }

    def account_of(self, email: str) -> str | None:
        accounts = self.data["accounts"].items()
        return next((login for login, kept in accounts if kept["email"] == email), None)

    def ancestors(self, repository: str, sha: str | None) -> Iterator[str]:
        """Give a commit and all before it."""
        kept = self.repository(repository)
        if sha and kept["git"] is not None:
            yield from git(kept, "rev-list", sha).split()
            return
        waiting = [sha] if sha else []
        while waiting:
            found = waiting.pop()
            if found in kept["commits"]:
                yield found
                waiting += kept["commits"][found]["parents"]

    def brought(self, repository: str, head: str | None, base: str | None) -> list[str]:
        """Return the commits that one side has and the other lacks."""
        known = set(self.ancestors(repository, base))
        return [sha for sha in self.ancestors(repository, head) if sha not in known]

    def merge(self, repository: str, head: str, base: str, email: str) -> str:
        """Merge a commit into a branch and return the new commit."""
        kept = self.repository(repository)
        before = self.head_of(repository, base)
        if kept["git"] is None:
            sha = f"{int(head[:39] or '0', 16) + 7:040x}"[-40:]
            tree = self.commit_of(repository, head)["tree"]
            self.commit(repository, base, sha, email, tree)
            kept["commits"][sha]["parents"].append(head)
            kept["commits"][sha]["committer"] = GITHUB
            kept["signed"].append(sha)
            return sha
        tree = git(kept, "merge-tree", "--write-tree", str(before), head).splitlines()[0]
        names = {"author.name": "merger", "author.email": email}
        names |= {"committer.name": "GitHub", "committer.email": GITHUB}
        identity = [part for name, value in names.items() for part in ("-c", f"{name}={value}")]
        parents = ("-p", str(before), "-p", head)
        sha = git(kept, *identity, "commit-tree", tree, *parents, "-m", "Merge pull request")
        kept["signed"].append(sha)
        git(kept, "update-ref", f"refs/heads/{base}", sha, str(before))
        return sha

    def pulls(self, repository: str) -> list[Json]:
        """Return the pull requests of a repository, newest first, each with its head of now."""
        found = [one for one in self.data["pulls"] if one["repository"] == repository]
        for one in found:
            if one["state"] == "open":
                source = one["head_repository"]
                if source == repository:
                    one["head_sha"] = self.head_of(repository, one["head"]) or one["head_sha"]
        return found[::-1]

    def open_pull(self, repository: str, author: str, **given: Any) -> Json:
        """Open a pull request by GitHub's rules."""
        source = given.get("head_repository", repository)
        head, base = given["head"], given["base"]
        owner = source.partition("/")[0]
        base_sha = self.head_of(repository, base)
        head_sha = given.get("head_sha") or self.head_of(repository, head)
        for field, sha in (("head", head_sha), ("base", base_sha)):
            if sha is None:
                problem = {"resource": "PullRequest", "field": field, "code": "invalid"}
                raise RefusedRequestError(422, "Validation Failed", problem)
        same = (source, head, base)
        for one in self.pulls(repository):
            if one["state"] == "open" and same == (
                one["head_repository"],
                one["head"],
                one["base"],
            ):
                raise _custom(f"A pull request already exists for {owner}:{head}.")
        if source == repository and not self.brought(repository, head_sha, base_sha):
            raise _custom(f"No commits between {base} and {head}")
        now = self.now()
        made = {
            "repository": repository,
            "number": len(self.data["pulls"]) + 1,
            "state": "open",
            "title": given["title"],
            "body": given.get("body"),
            "author": author,
            "association": self.association(repository, author),
            "head": head,
            "head_repository": source,
            "head_sha": head_sha,
            "base": base,
            "base_sha": base_sha,
            "created_at": now,
            "updated_at": now,
            "closed_at": None,
            "merged_at": None,
            "merge_commit_sha": None,
        }
        self.data["pulls"].append(made)
        return made

    def add_comment(self, repository: str, issue: int, author: str, body: str) -> Json:
        """Add a comment as its author would."""
        now = self.now()
        made = {
            "id": self.new_id(),
            "repository": repository,
            "issue": issue,
            "author": author,
            "body": body,
            "association": self.association(repository, author),
            "created_at": now,
            "updated_at": now,
        }
        self.data["comments"].append(made)
        return made

    def add_review(
        self, repository: str, pull: int, author: str, state: str, commit: str = "", body: str = ""
    ) -> Json:
        """Add a review of the head of now, or of a commit."""
        found = next(one for one in self.pulls(repository) if one["number"] == pull)
        if author == found["author"] and state == "APPROVED":
            raise RefusedRequestError(
                422, "Unprocessable Entity: Can not approve your own pull request"
            )
        made = {
            "id": self.new_id(),
            "repository": repository,
            "pull": pull,
            "author": author,
            "state": state,
            "commit_id": commit or found["head_sha"],
            "body": body,
            "association": self.association(repository, author),
            "submitted_at": self.now(),
        }
        self.data["reviews"].append(made)
        return made

    def role(self, repository: str, login: str) -> str:
        kept = self.repository(repository)
        if repository.partition("/")[0] == login:
            return "admin"
        return str(kept["roles"].get(login, "read" if kept["is_public"] else "none"))

    def association(self, repository: str, login: str) -> str:
        if repository.partition("/")[0] == login:
            return "OWNER"
        return "COLLABORATOR" if self.role(repository, login) in ROLES[2:] else "NONE"

    def plan(
        self,
        status: int,
        message: str,
        headers: dict[str, str] | None = None,
        *,
        times: int = 1,
        at: str = "",
    ) -> None:
        """Let the next requests fail, all or those of a method: a limit, or a fault."""
        answer = {"status": status, "message": message, "headers": headers or {}, "at": at}
        self.data["planned"] += list(itertools.repeat(answer, times))


def git(repository: Json, *arguments: str) -> str:
    """Run git in a repository's folder; nothing where it fails."""
    argv = ["git", "-C", repository["git"], *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def _custom(message: str) -> RefusedRequestError:
    problem = {"resource": "PullRequest", "code": "custom", "message": message}
    return RefusedRequestError(422, "Validation Failed", problem)
