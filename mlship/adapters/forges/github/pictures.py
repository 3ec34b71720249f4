"""Pictures of comments, on the branch `mlship-reports` of the repository: `publishing.Pictures`.

    README.md
    <project>/<pull request>/<number>/confusion.png

It is written by GitHub's API for git objects, without a checkout. Each write is a commit on top of
the last one and moves the branch without force: if another job was faster, GitHub refuses it, and
the write begins again from the new state. So no job loses the files of another.

Files are pruned with each write (see `prune`), the history with each 20th: a commit without parent
replaces it. That needs force, so the job first claims the branch with a commit, which the others
wait for.

Source: https://docs.github.com/en/rest/git
"""

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final
from urllib.parse import quote

import msgspec

from mlship.adapters.forges.github import models
from mlship.adapters.forges.github.connection import Connection
from mlship.adapters.forges.github.responses import Purpose, Response
from mlship.domain.attachments import picture_name
from mlship.errors import ConfigError, ConflictError

BRANCH: Final = "mlship-reports"
REPORTS_KEPT: Final = 2
"""Of a pull request and a project: the comment may still show the one before."""
PULLS_KEPT: Final = 50
BYTES_KEPT: Final = 20_000_000

_MESSAGE: Final = "mlship reports "
_CLAIM: Final = "mlship reports: shortening the history"
_SHORTENED_AFTER: Final = 20
_CLAIM_SECONDS: Final = 60
_ATTEMPTS: Final = 20
_WRITE: Final = Purpose(f"write pictures to the branch {BRANCH}", "contents: write")
_READ: Final = Purpose(f"read the branch {BRANCH}", "contents: read")
_PATH = re.compile(r"([a-z][a-z0-9-]{0,39})/([1-9]\d{0,9})/([1-9]\d{0,9})/[A-Za-z0-9._-]{1,80}")
_README: Final = """\
Pictures in the comments of [mlship](https://pypi.org/project/mlship-cd/) on pull requests. Old ones
are removed. If this branch is deleted, comments show no pictures until the next report.
"""


class File(msgspec.Struct, frozen=True, kw_only=True):
    """A file of the branch; `sha` is git's digest of its content."""

    project: str
    pull: int
    number: int
    path: str
    sha: str
    size: int

    @property
    def report(self) -> tuple[int, str, int]:
        """The report that shows it; those of newer pull requests are greater."""
        return (self.pull, self.project, self.number)


class _Head(msgspec.Struct, frozen=True, kw_only=True):
    """The last commit of the branch: how many there are, or who claims it since when."""

    sha: str
    commits: int
    claimed: datetime | None
    files: tuple[File, ...]


