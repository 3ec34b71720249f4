"""The comparison of two releases on their requests, in words, for all formats."""

from mlship.domain.watch import Side
from mlship.reports.formatting import number, whole

HEADER = ["release", "requests", "failed", "answered by another", "p99 in ms"]


def rows(champion: str, of_champion: Side, challenger: str, of_challenger: Side) -> list[list[str]]:
    """Return the numbers of both releases, by the columns of `HEADER`.

    Args:
        champion: how to name the champion.
        of_champion: its requests.
        challenger: how to name the challenger.
        of_challenger: its requests.
    """
    return [
        [name, whole(side.requests), whole(side.failed), whole(side.elsewhere), number(side.p99_ms)]
        for name, side in ((champion, of_champion), (challenger, of_challenger))
    ]
