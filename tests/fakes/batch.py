"""Workers of a batch without processes: the runtime's own worker, in this one."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from mlship import errors
from mlship.adapters.rows.listing import LakeFiles
from mlship.adapters.rows.outputs import OutputFiles
from mlship.adapters.rows.runs import ManifestFiles
from mlship.domain.batch import Input, Scored
from mlship.domain.batch_ports import Workers
from mlship.domain.batch_work import (
    Answer,
    Fault,
    Find,
    Found,
    Inspect,
    Inspected,
    Request,
    Score,
    Written,
)
from mlship.runtime.batches.work import Worker
from mlship.steps.batch import Batching
from mlship.wire.batch import runs_in, shadows_in


class KilledError(Exception):
    """Stands for the end of the process."""


class InProcessWorkers:
    """The port Workers.

    Attributes:
        asked: all requests.
        kill_at: the number of the request to score after whose output everything ends.
    """

    def __init__(self) -> None:
        self._worker = Worker()
        self.asked: list[Request] = []
        self.kill_at: int | None = None
        self.before: Callable[[Score], None] = lambda _: None

    def inspect(self, requests: Iterable[Inspect]) -> Iterator[Input]:
        for request in requests:
            answer = self._ask(request)
            assert isinstance(answer, Inspected)
            yield answer.input

    def score(self, requests: Iterable[Score]) -> Iterator[Scored]:
        for number, request in enumerate(requests):
            self.before(request)
            answer = self._ask(request)
            assert isinstance(answer, Written)
            if number == self.kill_at:
                raise KilledError
            yield answer.part

    def find(self, request: Find) -> Found:
        answer = self._ask(request)
        assert isinstance(answer, Found)
        return answer

    @property
    def scored(self) -> list[str]:
        """The parts that were scored."""
        return [request.part for request in self.asked if isinstance(request, Score)]

    def _ask(self, request: Request) -> Answer:
        self.asked.append(request)
        answer = self._worker.answer(request)
        if isinstance(answer, Fault):
            raise errors.tree()[answer.error](answer.message, hint=answer.hint)
        return answer


def batching(root: Path, workers: Workers) -> Batching:
    """Return the ports of a batch on real files, with these workers."""
    return Batching(
        files=LakeFiles(root, root / ".mlship"),
        workers=lambda _: workers,
        runs=runs_in(root),
        shadows=shadows_in(root),
        manifests=ManifestFiles(),
        outputs=OutputFiles(),
    )
