"""Commands of Airflow in forks of a process that has imported it, run by the Python of Airflow.

Nine tenths of the processor time of `airflow dags test` are imports, and the routes of the API of
tasks, which are made for each of its versions. Each line on stdin is a command as JSON: its
arguments, more variables, and the file for what it prints. The answer is a line with its exit code.
"""

import importlib
import json
import os
import sys
import traceback
from typing import Any, Final, NoReturn

_MODULES: Final = (
    *("airflow.__main__", "airflow.cli.commands.dag_command", "airflow.cli.commands.db_command"),
    *("airflow.api_fastapi.execution_api.app", "airflow.migrations.utils", "airflow.utils.db"),
    *("airflow.sdk.execution_time.task_runner", "airflow.dag_processing.dagbag"),
    *("airflow.providers.standard.operators.bash", "airflow.timetables.trigger"),
    "airflow.providers.cncf.kubernetes.operators.pod",
)


def main() -> None:
    """Run commands until stdin ends."""
    answers = os.fdopen(os.dup(1), "w", 1)
    os.dup2(2, 1)  # imports print warnings
    for module in _MODULES:
        importlib.import_module(module)
    supervisor = importlib.import_module("airflow.sdk.execution_time.supervisor")
    # Later it would be done by the first request. The server is that of all runs of a process.
    supervisor.in_process_api_server().app._cadwyn_initialize()
    while line := sys.stdin.readline():
        call = json.loads(line)
        child = os.fork()
        if child == 0:
            _run(call)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        answers.write(f"{code}\n")


def _run(call: dict[str, Any]) -> NoReturn:
    """Run a command in this process, and end it."""
    with open(os.devnull, "rb") as nothing, open(call["output"], "wb") as output:  # noqa: PTH123
        for number, file in enumerate((nothing, output, output)):
            os.dup2(file.fileno(), number)
    os.environ.update(call["variables"])
    sys.argv = ["airflow", *call["arguments"]]
    code: int | str | None = 0
    try:
        sys.modules["airflow.__main__"].main()
    except SystemExit as error:
        code = error.code
    except BaseException:  # noqa: BLE001 (what Python does at the end of a program)
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


if __name__ == "__main__":
    main()
