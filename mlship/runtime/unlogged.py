"""Requests whose predictions cannot be logged: what their clients hear, and what the operator."""

from collections.abc import Callable
from time import monotonic
from typing import Final

from mlship.errors import MlshipError, UnfitRowsError
from mlship.runtime import http, refusals
from mlship.runtime.faults import Fault
from mlship.runtime.http import Response

AGAIN_SECONDS: Final = 60.0
"""The operator hears of the same cause once in this time: it is that of each request."""


class Unlogged:
    """Refuses requests whose predictions are not durable.

    A cause names folders, databases and hosts of the server, which are not for its clients.

    Args:
        note: shows a line to the operator.
        clock: returns seconds.
    """

    def __init__(self, note: Callable[[str], None], clock: Callable[[], float] = monotonic) -> None:
        self._note = note
        self._clock = clock
        self._cause = ""
        self._noted = 0.0

    def response(self, error: BaseException, path: str) -> Response:
        """Return status 503 for a request on a path, and tell the operator why."""
        cause = f"{error}; {error.hint}" if isinstance(error, MlshipError) else repr(error)
        if cause != self._cause or self._clock() - self._noted >= AGAIN_SECONDS:
            self._cause, self._noted = cause, self._clock()
            self._note(f"requests are refused, because predictions cannot be logged: {cause}")
        message = f"the prediction log cannot be written{_reason(error)}"
        hint = "retry later; the output of the replica has the whole cause"
        fault = Fault(message=message, hint=hint)
        return http.of_fault(fault, 503, path, reason=refusals.LOG, retry_after="1")


def _reason(error: BaseException) -> str:
    """Return why, without a name of the server: what the disk says, or the database of the rows."""
    if isinstance(error, UnfitRowsError):
        return f": {error.reason}"
    return f": {error.__cause__.strerror}" if isinstance(error.__cause__, OSError) else ""
