"""The real Airflow, whose commands are forks of one process: see `airflow_commands`."""

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from tests.harness.services import require

_COMMANDS = Path(__file__).with_name("airflow_commands.py")


class Airflow:
    """A real Airflow with a database of its own.

    Args:
        folder: for all that it keeps.

    Attributes:
        dags: the folder of DAGs.
    """

    def __init__(self, folder: Path) -> None:
        place = os.environ.get("TEST_AIRFLOW", "")
        require("airflow", bool(place), "set TEST_AIRFLOW to the folder of Airflow's programs")
        self.dags = folder / "airflow"
        self._output = folder / "output"
        self._errors = folder / "errors"
        home = folder / "home"
        home.mkdir()
        with self._errors.open("wb") as errors:
            self._process = self._started(Path(place), folder, home, errors)
        self._run(("db", "migrate"), {})

    def tick(self, dag: str, planned: str, **variables: str) -> None:
        """Run a DAG once, for a planned time, with more variables."""
        self._run(("dags", "test", dag, planned), variables)

    def end(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()

    def _started(
        self, place: Path, folder: Path, home: Path, errors: BinaryIO
    ) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            # -P: the modules beside the program are not those of Airflow.
            [place / "python", "-P", str(_COMMANDS)],
            env={
                "PATH": f"{place}{os.pathsep}{os.environ['PATH']}",
                "HOME": str(folder),
                "PYTHONPATH": str(folder / "of-airflow"),
                "AIRFLOW_HOME": str(home),
                "AIRFLOW__CORE__DAGS_FOLDER": str(self.dags),
                "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )

    def _run(self, arguments: tuple[str, ...], variables: Mapping[str, str]) -> None:
        call = {"arguments": arguments, "variables": dict(variables), "output": str(self._output)}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{json.dumps(call)}\n")
        self._process.stdin.flush()
        code = self._process.stdout.readline().strip()
        assert code == "0", (self._output if code else self._errors).read_text()


@contextmanager
def airflow(folder: Path) -> Iterator[Airflow]:
    """Give an Airflow in a folder, and end it afterwards."""
    made = Airflow(folder)
    try:
        yield made
    finally:
        made.end()
