"""A load generator without requests: the target has one place and a fixed time for each."""

from collections.abc import Callable

from mlship.domain.histogram import Histogram
from mlship.domain.load import LoadPlan, LoadResult, Moment, Progress, Tally


class FakeGenerator:
    """Computes latencies of a target with a capacity; in some runs the generator is late.

    Args:
        capacity: requests a second of the target.
        fastest: requests a second of the generator; beyond it, each is sent later than the last.
        slow_runs: the places of runs that a pause of the machine made slow.
    """

    def __init__(
        self, capacity: float, fastest: float = 1e9, slow_runs: frozenset[int] = frozenset()
    ) -> None:
        self._capacity, self._fastest, self._slow_runs = capacity, fastest, slow_runs
        self.plans: list[LoadPlan] = []

    def run(self, plan: LoadPlan, watch: Callable[[LoadResult], None]) -> LoadResult:
        pause = 0.4 if len(self.plans) in self._slow_runs else 0.0
        self.plans.append(plan)
        tally, late, free, sent = Tally(plan, started=0.0), Histogram(), pause, 0.0
        seconds: dict[int, Histogram] = {}
        for number in range(plan.count):
            due = number / plan.rate
            sent = max(due, sent + 1 / self._fastest)
            late.record(sent - due)
            free = max(free, sent) + 1 / self._capacity
            seconds.setdefault(int(due), Histogram()).record(free - due)
        for second, latencies in seconds.items():
            moment = Moment(second=second, errors={}, latencies=latencies.counts)
            tally.add(Progress(moments=(moment,)))
            watch(tally.result())
        tally.add(Progress(late=late.counts))
        return tally.result()
