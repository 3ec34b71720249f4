"""A small registry in memory, behind `httpx.MockTransport`; it breaks as a test tells it to."""

import base64
import hashlib
import itertools
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator

import httpx

INDEX = "application/vnd.oci.image.index.v1+json"
_PATH = re.compile(r"/v2/(?P<name>.+?)/(?P<kind>manifests|blobs/uploads|blobs)/(?P<rest>[^/]*)$")
_REFERRERS = re.compile(r"/v2/(?P<name>.+?)/referrers/(?P<digest>sha256:[0-9a-f]{64})$")
Handler = Callable[[httpx.Request, "re.Match[str]"], httpx.Response]


class Broken(httpx.ReadError):
    """The connection broke while something was sent."""


class FakeRegistry:
    """One registry.

    Attributes:
        breaks: so many bytes of an upload arrive before its connection breaks; one for each time.
        cuts: so many bytes of a blob are given before its connection breaks; one for each time.
        answers: statuses and headers that are given before anything is done, one a request.
        forgets: a broken upload is not known any more, as in registries of the older kind.
        page: so many tags are in one answer, all where it is 0; `link` is before the next path.
        late: tags that are there, and that lists do not have yet.
        hides: who may only read is denied a repository that does not exist.
        lists: the Referrers API, with so many referrers in one answer; 0 for a registry without it.
        refuses: the status of requests for referrers, where it is set.
        compares: a manifest is only replaced by who names the one that is there, with If-Match.
        before: is called before each request is answered, as a request of another client may be.
        password: asked for where it is set; `user` is who may come in, and push if `pushes`.
    """

    def __init__(self) -> None:
        self.blobs: dict[str, dict[str, bytes]] = {}
        self.manifests: dict[str, dict[str, tuple[bytes, str]]] = {}
        self.uploads: dict[str, bytearray] = {}
        self._numbers = itertools.count()  # several threads upload at once
        self.requests: Counter[str] = Counter()
        self.log: list[str] = []
        self.breaks: list[int] = []
        self.cuts: list[int] = []
        self.answers: list[tuple[int, dict[str, str]]] = []
        self.forgets = self.mounts_nothing = self.lies = False
        self.password, self.pushes = "", True
        self.ranges: list[str] = []
        self.page, self.link = 0, ""
        self.late: set[str] = set()
        self.hides = False
        self.lists, self.refuses, self.compares = 0, 0, False
        self.before: Callable[[httpx.Request], None] = lambda _: None

    @property
    def transport(self) -> httpx.MockTransport:
        return httpx.MockTransport(self)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests[request.method] += 1
        self.log.append(f"{request.method} {request.url.path}")
        self.before(request)
        if request.url.path == "/token":
            return self._token(request)
        if self.answers:
            status, headers = self.answers.pop(0)
            return httpx.Response(status, headers=headers)
        denied = self._denied(request)
        if denied is not None:
            return denied
        return self._answer(request)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/tags/list"):
            return self._tags(request)
        match = _REFERRERS.match(request.url.path)
        if match is not None:
            return self._referrers(request, match["name"], match["digest"])
        match = _PATH.match(request.url.path)
        if match is None:
            return httpx.Response(404)
        handlers: dict[str, Handler] = {
            "manifests": self._manifest,
            "blobs": self._blob,
            "blobs/uploads": self._upload,
        }
        return handlers[match["kind"]](request, match)

    def put(self, name: str, data: bytes) -> str:
        digest = digest_of(data)
        self.blobs.setdefault(name, {})[digest] = data
        return digest

    def _denied(self, request: httpx.Request) -> httpx.Response | None:
        if not self.password:
            return None
        given = request.headers.get("Authorization", "")
        if given not in ("Bearer pull", "Bearer pull,push"):
            asked = 'Bearer realm="http://localhost:5000/token",service="fake"'
            return httpx.Response(401, headers={"WWW-Authenticate": asked})
        name, lists, _ = request.url.path.removeprefix("/v2/").partition("/tags/")
        is_hidden = self.hides and lists and name not in self.manifests
        if is_hidden and given == "Bearer pull":
            return httpx.Response(403, json={"errors": [{"code": "DENIED", "message": "denied"}]})
        if request.method not in ("GET", "HEAD") and given == "Bearer pull":
            error = {"errors": [{"code": "DENIED", "message": "you may only read"}]}
            return httpx.Response(403, json=error)
        return None

    def _token(self, request: httpx.Request) -> httpx.Response:
        wanted = "Basic " + base64.b64encode(f"ada:{self.password}".encode()).decode()
        if request.headers.get("Authorization") != wanted:
            return httpx.Response(401)
        asked = request.url.params.get_list("scope")
        may_push = self.pushes and any(scope.endswith("pull,push") for scope in asked)
        return httpx.Response(200, json={"token": "pull,push" if may_push else "pull"})

    def _tags(self, request: httpx.Request) -> httpx.Response:
        name = request.url.path.removeprefix("/v2/").removesuffix("/tags/list")
        if name not in self.manifests:
            return httpx.Response(404, json={"errors": [{"code": "NAME_UNKNOWN"}]})
        tags = sorted(
            one
            for one in self.manifests[name]
            if not one.startswith("sha256:") and one not in self.late
        )
        last = request.url.params.get("last", "")
        rest = [one for one in tags if one > last]
        page = rest[: self.page or None]
        answer = httpx.Response(200, json={"name": name, "tags": page or None})
        if len(page) < len(rest):
            answer.headers["Link"] = (
                f'<{self.link}/v2/{name}/tags/list?last={page[-1]}>; rel="next"'
            )
        return answer

    def _manifest(self, request: httpx.Request, match: "re.Match[str]") -> httpx.Response:
        kept = self.manifests.setdefault(match["name"], {})
        if request.method == "PUT":
            data = request.read()
            named = request.headers.get("If-Match", "").strip('"')
            there = kept.get(match["rest"])
            if self.compares and named and named != (digest_of(there[0]) if there else ""):
                return httpx.Response(412)
            stored = (data, request.headers["Content-Type"])
            kept[match["rest"]] = kept[digest_of(data)] = stored
            subject = json.loads(data).get("subject") if self.lists else None
            return httpx.Response(
                201, headers={"OCI-Subject": subject["digest"]} if subject else {}
            )
        if match["rest"] not in kept:
            return httpx.Response(404, json={"errors": [{"code": "MANIFEST_UNKNOWN"}]})
        data, kind = kept[match["rest"]]
        data = data + b" " if self.lies else data
        headers = {"Content-Type": kind, "Docker-Content-Digest": digest_of(data)}
        headers["ETag"] = f'"{digest_of(data)}"'
        return httpx.Response(200, headers=headers, content=data)

    def _referrers(self, request: httpx.Request, name: str, digest: str) -> httpx.Response:
        if self.refuses or not self.lists:
            return httpx.Response(self.refuses or 404)
        listed = []
        for own, (data, kind) in sorted(self.manifests.get(name, {}).items()):
            manifest = json.loads(data)
            if own.startswith("sha256:") and manifest.get("subject", {}).get("digest") == digest:
                entry = {"mediaType": kind, "digest": own, "size": len(data)}
                listed.append(entry | {"artifactType": manifest["artifactType"]})
        first = int(request.url.params.get("from", "0"))
        page = listed[first : first + self.lists]
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": page}
        answer = httpx.Response(200, json=index, headers={"Content-Type": INDEX})
        if first + self.lists < len(listed):
            place = f"{self.link}{request.url.path}?from={first + self.lists}"
            answer.headers["Link"] = f'<{place}>; rel="next"'
        return answer

    def _blob(self, request: httpx.Request, match: "re.Match[str]") -> httpx.Response:
        data = self.blobs.get(match["name"], {}).get(match["rest"])
        if data is None:
            return httpx.Response(404, json={"errors": [{"code": "BLOB_UNKNOWN"}]})
        wanted = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
        rest = data[int(wanted[1]) :] if wanted else data
        if self.cuts:
            return httpx.Response(206 if wanted else 200, content=_cut(rest, self.cuts.pop(0)))
        return httpx.Response(206 if wanted else 200, content=iter([rest]))

    def _upload(self, request: httpx.Request, match: "re.Match[str]") -> httpx.Response:
        name, number = match["name"], match["rest"]
        if request.method == "POST":
            return self._begin(request, name)
        if number not in self.uploads:
            return httpx.Response(404, json={"errors": [{"code": "BLOB_UPLOAD_UNKNOWN"}]})
        got = self.uploads[number]
        if request.method == "PATCH":
            self.ranges.append(request.headers.get("Content-Range", ""))
            self._take(request, number)
            return self._told(202, name, number)
        if request.method == "GET":
            return self._told(204, name, number)
        got.extend(request.read())
        if digest_of(bytes(got)) != request.url.params["digest"]:
            return httpx.Response(400, json={"errors": [{"code": "DIGEST_INVALID"}]})
        self.put(name, bytes(got))
        return httpx.Response(201)

    def _begin(self, request: httpx.Request, name: str) -> httpx.Response:
        digest, origin = (request.url.params.get(key, "") for key in ("mount", "from"))
        found = self.blobs.get(origin, {}).get(digest)
        if found is not None and not self.mounts_nothing:
            self.put(name, found)
            return httpx.Response(201)
        number = str(next(self._numbers))
        self.uploads[number] = bytearray()
        return self._told(202, name, number)

    def _take(self, request: httpx.Request, number: str) -> None:
        sent = request.read()
        if self.breaks:
            self.uploads[number].extend(sent[: self.breaks.pop(0)])
            if self.forgets:
                del self.uploads[number]
            raise Broken("the peer closed the connection", request=request)
        self.uploads[number].extend(sent)

    def _told(self, status: int, name: str, number: str) -> httpx.Response:
        last = max(0, len(self.uploads[number]) - 1)
        place = f"/v2/{name}/blobs/uploads/{number}"
        return httpx.Response(status, headers={"Location": place, "Range": f"0-{last}"})


def _cut(data: bytes, after: int) -> Iterator[bytes]:
    yield data[:after]
    raise Broken("the peer closed the connection")


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()
