"""traffic: show or set the traffic split of production."""

from collections.abc import Mapping
from typing import Final, NamedTuple

from mlship.domain.checks import Check
from mlship.domain.deployment import Route, slot_of
from mlship.domain.history import History
from mlship.domain.override import Override, Weighted
from mlship.domain.records import Records
from mlship.domain.release import Release
from mlship.errors import ConfigError, NotFoundError
from mlship.reports.formatting import short
from mlship.steps import promotion
from mlship.steps.drift import recorded_split, undone
from mlship.steps.pipeline import PRODUCTION, Pipeline
from mlship.steps.transition import set_route

_MOST: Final = 500
"""The longest reason of an override."""


class _Permission(NamedTuple):
    """What allows a share of the challenger, and the records on which that is based."""

    records: Records
    override: Override | None = None
    checks: tuple[Check, ...] = ()


def traffic(
    pipeline: Pipeline,
    shares: Mapping[str, int],
    *,
    shadow: bool | None = None,
    override: str | None = None,
) -> Route:
    """Set production's route, if shares or `shadow` are given, and return it.

    To raise the challenger's share above `challenger_weight` needs what a promotion needs, or a
    reason to override that. A copy of all traffic is no share.

    Args:
        pipeline: the project.
        shares: percent by role, such as `{"challenger": 20}`; the champion gets the rest.
        shadow: whether the challenger gets a copy of all traffic; `None` keeps the setting.
        override: why the challenger gets more than configured, although the gate may not pass.

    Raises:
        ConfigError: a share is not 0 to 100, or the shares do not add up to 100; or the reason is
            empty, or for no share.
        RefusedError: the share needs what a promotion needs, which is not there.
        NotFoundError: production has no challenger, or a release is not ready.
        ConflictError: the route was changed at the same time.
        UnavailableError: the reviews cannot be read, and are needed.
    """
    target = pipeline.target(PRODUCTION)
    why = _reason(override)
    if not shares and shadow is None:
        if why:
            message = "--override needs a share of the traffic"
            raise ConfigError(message, hint='write `mlship traffic challenger=50 --override "why"`')
        return target.routes()
    with pipeline.locks.exclusive(PRODUCTION) as fence:
        pipeline = pipeline.under(PRODUCTION, fence)
        target = pipeline.target(PRODUCTION)
        records = pipeline.read()
        _, challenger = _roles(records.history)
        observed = target.routes().split.share(slot_of(challenger))
        share = _share(shares, observed)
        permission = _permission(pipeline, records, challenger, share, observed, why)
        return give(
            pipeline,
            permission.records,
            share,
            shadow=shadow,
            override=permission.override,
            checks=permission.checks,
        )


def give(
    pipeline: Pipeline,
    records: Records,
    share: int,
    *,
    shadow: bool | None = None,
    override: Override | None = None,
    checks: tuple[Check, ...] = (),
) -> Route:
    """Give the challenger a share of the traffic and the champion the rest, and record it.

    The split that the route has already is recorded if it is not the last recorded one, or if a
    decision of `watch` is undone: otherwise the next watch would carry that out.

    The caller holds the lock, and has read the records under it.

    Args:
        pipeline: of the holder of the lock.
        records: of the ledger.
        share: percent of the challenger.
        shadow: whether the challenger gets a copy of all traffic; `None` keeps the setting.
        override: by whom and why the challenger gets more than configured without the gate.
        checks: of the gate, if it allowed more than configured.

    Raises:
        NotFoundError: production has no challenger, or a release is not ready.
        ConflictError: the route was changed at the same time.
    """
    target = pipeline.target(PRODUCTION)
    champion, challenger = _roles(records.history)
    before = target.routes().split
    copied = before.shadow == slot_of(challenger) if shadow is None else shadow
    routed = set_route(
        target,
        {champion: 100 - share, challenger: share},
        challenger if copied else None,
    )
    after = target.routes()
    is_new = before != after.split or recorded_split(records) != after.split
    if is_new or undone(records, challenger) is not None:
        facts = Weighted(
            weights=routed.weights,
            shadow=routed.shadow,
            configured=pipeline.target_config(PRODUCTION).challenger_weight,
            override=override,
            checks=checks,
        )
        pipeline.learn(challenger, "traffic", "passed", facts, after=records)
    return after


def _reason(override: str | None) -> str:
    """Return the reason of an override on one line, without control characters.

    Raises:
        ConfigError: it is empty.
    """
    why = short(override or "", _MOST)
    if override is not None and not why:
        raise ConfigError("--override has no reason", hint='write --override "why"')
    return why


def _permission(
    pipeline: Pipeline,
    records: Records,
    challenger: Release,
    share: int,
    observed: int,
    why: str,
) -> _Permission:
    """Return what allows a share of the challenger.

    The last recorded share needs no permission again. One that only the route has does: a command
    was killed before it recorded it, or somebody edited the route. It may be lowered, which is
    recorded as an override if it is still more than configured.

    Raises:
        RefusedError: nothing allows it.
    """
    configured = pipeline.target_config(PRODUCTION).challenger_weight
    split = recorded_split(records)
    before = observed if split is None else split.share(slot_of(challenger))
    if share <= max(configured, before):
        if why:
            pipeline.progress.note(f"no override is needed for {share} % of the traffic")
        return _Permission(records)
    if why or share < observed:
        why = why or f"lowered from {observed} %, which nobody had recorded"
        return _Permission(records, Override(by=pipeline.actor, why=why))
    answer = promotion.ask(pipeline, challenger, records)
    answer.check(
        f"{share} % of the traffic for {challenger} need what a promotion needs, and {configured} "
        "% are configured",
        "run `mlship evaluate` and `mlship approve`, then `mlship traffic` again; or give it "
        f'{configured} % or less, or use --override "why", which is recorded',
    )
    return _Permission(answer.records, checks=answer.decision.checks)


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
