"""Foreign clients against a served model, compared with the model that it was made from.

    python benchmarks/clients.py [--python PYTHON] [--schemathesis COMMAND]

It serves two bundles over HTTP and gRPC: iris (ONNX), and one with a column of each kind (skops).
tritonclient makes every call of its API that applies (`clients_triton.py`), MLflow's client of
scoring servers sends frames and arrays, and schemathesis asks for what the OpenAPI document says.
tritonclient and schemathesis are installed into a new environment, unless the options
name one that has them: tritonclient needs another protobuf than mlship's own environment has.
It exits with 1 if an answer differs.
"""

import argparse
import contextlib
import json
import socket
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
from mlflow.pyfunc.scoring_server.client import ScoringServerClient

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.harness import bundles, mixed  # noqa: E402 (the root must be on the path first)

PACKAGES = ("tritonclient[grpc,http]==2.73.0", "schemathesis==4.32.5")
NUMBERS = ["FP64", "FP32"]
WHOLE = ["INT64", "INT32", "INT16", "UINT8", "FP64"]


@contextlib.contextmanager
def served(folder: Path, bundle: Path) -> Iterator[tuple[str, str]]:
    """Serve a bundle; return its addresses for HTTP and gRPC."""
    ports = []
    for _ in range(2):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            ports.append(probe.getsockname()[1])
    arguments = ["--bundle", str(bundle), "--release", "sha256:" + "ab" * 32, "--slot", "r"]
    arguments += ["--port", str(ports[0]), "--grpc-port", str(ports[1])]
    arguments += ["--log", str(folder / f"log-{bundle.name}")]
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "mlship.runtime", "serve", *arguments], cwd=ROOT
    )
    try:
        url = f"127.0.0.1:{ports[0]}"
        until = time.monotonic() + 60
        while not _is_ready(url):
            if process.poll() is not None or time.monotonic() > until:
                sys.exit(f"the server of {bundle} is not ready")
            time.sleep(0.05)
        yield url, f"127.0.0.1:{ports[1]}"
    finally:
        process.terminate()
        process.wait(30)


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"http://{url}/v2/health/ready", timeout=2).status_code == 200
    except httpx.TransportError:
        return False


def environment(folder: Path) -> Path:
    """Create an environment with the clients; return its Python."""
    venv.create(folder / "clients", with_pip=True)
    python = folder / "clients" / "bin" / "python"
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
    return python


def cases(iris: tuple[str, str], customers: tuple[str, str]) -> list[dict[str, Any]]:
    """Return what tritonclient sends to each model, and the original models' answers."""
    estimator, data = bundles.iris_estimator()
    picked = data[::7]
    columns = dict(zip(bundles.COLUMNS, picked.T.tolist(), strict=True))
    rows = list(mixed.ROWS)
    values = {field.name: [row[field.name] for row in rows] for field in mixed.FIELDS}
    return [
        {
            "name": "iris",
            "http": iris[0],
            "grpc": iris[1],
            "target": "species",
            "classes": bundles.CLASSES,
            "columns": columns,
            "datatypes": dict.fromkeys(columns, NUMBERS),
            "probabilities": estimator.predict_proba(picked)[
                :, [list(estimator.classes_).index(label) for label in bundles.CLASSES]
            ].tolist(),
            "is_table": True,
        },
        {
            "name": "customers",
            "http": customers[0],
            "grpc": customers[1],
            "target": "future",
            "classes": mixed.CLASSES,
            "columns": {**values, "age": [41.5, 30.0, 19.25]},
            "datatypes": {"city": ["BYTES"], "age": NUMBERS, "visits": WHOLE, "member": ["BOOL"]},
            "probabilities": mixed.probabilities(
                [{**row, "age": age} for row, age in zip(rows, [41.5, 30.0, 19.25], strict=True)]
            ).tolist(),
            "is_table": False,
        },
    ]


def mlflow(iris: str, customers: str) -> int:
    """Send frames, with a gap too, and arrays by MLflow's client; return 1 if an answer differs."""
    estimator, data = bundles.iris_estimator()
    order = [list(estimator.classes_).index(label) for label in bundles.CLASSES]
    rows = list(mixed.ROWS)
    asked: list[tuple[str, tuple[str, ...], Any, Any]] = [
        (iris, bundles.CLASSES, sent, estimator.predict_proba(data)[:, order])
        for sent in (data, data.tolist(), pd.DataFrame(data, columns=list(bundles.COLUMNS)))
    ]
    asked.append((customers, mixed.CLASSES, pd.DataFrame(rows), mixed.probabilities(rows)))
    wrong = 0
    for url, classes, sent, expected in asked:
        client = ScoringServerClient(*url.split(":"))
        client.ping()
        answers = client.invoke(sent).get_predictions()
        answered = answers[[f"probability_{label}" for label in classes]].to_numpy()
        wrong += not np.allclose(answered, expected, atol=1e-6)
    print(f"MLflow's client: {len(asked) - wrong} of {len(asked)} equal the original model")
    return int(wrong > 0)


def schemathesis(command: str, folder: Path, url: str) -> int:
    """Ask for what the OpenAPI document says; return the exit code.

    JSON Schema cannot say that a CSV file has these columns, or that a tensor has as many values as
    its shape says. So the first run, of all checks, is without such bodies; the second has them,
    and not the check that a request that fits the schema is accepted.
    """
    document = httpx.get(f"http://{url}/openapi.json").json()
    path = folder / "openapi.json"
    path.write_text(json.dumps(without_open_bodies(document)))
    common = ["--url", f"http://{url}", "--max-examples", "50", "--seed", "7"]
    runs = (
        [str(path), *common],
        [f"http://{url}/openapi.json", *common, "--exclude-checks", "positive_data_acceptance"],
    )
    return max(
        subprocess.run([command, "run", *run], cwd=folder, check=False).returncode for run in runs
    )


def without_open_bodies(document: dict[str, Any]) -> dict[str, Any]:
    """Return the document without bodies whose schema admits more than the server."""
    paths = {
        path: operations
        for path, operations in document["paths"].items()
        if not path.endswith("/infer")
    }
    for operations in paths.values():
        operations.get("post", {}).get("requestBody", {}).get("content", {}).pop("text/csv", None)
    return {**document, "paths": paths}


def main() -> int:
    """Run all clients; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", type=Path, help="of an environment with tritonclient")
    parser.add_argument("--schemathesis", help="the command of an environment that has it")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        python = options.python or environment(folder)
        bundles.iris_bundle(folder / "iris", limit=1e6)
        mixed.mixed_bundle(folder / "customers")
        iris = stack.enter_context(served(folder, folder / "iris"))
        customers = stack.enter_context(served(folder, folder / "customers"))
        done = subprocess.run(
            [str(python), str(ROOT / "benchmarks" / "clients_triton.py")],
            input=json.dumps(cases(iris, customers)).encode(),
            check=False,
        )
        command = options.schemathesis or str(python.with_name("schemathesis"))
        urls = (iris[0], customers[0])
        codes = [
            done.returncode,
            mlflow(*urls),
            *(schemathesis(command, folder, url) for url in urls),
        ]
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