class GitHubPictures:
    """Keeps the pictures of one project's comments.

    Args:
        connection: the repository.
        project: its name, a folder of the branch.
    """

    def __init__(self, connection: Connection, project: str) -> None:
        self._connection = connection
        self._project = project

    def keep(self, pull: int, pictures: Mapping[str, bytes]) -> dict[str, str]:
        """Keep the pictures of a pull request's comment; return the URL of each, by its name.

        A URL never shows another picture. It is one that a browser opens for whoever may read the
        repository, private or not; raw.githubusercontent.com shows nothing of a private one.

        Raises:
            ConfigError: the token may not write, or the branch is not mlship's.
            ConflictError: other jobs wrote each time.
            UnavailableError: GitHub does not respond.
        """
        names = _names(pictures)
        if not names:
            return {}
        uploaded: set[str] = set()
        for attempt in range(_ATTEMPTS):
            head = self._head()
            own = [file for file in head.files if self._is_of(file, pull)] if head else []
            newest = max((file.number for file in own), default=0)
            last = {file.path: file.sha for file in own if file.number == newest}
            if last == self._placed(pull, newest, names, pictures):
                return self._urls(pull, newest, names)
            if head and head.claimed and self._age(head.claimed) < _CLAIM_SECONDS:
                self._pause(attempt)
                continue
            files = self._files(pull, newest + 1, names, pictures)
            known = uploaded | {file.sha for file in (head.files if head else ())}
            for file, content in zip(files, pictures.values(), strict=True):
                if file.sha not in known:
                    self._upload(content)
                    uploaded.add(file.sha)
            kept = prune([*(head.files if head else ()), *files], (pull, self._project))
            if self._write(head, kept):
                return self._urls(pull, newest + 1, names)
            self._pause(attempt)
        raise ConflictError(
            f"other jobs wrote to the branch {BRANCH} each time", hint="run the command again"
        )

    def _is_of(self, file: File, pull: int) -> bool:
        return (file.project, file.pull) == (self._project, pull)

    def _placed(
        self, pull: int, number: int, names: Mapping[str, str], pictures: Mapping[str, bytes]
    ) -> dict[str, str]:
        files = self._files(pull, number, names, pictures)
        return {file.path: file.sha for file in files}

    def _files(
        self, pull: int, number: int, names: Mapping[str, str], pictures: Mapping[str, bytes]
    ) -> list[File]:
        return [
            File(
                project=self._project,
                pull=pull,
                number=number,
                path=f"{self._project}/{pull}/{number}/{names[name]}",
                sha=blob_digest(content),
                size=len(content),
            )
            for name, content in pictures.items()
        ]

    def _urls(self, pull: int, number: int, names: Mapping[str, str]) -> dict[str, str]:
        folder = f"{self._connection.page}/blob/{BRANCH}/{self._project}/{pull}/{number}"
        return {name: f"{folder}/{quote(file)}?raw=true" for name, file in names.items()}

    def _head(self) -> _Head | None:
        rest, path = self._connection.rest, f"{self._connection.path}/git"
        # 409 is the answer for a repository without commits.
        found = rest.get(f"{path}/ref/heads/{BRANCH}", _READ, accept=frozenset({404, 409}))
        if found.status >= 400:
            return None
        sha = found.read(models.Reference).object.sha
        commit = rest.get(f"{path}/commits/{sha}", _READ).read(models.PlainCommit)
        is_claim = commit.message == _CLAIM
        counted = commit.message.removeprefix(_MESSAGE)
        if not is_claim and not counted.isdecimal():
            raise ConfigError(
                f"the branch {BRANCH} has commits of others: {commit.message[:80]!r}",
                hint=f"rename that branch: mlship keeps pictures of reports on {BRANCH}",
            )
        tree = f"{path}/trees/{commit.tree.sha}?recursive=1"
        return _Head(
            sha=sha,
            commits=_SHORTENED_AFTER if is_claim else int(counted),
            claimed=commit.committer.date if is_claim else None,
            files=_ours(rest.get(tree, _READ).read(models.Listing).tree),
        )

    def _age(self, time: datetime) -> float:
        return self._connection.timing.clock() - time.timestamp()

    def _pause(self, attempt: int) -> None:
        timing = self._connection.timing
        timing.pause(0.5 * 2 ** min(attempt, 4) * (0.5 + timing.chance() / 2))

    def _upload(self, content: bytes) -> None:
        body = {"content": base64.b64encode(content).decode(), "encoding": "base64"}
        self._made("blobs", body)

    def _write(self, head: _Head | None, files: Sequence[File]) -> bool:
        """Move the branch to a commit with these files; return whether nobody was faster."""
        entries: list[dict[str, str]] = [
            {"path": file.path, "mode": "100644", "type": "blob", "sha": file.sha} for file in files
        ]
        readme = {"path": "README.md", "mode": "100644", "type": "blob", "content": _README}
        tree = self._made("trees", {"tree": [readme, *entries]})
        if head is None:
            commit = self._commit(f"{_MESSAGE}1", tree, [])
            return self._reference("POST", "", {"ref": f"refs/heads/{BRANCH}", "sha": commit})
        if head.commits < _SHORTENED_AFTER:
            commit = self._commit(f"{_MESSAGE}{head.commits + 1}", tree, [head.sha])
            return self._move(commit)
        claim = self._commit(_CLAIM, tree, [head.sha])
        if not self._move(claim):
            return False
        alone = self._commit(f"{_MESSAGE}1", tree, [])
        return self._last() == claim and self._move(alone, force=True)

    def _last(self) -> str:
        path = f"{self._connection.path}/git/ref/heads/{BRANCH}"
        return self._connection.rest.get(path, _READ).read(models.Reference).object.sha

    def _commit(self, message: str, tree: str, parents: Sequence[str]) -> str:
        return self._made("commits", {"message": message, "tree": tree, "parents": parents})

    def _move(self, commit: str, *, force: bool = False) -> bool:
        # A forced move that is sent again could come after the next job's.
        body = {"sha": commit, "force": force}
        return self._reference("PATCH", f"/heads/{BRANCH}", body, once=force)

    def _reference(
        self, method: str, place: str, body: Mapping[str, object], *, once: bool = False
    ) -> bool:
        path = f"{self._connection.path}/git/refs{place}"
        accept = frozenset({409, 422})
        response = self._connection.rest.write(method, path, body, _WRITE, accept=accept, once=once)
        return response.status < 400

    def _made(self, kind: str, body: Mapping[str, object]) -> str:
        path = f"{self._connection.path}/git/{kind}"
        response: Response = self._connection.rest.write("POST", path, body, _WRITE)
        return response.read(models.Object).sha


