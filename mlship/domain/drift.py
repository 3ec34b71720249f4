"""Drift: differences between the recorded and the observed state of production.

Each is one line for people with the difference and, if there is one, the command that fixes it.
Pure functions, and the port that finds what was changed by hand.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Protocol, runtime_checkable

import msgspec

from mlship.domain import digests
from mlship.domain.clusters import Cluster
from mlship.domain.deployment import Deployment, Role, Route, Slot, Split, slot_of
from mlship.domain.evidence import TRANSITIONS, Record
from mlship.domain.history import History
from mlship.domain.release import Release
from mlship.domain.versions import Alias, Version

ABSENT: Final[frozenset[Role]] = frozenset({"", "retired"})
"""The roles of releases that should not run."""


class Altered(msgspec.Struct, frozen=True, kw_only=True):
    """An object of a target that somebody changed since mlship wrote it.

    Attributes:
        object: its kind and name, such as `Deployment iris-production-r3f9a0c12be77`.
        text: the difference, such as `spec.replicas is 5, not 2`.
        cluster: where it is, if the target has several.
        slot: that it belongs to; `None` if it is of the route.
        is_adoptable: whether a person may accept it as it is. What runs another image, or sends
            requests to others, was never tested.
    """

    object: str
    text: str
    cluster: str = ""
    slot: Slot | None = None
    is_adoptable: bool = False

    def __str__(self) -> str:
        """The difference in one line."""
        where = f" in {self.cluster}" if self.cluster else ""
        return f"{self.object}{where}: {self.text}"


@runtime_checkable
class Guarded(Protocol):
    """A target that knows what it wrote. Errors as in `Target`."""

    def altered(self) -> Sequence[Altered]:
        """Return what somebody changed, in all clusters that answer. Changes nothing."""

    def adopt(self) -> None:
        """Take objects as they are for what was written; the route is not among them."""

    def rewrite(self, split: Split) -> None:
        """Write the route anew, also if what is there cannot be read; return when it is applied.

        Raises:
            NotFoundError: the split names a slot without a ready replica.
        """


def unfinished(records: Sequence[Record]) -> list[str]:
    """Return a transition that was interrupted, if there is one."""
    last: Record | None = None
    for record in records:
        step, _, substep = record.evidence.step.partition("/")
        if step in TRANSITIONS:
            last = record if substep else None
    if last is None:
        return []
    step, release = last.evidence.step.partition("/")[0], last.evidence.release
    again = f"mlship {step} --to {release}" if step == "rollback" else f"mlship {step} {release}"
    return [f"{step} of {release} stopped after {last.evidence.step}: run `{again}` again"]


def of_aliases(history: History, versions: Sequence[Version]) -> list[str]:
    """Compare the store's aliases with the roles."""
    aliases = {alias: version.release for version in versions for alias in version.aliases}
    drift = []
    for alias, release in roles(history).items():
        aliased = aliases.get(alias)
        if release is not None and aliased != release.id:
            observed = f"points to {digests.short(aliased)}" if aliased else "is missing"
            fix = f"run `mlship deploy-production {release}` to set it"
            drift.append(f"alias {alias} {observed}, expected {release} from the ledger: {fix}")
        elif release is None and aliased is not None:
            drift.append(f"alias {alias} is set, but the ledger has no {alias}")
    return drift


def of_route(
    history: History,
    deployments: Mapping[Slot, Deployment],
    route: Route,
    releases: Iterable[Release],
    due: Split | None = None,
) -> list[str]:
    """Compare the deployments and the traffic split with the roles.

    Args:
        history: of production.
        deployments: what runs there.
        route: to them.
        releases: all of the ledger.
        due: the split that was recorded; the champion may have nothing in it.
    """
    return [
        *_not_running(history, deployments),
        *_misrouted(history, deployments, route, due),
        *_strays(history, deployments, releases),
    ]


def of_supervision(target: str, deployments: Mapping[Slot, Deployment], release: str) -> list[str]:
    """Tell that the supervisor of a target on this machine was killed.

    Args:
        target: its name.
        deployments: what runs there.
        release: that can be deployed again, which starts the supervisor.
    """
    if all(deployment.supervised for deployment in deployments.values()):
        return []
    fix = f"run `mlship deploy-{target} {release}` to start it"
    text = f"the supervisor of {target} is not running, so that nothing starts again what ends"
    return [f"{text}: {fix}"]


