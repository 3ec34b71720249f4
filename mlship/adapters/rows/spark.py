"""Spark as the workers of a batch: tasks of a session that a process of this machine has."""

import json
import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from mlship.adapters.rows.workers import Child, ChildWorkers
from mlship.domain import environment as environments
from mlship.domain.batch import Input, Scored
from mlship.domain.batch_work import (
    Answer,
    Find,
    Found,
    Inspect,
    Inspected,
    Request,
    Score,
    Written,
)

_MASTER: Final = "local[*,4]"
"""All cores of this machine; a task that fails is tried four times."""
_ENDING_SECONDS: Final = 10.0
_ENDED: Final = "the process with the session of Spark ended {how}"


class SparkWorkers:
    """The port Workers, as tasks of Spark.

    Args:
        bundle: the folder of the bundle, which the session sends to the executors.
        settings: of Spark.
        environment: of the command.
        named: variables that the project lets its own code have.
    """

    def __init__(
        self,
        bundle: Path,
        settings: Mapping[str, str],
        environment: Mapping[str, str],
        named: Iterable[str] = (),
    ) -> None:
        self._bundle = bundle
        self._settings = {"spark.master": _MASTER, **settings}
        self._environment = environments.of_spark(environment, named)
        self._alone = ChildWorkers(bundle, 1, environment, named)
        self._child: Child | None = None

    def inspect(self, requests: Iterable[Inspect]) -> Iterator[Input]:
        """Return each file as an input, in the order in which they are done.

        Raises:
            UnavailableError: the session does not start, or a task failed too often.
            ConfigError: there is no Java.
            ProjectError, NotFoundError, IntegrityError: as the runtime's.
        """
        for answer in self._each(requests):
            if isinstance(answer, Inspected):
                yield answer.input

    def score(self, requests: Iterable[Score]) -> Iterator[Scored]:
        """Return the parts as they are done, each durably written. Errors as of `inspect`."""
        for answer in self._each(requests):
            if isinstance(answer, Written):
                yield answer.part

    def find(self, request: Find) -> Found:
        """Return one row with its outputs, by a process of this machine."""
        return self._alone.find(request)

    def _each(self, requests: Iterable[Request]) -> Iterator[Answer]:
        pending = list(requests)
        if not pending:
            return
        child = self._started()
        # Apart from reading: nobody would read the answers while a full pipe takes no request.
        threading.Thread(target=child.send, args=(pending,), daemon=True).start()
        left = len(pending)
        try:
            while left:
                answer = child.receive(_ENDED)
                left -= 1
                yield answer
        finally:
            if left:  # what is not wanted any more is not computed, and answers nobody
                self._child = None
                child.close(_ENDING_SECONDS)

    def _started(self) -> Child:
        """Return the process with the session, which takes seconds to start."""
        if self._child is None:
            options = ("--spark", json.dumps(self._settings))
            self._child = Child(self._bundle, self._environment, options)
            weakref.finalize(self, self._child.close, _ENDING_SECONDS)
        return self._child