def prune(files: Iterable[File], written: tuple[int, str]) -> list[File]:
    """Return the files that stay.

    These are the last two reports of each project on a pull request, for the 50 newest pull
    requests and at most 20 MB. What is written now stays in any case.

    Args:
        files: of the branch, with the new ones.
        written: the pull request and the project that are written now.
    """
    reports: dict[tuple[int, str, int], list[File]] = {}
    for file in sorted(files, key=lambda file: (file.report, file.path)):
        reports.setdefault(file.report, []).append(file)
    own = [report for report in reports if report[:2] == written]
    others = [report for report in reports if report[:2] != written]
    kept: list[File] = []
    seen: dict[tuple[int, str], int] = {}
    pulls: set[int] = {written[0]}
    room = BYTES_KEPT
    for report in [*reversed(own), *reversed(others)]:
        pull, project, _ = report
        size = sum(file.size for file in reports[report])
        count = seen[pull, project] = seen.get((pull, project), 0) + 1
        is_newest = report[:2] == written and count == 1
        fits = size <= room and (pull in pulls or len(pulls) < PULLS_KEPT)
        if is_newest or (count <= REPORTS_KEPT and fits):
            kept += reports[report]
            pulls.add(pull)
            room -= size
    return kept


def blob_digest(content: bytes) -> str:
    """Return git's digest of a file's content."""
    head = f"blob {len(content)}\0".encode()
    return hashlib.sha1(head + content, usedforsecurity=False).hexdigest()


def _names(pictures: Mapping[str, bytes]) -> dict[str, str]:
    """Return a file name for each picture, all of them different."""
    names: dict[str, str] = {}
    for path, content in pictures.items():
        name = picture_name(path, content)
        stem, _, end = name.rpartition(".")
        number = 1
        while name in names.values():
            number += 1
            name = f"{stem}-{number}.{end}"
        names[path] = name
    return names


def _ours(entries: Iterable[models.Entry]) -> tuple[File, ...]:
    return tuple(
        File(
            project=match[1],
            pull=int(match[2]),
            number=int(match[3]),
            path=entry.path,
            sha=entry.sha,
            size=entry.size,
        )
        for entry in entries
        if entry.type == "blob" and (match := _PATH.fullmatch(entry.path))
    )
