"""traffic: show or set the traffic split of production."""

from collections.abc import Mapping

from mlship.domain.deployment import Route, slot_of
from mlship.domain.history import History
from mlship.domain.records import Records
from mlship.domain.release import Release
from mlship.errors import ConfigError, NotFoundError
from mlship.steps.drift import recorded_split, undone
from mlship.steps.pipeline import PRODUCTION, Pipeline
from mlship.steps.transition import set_route


def traffic(pipeline: Pipeline, shares: Mapping[str, int], *, shadow: bool | None = None) -> Route:
    """Set production's route, if shares or `shadow` are given, and return it.

    Args:
        pipeline: the project.
        shares: percent by role, such as `{"challenger": 20}`; the champion gets the rest.
        shadow: whether the challenger gets a copy of all traffic; `None` keeps the setting.

    Raises:
        ConfigError: a share is not 0 to 100, or the shares do not add up to 100.
        NotFoundError: production has no challenger, or a release is not ready.
        ConflictError: the route was changed at the same time.
    """
    target = pipeline.target(PRODUCTION)
    if not shares and shadow is None:
        return target.routes()
    with pipeline.locks.exclusive(PRODUCTION) as fence:
        pipeline = pipeline.under(PRODUCTION, fence)
        target = pipeline.target(PRODUCTION)
        records = pipeline.read()
        _, challenger = _roles(records.history)
        before = target.routes().split
        share = _share(shares, before.share(slot_of(challenger)))
        return give(pipeline, records, share, shadow=shadow)


def give(pipeline: Pipeline, records: Records, share: int, *, shadow: bool | None = None) -> Route:
    """Give the challenger a share of the traffic and the champion the rest, and record it.

    The split that the route has already is recorded if it is not the last recorded one, or if a
    decision of `watch` is undone: otherwise the next watch would carry that out.

    The caller holds the lock, and has read the records under it.

    Args:
        pipeline: of the holder of the lock.
        records: of the ledger.
        share: percent of the challenger.
        shadow: whether the challenger gets a copy of all traffic; `None` keeps the setting.

    Raises:
        NotFoundError: production has no challenger, or a release is not ready.
        ConflictError: the route was changed at the same time.
    """
    target = pipeline.target(PRODUCTION)
    champion, challenger = _roles(records.history)
    before = target.routes().split
    copied = before.shadow == slot_of(challenger) if shadow is None else shadow
    facts = set_route(
        target,
        {champion: 100 - share, challenger: share},
        challenger if copied else None,
    )
    after = target.routes()
    is_new = before != after.split or recorded_split(records) != after.split
    if is_new or undone(records, challenger) is not None:
        pipeline.learn(challenger, "traffic", "passed", facts, after=records)
    return after


def _roles(history: History) -> tuple[Release, Release]:
    if history.champion is None or history.challenger is None:
        raise NotFoundError(
            "cannot split traffic: production has no challenger",
            hint="run `mlship deploy-production`",
        )
    return history.champion, history.challenger


def _share(shares: Mapping[str, int], before: int) -> int:
    unknown = set(shares) - {"challenger", "champion"}
    if unknown:
        raise ConfigError(
            f"unknown role: {', '.join(sorted(unknown))}",
            hint="write challenger=20 or champion=80",
        )
    share = shares.get("challenger", 100 - shares["champion"] if "champion" in shares else before)
    if not 0 <= share <= 100 or ("champion" in shares and shares["champion"] != 100 - share):
        requested = " ".join(f"{role}={percent}" for role, percent in shares.items())
        raise ConfigError(
            f"{requested}: shares must be whole percent, 0 to 100, and add up to 100",
            hint="write challenger=20; the champion gets the rest",
        )
    return share
