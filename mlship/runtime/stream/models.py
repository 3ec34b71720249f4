"""The processes of models that a worker asks, one for each release of its plan."""

import contextlib
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence

from mlship import errors
from mlship.domain.stream import REGISTRY, Plan, Settings, Side
from mlship.errors import MlshipError
from mlship.runtime.stream import link
from mlship.runtime.stream.link import Failed, Ready, Results, Start, Values

_LOAD_SECONDS = 120.0
_MOST_IDLE = 3
"""So many models that the route does not name stay loaded, for a rollback."""


class EndedError(Exception):
    """The process of a model ended, or did not answer in time."""


class ModelProcess:
    """A process that has loaded, or is loading, one release.

    Args:
        side: the release.
        settings: of the stream.
        environment: the variables of the process, without credentials of the brokers.
    """

    def __init__(self, side: Side, settings: Settings, environment: Mapping[str, str]) -> None:
        self.side = side
        self.is_ready = False
        self._seconds = settings.compute_seconds
        self._socket, theirs = socket.socketpair()
        with theirs:
            # -P: a file in the working directory must not shadow a module.
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-P",
                    "-m",
                    "mlship.runtime.stream",
                    "model",
                    f"{theirs.fileno()}",
                ],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                env=dict(environment),
            )
        with contextlib.suppress(OSError):
            link.send(self._socket, Start(side, settings))
        self._started = time.monotonic()

    def look(self) -> None:
        """Find out whether it is ready, without waiting.

        Raises:
            MlshipError: it cannot load the bundle.
            EndedError: it ended while it loaded.
        """
        if not self.is_ready and select.select([self._socket], [], [], 0)[0]:
            self._hear()
        elif not self.is_ready and time.monotonic() - self._started > _LOAD_SECONDS:
            message = f"{self.side.name} was not loaded within {_LOAD_SECONDS:g} s"
            raise errors.TimedOutError(message, hint="see what its hooks do at import")

    def wait(self) -> None:
        """Wait until it is ready; raises what `look` raises."""
        while not self.is_ready:
            select.select([self._socket], [], [], 0.5)
            self.look()

    def _hear(self) -> None:
        answer = self._receive()
        if isinstance(answer, Failed):
            raise _error(answer)
        self.is_ready = isinstance(answer, Ready)

    def ask(self, asked: Values) -> None:
        """Send values, which `answer` gives the results of.

        Raises:
            EndedError: it has ended.
        """
        try:
            self._socket.settimeout(self._seconds)
            link.send(self._socket, asked)
        except OSError as error:
            raise EndedError(self._ending()) from error

    def answer(self) -> Results:
        """Return the results for what was asked.

        Raises:
            EndedError: it has ended, or needs too long.
            MlshipError: no message is to blame, such as for a full disk of the log.
        """
        answer = self._receive()
        if isinstance(answer, Failed):
            raise _error(answer)
        if not isinstance(answer, Results):
            raise EndedError(self._ending())
        return answer

    def _receive(self) -> object:
        self._socket.settimeout(self._seconds)
        try:
            answer = link.receive(self._socket)
        except TimeoutError as error:
            text = f"it did not answer within {self._seconds:g} s"
            raise EndedError(text) from error
        except OSError as error:
            raise EndedError(self._ending()) from error
        if answer is None:
            raise EndedError(self._ending())
        return answer

    def _ending(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)
        code = self._process.poll()
        if code is None:
            return "it closed its link"
        return f"it ended by signal {-code}" if code < 0 else f"it ended with code {code}"

    def end(self) -> None:
        """End the process; nothing is lost, because what it answered is in a transaction."""
        self._socket.close()
        self._process.kill()
        self._process.wait()


