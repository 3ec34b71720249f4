"""The servers that `serving.py` compares: mlship's, its peers', each as kind as its docs allow.

Each serves the same classifier of iris from the same estimator. The peers run in environments of
their own, from PyPI, with one worker, without access logs, and answer with less than mlship does:
none validates against a schema, logs a prediction or gives it an id; MLServer gives labels alone.
"""

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import sklearn

ROOT: Final = Path(__file__).resolve().parent.parent
COLUMNS: Final = ("sepal_length", "sepal_width", "petal_length", "petal_width")
ROW: Final = (5.1, 3.5, 1.4, 0.2)
SCIKIT_LEARN: Final = f"scikit-learn=={sklearn.__version__}"


@dataclass(frozen=True)
class Place:
    """Where a server runs.

    Attributes:
        python: the interpreter of its environment.
        folder: has its files and `model.joblib`.
        bundle: the model as mlship serves it.
        log: the folder of mlship's predictions.
        ports: free ones; it is asked on the first.
    """

    python: Path
    folder: Path
    bundle: Path
    log: Path
    ports: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Server:
    """A server, and how it is asked.

    Attributes:
        command: returns its arguments, the program first.
        path: of a prediction.
        body: returns a request of so many rows.
        requirements: of its environment; without any, it runs in this one.
        files: by their names.
        variables: returns what it is told by the environment.
    """

    name: str
    command: Callable[[Place], list[str]]
    path: str
    body: Callable[[int], object]
    requirements: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    variables: Callable[[Place], Mapping[str, str]] = lambda _: {}


def ours(place: Place) -> list[str]:
    """Return the command that starts mlship's server."""
    arguments = ["-m", "mlship.runtime", "serve", "--bundle", str(place.bundle)]
    arguments += ["--release", "sha256:" + "0" * 64, "--slot", "r0"]
    arguments += ["--port", str(place.ports[0]), "--log", str(place.log)]
    return [str(place.python), *arguments]


def _named(count: int) -> object:
    row = dict(zip(COLUMNS, ROW, strict=True))
    return row if count == 1 else [row] * count


def _listed(count: int) -> object:
    return {"rows": [ROW] * count}


def _tensor(count: int) -> object:
    values = [value for _ in range(count) for value in ROW]
    tensor = {"name": "rows", "shape": [count, len(ROW)], "datatype": "FP64", "data": values}
    return {"inputs": [tensor]}


_ECHO = """
import asyncio, sys
import httptools, uvloop

class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport, self.parser, self.body = transport, httptools.HttpRequestParser(self), b""

    def data_received(self, data):
        self.parser.feed_data(data)

    def on_body(self, body):
        self.body += body

    def on_message_complete(self):
        head = b"HTTP/1.1 200 OK\\r\\ncontent-length: %d\\r\\n\\r\\n" % len(self.body)
        self.transport.write(head + self.body)
        self.body = b""

async def main():
    server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()

uvloop.run(main())
"""

_ANSWER = """
def answer(rows):
    shares = MODEL.predict_proba(numpy.array(rows))
    labels = MODEL.classes_[shares.argmax(axis=1)]
    return {"species": labels.tolist(), "probabilities": shares.tolist()}
"""

_FASTAPI = f"""
import joblib, numpy
from fastapi import FastAPI
from pydantic import BaseModel

MODEL = joblib.load("model.joblib")
app = FastAPI()

class Rows(BaseModel):
    rows: list[tuple[float, float, float, float]]
{_ANSWER}
@app.post("/predict")
async def predict(given: Rows):
    return answer(given.rows)
"""

_LITSERVE = f"""
import sys
import joblib, litserve, numpy
{_ANSWER}
class Iris(litserve.LitAPI):
    def setup(self, device):
        global MODEL
        MODEL = joblib.load("model.joblib")

    def decode_request(self, request):
        return request["rows"]

    def predict(self, rows):
        return answer(rows)

    def encode_response(self, output):
        return output

if __name__ == "__main__":
    server = litserve.LitServer(Iris(), accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), num_api_servers=1, log_level="warning",
               generate_client_file=False)
"""

