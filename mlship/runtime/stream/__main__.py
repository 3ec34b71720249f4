"""`python -m mlship.runtime.stream work|model|pod`: the processes of a stream."""

import ctypes
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mlship.domain.stream import Settings
from mlship.errors import MlshipError

if TYPE_CHECKING:
    from mlship.runtime.stream.worker import Computing

_SIGNAL_WITH_PARENT = 1
"""PR_SET_PDEATHSIG of prctl(2)."""


def main(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a process; return its exit code. The last line on stderr is the error, as JSON.

    Args:
        arguments: `model HANDLE`, the file descriptor of its link; or `work FOLDER INSTANCE`, the
            folder with `settings.json` and `plan.json`, and the name of the worker; or
            `pod FOLDER INSTANCE`, with `settings.json` and `place.json`, in a cluster.
        environment: has the credentials of a worker.
    """
    if arguments[0] == "model":
        from mlship.runtime.stream import child

        child.main(int(arguments[1]))
        return 0
    run = _pod if arguments[0] == "pod" else _work
    try:
        run(Path(arguments[1]), arguments[2], environment)
    except MlshipError as error:
        kind = type(error).__name__
        report = {"error": kind, "message": error.message, "hint": error.hint}
        sys.stderr.write(f"{msgspec.json.encode(report).decode()}\n")
        return error.exit_code
    return 0


def _work(folder: Path, instance: str, environment: Mapping[str, str]) -> None:
    from mlship.runtime.stream.models import Models, own_environment

    note = _notes(instance)
    if sys.platform == "linux":
        # It ends with the command that looks after it, which the next one replaces.
        ctypes.CDLL(None).prctl(_SIGNAL_WITH_PARENT, signal.SIGTERM)
    settings = msgspec.json.decode((folder / "settings.json").read_bytes(), type=Settings)
    models = Models(settings, own_environment(environment, settings), note)
    try:
        _answer(settings, folder / "plan.json", instance, environment, models)
    finally:
        models.end()


def _pod(folder: Path, instance: str, environment: Mapping[str, str]) -> None:
    """Answer by the pods of the releases, as the route of the cluster says."""
    from mlship.domain.stream_cluster import Place
    from mlship.runtime.stream import cluster_route
    from mlship.runtime.stream.served import Served, Services

    settings = msgspec.json.decode((folder / "settings.json").read_bytes(), type=Settings)
    place = msgspec.json.decode((folder / "place.json").read_bytes(), type=Place)
    with tempfile.TemporaryDirectory() as own:
        plan = Path(own) / "plan.json"
        cluster_route.of_environment(place, plan, _notes(instance), environment).begin()
        key = environment.get("MLSHIP_API_KEY", "")
        services = Services(place, key, settings.compute_seconds)
        _answer(settings, plan, instance, environment, Served(settings, services.ask))


def _answer(
    settings: Settings,
    plan: Path,
    instance: str,
    environment: Mapping[str, str],
    computing: "Computing",
) -> None:
    """Answer messages until a signal."""
    from mlship.runtime.stream.brokers import KafkaBrokers
    from mlship.runtime.stream.worker import Worker

    note = _notes(instance)
    brokers = KafkaBrokers(settings, instance, environment, note)
    worker = Worker(settings, plan, brokers, computing, note)
    worker.load()
    brokers.open()

    def stop(*_: object) -> None:
        worker.is_stopped = True

    # Until here nothing is read, and a signal may end it at once.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    note("ready")
    worker.run()
    brokers.close()


def _notes(instance: str) -> Callable[[str], None]:
    def note(text: str) -> None:
        sys.stderr.write(f"{instance}: {text}\n")
        sys.stderr.flush()

    return note


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
