"""The report of a load test: what was sent to whom, and how, and what came of it."""

from datetime import datetime

import msgspec

from mlship.domain.load import Holding, LoadResult, Replicas
from mlship.domain.rate_search import Trial


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """The subject of a load test.

    Attributes:
        name: of the target; empty for another endpoint.
        endpoint: the URL, without a path.
        release: that most requests reach; empty if it is unknown.
        replicas: that were ready, of the slots with traffic.
        user_header: a header with the name of a user, which selects a release.
        source: where the requests are from, for people.
        bodies: the requests, as JSON texts.
    """

    name: str
    endpoint: str
    release: str
    replicas: int
    user_header: str
    source: str
    bodies: tuple[str, ...]


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How requests are sent, and what is asked of them.

    Attributes:
        rate: requests a second; the first of a search.
        seconds: of each run.
        users: connections.
        timeout: seconds for a request.
        processes: that send.
        p99_ms: the bound; `None` for none.
    """

    rate: float
    seconds: float
    users: int
    timeout: float
    processes: int
    p99_ms: float | None


class Population(msgspec.Struct, frozen=True, kw_only=True):
    """For how many users replicas are counted, and how many requests a second each sends."""

    users: int
    user_rate: float


class LoadReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a load test says.

    Attributes:
        subject: what was sent to whom.
        limits: how.
        started: at what time.
        result: of the run, or of the run at the highest rate that held the bound.
        verdict: whether the bound was held; `None` without one.
        capacity: requests a second; `None` if it was not searched.
        trials: of the search.
        replicas: that the users need; `None` without a capacity.
    """

    subject: Subject
    limits: Limits
    started: datetime
    result: LoadResult
    verdict: Holding | None = None
    capacity: float | None = None
    trials: tuple[Trial, ...] = ()
    replicas: Replicas | None = None