class Models:
    """The models of a plan; a batch is answered by those of one plan.

    Args:
        settings: of the stream.
        environment: the variables of their processes.
        note: shows a line to the operator.
    """

    def __init__(
        self, settings: Settings, environment: Mapping[str, str], note: Callable[[str], None]
    ) -> None:
        self._settings = settings
        self._environment = environment
        self._note = note
        self._processes: dict[str, ModelProcess] = {}
        self._wanted: Plan | None = None

    def want(self, plan: Plan) -> None:
        """Begin to load what a plan needs and is not loaded."""
        self._wanted = plan
        for side in plan.sides:
            known = self._processes.get(side.release)
            if known is None:
                self._processes[side.release] = self._start(side)
            else:
                self._processes[side.release] = self._processes.pop(side.release)

    def arrived(self, *, wait: bool = False) -> Plan | None:
        """Return the plan that was wanted, once, when all that it needs is loaded.

        A release that cannot be loaded is noted, and the plan is not followed.

        Raises:
            MlshipError: one cannot be loaded, and there is no other plan: `wait` is set.
        """
        plan = self._wanted
        if plan is None:
            return None
        try:
            for process in map(self._process, plan.sides):
                process.wait() if wait else process.look()
        except (EndedError, MlshipError) as error:
            self._wanted = None
            self._drop(process.side)
            if wait:
                raise _unloaded(process.side, error) from error
            self._note(f"the route stays as it was: {process.side.name}: {error}")
            return None
        if not all(self._process(side).is_ready for side in plan.sides):
            return None
        self._wanted = None
        self._drop_idle(plan)
        return plan

    def compute(self, asked: Mapping[str, tuple[Side, Values]]) -> dict[str, Results]:
        """Return the results of batches, each by a model of its own, at the same time.

        A message on which a process ends gets a fault, and the process is started again.

        Raises:
            MlshipError: no message is to blame.
        """
        results: dict[str, Results] = {}
        for side, values in asked.values():
            with contextlib.suppress(EndedError):
                self._process(side).ask(values)
        for name, (side, values) in asked.items():
            try:
                results[name] = self._process(side).answer()
            except EndedError as error:
                self._note(f"the model of {side.name}: {error}")
                results[name] = self._in_halves(side, values, str(error))
        return results

    def _in_halves(self, side: Side, values: Values, reason: str) -> Results:
        """Return results after the process ended on a batch: it is started again for each half."""
        self._drop(side)
        process = self._processes[side.release] = self._start(side)
        try:
            process.wait()
        except EndedError as error:
            raise _unloaded(side, error) from error
        if len(values.ids) == 1:
            return Results([None], {0: (f"the process of the model: {reason}", "")})
        middle = len(values.ids) // 2
        parts = []
        for part in (slice(None, middle), slice(middle, None)):
            half = Values(values.ids[part], values.values[part], values.shadow)
            try:
                process = self._process(side)
                process.ask(half)
                parts.append(process.answer())
            except EndedError as error:
                parts.append(self._in_halves(side, half, str(error)))
        first, second = parts
        moved = {middle + place: fault for place, fault in second.faults.items()}
        return Results([*first.values, *second.values], {**first.faults, **moved})

    def end(self) -> None:
        """End all processes."""
        for process in self._processes.values():
            process.end()
        self._processes.clear()

    def _process(self, side: Side) -> ModelProcess:
        return self._processes[side.release]

    def _start(self, side: Side) -> ModelProcess:
        return ModelProcess(side, self._settings, self._environment)

    def _drop(self, side: Side) -> None:
        process = self._processes.pop(side.release, None)
        if process is not None:
            process.end()

    def _drop_idle(self, plan: Plan) -> None:
        named = {side.release for side in plan.sides}
        idle: Sequence[str] = [release for release in self._processes if release not in named]
        for release in idle[: max(0, len(idle) - _MOST_IDLE)]:
            self._processes.pop(release).end()


def _error(failed: Failed) -> MlshipError:
    """Return the error that a process had."""
    return errors.tree().get(failed.error, MlshipError)(failed.message, hint=failed.hint)


def _unloaded(side: Side, error: Exception) -> MlshipError:
    if isinstance(error, MlshipError):
        return error
    message = f"the process of {side.name} cannot load the bundle: {error}"
    return errors.UnavailableError(message, hint="see its lines above, and the memory limit")


def own_environment(environment: Mapping[str, str], settings: Settings) -> dict[str, str]:
    """Return the variables for the processes of models: without credentials of the brokers."""
    hidden = {
        variable for name, variable in settings.variables.items() if not name.startswith(REGISTRY)
    }
    return {name: value for name, value in environment.items() if name not in hidden}
