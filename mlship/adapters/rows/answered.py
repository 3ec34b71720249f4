"""What all workers of a batch do alike: they answer requests, in any order."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence

from mlship.domain.batch import Input, Scored
from mlship.domain.batch_work import Answer, Inspect, Inspected, Score, Written

Requests = Sequence[Inspect] | Sequence[Score]


class AnsweredWorkers(ABC):
    """The port Workers but for `find`, for what answers requests in any order."""

    def inspect(self, requests: Iterable[Inspect]) -> Iterator[Input]:
        """Return each file as an input, in the order in which they are done.

        Raises:
            ProjectError: a file is invalid.
            NotFoundError, UnavailableError, ConfigError, IntegrityError: as the runtime's.
        """
        for answer in self._each(list(requests)):
            if isinstance(answer, Inspected):
                yield answer.input

    def score(self, requests: Iterable[Score]) -> Iterator[Scored]:
        """Return the parts as they are done, each durably written.

        Raises:
            ProjectError: a hook fails on any row, or a worker died.
            NotFoundError, UnavailableError, ConfigError, IntegrityError: as the runtime's.
        """
        for answer in self._each(list(requests)):
            if isinstance(answer, Written):
                yield answer.part

    @abstractmethod
    def _each(self, requests: Requests) -> Iterator[Answer]:
        """Return the answers as they come; the first fault is raised and ends all work."""
