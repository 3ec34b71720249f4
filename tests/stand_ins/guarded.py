"""A tracking server and a registry that let in who has the secret, and keep what they were told.

Of MLflow it has what a ledger needs: experiments and runs. Everything else that comes with the
secret is kept as `METHOD path`, such as an alias that is moved or an image that is pushed.
"""

import json
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

SECRET = "the-secret-of-the-server"


class Guarded:
    """The state of the server.

    Attributes:
        runs: of all experiments, by id.
        told: what else came with the secret.
        turned_away: how many requests had no secret.
    """

    def __init__(self) -> None:
        self.experiments: dict[str, str] = {}
        self.runs: dict[str, dict[str, Any]] = {}
        self.told: list[str] = []
        self.turned_away = 0
        self.lock = threading.Lock()

    def names(self) -> list[str]:
        """Return the names of the runs in the order of their creation."""
        return [str(run["info"]["run_name"]) for run in self.runs.values()]

    def answer(self, method: str, path: str, values: dict[str, Any]) -> tuple[int, Any]:
        """Return the status and the body of an answer."""
        known: dict[str, Callable[[dict[str, Any]], tuple[int, Any]]] = {
            "experiments/get-by-name": self._experiment,
            "experiments/create": self._create_experiment,
            "runs/create": lambda values: (200, {"run": self._created(values)}),
            "runs/update": lambda values: (200, {"run_info": self.runs[values["run_id"]]["info"]}),
            "runs/get": lambda values: (200, {"run": self.runs[values["run_id"]]}),
            "runs/search": self._search,
        }
        answer = known.get(path.removeprefix("/api/2.0/mlflow/"))
        if answer is not None:
            return answer(values)
        self.told.append(f"{method} {path}")
        return 200, {}

    def _experiment(self, values: dict[str, Any]) -> tuple[int, Any]:
        name = values["experiment_name"]
        if name not in self.experiments:
            return 404, {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "none"}
        number = self.experiments[name]
        experiment = {"experiment_id": number, "name": name, "lifecycle_stage": "active"}
        return 200, {"experiment": experiment}

    def _create_experiment(self, values: dict[str, Any]) -> tuple[int, Any]:
        number = self.experiments.setdefault(values["name"], str(len(self.experiments) + 1))
        return 200, {"experiment_id": number}

    def _search(self, values: dict[str, Any]) -> tuple[int, Any]:
        wanted = values["experiment_ids"]
        return 200, {"runs": [run for run in self.runs.values() if run["experiment"] in wanted]}

    def _created(self, values: dict[str, Any]) -> dict[str, Any]:
        number = uuid.uuid4().hex
        info = {
            "run_id": number,
            "run_name": values.get("run_name", ""),
            "experiment_id": values["experiment_id"],
            "artifact_uri": f"mlflow-artifacts:/{number}",
            "lifecycle_stage": "active",
            "status": "FINISHED",
        }
        data = {"tags": values.get("tags", []), "params": [], "metrics": []}
        run = {"info": info, "data": data, "experiment": values["experiment_id"]}
        self.runs[number] = run
        return run


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: Guarded

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (http.server's name)
        pass

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = urlsplit(self.path)
        with self.state.lock:
            if SECRET not in self.headers.get("Authorization", ""):
                self.state.turned_away += 1
                status, answer = 401, {"message": "who are you?"}
            else:
                query = {name: found[0] for name, found in parse_qs(parts.query).items()}
                values = query | (json.loads(body) if body.startswith(b"{") else {})
                status, answer = self.state.answer(self.command, parts.path, values)
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve  # noqa: N815


@contextmanager
def serving(state: Guarded) -> Iterator[str]:
    """Give the address of the server while it runs."""
    handler = type("Handler", (_Handler,), {"state": state})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
