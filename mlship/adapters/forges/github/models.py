"""The parts of GitHub's JSON that are read.

Source: https://docs.github.com/en/rest
"""

from datetime import datetime

import msgspec


class User(msgspec.Struct, frozen=True, kw_only=True):
    """An account; a commit whose author has none comes with an empty object."""

    login: str = ""
    type: str = "User"


class Repository(msgspec.Struct, frozen=True, kw_only=True):
    """A repository, as a branch names it."""

    full_name: str


class Branch(msgspec.Struct, frozen=True, kw_only=True):
    """A side of a pull request; `repo` is null where a fork was removed."""

    ref: str
    sha: str
    repo: Repository | None = None


class Pull(msgspec.Struct, frozen=True, kw_only=True):
    """A pull request, as lists and single answers give it."""

    number: int
    html_url: str
    state: str
    title: str
    head: Branch
    base: Branch
    body: str | None = None
    user: User | None = None
    merged_at: datetime | None = None
    merge_commit_sha: str | None = None


class Comment(msgspec.Struct, frozen=True, kw_only=True):
    """A comment of an issue or a pull request."""

    id: int
    html_url: str
    body: str | None = None
    user: User | None = None


class Review(msgspec.Struct, frozen=True, kw_only=True):
    """A review of a pull request."""

    state: str
    html_url: str
    body: str = ""
    user: User | None = None
    commit_id: str | None = None
    submitted_at: datetime | None = None


class Tree(msgspec.Struct, frozen=True, kw_only=True):
    """The content of a commit."""

    sha: str


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the signature of a commit is its committer's."""

    verified: bool = False


class GitCommit(msgspec.Struct, frozen=True, kw_only=True):
    """What git knows of a commit, and what GitHub knows of its signature."""

    tree: Tree
    verification: Verification = Verification()


class Parent(msgspec.Struct, frozen=True, kw_only=True):
    """A commit before another."""

    sha: str


class Commit(msgspec.Struct, frozen=True, kw_only=True):
    """A commit, with the accounts of its author and its committer where there are any."""

    sha: str
    commit: GitCommit
    author: User | None = None
    committer: User | None = None
    parents: tuple[Parent, ...] = ()


class Permission(msgspec.Struct, frozen=True, kw_only=True):
    """What an account may do in a repository: admin, write, read, none."""

    permission: str
