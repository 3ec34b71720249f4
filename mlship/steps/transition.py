"""Sub-steps: how a change of roles is carried out so that a kill at any point can be resumed.

A transition is a list of named sub-steps. Each is idempotent and leaves one record of evidence;
the last record, named as the step, completes the transition. Run again after a kill, what holds
already is left alone and what was not recorded is recorded: nothing is written twice.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import msgspec

from mlship.domain import digests, shapes
from mlship.domain.deployment import Split, slot_of
from mlship.domain.digests import Digest
from mlship.domain.evidence import Record, Step, Transition
from mlship.domain.facts import Capacity, Completed, Part, Routed
from mlship.domain.ports import Target
from mlship.domain.records import Records
from mlship.domain.release import Release
from mlship.errors import ConflictError
from mlship.steps.pipeline import PRODUCTION, Pipeline


class SubStep(NamedTuple):
    """One idempotent part of a transition: its step, and what it does, returning its facts.

    `once` marks a decision that was acted on: recorded as passed, it is not taken again.
    """

    step: Step
    act: Callable[[], Part]
    once: bool = False


@contextmanager
def changing(pipeline: Pipeline, seen: Records | None = None) -> Iterator[Records]:
    """Hold production's lock; yield the records as they are read under it.

    The lock alone would let the second of two commands that start together decide anew on what the
    first has made of production. So what was seen at the start is compared under the lock.

    Args:
        pipeline: the project.
        seen: the records that the caller has decided on; by default they are read now.

    Raises:
        ConflictError: another command changes production, or has changed it since it was seen.
    """
    seen = pipeline.read(seen)
    with pipeline.locks.exclusive(PRODUCTION):
        records = pipeline.read()
        last = records.history.last
        if last is not None and last != seen.history.last:
            step, release, actor = last.evidence.step, last.evidence.release, last.evidence.actor
            raise ConflictError(
                f"{step} of {release} by {actor} was completed in the meantime",
                hint="run `mlship status`, then decide again",
            )
        yield records


def operation(step: Transition, release: Release, records: Records) -> Digest:
    """Return the id of a transition. It stays the same until the transition is completed."""
    last = records.history.last.digest if records.history.last else None
    return digests.of_value([step, release.id, last])


def recorded(step: Transition, release: Release, records: Records) -> set[Step]:
    """Return the sub-steps of the transition that were recorded before; it may be resumed."""
    current = operation(step, release, records)
    return {record.evidence.step for record in records if shapes.operation(record) == current}


def carry_out(
    pipeline: Pipeline,
    release: Release,
    step: Transition,
    substeps: Sequence[SubStep],
    facts: Callable[[], Completed],
    records: Records,
) -> Record:
    """Do every sub-step in order, record each once, and complete the transition.

    The caller holds the target's lock and has read the records under it. `facts` are asked for
    when all is done; `seconds`, how long this run of the transition took, is added.
    """
    started = pipeline.clock()
    current = operation(step, release, records)
    known = recorded(step, release, records)
    pipeline.load_ahead()
    for substep in substeps:
        if substep.once and substep.step in known:
            continue
        pipeline.progress.note(substep.step.partition("/")[2])
        part = msgspec.structs.replace(substep.act(), operation=current)
        if substep.step not in known:
            record = pipeline.learn(release, substep.step, "passed", part, after=records)
            records = records.plus(record)
    seconds = round((pipeline.clock() - started).total_seconds(), 3)
    completed = msgspec.structs.replace(facts(), operation=current, seconds=seconds)
    return pipeline.learn(release, step, "passed", completed, after=records)


def ready(pipeline: Pipeline, release: Release, replicas: int, records: Records) -> Capacity:
    """Run so many replicas of a release in production; traffic is untouched.

    Raises:
        TimedOutError: they did not get ready in time.
    """
    artifact, slot = pipeline.artifact(release, PRODUCTION, records), slot_of(release)
    deployment = pipeline.target(PRODUCTION).deploy(release, artifact, slot, replicas=replicas)
    return Capacity(replicas=deployment.ready, slot=deployment.slot)


def split_of(shares: Mapping[Release, int], shadow: Release | None = None) -> Split:
    """Return the split of a target's traffic, by slots, that gives releases their percentage."""
    return Split(
        weights={slot_of(release): weight for release, weight in shares.items() if weight},
        shadow=slot_of(shadow) if shadow else None,
    )


def set_route(
    target: Target, shares: Mapping[Release, int], shadow: Release | None = None
) -> Routed:
    """Bring a target's route to a split, by compare-and-set against what it is now.

    Raises:
        ConflictError: somebody changed the route in between.
    """
    wanted = split_of(shares, shadow)
    # Also where it is so already: who wrote it may have been killed before it was applied.
    target.route(wanted, expected=target.routes().revision)
    if target.routes().split != wanted:
        raise ConflictError(
            "the route was changed by somebody else at the same time",
            hint="run `mlship traffic`, then run the step again",
        )
    return Routed(weights=wanted.weights, shadow=wanted.shadow)
