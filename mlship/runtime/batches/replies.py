"""The answers of a process that has the session of an engine, and errors of engines in a line."""

import os
import threading

import msgspec

from mlship.domain.batch_work import Answer, Fault
from mlship.errors import MlshipError


class Replies:
    """Where answers go: to what was stdout. What libraries print goes to stderr from then on."""

    def __init__(self) -> None:
        self._file = os.fdopen(os.dup(1), "wb")
        self._lock = threading.Lock()
        os.dup2(2, 1)

    def send(self, answer: Answer | MlshipError) -> None:
        """Send an answer, or an error as a fault."""
        reply = fault(answer) if isinstance(answer, MlshipError) else answer
        with self._lock:
            self._file.write(msgspec.json.encode(reply) + b"\n")
            self._file.flush()


def fault(error: MlshipError) -> Fault:
    """Return an error as an answer."""
    return Fault(error=type(error).__name__, message=error.message, hint=error.hint)


def reason(error: BaseException) -> str:
    """Return what an error says in a line, without the traces of Java and Python."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    own = [line for line in lines if "Exception: " in line or "Error: " in line]
    return (own or lines or [type(error).__name__])[-1][:300]
