"""A schema registry in memory: the part of Confluent's REST API that a stream uses.

Made from https://docs.confluent.io/platform/current/schema-registry/develop/api.html. Confluent's
own client and serializers have been run against it. It compares no schemas: `refused` subjects are.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class SchemaRegistry:
    """The schemas by id.

    Attributes:
        url: its address.
        login: the header that a request must have; empty for none.
        fault: the status of each response, with no text of a registry; 0 if it is well.
    """

    def __init__(self) -> None:
        self.schemas: dict[int, dict[str, str]] = {}
        self.refused: set[str] = set()
        self.login = ""
        self.fault = 0
        self.url = ""

    def register(self, schema: str, kind: str) -> int:
        """Return the id of a schema."""
        known = {"schema": schema} | ({} if kind == "AVRO" else {"schemaType": kind})
        for number, each in self.schemas.items():
            if each == known:
                return number
        self.schemas[len(self.schemas) + 1] = known
        return len(self.schemas)

    def answer(self, method: str, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Return status and body of a response."""
        parts = path.partition("?")[0].strip("/").split("/")
        if method == "GET" and parts[:2] == ["schemas", "ids"]:
            found = self.schemas.get(int(parts[2]))
            if found is None:
                return 404, {"error_code": 40403, "message": "Schema not found"}
            return 200, dict(found)
        if method == "POST" and parts[0] == "subjects":
            if parts[1] in self.refused:
                return 409, {"error_code": 409, "message": "incompatible"}
            number = self.register(body["schema"], body.get("schemaType", "AVRO"))
            if parts[-1] == "versions":
                return 200, {"id": number}
            return 200, {"id": number, "subject": parts[1], "version": 1, **self.schemas[number]}
        return 404, {"error_code": 404, "message": "HTTP 404 Not Found"}


@contextmanager
def schema_registry() -> Iterator[SchemaRegistry]:
    """Serve a registry."""
    registry = SchemaRegistry()

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            size = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(size) or b"{}")
            if registry.login and self.headers.get("Authorization") != registry.login:
                status, answer = 401, {"error_code": 401, "message": "Unauthorized"}
            else:
                status, answer = registry.answer(self.command, self.path, body)
            data = json.dumps(answer).encode()
            if registry.fault:
                status, data = registry.fault, b"<html>default backend"
            self.send_response(status)
            self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    for method in ("GET", "POST"):
        setattr(Handler, f"do_{method}", Handler.handle_any)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    registry.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield registry
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
