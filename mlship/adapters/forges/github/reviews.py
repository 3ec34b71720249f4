"""From the reviews of a pull request to what each account decided last. A pure function."""

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from mlship.adapters.forges.github import models
from mlship.domain.pullrequest import Decision, Review

_DECISIONS: Final[Mapping[str, Decision]] = {
    "APPROVED": "approved",
    "CHANGES_REQUESTED": "changes requested",
    "DISMISSED": "dismissed",
}
"""COMMENTED and PENDING decide nothing: an approval before them stands."""


def latest(listed: Iterable[models.Review], may_write: Callable[[str], bool]) -> tuple[Review, ...]:
    """Return the last decision of each account, in the order in which they decided first.

    Args:
        listed: reviews, oldest first, as GitHub lists them.
        may_write: tells whether an account may push; asked of those that approved only.
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
