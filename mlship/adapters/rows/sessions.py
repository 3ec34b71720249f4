"""Workers of an engine: a process of this machine has its session, and passes requests on."""

import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from mlship.adapters.rows.answered import AnsweredWorkers, Requests
from mlship.adapters.rows.workers import Child, ChildWorkers
from mlship.domain.batch_work import Answer, Find, Found

_ENDING_SECONDS: Final = 10.0


class SessionWorkers(AnsweredWorkers):
    """The port Workers, as tasks of an engine.

    Besides what AnsweredWorkers raises, `inspect` and `score` raise UnavailableError if the engine
    does not start or a task failed too often, and ConfigError if its settings are invalid.

    Args:
        engine: its name, for people.
        bundle: the folder of the bundle, which the session sends to where tasks run.
        environment: of the process with the session.
        options: of `mlship.runtime batch`, which name the engine.
        alone: looks up single rows, which needs no engine.
    """

    def __init__(
        self,
        engine: str,
        bundle: Path,
        environment: Mapping[str, str],
        options: Sequence[str],
        alone: ChildWorkers,
    ) -> None:
        self._bundle = bundle
        self._environment = environment
        self._options = options
        self._alone = alone
        self._death = f"the process with the session of {engine} ended {{how}}"
        self._child: Child | None = None

    def find(self, request: Find) -> Found:
        """Return one row with its outputs, by a process of this machine."""
        return self._alone.find(request)

    def _each(self, requests: Requests) -> Iterator[Answer]:
        if not requests:
            return
        child = self._started()
        # Apart from reading: nobody would read the answers while a full pipe takes no request.
        threading.Thread(target=child.send_all, args=(requests,), daemon=True).start()
        left = len(requests)
        try:
            while left:
                answer = child.receive(self._death)
                left -= 1
                yield answer
        finally:
            if left:  # what is not wanted any more is not computed, and answers nobody
                self._child = None
                child.close(_ENDING_SECONDS)

    def _started(self) -> Child:
        """Return the process with the session, which takes seconds to start."""
        if self._child is None:
            self._child = Child(self._bundle, self._environment, self._options)
            weakref.finalize(self, self._child.close, _ENDING_SECONDS)
        return self._child
