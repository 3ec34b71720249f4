"""A process with MLflow and the libraries of models, as where mlship is not installed.

It forks for each program that it gets: these imports are five seconds of a processor.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import msgspec

_MAIN = """
import json, os, sys, warnings
warnings.simplefilter("ignore")
sys.modules["mlship"] = None
told = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what libraries print is no answer
import catboost, lightgbm, mlflow, onnxruntime, pandas, sklearn.linear_model, skops.io, xgboost
import mlflow.catboost, mlflow.cli, mlflow.lightgbm, mlflow.onnx, mlflow.pyfunc.backend
import mlflow.pyfunc.scoring_server, mlflow.sklearn, mlflow.xgboost, uvicorn
import mlflow.store.model_registry.sqlalchemy_store

for line in sys.stdin:
    asked = json.loads(line)
    pid = os.fork()
    if pid == 0:
        os.setsid()
        os.chdir(asked["folder"])
        names = {"given": asked["given"]}
        exec(asked["program"], names)
        print(json.dumps(names["answer"]), file=told, flush=True)
        os._exit(0)
    if asked["is_server"]:
        print(pid, file=told, flush=True)
    elif os.waitpid(pid, 0)[1]:
        print("null", file=told, flush=True)
"""
_SERVE = """
import os, shlex, sys, types
from mlflow import cli
from mlflow.pyfunc import backend
import uvicorn

def served(command, env, **_):
    *bash, line = command
    executed, program, *arguments = shlex.split(line)
    assert (bash, executed, program) == (["bash", "-c"], "exec", "uvicorn"), command
    os.environ.update(env)
    sys.exit(uvicorn.main.main(arguments))

log = os.open(given["log"], os.O_WRONLY | os.O_CREAT, 0o600)
os.dup2(log, 1)
os.dup2(log, 2)
backend.subprocess = types.SimpleNamespace(Popen=served)
cli.cli.main(["models", "serve", *given["arguments"]])
"""
"""Its server is this process: MLflow starts another program, which imports all of MLflow again."""


class Bystander:
    """Runs programs with MLflow and without mlship."""

    def __init__(self, asked: IO[bytes], told: IO[bytes]) -> None:
        self._asked, self._told = asked, told

    def run(self, program: str, given: Any, folder: Path) -> Any:
        """Run a program to its end; return what it has named `answer`.

        Args:
            program: Python, to which `given` is known.
            given: to the program, as JSON.
            folder: the current one.
        """
        answer = self._ask(program, given, folder, is_server=False)
        assert answer is not None, "stderr says why"
        return answer

    @contextmanager
    def serving(self, arguments: list[str], folder: Path) -> Iterator[None]:
        """Run `mlflow models serve` while needed."""
        given = {"arguments": arguments, "log": str(folder / "log")}
        pid = self._ask(_SERVE, given, folder, is_server=True)
        try:
            yield
        finally:
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)

    def _ask(self, program: str, given: Any, folder: Path, *, is_server: bool) -> Any:
        line = {"program": program, "given": given, "folder": str(folder), "is_server": is_server}
        self._asked.write(msgspec.json.encode(line) + b"\n")
        self._asked.flush()
        return msgspec.json.decode(self._told.readline())


@contextmanager
def start() -> Iterator[Bystander]:
    """Start the process; it ends when its stdin does."""
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}
    pipe = subprocess.PIPE
    argv = [sys.executable, "-P", "-c", _MAIN]
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, env={**os.environ, **quiet}) as process:
        assert process.stdin
        assert process.stdout
        yield Bystander(process.stdin, process.stdout)
