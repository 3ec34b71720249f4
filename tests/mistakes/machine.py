"""Faults of the machine and of backends: disks, ports, servers, locks."""

import fcntl
import socket
from collections.abc import Callable

from tests.mistakes.databases import HASTY
from tests.mistakes.kept import outcomes
from tests.mistakes.mistake import Mistake
from tests.mistakes.project import Project, fill, small_disk
from tests.mistakes.training import SETTINGS

STORE = "store: {kind: directory}"


def disk(folder: str, kilobytes: int) -> Callable[[Project], None]:
    """Put a disk of so many kilobytes under a folder of the project."""

    def do(project: Project) -> None:
        project.held.enter_context(small_disk(project.folder / folder, kilobytes))

    return do


def full_disk(folder: str) -> Callable[[Project], None]:
    """Put a disk under a folder, and fill it."""

    def do(project: Project) -> None:
        disk(folder, 256)(project)
        fill(project.folder / folder)

    return do


def _outcomes_on_a_full_disk(project: Project) -> None:
    outcomes(project, "setosa")
    full_disk(".mlship/outcomes")(project)


def _mlflow(uri: str) -> Callable[[Project], None]:
    def do(project: Project) -> None:
        project.edit(SETTINGS, STORE, f"store: {{kind: mlflow, uri: '{uri}'}}")
        project.variables |= HASTY

    return do


def _port(project: Project) -> int:
    taken = project.held.enter_context(socket.socket())
    taken.bind(("127.0.0.1", 0))
    taken.listen()
    return int(taken.getsockname()[1])


def _silent_mlflow(project: Project) -> None:
    _mlflow(f"http://127.0.0.1:{_port(project)}")(project)


def _mlflow_that_is_no_database(project: Project) -> None:
    _mlflow("sqlite:///.mlship/mlflow.db")(project)
    project.write(".mlship/mlflow.db", b"SQLite format 3\0" + b"\xa5" * 8192)


def _staging_port_taken(project: Project) -> None:
    port = _port(project)
    project.edit(SETTINGS, "staging: {kind: local}", f"staging: {{kind: local, port: {port}}}")


def _lock(project: Project) -> None:
    path = project.folder / ".mlship/locks/production.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = project.held.enter_context(path.open("w"))
    fcntl.flock(lock, fcntl.LOCK_EX)
    lock.write("4711: mlship rollback")
    lock.flush()


def _without_disk(project: Project) -> None:
    project.held.close()


DISKS = (
    Mistake(
        name="the disk is full when the bundle is made",
        do=full_disk(".mlship"),
        code=4,
        says=".mlship",
        hints="free disk space",
        is_root=True,
        mend=_without_disk,
    ),
    Mistake(
        name="the disk gets full while the bundle is made",
        do=disk(".mlship", 12),
        code=4,
        says="no space left",
        hints="run it again",
        is_root=True,
    ),
    Mistake(
        name="the disk of the store is full",
        do=full_disk(".mlship/store"),
        code=4,
        says="store",
        hints="free disk space",
        leaves=("bundles",),
        is_root=True,
        mend=_without_disk,
    ),
    Mistake(
        name="the disk of the ledger is full",
        on="trained",
        do=full_disk(".mlship/ledger"),
        command=("approve", "--by", "grace@example.org"),
        code=4,
        says="ledger",
        hints="free disk space",
        is_root=True,
        mend=_without_disk,
    ),
    Mistake(
        name="the disk of the outcomes is full",
        on="shipped",
        do=_outcomes_on_a_full_disk,
        command=("feedback", "outcomes.csv"),
        code=4,
        says="outcomes",
        hints="free disk space",
        is_root=True,
    ),
)

BACKENDS = (
    Mistake(
        name="MLflow is down",
        do=_mlflow("http://127.0.0.1:1"),
        code=4,
        says="MLflow at http://127.0.0.1:1 cannot be used",
        hints="start the server",
        seconds=10,
    ),
    Mistake(
        name="MLflow does not answer",
        do=_silent_mlflow,
        code=4,
        says="timed out",
        hints="start the server",
        seconds=10,
    ),
    Mistake(
        name="the address of MLflow is none",
        do=_mlflow("htp://mlflow"),
        code=2,
        says="htp://mlflow",
        hints="change the value",
        seconds=10,
    ),
    Mistake(
        name="MLflow's database is damaged",
        do=_mlflow_that_is_no_database,
        code=7,
        says="mlflow.db",
        hints="backup",
        seconds=10,
    ),
    Mistake(
        name="the port of staging is in use",
        on="shipped",
        do=_staging_port_taken,
        command=("deploy-staging", "challenger"),
        code=4,
        says="is already in use",
        hints="targets.staging.port",
    ),
    Mistake(
        name="two commands at once",
        on="shipped",
        do=_lock,
        command=("promote", "challenger"),
        code=8,
        says="4711: mlship rollback",
        hints="wait",
    ),
    Mistake(
        name="init where a file is",
        command=("init", SETTINGS),
        code=2,
        says="mlship.yaml is not a folder",
        hints="folder",
    ),
)
