"""deploy-production of a release that is in production: what was lost of it is made again."""

from collections.abc import Collection

import msgspec

from mlship.domain.clusters import Clustered
from mlship.domain.deployment import Role, slot_of
from mlship.domain.evidence import TRANSITIONS, Record, Step
from mlship.domain.records import Records
from mlship.domain.release import Release
from mlship.errors import ConflictError
from mlship.steps.pipeline import PRODUCTION, Pipeline
from mlship.steps.transition import ready, set_route


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """What a release has in production, as its route says.

    Attributes:
        weight: percent of the traffic.
        shadow: whether it gets a copy of all traffic.
    """

    role: Role
    weight: int
    shadow: bool
    endpoint: str

    def __str__(self) -> str:
        """Return it for people."""
        copies = " and a copy of all of it" if self.shadow else ""
        share = f"{self.weight} % of the traffic{copies}"
        return f"{self.role} already, with {share}, {self.endpoint}/docs"


def standing(pipeline: Pipeline, record: Record, before: Records) -> Standing | None:
    """Return what a release has, if its deployment to production found it there.

    Args:
        pipeline: the project.
        record: the result of the deployment.
        before: the records when it began.
    """
    release = record.evidence.release
    role = before.history.role(release)
    if record not in before or role not in ("champion", "challenger"):
        return None
    route = pipeline.target(PRODUCTION).routes()
    slot = slot_of(release)
    return Standing(
        role=role,
        weight=route.split.share(slot),
        shadow=route.split.shadow == slot,
        endpoint=route.endpoint,
    )


def restored(pipeline: Pipeline, release: Release, records: Records) -> Record:
    """Restore replicas, the route of the ledger, and what leads to a cluster, if they were lost.

    Raises:
        ConflictError: the ledger has no deployment of the release.
        TimedOutError: it did not become ready.
    """
    target, config = pipeline.target(PRODUCTION), pipeline.target_config(PRODUCTION)
    history = records.history
    is_champion = history.champion == release
    replicas = config.replicas if is_champion else config.challenger_replicas
    ready(pipeline, release, replicas, records)
    if is_champion and not target.routes().split.weights:
        set_route(target, {release: 100})
    elif isinstance(target, Clustered) and not target.reached().get(slot_of(release), True):
        # What leads to its cluster may be missing, or its address may have changed.
        current = target.routes()
        target.route(current.split, expected=current.revision)
    pipeline.store.point("champion" if is_champion else "challenger", release)
    steps: Collection[Step] = TRANSITIONS if is_champion else ("deploy-production",)
    record = next(
        (
            known
            for known in reversed(records)
            if known.evidence.release == release and known.evidence.step in steps
        ),
        None,
    )
    if record is None:
        raise ConflictError(
            f"the ledger has no deployment of {release}", hint="run `mlship status`"
        )
    return record
