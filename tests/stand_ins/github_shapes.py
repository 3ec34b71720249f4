"""The JSON that the stand-in for GitHub answers with: the fields of GitHub's OpenAPI description.

Source: https://docs.github.com/en/rest (issue comments, pulls, reviews, commits, collaborators).
Fields that are links to more of the API are left out where no client of ours follows them.
"""

import base64
from typing import Any

Json = dict[str, Any]

DOCS = "https://docs.github.com/rest"
GITHUB = "noreply@github.com"
"""Who commits what GitHub's pages do; its account is web-flow."""


def user(login: str, number: int, web: str) -> Json:
    """A simple user. Accounts of apps are named so and have the type Bot."""
    is_bot = login.endswith("[bot]")
    return {
        "login": login,
        "id": number,
        "node_id": _node("User", number),
        "avatar_url": f"{web}/avatars/{number}",
        "gravatar_id": "",
        "html_url": f"{web}/{login}" if not is_bot else f"{web}/apps/{login[:-5]}",
        "type": "Bot" if is_bot else "User",
        "site_admin": False,
    }


def comment(kept: Json, author: Json, api: str, web: str, repository: str) -> Json:
    """An issue comment."""
    number, issue = kept["id"], kept["issue"]
    return {
        "id": number,
        "node_id": _node("IssueComment", number),
        "url": f"{api}/repos/{repository}/issues/comments/{number}",
        "html_url": f"{web}/{repository}/pull/{issue}#issuecomment-{number}",
        "issue_url": f"{api}/repos/{repository}/issues/{issue}",
        "body": kept["body"],
        "user": author,
        "created_at": kept["created_at"],
        "updated_at": kept["updated_at"],
        "author_association": kept["association"],
        "performed_via_github_app": None,
    }


def review(kept: Json, author: Json, api: str, web: str, repository: str) -> Json:
    """A pull request review."""
    number, pull = kept["id"], kept["pull"]
    html = f"{web}/{repository}/pull/{pull}#pullrequestreview-{number}"
    pull_url = f"{api}/repos/{repository}/pulls/{pull}"
    return {
        "id": number,
        "node_id": _node("PullRequestReview", number),
        "user": author,
        "body": kept["body"],
        "state": kept["state"],
        "html_url": html,
        "pull_request_url": pull_url,
        "author_association": kept["association"],
        "_links": {"html": {"href": html}, "pull_request": {"href": pull_url}},
        "submitted_at": kept["submitted_at"],
        "commit_id": kept["commit_id"],
    }


def pull(kept: Json, author: Json, api: str, web: str, repository: str) -> Json:
    """A pull request."""
    number = kept["number"]
    source = kept["head_repository"]
    return {
        "url": f"{api}/repos/{repository}/pulls/{number}",
        "id": 1_000_000 + number,
        "node_id": _node("PullRequest", number),
        "html_url": f"{web}/{repository}/pull/{number}",
        "issue_url": f"{api}/repos/{repository}/issues/{number}",
        "number": number,
        "state": kept["state"],
        "locked": False,
        "title": kept["title"],
        "user": author,
        "body": kept["body"],
        "created_at": kept["created_at"],
        "updated_at": kept["updated_at"],
        "closed_at": kept["closed_at"],
        "merged_at": kept["merged_at"],
        "merge_commit_sha": kept["merge_commit_sha"],
        "draft": False,
        "labels": [],
        "head": _side(kept["head"], kept["head_sha"], source, web),
        "base": _side(kept["base"], kept["base_sha"], repository, web),
        "author_association": kept["association"],
        "auto_merge": None,
    }


def _side(ref: str, sha: str, repository: str | None, web: str) -> Json:
    owner, _, name = (repository or "gone/gone").partition("/")
    repo = {
        "id": sum(map(ord, repository or "")),
        "name": name,
        "full_name": repository,
        "private": False,
        "html_url": f"{web}/{repository}",
        "default_branch": "main",
    }
    label = f"{owner}:{ref}"
    return {"label": label, "ref": ref, "sha": sha, "repo": repo if repository else None}


def commit(sha: str, kept: Json, author: Json | None, api: str, repository: str) -> Json:
    """A commit with git's data and the account of its author, `null` where none has the email."""
    who = {"name": kept["email"].partition("@")[0], "email": kept["email"], "date": kept["date"]}
    is_githubs = kept["committer"] == GITHUB
    committer = {**who, "name": "GitHub", "email": GITHUB} if is_githubs else who
    is_signed = is_githubs and kept["is_signed"]
    return {
        "url": f"{api}/repos/{repository}/commits/{sha}",
        "sha": sha,
        "node_id": _node("Commit", sha),
        "commit": {
            "author": who,
            "committer": committer,
            "message": kept["message"],
            "verification": {
                "verified": is_signed,
                "reason": "valid" if is_signed else "unsigned",
                "signature": None,
                "payload": None,
            },
            "tree": {"sha": kept["tree"], "url": f"{api}/repos/{repository}/git/trees"},
            "comment_count": 0,
        },
        "author": author,
        "committer": {"login": "web-flow", "type": "User"} if is_githubs else author,
        "parents": [{"sha": parent} for parent in kept["parents"]],
    }


def reference(branch: str, sha: str, api: str, repository: str) -> Json:
    """A reference of git."""
    return {
        "ref": f"refs/heads/{branch}",
        "node_id": _node("Ref", branch),
        "url": f"{api}/repos/{repository}/git/refs/heads/{branch}",
        "object": {
            "type": "commit",
            "sha": sha,
            "url": f"{api}/repos/{repository}/git/commits/{sha}",
        },
    }


def git_commit(kept: Json, api: str, repository: str) -> Json:
    """A commit of git, as the API for git objects shows it."""
    sha = kept["sha"]
    who = {"date": kept["date"], "name": "github-actions[bot]", "email": GITHUB}
    url = f"{api}/repos/{repository}/git"
    return {
        "sha": sha,
        "node_id": _node("Commit", sha),
        "url": f"{url}/commits/{sha}",
        "author": who,
        "committer": who,
        "message": kept["message"],
        "tree": {"sha": kept["tree"], "url": f"{url}/trees/{kept['tree']}"},
        "parents": [{"sha": one, "url": f"{url}/commits/{one}"} for one in kept["parents"]],
        "verification": {"verified": False, "reason": "unsigned"},
    }


def fault(status: int, message: str, *errors: Json) -> Json:
    """The body of an error."""
    body: Json = {"message": message, "documentation_url": DOCS, "status": str(status)}
    return {**body, "errors": list(errors)} if errors else body


def _node(kind: str, key: int | str) -> str:
    return base64.b64encode(f"{kind}:{key}".encode()).decode()
