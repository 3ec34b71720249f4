"""A small honest API server in memory: objects with a resourceVersion, changed by compare-and-set.

It knows no kind: what is applied is merged, and nothing controls anything.
"""

import json
import ssl
from collections.abc import Callable
from typing import Any

import httpx

from mlship.adapters.http.clients import Reach, open_client
from mlship.adapters.targets.kubernetes.access import Access

ACCESS = Access(name="context fake", server="https://fake", trust=ssl.create_default_context())


class FakeApiServer:
    """Answers requests for objects.

    Attributes:
        objects: by their path.
        writes: the method and the path of each request that changed something.
        before: called with each request before it is answered.
    """

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self.writes: list[tuple[str, str]] = []
        self.before: Callable[[httpx.Request], None] = lambda _: None
        self._version = 0

    def client(self) -> httpx.Client:
        """Return a client of this server, as `api.reached` does of a real one."""
        return open_client(Reach(transport=httpx.MockTransport(self)), base_url="https://fake")

    def find(self, kind: str, name: str) -> dict[str, Any]:
        """Return an object by its plural and its name."""
        return next(one for path, one in self.objects.items() if path.endswith(f"/{kind}/{name}"))

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.before(request)
        where = request.url.path
        body = json.loads(request.content) if request.content else {}
        match request.method:
            case "GET" if where in self.objects:
                return httpx.Response(200, json=self.objects[where])
            case "GET" if where.rpartition("/")[2] in ("deployments", "pods"):
                return httpx.Response(200, json=self._list(where, request))
            case "GET":
                return _status(404, "NotFound")
            case "POST":
                return self._create(f"{where}/{body['metadata']['name']}", body)
            case "PUT" | "PATCH":
                return self._write(request, where, body)
            case _:
                return self._delete(where, body)

    def _list(self, where: str, request: httpx.Request) -> dict[str, Any]:
        wanted = [
            pair.partition("=")[::2] for pair in request.url.params["labelSelector"].split(",")
        ]
        items = [
            {key: value for key, value in one.items() if key not in ("kind", "apiVersion")}
            for path, one in self.objects.items()
            if path.startswith(f"{where}/")
            and all(one["metadata"].get("labels", {}).get(key) == value for key, value in wanted)
        ]
        return {"kind": "List", "apiVersion": "v1", "metadata": {}, "items": items}

    def _create(self, where: str, body: dict[str, Any]) -> httpx.Response:
        if where in self.objects:
            return _status(409, "AlreadyExists")
        return self._keep("POST", where, body)

    def _write(self, request: httpx.Request, where: str, body: dict[str, Any]) -> httpx.Response:
        old = self.objects.get(where)
        is_apply = request.headers["content-type"] == "application/apply-patch+yaml"
        if old is None:
            return self._keep("PATCH", where, body) if is_apply else _status(404, "NotFound")
        asked = body["metadata"].get("resourceVersion")
        if asked not in (None, old["metadata"]["resourceVersion"]):
            return _status(409, "Conflict")
        new = body if request.method == "PUT" else _merged(old, body)
        if new == old:
            return httpx.Response(200, json=old)
        return self._keep(request.method, where, new)

    def _delete(self, where: str, body: dict[str, Any]) -> httpx.Response:
        old = self.objects.get(where)
        if old is None:
            return _status(404, "NotFound")
        asked = body.get("preconditions", {}).get("resourceVersion")
        if asked not in (None, old["metadata"]["resourceVersion"]):
            return _status(409, "Conflict")
        self.writes.append(("DELETE", where))
        return httpx.Response(200, json=self.objects.pop(where))

    def _keep(self, method: str, where: str, body: dict[str, Any]) -> httpx.Response:
        self._version += 1
        metadata = {
            "uid": f"uid-{where}",
            "generation": 1,
            **body["metadata"],
            "resourceVersion": str(self._version),
        }
        self.objects[where] = {**body, "metadata": metadata}
        self.writes.append((method, where))
        return httpx.Response(200, json=self.objects[where])


def _merged(old: Any, new: Any) -> Any:
    if not isinstance(old, dict) or not isinstance(new, dict):
        return new
    return {**old, **{key: _merged(old.get(key), value) for key, value in new.items()}}


def _status(code: int, reason: str) -> httpx.Response:
    body = {"kind": "Status", "apiVersion": "v1", "reason": reason, "message": reason}
    return httpx.Response(code, json=body)
