"""`python -m mlship.runtime.stream work|model|pod`: the processes of a stream."""

import ctypes
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mlship.domain.stream import Settings
from mlship.domain.stream_cluster import READY
from mlship.errors import CredentialsError, MlshipError, UnavailableError

if TYPE_CHECKING:
    from mlship.runtime.stream.worker import Computing

_SIGNAL_WITH_PARENT = 1
"""PR_SET_PDEATHSIG of prctl(2)."""
_POD_SECONDS = 600.0
"""For which a worker in a cluster waits for its brokers."""


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

    # The volume outlives a container.
    Path(READY).unlink(missing_ok=True)
    settings = msgspec.json.decode((folder / "settings.json").read_bytes(), type=Settings)
    place = msgspec.json.decode((folder / "place.json").read_bytes(), type=Place)
    with tempfile.TemporaryDirectory() as own:
        plan = Path(own) / "plan.json"
        cluster_route.of_environment(place, plan, _notes(instance), environment).begin()
        key = environment.get("MLSHIP_API_KEY", "")
        services = Services(place, key, settings.compute_seconds)
        served = Served(settings, services.ask)
        _answer(settings, plan, instance, environment, served, _POD_SECONDS)


def _answer(
    settings: Settings,
    plan: Path,
    instance: str,
    environment: Mapping[str, str],
    computing: "Computing",
    seconds: float = 0.0,
) -> None:
    """Answer messages until a signal; wait some seconds for brokers that do not answer."""
    from mlship.runtime.stream.brokers import KafkaBrokers
    from mlship.runtime.stream.worker import Worker

    note = _notes(instance)
    brokers = KafkaBrokers(settings, instance, environment, note)
    worker = Worker(settings, plan, brokers, computing, note)
    worker.load()
    opened(brokers.open, note, seconds)

    def stop(*_: object) -> None:
        worker.is_stopped = True

    # Until here nothing is read, and a signal may end it at once.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    note("ready")
    if seconds:
        Path(READY).touch()
    worker.run()
    brokers.close()


def opened(connect: Callable[[], None], note: Callable[[str], None], seconds: float) -> None:
    """Connect; try it again for some seconds while brokers do not answer.

    A pod that ends waits for its next start, up to five minutes, also when the brokers have come
    back. One that waits itself is there as soon as they are.

    Args:
        connect: may be called again after an error.
        note: shows a line to the operator.
        seconds: 0 to try once.

    Raises:
        MlshipError: see `KafkaBrokers.open`.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            connect()
        except UnavailableError as error:
            if isinstance(error, CredentialsError) or time.monotonic() >= deadline:
                raise
            note(f"waits for the brokers: {error.message}")
        else:
            return


def _notes(instance: str) -> Callable[[str], None]:
    def note(text: str) -> None:
        sys.stderr.write(f"{instance}: {text}\n")
        sys.stderr.flush()

    return note


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
