"""status: the observed state, the state in the ledger, and every difference between them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from mlship.domain import home, undelivered
from mlship.domain.clusters import Cluster, Clustered
from mlship.domain.deployment import Deployment, Route, Slot
from mlship.domain.digests import Digest
from mlship.domain.drift import of_aliases, of_clusters, of_route, unfinished
from mlship.domain.history import History
from mlship.domain.records import Records
from mlship.domain.release import Release
from mlship.domain.versions import Version
from mlship.errors import MlshipError, UnavailableError
from mlship.steps.pipeline import PRODUCTION, STAGING, Pipeline
from mlship.steps.replay import answering


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """One release in one target: its observed state, and its role in the ledger.

    Attributes:
        weight: percent of the traffic, from the route.
        aliases: in the store.
        cluster: where it runs, if the target has several clusters.
        answers: how many requests it answered, if some were sent.
    """

    target: str
    release: str
    slot: Slot
    role: str
    weight: int
    shadow: bool
    ready: int
    wanted: int
    aliases: tuple[str, ...]
    detail: str
    cluster: str = ""
    answers: int | None = None


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """The state of all targets. `drift` has a line for each difference, with how to fix it.

    Attributes:
        endpoints: the URL of each target, empty if nothing was deployed there.
        reigns: who was champion when, oldest first.
        releases: every release of the ledger with its role, oldest first.
        waiting: releases that wait for the challenger's place, the next one first.
        undelivered: what is still on its way to the database of predictions, for people.
        others: other projects with records in the same ledger, which are not used.
        clusters: of each target that has several.
        unanswered: how many requests no release answered, by target, if some were sent.
    """

    name: str
    endpoints: dict[str, str]
    seen: tuple[Seen, ...]
    drift: tuple[str, ...]
    reigns: tuple[dict[str, Any], ...]
    releases: tuple[dict[str, Any], ...]
    waiting: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    clusters: dict[str, tuple[Cluster, ...]] = {}
    unanswered: dict[str, int] = {}
    undelivered: tuple[str, ...] = ()


def status(pipeline: Pipeline, ask: int = 0) -> Status:
    """Return the status of all targets. It is read-only.

    Args:
        pipeline: the project.
        ask: how many requests to send to each target, to see which releases answer. They are no
            predictions.
    """
    records = pipeline.look()
    history = records.history
    names = {release.id: release for release in records.releases}
    drift = unfinished(records)
    try:
        versions: Sequence[Version] = pipeline.store.versions()
        drift += of_aliases(history, versions)
    except UnavailableError as error:
        versions = ()
        drift.append(f"the store is unavailable ({error}); its aliases are not shown")
    aliases = {version.release: version.aliases for version in versions}
    seen: list[Seen] = []
    endpoints, unanswered = {}, {}
    clusters: dict[str, tuple[Cluster, ...]] = {}
    for name in dict.fromkeys((STAGING, PRODUCTION, *pipeline.config.targets)):
        target = pipeline.target(name)
        deployments, route = target.inspect(), target.routes()
        endpoints[name] = route.endpoint if deployments else ""
        roles = history if name == PRODUCTION else History()
        answers = answering(route.endpoint, ask) if ask and endpoints[name] else None
        if answers is not None:
            unanswered[name] = answers.get("", 0)
        seen += _seen(name, deployments, route, names, roles, aliases, answers)
        if isinstance(target, Clustered):
            clusters[name] = tuple(target.clusters())
            drift += of_clusters(name, clusters[name], deployments, target.reached())
        if name == PRODUCTION:
            drift += of_route(history, deployments, route)
    return Status(
        name=pipeline.config.name,
        endpoints=endpoints,
        seen=tuple(seen),
        drift=tuple(drift),
        reigns=_reigns(history),
        releases=tuple(
            {"release": str(release), "commit": release.commit, "role": history.role(release)}
            for release in names.values()
        ),
        waiting=tuple(map(str, history.waiting)),
        others=_others(records),
        clusters=clusters,
        unanswered=unanswered,
        undelivered=_undelivered(pipeline, records),
    )


def _reigns(history: History) -> tuple[dict[str, Any], ...]:
    return tuple(
        {
            "release": str(reign.release),
            "since": reign.since,
            "until": reign.until,
            "by": reign.by,
        }
        for reign in history.reigns
    )


def _undelivered(pipeline: Pipeline, records: Records) -> tuple[str, ...]:
    """Return what is not in the database of predictions yet; reads it only if replicas spool."""
    if pipeline.config.observations.when_away != "spool":
        return ()
    try:
        return tuple(undelivered.sentences(pipeline.observations.spools(records.ids)))
    except MlshipError as error:
        return (f"predictions in spools are not shown: {error}",)


def _others(records: Records) -> tuple[str, ...]:
    """Return the other projects of a ledger, by name and home, with the number of their records."""
    projects = Counter(
        (record.evidence.release.name, record.evidence.home) for record in records.others
    )
    return tuple(
        f"{name}, {home.shown(place)}: {home.counted(count)}"
        for (name, place), count in sorted(projects.items())
    )


def _seen(
    name: str,
    deployments: Mapping[Slot, Deployment],
    route: Route,
    names: Mapping[Digest, Release],
    history: History,
    aliases: Mapping[Digest, tuple[str, ...]],
    answers: Mapping[str, int] | None,
) -> list[Seen]:
    known = {
        slot: str(names[deployment.release]) if deployment.release in names else f"unknown {slot}"
        for slot, deployment in deployments.items()
    }
    return [
        Seen(
            target=name,
            release=known[slot],
            slot=slot,
            role=history.role(deployment.release),
            weight=route.split.share(slot),
            shadow=route.split.shadow == slot,
            ready=deployment.ready,
            wanted=deployment.wanted,
            aliases=aliases.get(deployment.release, ()) if name == PRODUCTION else (),
            detail=deployment.detail,
            cluster=deployment.cluster,
            answers=None if answers is None else answers.get(known[slot], 0),
        )
        for slot, deployment in deployments.items()
    ]
