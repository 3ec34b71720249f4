"""The parts of GitHub's JSON that mlship reads.

Source: https://docs.github.com/en/rest
"""

from datetime import datetime

import msgspec


class User(msgspec.Struct, frozen=True, kw_only=True):
    """An account. It is an empty object for a commit whose author has no account."""

    login: str = ""
    type: str = "User"


class Repository(msgspec.Struct, frozen=True, kw_only=True):
    """The repository of a branch."""

    full_name: str


class Branch(msgspec.Struct, frozen=True, kw_only=True):
    """A branch of a pull request; `repo` is null if the fork was deleted."""

    ref: str
    sha: str
    repo: Repository | None = None


class Pull(msgspec.Struct, frozen=True, kw_only=True):
    """A pull request, in a list or a single response."""

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
    """Whether the signature of a commit is valid for its committer."""

    verified: bool = False


class GitCommit(msgspec.Struct, frozen=True, kw_only=True):
    """The tree of a commit, and the verification of its signature."""

    tree: Tree
    verification: Verification = Verification()


class Parent(msgspec.Struct, frozen=True, kw_only=True):
    """A parent of a commit."""

    sha: str


class Commit(msgspec.Struct, frozen=True, kw_only=True):
    """A commit, with the accounts of its author and its committer if they have one."""

    sha: str
    commit: GitCommit
    author: User | None = None
    committer: User | None = None
    parents: tuple[Parent, ...] = ()


class Object(msgspec.Struct, frozen=True, kw_only=True):
    """What a reference points to, or a new object of git."""

    sha: str


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """A branch as git has it."""

    object: Object


class Signature(msgspec.Struct, frozen=True, kw_only=True):
    """When a commit was made."""

    date: datetime


class PlainCommit(msgspec.Struct, frozen=True, kw_only=True):
    """A commit as git has it."""

    sha: str
    message: str
    tree: Tree
    committer: Signature


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A file or a folder in a tree; a folder has no size."""

    path: str
    type: str
    sha: str
    size: int = 0


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """A tree with all that is below it, or a part of it."""

    tree: tuple[Entry, ...]
    truncated: bool = False


class Permission(msgspec.Struct, frozen=True, kw_only=True):
    """The permission of an account in a repository: admin, write, read, none."""

    permission: str
