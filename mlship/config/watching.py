"""What the replicas of a target tell of requests."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta


class Watching(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a replica writes of each request, beside the prediction log."""

    access_log: Annotated[
        Literal["off", "json"],
        Meta(
            description="a line of JSON for each request on the output of a replica, without "
            "values of features; see `mlship guide watching`"
        ),
    ] = "off"
