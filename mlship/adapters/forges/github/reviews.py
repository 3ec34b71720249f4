"""The last decision of each account in the reviews of a pull request. A pure function."""

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from mlship.adapters.forges.github import models
from mlship.domain.pullrequest import Decision, Review

_DECISIONS: Final[Mapping[str, Decision]] = {
    "APPROVED": "approved",
    "CHANGES_REQUESTED": "changes requested",
    "DISMISSED": "dismissed",
}
"""COMMENTED and PENDING are not decisions: an earlier approval stays valid."""


def latest(listed: Iterable[models.Review], may_write: Callable[[str], bool]) -> tuple[Review, ...]:
    """Return the last decision of each account, in the order of their first decisions.

    Args:
        listed: reviews, oldest first, as GitHub lists them.
        may_write: returns whether an account may push; called only for accounts that approved.
    """
    last: dict[str, tuple[Decision, models.User, models.Review]] = {}
    for review in listed:
        decision = _DECISIONS.get(review.state)
        if decision is not None and review.user is not None and review.user.login:
            last[review.user.login] = (decision, review.user, review)
    return tuple(
        Review(
            by=login,
            decision=decision,
            commit=review.commit_id or "",
            text=review.body,
            url=review.html_url,
            time=review.submitted_at,
            is_person=user.type == "User",
            may_write=decision == "approved" and user.type == "User" and may_write(login),
        )
        for login, (decision, user, review) in last.items()
    )
