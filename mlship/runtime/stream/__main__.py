"""`python -m mlship.runtime.stream work|model`: the processes of a stream."""

import ctypes
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from mlship.domain.stream import Settings
from mlship.errors import MlshipError

_SIGNAL_WITH_PARENT = 1
"""PR_SET_PDEATHSIG of prctl(2)."""


def main(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a process; return its exit code. The last line on stderr is the error, as JSON.

    Args:
        arguments: `model HANDLE`, the file descriptor of its link; or `work FOLDER INSTANCE`, the
            folder with `settings.json` and `plan.json`, and the name of the worker.
        environment: has the credentials of a worker.
    """
    if arguments[0] == "model":
        from mlship.runtime.stream import child

        child.main(int(arguments[1]))
        return 0
    return _work(Path(arguments[1]), arguments[2], environment)


def _work(folder: Path, instance: str, environment: Mapping[str, str]) -> int:
    from mlship.runtime.stream.brokers import KafkaBrokers
    from mlship.runtime.stream.models import Models, own_environment
    from mlship.runtime.stream.worker import Worker

    def note(text: str) -> None:
        sys.stderr.write(f"{instance}: {text}\n")
        sys.stderr.flush()

    if sys.platform == "linux":
        # It ends with the command that looks after it, which the next one replaces.
        ctypes.CDLL(None).prctl(_SIGNAL_WITH_PARENT, signal.SIGTERM)
    models: Models | None = None
    try:
        settings = msgspec.json.decode((folder / "settings.json").read_bytes(), type=Settings)
        models = Models(settings, own_environment(environment, settings), note)
        brokers = KafkaBrokers(settings, instance, environment, note)
        worker = Worker(settings, folder / "plan.json", brokers, models, note)
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
    except MlshipError as error:
        kind = type(error).__name__
        report = {"error": kind, "message": error.message, "hint": error.hint}
        sys.stderr.write(f"{msgspec.json.encode(report).decode()}\n")
        return error.exit_code
    finally:
        if models is not None:
            models.end()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
