"""A stand-in for GitHub's REST API on this machine: the part that reports and releases need.

    python -m tests.stand_ins.github --port 8090 --state github.json

Shapes, statuses and messages are those of GitHub's documentation; paths are served as on
api.github.com and, for clients of another host, under /api/v3. Calls are recorded in the state.
It shows that calls are well-formed and that refusals are met; not that GitHub itself accepts them.
"""

import argparse
import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlencode, urlsplit

from tests.stand_ins import github_git as objects
from tests.stand_ins import github_shapes as shapes
from tests.stand_ins.github_shapes import Json
from tests.stand_ins.github_state import ROLES, RefusedRequestError, State

COMMENT_LIMIT = 65_536

Route = Callable[["Request"], tuple[int, Any]]
ROUTES: list[tuple[str, re.Pattern[str], Route]] = []


def route(method: str, path: str) -> Callable[[Route], Route]:
    """Serve a path: `{name}` is one part of it."""
    pattern = re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", path))

    def add(function: Route) -> Route:
        ROUTES.append((method, pattern, function))
        return function

    return add


class Request:
    """A request of a known token, and what the rules let it do."""

    def __init__(self, state: State, api: str, token: Json, parts: Mapping[str, str]) -> None:
        self.state, self.api, self.token = state, api, token
        self.web = api.removesuffix("/api/v3")
        self.parts = {name: unquote(part) for name, part in parts.items()}
        self.query: dict[str, str] = {}
        self.body: Json = {}

    @property
    def login(self) -> str:
        return str(self.token["login"])

    @property
    def repository(self) -> str:
        wanted = f"{self.parts['owner']}/{self.parts['repo']}"
        self.state.repository(wanted)
        names = self.state.data["repositories"]
        return next(str(name) for name in names if name.casefold() == wanted.casefold())

    def need(self, level: str, *names: str) -> None:
        """Refuse a token that has none of the permissions.

        What is public may be read with any token. A person's token can do no more than the person.
        """
        is_public = self.state.repository(self.repository)["is_public"]
        role = self.state.role(self.repository, self.login)
        is_job = self.login.endswith("[bot]")
        if level == "read" and is_public:
            return
        if not is_job and ROLES.index(role) < ROLES.index("read"):
            raise RefusedRequestError(404, "Not Found")
        permissions = self.token["permissions"]
        if not any(
            ROLES.index(permissions.get(one, "none")) >= ROLES.index(level) for one in names
        ):
            kind = "integration" if is_job else "personal access token"
            raise RefusedRequestError(403, f"Resource not accessible by {kind}")

    def pull(self) -> Json:
        return self.pull_of(int(self.parts["number"]))

    def pull_of(self, number: int) -> Json:
        for one in self.state.pulls(self.repository):
            if one["number"] == number:
                return one
        raise RefusedRequestError(404, "Not Found")

    def user(self, login: str) -> Json:
        return shapes.user(login, self.state.data["accounts"][login]["id"], self.web)

    def shown(self, shape: Callable[..., Json], kept: Json) -> Json:
        return shape(kept, self.user(kept["author"]), self.api, self.web, self.repository)


@route("GET", "/user")
def user(request: Request) -> tuple[int, Any]:
    if request.login.endswith("[bot]"):
        raise RefusedRequestError(403, "Resource not accessible by integration")
    return 200, request.user(request.login)


@route("GET", "/repos/{owner}/{repo}/collaborators/{login}/permission")
def permission(request: Request) -> tuple[int, Any]:
    login = request.parts["login"]
    if login not in request.state.data["accounts"]:
        raise RefusedRequestError(404, "Not Found")
    role = request.state.role(request.repository, login)
    return 200, {"permission": role, "role_name": role, "user": request.user(login)}


@route("GET", "/repos/{owner}/{repo}/pulls")
def pulls(request: Request) -> tuple[int, Any]:
    request.need("read", "pull-requests")
    wanted = request.query.get("state", "open")
    found = [
        one for one in request.state.pulls(request.repository) if wanted in ("all", one["state"])
    ]
    if "base" in request.query:
        found = [one for one in found if one["base"] == request.query["base"]]
    owner, colon, branch = request.query.get("head", "").partition(":")
    if colon:
        found = [
            one
            for one in found
            if (one["head_repository"].partition("/")[0], one["head"]) == (owner, branch)
        ]
    return 200, [request.shown(shapes.pull, one) for one in found]


