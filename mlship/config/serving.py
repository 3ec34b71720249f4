"""How the replicas of a target serve: their time limits, what they may use, and what they tell."""

from typing import Annotated, Literal

from msgspec import Meta

from mlship.config.amounts import Memory
from mlship.config.placement import Placement

Seconds = Annotated[float, Meta(ge=0)]


class Serving(Placement, frozen=True):
    """A target's settings for each of its replicas."""

    ready_seconds: Annotated[
        Seconds, Meta(description="time limit for replicas to become ready")
    ] = 60.0
    drain_seconds: Annotated[
        Seconds, Meta(description="time limit for open requests when a replica stops")
    ] = 10.0
    memory: Annotated[
        Memory | None,
        Meta(
            description="memory limit of each process of a replica, of what it allocates itself "
            "(RLIMIT_DATA); Linux only; kind local only, see kubernetes.memory; default: no limit"
        ),
    ] = None
    workers: Annotated[
        Annotated[int, Meta(ge=1, le=256)],
        Meta(
            description="processes of each replica that compute; each loads the model, within "
            "`kubernetes.memory` all of them"
        ),
    ] = 1
    timeout_seconds: Annotated[
        Annotated[float, Meta(gt=0, le=60)],
        Meta(
            description="time limit to compute a request; a client may send a shorter one in the "
            "header mlship-timeout; the load balancer waits for 60 s"
        ),
    ] = 30.0
    cache_rows: Annotated[
        Annotated[int, Meta(ge=0, le=1_000_000)],
        Meta(
            description="rows whose outputs each replica keeps in memory, to answer them again "
            "without the model; only for a model whose outputs follow from the row alone"
        ),
    ] = 0
    access_log: Annotated[
        Literal["off", "json"],
        Meta(
            description="a line of JSON for each request on the output of a replica, without "
            "values of features; see `mlship guide watching`"
        ),
    ] = "off"
