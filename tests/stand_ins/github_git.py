"""The objects of git that the stand-in for GitHub keeps: blobs, trees, commits, and branches.

Digests are git's own, so that a client may compute them. Rules, statuses and messages are those of
https://docs.github.com/en/rest/git. Objects that no branch leads to are kept, as GitHub does for
a long time.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Iterator

from tests.stand_ins.github_shapes import Json
from tests.stand_ins.github_state import RefusedRequestError, State

BLOB_LIMIT = 40_000_000


def head(state: State, repository: str, branch: str) -> str:
    """Return the last commit of a branch."""
    kept = state.repository(repository)
    if not kept["branches"]:
        raise RefusedRequestError(409, "Git Repository is empty.")
    sha = kept["branches"].get(branch)
    if sha is None:
        raise RefusedRequestError(404, "Not Found")
    return str(sha)


def blob(state: State, repository: str, body: Json) -> str:
    """Keep a file's content."""
    text = body["content"]
    try:
        is_binary = body.get("encoding", "utf-8") == "base64"
        content = base64.b64decode(text, validate=True) if is_binary else text.encode()
    except binascii.Error as error:
        raise RefusedRequestError(422, "content is not valid Base64") from error
    if len(content) > BLOB_LIMIT:
        raise RefusedRequestError(422, "Sorry, your input was too large to process.")
    data = base64.b64encode(content).decode()
    return _put(state, repository, _digest(b"blob", content), {"blob": data})


def tree(state: State, repository: str, body: Json) -> str:
    """Keep a tree of files by their whole path."""
    files: dict[str, str] = {}
    for entry in body["tree"]:
        if (entry["mode"], entry["type"]) != ("100644", "blob"):
            raise RefusedRequestError(422, "tree.mode must be one of 100644")
        if ("sha" in entry) == ("content" in entry):
            raise RefusedRequestError(422, "Must supply either tree.sha or tree.content")
        sha = entry.get("sha") or blob(state, repository, {"content": entry["content"]})
        if "blob" not in _objects(state, repository).get(sha, {}):
            raise RefusedRequestError(422, f"tree.sha {sha} does not exist")
        parts = entry["path"].split("/")
        if not all(parts) or {".", "..", ".git"} & set(parts):
            raise RefusedRequestError(422, "tree.path contains a malformed path component")
        files[entry["path"]] = sha
    if not files:
        raise RefusedRequestError(422, "Invalid tree info")
    name = _digest(b"tree", json.dumps(files, sort_keys=True).encode())
    return _put(state, repository, name, {"tree": files})


def commit(state: State, repository: str, body: Json) -> str:
    """Keep a commit."""
    if "tree" not in _objects(state, repository).get(body["tree"], {}):
        raise RefusedRequestError(422, "Tree SHA does not exist")
    for parent in body["parents"]:
        commit_of(state, repository, parent)
    kept = {
        "message": body["message"],
        "tree": body["tree"],
        "parents": list(body["parents"]),
        "date": state.now(),
    }
    name = _digest(b"commit", json.dumps(kept, sort_keys=True).encode())
    return _put(state, repository, name, {"commit": kept})


def commit_of(state: State, repository: str, sha: str) -> Json:
    """Return a commit, made here or put there by a test."""
    made = _objects(state, repository).get(sha, {}).get("commit")
    other = state.repository(repository)["commits"].get(sha)
    if made is None and other is None:
        raise RefusedRequestError(404, "Not Found")
    return {**(made or other), "sha": sha}


def tree_of(state: State, repository: str, sha: str, is_deep: bool) -> list[Json]:
    """Return the entries of a tree, all that are below it if `is_deep`."""
    objects = _objects(state, repository)
    if "tree" not in objects.get(sha, {}):
        raise RefusedRequestError(404, "Not Found")
    if not is_deep:
        raise RefusedRequestError(501, "the stand-in lists trees with recursive=1 only")
    files: dict[str, str] = objects[sha]["tree"]
    folders = sorted({folder for path in files for folder in _folders(path)})
    entries: list[Json] = [
        {"path": path, "mode": "040000", "type": "tree", "sha": _digest(b"tree", path.encode())}
        for path in folders
    ]
    for path, blob_sha in sorted(files.items()):
        size = len(_bytes(objects[blob_sha]))
        entries.append(
            {"path": path, "mode": "100644", "type": "blob", "sha": blob_sha, "size": size}
        )
    return entries


def create(state: State, repository: str, branch: str, sha: str) -> None:
    """Make a branch."""
    commit_of(state, repository, sha)
    branches = state.repository(repository)["branches"]
    if branch in branches:
        raise RefusedRequestError(422, "Reference already exists")
    branches[branch] = sha


def move(state: State, repository: str, branch: str, sha: str, *, force: bool) -> None:
    """Move a branch to a commit: without force only to one that comes after its last one."""
    branches = state.repository(repository)["branches"]
    if branch not in branches:
        raise RefusedRequestError(422, "Reference does not exist")
    if not force and branches[branch] not in history(state, repository, sha):
        raise RefusedRequestError(422, "Update is not a fast forward")
    branches[branch] = sha


def history(state: State, repository: str, sha: str) -> list[str]:
    """Return a commit and all before it, the newest first."""
    found: list[str] = []
    waiting = [sha]
    while waiting:
        found.append(waiting.pop())
        waiting += commit_of(state, repository, found[-1])["parents"]
    return found


def files(state: State, repository: str, branch: str) -> dict[str, bytes]:
    """Return the files of a branch, as a person sees them there."""
    objects = _objects(state, repository)
    last = commit_of(state, repository, head(state, repository, branch))
    return {path: _bytes(objects[sha]) for path, sha in objects[last["tree"]]["tree"].items()}


def _bytes(kept: Json) -> bytes:
    return base64.b64decode(kept["blob"])


def _folders(path: str) -> Iterator[str]:
    parts = path.split("/")
    yield from ("/".join(parts[:count]) for count in range(1, len(parts)))


def _objects(state: State, repository: str) -> Json:
    objects: Json = state.repository(repository)["objects"]
    return objects


def _put(state: State, repository: str, name: str, kept: Json) -> str:
    _objects(state, repository)[name] = kept
    return name


def _digest(kind: bytes, content: bytes) -> str:
    data = b"%s %d\0" % (kind, len(content)) + content
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()
