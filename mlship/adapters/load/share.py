"""What one process of the generator is told."""

import msgspec

from mlship.domain.load import LoadPlan


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """What one process sends of a plan: each `step`-th request, the first one included.

    Attributes:
        api_key: sent with each request unless it is empty.
        certificate: the path of the only one that is trusted; empty for those of the system.
        start: of the run, on the monotonic clock, which all processes of a machine share.
    """

    plan: LoadPlan
    first: int
    step: int
    users: int
    api_key: str = ""
    certificate: str = ""
    start: float = 0.0