@route("POST", "/repos/{owner}/{repo}/pulls")
def open_pull(request: Request) -> tuple[int, Any]:
    request.need("write", "pull-requests")
    kept = request.state.repository(request.repository)
    if request.login.endswith("[bot]") and not kept["jobs_may_open_pulls"]:
        raise RefusedRequestError(
            403, "GitHub Actions is not permitted to create or approve pull requests."
        )
    body = request.body
    made = request.state.open_pull(
        request.repository,
        request.login,
        head=body["head"].rpartition(":")[2],
        base=body["base"],
        title=body["title"],
        body=body.get("body"),
    )
    return 201, request.shown(shapes.pull, made)


@route("GET", "/repos/{owner}/{repo}/pulls/{number}")
def one_pull(request: Request) -> tuple[int, Any]:
    request.need("read", "pull-requests")
    return 200, {
        **request.shown(shapes.pull, request.pull()),
        "merged": bool(request.pull()["merged_at"]),
    }


@route("PATCH", "/repos/{owner}/{repo}/pulls/{number}")
def edit_pull(request: Request) -> tuple[int, Any]:
    request.need("write", "pull-requests")
    kept = request.pull()
    kept |= {name: request.body[name] for name in ("title", "body") if name in request.body}
    kept["updated_at"] = request.state.now()
    return 200, request.shown(shapes.pull, kept)


@route("PUT", "/repos/{owner}/{repo}/pulls/{number}/merge")
def merge(request: Request) -> tuple[int, Any]:
    request.need("write", "contents")
    kept = request.pull()
    if kept["state"] != "open":
        raise RefusedRequestError(405, "Pull Request is not mergeable")
    email = request.state.data["accounts"][request.login]["email"]
    sha = request.state.merge(request.repository, kept["head_sha"], kept["base"], email)
    now = request.state.now()
    kept |= {"state": "closed", "closed_at": now, "merged_at": now, "merge_commit_sha": sha}
    return 200, {"sha": sha, "merged": True, "message": "Pull Request successfully merged"}


@route("GET", "/repos/{owner}/{repo}/issues/{number}/comments")
def comments(request: Request) -> tuple[int, Any]:
    request.need("read", "pull-requests", "issues")
    number = request.pull()["number"]
    found = [
        one
        for one in request.state.data["comments"]
        if (one["repository"], one["issue"]) == (request.repository, number)
    ]
    return 200, [request.shown(shapes.comment, one) for one in found]


@route("POST", "/repos/{owner}/{repo}/issues/{number}/comments")
def post_comment(request: Request) -> tuple[int, Any]:
    number = request.pull()["number"]
    request.need("write", "pull-requests", "issues")
    made = request.state.add_comment(request.repository, number, request.login, _text(request))
    return 201, request.shown(shapes.comment, made)


@route("PATCH", "/repos/{owner}/{repo}/issues/comments/{id}")
def edit_comment(request: Request) -> tuple[int, Any]:
    request.need("write", "pull-requests", "issues")
    for kept in request.state.data["comments"]:
        if (kept["repository"], kept["id"]) == (request.repository, int(request.parts["id"])):
            kept |= {"body": _text(request), "updated_at": request.state.now()}
            return 200, request.shown(shapes.comment, kept)
    raise RefusedRequestError(404, "Not Found")


@route("GET", "/repos/{owner}/{repo}/pulls/{number}/reviews")
def reviews(request: Request) -> tuple[int, Any]:
    request.need("read", "pull-requests")
    number = request.pull()["number"]
    found = [
        one
        for one in request.state.data["reviews"]
        if (one["repository"], one["pull"]) == (request.repository, number)
    ]
    return 200, [request.shown(shapes.review, one) for one in found]


