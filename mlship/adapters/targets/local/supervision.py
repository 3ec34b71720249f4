"""Control of the supervisor by commands: start it, stop it, and wait for its work."""

import os
import signal
import sys
import time
from collections.abc import Callable

from mlship.adapters.targets.local import locks, processes, shutdown
from mlship.adapters.targets.local.state import Running, State
from mlship.domain.environment import of_supervisor
from mlship.errors import TimedOutError, UnavailableError

_PAUSE = 0.03
_START_SECONDS = 15.0
_GRACE_SECONDS = 10.0


def runs(state: State) -> bool:
    """Return whether a supervisor runs."""
    return locks.is_held(state.supervisor)


def start(state: State) -> None:
    """Start a supervisor if none runs; it takes over the processes of a killed one.

    Raises:
        UnavailableError: it does not start; the message has the end of its log.
    """
    if runs(state):
        return
    log = state.log("supervisor")
    module = "mlship.adapters.targets.local.supervisor"
    # -P keeps the current folder, with the user's modules, out of the import path.
    command = [sys.executable, "-P", "-m", module, str(state.folder)]
    # It outlives the command, whose credentials it does not need but for those of a log.
    processes.detach(command, log, of_supervisor(os.environ))
    try:
        until(lambda: runs(state), seconds=_START_SECONDS, what="supervisor")
    except TimedOutError as error:
        message = f"cannot start the supervisor of {state.folder}: {processes.last_lines(log)}"
        raise UnavailableError(message, hint=f"see {log}") from error


def stop(state: State, *, seconds: float) -> Running:
    """Stop the supervisor and its processes, even if it was killed; return what was running."""
    before = _alive(state.running())
    deadline = time.monotonic() + 2 * seconds + _GRACE_SECONDS
    while runs(state) and time.monotonic() < deadline:
        _send(state, signal.SIGTERM)
        time.sleep(_PAUSE)
    if runs(state):
        _send(state, signal.SIGKILL)
    shutdown.stop(state.running(), seconds=seconds)
    return before


def until(condition: Callable[[], bool], *, seconds: float, what: str) -> None:
    """Wait for a condition; it is checked at least once.

    Raises:
        TimedOutError: it was not met in time; the message names `what`.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            message = f"{what}: timed out after {seconds:g} s"
            raise TimedOutError(message)
        time.sleep(_PAUSE)


def _alive(running: Running) -> Running:
    router = running.router
    return Running(
        router=router if router and processes.is_alive(router.process) else None,
        replicas=tuple(item for item in running.replicas if processes.is_alive(item.process)),
    )


def _send(state: State, number: signal.Signals) -> None:
    """Send a signal to the supervisor, if it has written its pid."""
    pid = locks.holder(state.supervisor).partition(":")[0]
    if not pid.isdigit() or not runs(state):
        return
    try:
        os.kill(int(pid), number)
    except ProcessLookupError:
        return
