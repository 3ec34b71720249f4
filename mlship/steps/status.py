"""status: the observed state, the state in the ledger, and every difference between them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

import msgspec

from mlship.domain import approvals, home, shapes, undelivered
from mlship.domain.batch_record import Batched
from mlship.domain.clusters import Cluster, Clustered
from mlship.domain.deployment import Deployment, Restarts, Route, Slot
from mlship.domain.digests import Digest
from mlship.domain.drift import (
    Guarded,
    of_aliases,
    of_clusters,
    of_route,
    of_supervision,
    unfinished,
)
from mlship.domain.evidence import Verdict
from mlship.domain.history import History, overridden
from mlship.domain.override import Overridden
from mlship.domain.records import Records
from mlship.domain.release import Release
from mlship.domain.streaming import Backlogs
from mlship.domain.versions import Version
from mlship.errors import IntegrityError, MlshipError, UnavailableError
from mlship.steps.drift import due_split, of_split
from mlship.steps.ignored import Doubted, Void
from mlship.steps.pipeline import PRODUCTION, STAGING, Pipeline
from mlship.steps.replay import answering
from mlship.steps.stream import Streamed, streamed
from mlship.steps.tick import Scheduled, scheduled

_ROLES: Final = ("champion", "challenger")
"""The roles that are listed first, in this order."""


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """One release in one target: its observed state, and its role in the ledger.

    Attributes:
        weight: percent of the traffic, from the route.
        aliases: in the store.
        cluster: where it runs, if the target has several clusters.
        answers: how many requests it answered, if some were sent.
        observed: false if its cluster cannot be inspected; then `ready` and `wanted` say nothing.
        restarts: what was started again in its replicas; `None` if nothing of it is known.
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
    observed: bool = True
    restarts: Restarts | None = None


class LastBatch(msgspec.Struct, frozen=True, kw_only=True):
    """The last batch of the project, published or not."""

    release: str
    verdict: Verdict
    time: datetime
    rows: int
    rejected: int
    output: str


class Silence(msgspec.Struct, frozen=True, kw_only=True):
    """Why a target cannot be asked, and the next action."""

    message: str
    hint: str


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """The state of all targets. `drift` has a line for each difference, with how to fix it.

    Attributes:
        silent: the targets that cannot be asked; nothing else is known of them.
        endpoints: the URL of each target, empty if nothing was deployed there.
        reigns: who was champion when, oldest first.
        releases: every release of the ledger with its role, oldest first.
        waiting: releases that wait for the challenger's place, the next one first.
        undelivered: what is still on its way to the database of predictions, for people.
        others: other projects with records in the same ledger, which are not used.
        clusters: of each target that has several.
        unanswered: how many requests no release answered, by target, if some were sent.
        void: records that do not count, oldest first; `untrusted` ones likewise.
        approved: who approves of the challenger, with a remark where nothing verifies the name.
        batch: the last one, if there was any.
        override: by which the challenger has more traffic than configured, if there is one.
        schedules: with their last and next ticks, and one that is overdue.
        stream: how far it is behind, if the project has one.
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
    void: tuple[Void, ...] = ()
    untrusted: tuple[Doubted, ...] = ()
    silent: dict[str, Silence] = {}
    approved: tuple[str, ...] = ()
    override: Overridden | None = None
    batch: LastBatch | None = None
    schedules: tuple[Scheduled, ...] = ()
    stream: Streamed | None = None


class _Looked(NamedTuple):
    """What was seen of one target."""

    seen: Sequence[Seen] = ()
    drift: Sequence[str] = ()
    endpoint: str = ""
    clusters: tuple[Cluster, ...] = ()
    unanswered: int | None = None


def status(pipeline: Pipeline, ask: int = 0, backlogs: Backlogs | None = None) -> Status:
    """Return the status of all targets, also if some cannot be asked. It is read-only.

    Args:
        pipeline: the project.
        ask: how many requests to send to each target, to see which releases answer. They are no
            predictions.
        backlogs: of the stream; `None` if there is none to ask.
    """
    records = pipeline.look()
    history = records.history
    drift = unfinished(records)
    try:
        versions: Sequence[Version] = pipeline.store.versions()
        drift += of_aliases(history, versions)
    except UnavailableError as error:
        versions = ()
        drift.append(f"the store is unavailable ({error}); its aliases are not shown")
    aliases = {version.release: version.aliases for version in versions}
    names = tuple(dict.fromkeys((STAGING, PRODUCTION, *pipeline.config.targets)))
    looked: dict[str, _Looked] = {}
    silent: dict[str, Silence] = {}
    for name in names:
        try:
            looked[name] = _look(pipeline, name, records, aliases, ask)
        except UnavailableError as error:
            silent[name] = Silence(message=error.message, hint=error.hint)
    return Status(
        name=pipeline.config.name,
        endpoints={name: look.endpoint for name, look in looked.items()},
        seen=tuple(seen for look in looked.values() for seen in look.seen),
        drift=(*drift, *(line for look in looked.values() for line in look.drift)),
        reigns=_reigns(history),
        releases=tuple(
            {"release": str(release), "commit": release.commit, "role": history.role(release)}
            for release in records.releases
        ),
        waiting=tuple(map(str, history.waiting)),
        others=_others(records),
        clusters={name: look.clusters for name, look in looked.items() if look.clusters},
        unanswered={
            name: look.unanswered for name, look in looked.items() if look.unanswered is not None
        },
        undelivered=_undelivered(pipeline, records),
        void=tuple(Void.of(record) for record in records.void),
        untrusted=tuple(Doubted.of(each) for each in records.untrusted),
        silent=silent,
        approved=_approved(pipeline, records),
        override=overridden(history.challenger, records) if history.challenger else None,
        schedules=scheduled(pipeline, records),
        batch=_last_batch(records),
        stream=streamed(pipeline, backlogs),
    )


def _last_batch(records: Records) -> LastBatch | None:
    """Return the last batch whose outputs are published; a shadow's are not."""
    own = (record for record in reversed(records) if record.evidence.step == "batch")
    record = next((each for each in own if not shapes.of(each, Batched).is_shadow), None)
    if record is None:
        return None
    facts, evidence = shapes.of(record, Batched), record.evidence
    return LastBatch(
        release=str(evidence.release),
        verdict=evidence.verdict,
        time=evidence.time,
        rows=facts.rows,
        rejected=facts.rejected,
        output=facts.table or facts.output,
    )