@route("POST", "/repos/{owner}/{repo}/pulls/{number}/reviews")
def post_review(request: Request) -> tuple[int, Any]:
    states = {"APPROVE": "APPROVED", "REQUEST_CHANGES": "CHANGES_REQUESTED", "COMMENT": "COMMENTED"}
    made = request.state.add_review(
        request.repository,
        request.pull()["number"],
        request.login,
        states[request.body["event"]],
        request.body.get("commit_id", ""),
        request.body.get("body", ""),
    )
    return 200, request.shown(shapes.review, made)


@route("PUT", "/repos/{owner}/{repo}/pulls/{number}/reviews/{id}/dismissals")
def dismiss(request: Request) -> tuple[int, Any]:
    request.need("write", "pull-requests")
    for kept in request.state.data["reviews"]:
        if kept["id"] == int(request.parts["id"]):
            kept["state"] = "DISMISSED"
            return 200, request.shown(shapes.review, kept)
    raise RefusedRequestError(404, "Not Found")


@route("GET", "/repos/{owner}/{repo}/commits/{sha}")
def commit(request: Request) -> tuple[int, Any]:
    request.need("read", "contents")
    sha = request.parts["sha"]
    kept = request.state.commit_of(request.repository, sha)
    login = request.state.account_of(kept["email"])
    author = request.user(login) if login else None
    return 200, shapes.commit(sha, kept, author, request.api, request.repository)


@route("GET", "/repos/{owner}/{repo}/commits/{sha}/pulls")
def pulls_of_commit(request: Request) -> tuple[int, Any]:
    request.need("read", "pull-requests")
    sha, name, state = request.parts["sha"], request.repository, request.state
    state.commit_of(name, sha)
    found = []
    for one in state.pulls(name):
        brought = state.brought(name, one["head_sha"], one["base_sha"])
        if sha in (*brought, one["head_sha"], one["merge_commit_sha"]):
            found.append(one)
    return 200, [request.shown(shapes.pull, one) for one in found]


@route("GET", "/repos/{owner}/{repo}/git/ref/heads/{branch}")
def reference(request: Request) -> tuple[int, Any]:
    request.need("read", "contents")
    sha = objects.head(request.state, request.repository, request.parts["branch"])
    return 200, shapes.reference(request.parts["branch"], sha, request.api, request.repository)


@route("GET", "/repos/{owner}/{repo}/git/commits/{sha}")
def git_commit(request: Request) -> tuple[int, Any]:
    request.need("read", "contents")
    found = objects.commit_of(request.state, request.repository, request.parts["sha"])
    return 200, shapes.git_commit(found, request.api, request.repository)


@route("GET", "/repos/{owner}/{repo}/git/trees/{sha}")
def git_tree(request: Request) -> tuple[int, Any]:
    request.need("read", "contents")
    is_deep = "recursive" in request.query
    entries = objects.tree_of(request.state, request.repository, request.parts["sha"], is_deep)
    return 200, {"sha": request.parts["sha"], "tree": entries, "truncated": False}


@route("POST", "/repos/{owner}/{repo}/git/{kind}")
def git_object(request: Request) -> tuple[int, Any]:
    request.need("write", "contents")
    kind = request.parts["kind"]
    if kind == "refs":
        branch = request.body["ref"].removeprefix("refs/heads/")
        objects.create(request.state, request.repository, branch, request.body["sha"])
        sha = request.body["sha"]
        return 201, shapes.reference(branch, sha, request.api, request.repository)
    make = {"blobs": objects.blob, "trees": objects.tree, "commits": objects.commit}.get(kind)
    if make is None:
        raise RefusedRequestError(404, "Not Found")
    sha = make(request.state, request.repository, request.body)
    return 201, {"sha": sha, "url": f"{request.api}/repos/{request.repository}/git/{kind}/{sha}"}


@route("PATCH", "/repos/{owner}/{repo}/git/refs/heads/{branch}")
def move_reference(request: Request) -> tuple[int, Any]:
    request.need("write", "contents")
    branch, sha = request.parts["branch"], request.body["sha"]
    force = request.body.get("force", False)
    objects.move(request.state, request.repository, branch, sha, force=force)
    return 200, shapes.reference(branch, sha, request.api, request.repository)


