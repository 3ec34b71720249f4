"""More traffic for a challenger than configured: the facts of `traffic`, and an override.

More than `targets.production.challenger_weight` needs what a promotion needs. A person may override
that with a reason, which is shown until the share is within the configured one again, or the
release was promoted; see `mlship.domain.history.overridden`.
"""

from datetime import datetime

import msgspec

from mlship.domain.checks import Check
from mlship.domain.facts import Routed


class Override(msgspec.Struct, frozen=True, kw_only=True):
    """Who gave a challenger more traffic than configured without the gate, and why."""

    by: str
    why: str


class Weighted(Routed, frozen=True):
    """The facts of `traffic`: the split, and what allowed it.

    Attributes:
        configured: the challenger's percentage that needs no permission; `None` if a former
            version set the split.
        override: set if a person overrode the gate of a promotion.
        checks: of that gate, if it allowed more than is configured.
    """

    configured: int | None = None
    override: Override | None = None
    checks: tuple[Check, ...] = ()


class Overridden(msgspec.Struct, frozen=True, kw_only=True):
    """An override that is in force.

    Attributes:
        release: the challenger.
        share: its recorded percentage of the traffic; `configured` is that of a new challenger.
        by: who overrode the gate, at `time`, and `why`.
    """

    release: str
    share: int
    configured: int
    by: str
    why: str
    time: datetime