def of_split(history: History, recorded: Split | None, observed: Split) -> list[str]:
    """Compare the traffic split with the last one in the ledger.

    Args:
        history: of production.
        recorded: `None` if there is none.
        observed: from the route.
    """
    if recorded is None:
        return []
    names = {slot_of(release): f"{role} {release}" for release, role in _named(history)}
    found = []
    for slot in sorted(recorded.slots | observed.slots):
        now, before = observed.share(slot), recorded.share(slot)
        if now != before:
            who = names.get(slot, slot)
            found.append(f"the route sends {now} % to {who}, and {before} % are recorded")
    if observed.shadow != recorded.shadow:
        found.append(
            f"the route copies requests to {_shadowed(observed, names)}, and "
            f"{_shadowed(recorded, names)} is recorded"
        )
    return found


def of_slots(
    history: History,
    deployments: Mapping[Slot, Deployment],
    route: Route,
    releases: Iterable[Release],
    due: Split | None = None,
) -> list[str]:
    """Return what somebody must have done to slots: removed, created, or given traffic.

    A slot whose cluster does not answer, or whose pods are not ready, is another matter. Arguments
    as of `of_route`.
    """
    return [
        *(
            f"{role} {release} does not run any more: slot {slot_of(release)} is gone"
            for role, release in roles(history).items()
            if release is not None and slot_of(release) not in deployments
        ),
        *_misrouted(history, deployments, route, due),
        *_strays(history, deployments, releases),
    ]


def _strays(
    history: History, deployments: Mapping[Slot, Deployment], releases: Iterable[Release]
) -> list[str]:
    """Tell slots of releases without a role, such as one that a failed deployment left."""
    names = {release.id: release for release in releases}
    found = []
    for slot, deployment in deployments.items():
        if history.role(deployment.release) in ABSENT:
            text = f"slot {slot}{_where(deployment)} runs a release that is not in production "
            text += "according to the ledger"
            release = names.get(deployment.release)
            fix = f": run `mlship retire {release}` to remove it" if release else ""
            found.append(text + fix)
    return found


def _where(deployment: Deployment) -> str:
    """Return ` in CLUSTER`, if its target has several clusters."""
    return f" in {deployment.cluster}" if deployment.cluster else ""


def _named(history: History) -> list[tuple[Release, str]]:
    former = [(release, "former champion") for release in history.former]
    known = [(release, role) for role, release in roles(history).items() if release]
    return [*former, *((release, "standby") for release in history.standby), *known]


def _shadowed(split: Split, names: Mapping[Slot, str]) -> str:
    return "none" if split.shadow is None else names.get(split.shadow, split.shadow)


def of_clusters(
    target: str,
    clusters: Sequence[Cluster],
    deployments: Mapping[Slot, Deployment],
    reached: Mapping[Slot, bool],
) -> list[str]:
    """Return the clusters that cannot be inspected, and what their parent does not reach."""
    again = "run the command again that deployed it, which looks up its address"
    return [
        *(
            f"cluster {cluster.name} of {target} cannot be inspected: {cluster.fault}"
            for cluster in clusters
            if cluster.fault
        ),
        *(
            f"the load balancer of {target} does not reach {slot} in {deployment.cluster}: {again}"
            for slot, deployment in deployments.items()
            if deployment.ready and not reached.get(slot, True)
        ),
    ]


def roles(history: History) -> dict[Alias, Release | None]:
    """Return the release that each alias should point to."""
    return {"champion": history.champion, "challenger": history.challenger}


def _not_running(history: History, deployments: Mapping[Slot, Deployment]) -> list[str]:
    drift = []
    for role, release in roles(history).items():
        if release is None:
            continue
        deployment = deployments.get(slot_of(release))
        if deployment is not None and not deployment.observed:
            drift.append(f"{role} {release} in cluster {deployment.cluster}: {deployment.detail}")
        elif deployment is None or deployment.ready == 0:
            fix = f"run `mlship deploy-production {release}` to start it"
            drift.append(f"{role} {release} is not running: {fix}")
        elif deployment.ready < deployment.wanted:
            drift.append(
                f"{role} {release} has {deployment.ready} of {deployment.wanted} replicas ready"
            )
    return drift


def _misrouted(
    history: History, deployments: Mapping[Slot, Deployment], route: Route, due: Split | None
) -> list[str]:
    drift = []
    known = {slot_of(release): role for release, role in _named(history)}
    for slot, weight in route.split.weights.items():
        deployment = deployments.get(slot)
        role = history.role(deployment.release) if deployment else known.get(slot, "")
        if weight and role not in ("champion", "challenger"):
            described = f"is {role}" if role else "has no role in the ledger"
            drift.append(f"the route sends {weight} % to {slot}, which {described}")
    champion, split = history.champion, route.split
    if champion and split.weights and split != due and not split.share(slot_of(champion)):
        drift.append(f"the route sends no traffic to champion {champion}")
    return drift