def _text(request: Request) -> str:
    text = str(request.body["body"])
    if len(text.encode("utf-16-le")) // 2 > COMMENT_LIMIT:
        problem = {
            "resource": "IssueComment",
            "code": "unprocessable",
            "field": "data",
            "message": f"Body is too long (maximum is {COMMENT_LIMIT} characters)",
        }
        raise RefusedRequestError(422, "Validation Failed", problem)
    return text


class Handler(BaseHTTPRequestHandler):
    """Answers a request from the state that its server holds."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: "Server"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (http.server's name)
        """Say nothing: the state has the calls."""

    def _serve(self) -> None:
        state = self.server.state
        length = int(self.headers.get("Content-Length") or 0)
        data = self.rfile.read(length)
        with state.lock:
            call: Json = {"method": self.command, "path": self.path, "login": None}
            headers: dict[str, str] = {}
            try:
                status, answer = self._answer(data, call, headers)
            except RefusedRequestError as refused:
                status = refused.status
                answer = shapes.fault(status, refused.message, *refused.errors)
            state.data["calls"].append({**call, "status": status})
            state.save()
        content = json.dumps(answer).encode()
        self.send_response(status)
        headers |= {"Content-Type": "application/json; charset=utf-8"}
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PATCH = do_PUT = _serve  # noqa: N815 (http.server's names)

    def _answer(self, data: bytes, call: Json, headers: dict[str, str]) -> tuple[int, Any]:
        state, split = self.server.state, urlsplit(self.path)
        prefix = "/api/v3" if split.path.startswith("/api/v3/") else ""
        path = split.path.removeprefix(prefix)
        scheme, _, secret = self.headers.get("Authorization", "").partition(" ")
        token = state.data["tokens"].get(secret) if scheme in ("Bearer", "token") else None
        if token is None:
            raise RefusedRequestError(401, "Bad credentials")
        call["login"] = token["login"]
        planned = next(iter(state.data["planned"]), None)
        if planned is not None and planned["at"] in ("", self.command):
            state.data["planned"].pop(0)
            headers |= planned["headers"]
            raise RefusedRequestError(planned["status"], planned["message"])
        for method, pattern, function in ROUTES:
            match = pattern.fullmatch(path)
            if match and method == self.command:
                request = Request(state, self.server.url + prefix, token, match.groupdict())
                request.query = {name: one[0] for name, one in parse_qs(split.query).items()}
                request.body = json.loads(data) if data else {}
                call["body"] = request.body
                status, answer = function(request)
                if isinstance(answer, list):
                    answer = self._page(answer, request, path, headers)
                return status, answer
        raise RefusedRequestError(404, "Not Found")

    def _page(self, found: list[Json], request: Request, path: str, headers: dict[str, str]) -> Any:
        size = min(100, int(request.query.get("per_page", 30)))
        page, last = int(request.query.get("page", 1)), max(1, -(-len(found) // size))

        def link(number: int, rel: str) -> str:
            query = urlencode({**request.query, "page": number}, quote_via=quote)
            return f'<{request.api}{path}?{query}>; rel="{rel}"'

        if page < last:
            headers["Link"] = f"{link(page + 1, 'next')}, {link(last, 'last')}"
        return found[(page - 1) * size : page * size]


class Server(ThreadingHTTPServer):
    """The stand-in on a port of the loopback address."""

    daemon_threads = True

    def __init__(self, state: State, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.state = state

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def serving(state: State) -> Iterator[str]:
    """Serve a state in this process and give the address of the API."""
    server = Server(state)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server.url
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def main() -> None:
    """Serve a file's state until the process is ended."""
    parser = argparse.ArgumentParser(description="A stand-in for GitHub's REST API.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--state", type=Path, required=True, help="JSON; written at each call")
    given = parser.parse_args()
    data = json.loads(given.state.read_text()) if given.state.exists() else None
    server = Server(State(data, given.state), given.port)
    print(server.url, flush=True)  # noqa: T201
    server.serve_forever()


if __name__ == "__main__":
    main()
