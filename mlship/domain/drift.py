"""Drift: differences between the recorded and the observed state of production.

Each is one line for people with the difference and, if there is one, the command that fixes it.
Pure functions.
"""

from collections.abc import Mapping, Sequence

from mlship.domain import digests
from mlship.domain.clusters import Cluster
from mlship.domain.deployment import Deployment, Route, Slot, slot_of
from mlship.domain.evidence import TRANSITIONS, Record
from mlship.domain.history import History
from mlship.domain.release import Release
from mlship.domain.versions import Version


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
    for alias, release in _roles(history).items():
        aliased = aliases.get(alias)
        if release is not None and aliased != release.id:
            observed = f"points to {digests.short(aliased)}" if aliased else "is missing"
            fix = f"run `mlship deploy-production {release}` to set it"
            drift.append(f"alias {alias} {observed}, expected {release} from the ledger: {fix}")
        elif release is None and aliased is not None:
            drift.append(f"alias {alias} is set, but the ledger has no {alias}")
    return drift


def of_route(history: History, deployments: Mapping[Slot, Deployment], route: Route) -> list[str]:
    """Compare the deployments and the traffic split with the roles."""
    return [
        *_not_running(history, deployments),
        *_misrouted(history, deployments, route),
        *(
            f"slot {slot} runs a release that is not in production according to the ledger"
            for slot, deployment in deployments.items()
            if not history.role(deployment.release)
        ),
    ]


def of_clusters(
    target: str,
    clusters: Sequence[Cluster],
    deployments: Mapping[Slot, Deployment],
    reached: Mapping[Slot, bool],
) -> list[str]:
    """Return the clusters of a target that do not answer, and what its parent does not reach."""
    again = "run the command again that deployed it, which looks up its address"
    return [
        *(
            f"cluster {cluster.name} of {target} does not answer: {cluster.fault}"
            for cluster in clusters
            if cluster.fault
        ),
        *(
            f"the load balancer of {target} does not reach {slot} in {deployment.cluster}: {again}"
            for slot, deployment in deployments.items()
            if deployment.ready and not reached.get(slot, True)
        ),
    ]


def _roles(history: History) -> dict[str, Release | None]:
    return {"champion": history.champion, "challenger": history.challenger}


def _not_running(history: History, deployments: Mapping[Slot, Deployment]) -> list[str]:
    drift = []
    for role, release in _roles(history).items():
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


def _misrouted(history: History, deployments: Mapping[Slot, Deployment], route: Route) -> list[str]:
    drift = []
    for slot, weight in route.split.weights.items():
        deployment = deployments.get(slot)
        role = history.role(deployment.release) if deployment else ""
        if weight and role not in ("champion", "challenger"):
            described = f"is {role}" if role else "has no role in the ledger"
            drift.append(f"the route sends {weight} % to {slot}, which {described}")
    champion = history.champion
    if champion and route.split.weights and not route.split.share(slot_of(champion)):
        drift.append(f"the route sends no traffic to champion {champion}")
    return drift