_BENTOML = f"""
import bentoml, joblib, numpy

MODEL = joblib.load("model.joblib")
{_ANSWER}
@bentoml.service(workers=1, logging={{"access": {{"enabled": False}}}})
class Iris:
    @bentoml.api
    async def predict(self, rows: list[list[float]]) -> dict:
        return answer(rows)
"""

_MLSERVER = {
    "name": "iris",
    "implementation": "mlserver_sklearn.SKLearnModel",
    "parameters": {"uri": "model.joblib"},
}


def _ports_of_mlserver(place: Place) -> Mapping[str, str]:
    ports = zip(("HTTP", "GRPC", "METRICS"), place.ports, strict=True)
    options = {f"MLSERVER_{kind}_PORT": str(port) for kind, port in ports}
    # Without workers beside it, MLServer computes in its own process, which costs the least.
    return options | {"MLSERVER_PARALLEL_WORKERS": "0", "MLSERVER_DEBUG": "false"}


def _beside(place: Place, program: str) -> str:
    return str(place.python.with_name(program))


MLSHIP: Final = Server("mlship, each row logged", ours, "/predict", _named)
BARE: Final = Server(
    name="bare HTTP server",
    command=lambda place: [str(place.python), "-c", _ECHO, str(place.ports[0])],
    path="/predict",
    body=_named,
)
PEERS: Final = (
    Server(
        name="MLServer",
        command=lambda place: [_beside(place, "mlserver"), "start", "."],
        path="/v2/models/iris/infer",
        body=_tensor,
        requirements=("mlserver==1.7.1", "mlserver-sklearn==1.7.1", SCIKIT_LEARN),
        files={"model-settings.json": json.dumps(_MLSERVER)},
        variables=_ports_of_mlserver,
    ),
    Server(
        name="FastAPI",
        command=lambda place: [
            *(_beside(place, "uvicorn"), "app:app", "--port", str(place.ports[0])),
            *("--no-access-log", "--log-level", "warning"),
        ],
        path="/predict",
        body=_listed,
        requirements=("fastapi==0.165.0", "uvicorn[standard]==0.54.0", SCIKIT_LEARN),
        files={"app.py": _FASTAPI},
    ),
    Server(
        name="LitServe",
        command=lambda place: [str(place.python), "app.py", str(place.ports[0])],
        path="/predict",
        body=_listed,
        requirements=("litserve==0.2.19", SCIKIT_LEARN),
        files={"app.py": _LITSERVE},
    ),
    Server(
        name="BentoML",
        command=lambda place: [
            *(_beside(place, "bentoml"), "serve", "service:Iris", "--host", "127.0.0.1"),
            *("--port", str(place.ports[0])),
        ],
        path="/predict",
        body=_listed,
        requirements=("bentoml==1.4.40", SCIKIT_LEARN),
        files={"service.py": _BENTOML},
        variables=lambda place: {
            "BENTOML_DO_NOT_TRACK": "True",
            "BENTOML_HOME": str(place.folder / "home"),
        },
    ),
)


def interpreter(server: Server, cache: Path) -> Path:
    """Return the interpreter of a server, installed into the cache unless it is there."""
    if not server.requirements:
        return Path(sys.executable)
    key = json.dumps([sys.version, *server.requirements]).encode()
    folder = cache / f"{server.name.lower()}-{hashlib.sha256(key).hexdigest()[:12]}"
    python, complete = folder / "bin" / "python", folder / "complete"
    if not complete.exists():
        print(f"installing {', '.join(server.requirements)}", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        uv = str(Path(sys.executable).with_name("uv"))
        subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, folder], check=True)
        install = [uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", str(python)]
        subprocess.run([*install, *server.requirements], check=True)
        complete.touch()
    return python