def _approved(pipeline: Pipeline, records: Records) -> tuple[str, ...]:
    challenger = records.history.challenger
    if challenger is None:
        return ()
    return approvals.approvers(challenger, records, pipeline.signatures.people).names


def _answers(pipeline: Pipeline, name: str, endpoint: str, count: int) -> dict[str, int]:
    try:
        certificate = pipeline.certificate(name)
    except MlshipError:
        # What runs is shown nevertheless; `doctor` tells what is wrong with the certificate.
        certificate = None
    return answering(endpoint, count, certificate=certificate)


def _look(
    pipeline: Pipeline,
    name: str,
    records: Records,
    aliases: Mapping[Digest, tuple[str, ...]],
    ask: int,
) -> _Looked:
    target = pipeline.target(name)
    drift = [str(each) for each in target.altered()] if isinstance(target, Guarded) else []
    try:
        deployments, route = target.inspect(), target.routes()
    except IntegrityError as error:
        said = f"what runs in {name} is not shown: {error.message}. Next: {error.hint}"
        return _Looked(drift=(*drift, said))
    endpoint = route.endpoint if deployments else ""
    answers = _answers(pipeline, name, endpoint, ask) if ask and endpoint else None
    clusters: tuple[Cluster, ...] = ()
    if isinstance(target, Clustered):
        clusters = tuple(target.clusters())
        drift += of_clusters(name, clusters, deployments, target.reached())
    names = {release.id: release for release in records.releases}
    roles = records.history if name == PRODUCTION else History()
    drift += of_supervision(name, deployments, _again(name, deployments, names))
    if name == PRODUCTION:
        drift += of_split(records, route.split)
        drift += of_route(roles, deployments, route, records.releases, due_split(records))
    return _Looked(
        seen=_seen(name, deployments, route, names, roles, aliases, answers),
        drift=drift,
        endpoint=endpoint,
        clusters=clusters,
        unanswered=None if answers is None else answers.get("", 0),
    )


def _again(
    name: str, deployments: Mapping[Slot, Deployment], names: Mapping[Digest, Release]
) -> str:
    """Return how a command names a release that runs in a target."""
    known = [str(names[each.release]) for each in deployments.values() if each.release in names]
    return "champion" if name == PRODUCTION or not known else known[0]


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
            observed=deployment.observed,
            restarts=deployment.restarts,
            answers=None if answers is None else answers.get(known[slot], 0),
        )
        for slot, deployment in sorted(
            deployments.items(), key=lambda item: (_rank(history, item[1]), known[item[0]])
        )
    ]


def _rank(history: History, deployment: Deployment) -> int:
    """Return the place of a deployment's role in the list: the champion's is the first."""
    role = history.role(deployment.release)
    return _ROLES.index(role) if role in _ROLES else len(_ROLES)
