"""Drift: differences between what the ledger says of production and what is observed.

Each is one line for people that names what differs and, where one exists, the command that
mends it. Pure functions.
"""

from collections.abc import Mapping, Sequence

from mlship.domain.deployment import Deployment, Route, Slot, slot_of
from mlship.domain.evidence import TRANSITIONS, Record
from mlship.domain.history import History
from mlship.domain.release import Release
from mlship.domain.versions import Version


def unfinished(records: Sequence[Record]) -> list[str]:
    """Find a transition that was begun after the last completed one and has not ended."""
    begun: Record | None = None
    for record in records:
        step, _, substep = record.evidence.step.partition("/")
        if step in TRANSITIONS:
            begun = record if substep else None
    if begun is None:
        return []
    step, release = begun.evidence.step.partition("/")[0], begun.evidence.release
    again = f"mlship {step} --to {release}" if step == "rollback" else f"mlship {step} {release}"
    return [f"{step} of {release} stopped after {begun.evidence.step}: run `{again}` again"]


def of_aliases(history: History, versions: Sequence[Version]) -> list[str]:
    """Compare the store's aliases with the roles."""
    found = {alias: version.release for version in versions for alias in version.aliases}
    drift = []
    for alias, release in _players(history).items():
        named = found.get(alias)
        if release is not None and named != release.id:
            other = named.removeprefix("sha256:")[:12] if named else "nothing"
            again = f"`mlship deploy-production {release}` sets it"
            drift.append(f"alias {alias} names {other}, the ledger says {release}: {again}")
        elif release is None and named is not None:
            drift.append(f"alias {alias} is set, but the ledger has no {alias}")
    return drift


def of_route(history: History, deployments: Mapping[Slot, Deployment], route: Route) -> list[str]:
    """Compare what runs, and who gets traffic, with the roles."""
    return [
        *_not_running(history, deployments),
        *_misrouted(history, deployments, route),
        *(
            f"slot {slot} runs a release that is not in production according to the ledger"
            for slot, found in deployments.items()
            if not history.role(found.release)
        ),
    ]


def _players(history: History) -> dict[str, Release | None]:
    return {"champion": history.champion, "challenger": history.challenger}


def _not_running(history: History, deployments: Mapping[Slot, Deployment]) -> list[str]:
    drift = []
    for role, release in _players(history).items():
        if release is None:
            continue
        found = deployments.get(slot_of(release))
        if found is None or found.ready == 0:
            again = f"`mlship deploy-production {release}` starts it"
            drift.append(f"{role} {release} is not running: {again}")
        elif found.ready < found.wanted:
            drift.append(f"{role} {release} has {found.ready} of {found.wanted} replicas ready")
    return drift


def _misrouted(history: History, deployments: Mapping[Slot, Deployment], route: Route) -> list[str]:
    drift = []
    for slot, weight in route.split.weights.items():
        found = deployments.get(slot)
        role = history.role(found.release) if found else ""
        if weight and role not in ("champion", "challenger"):
            what = role or "no role in the ledger"
            drift.append(f"the route sends {weight} % to {slot}, which is {what}")
    champion = history.champion
    if champion and route.split.weights and not route.split.share(slot_of(champion)):
        drift.append(f"the route sends no traffic to champion {champion}")
    return drift
