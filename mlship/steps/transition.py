"""Transitions: changes of roles that can be resumed after a kill at any point.

A transition is a list of named sub-steps. Each is idempotent and leaves one record of evidence;
the last record, named like the step, completes the transition. A run after a kill changes only
what is still missing and records only what was not recorded: nothing is written twice.
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
    """One idempotent part of a transition: its step, and a function that returns its facts."""

    step: Step
    act: Callable[[], Part]


@contextmanager
def changing(
    pipeline: Pipeline, expected: Records | None = None
) -> Iterator[tuple[Pipeline, Records]]:
    """Hold production's lock; yield the pipeline of its holder, and the records read under it.

    The lock alone is not enough: of two commands that start together, the second would run on the
    result of the first. So the state at the start is compared again under the lock.

    Args:
        pipeline: the project.
        expected: the records on which the caller decided; by default they are read now.

    Raises:
        ConflictError: another command is changing production, or has changed it since `expected`.
    """
    expected = pipeline.read(expected)
    with pipeline.locks.exclusive(PRODUCTION) as fence:
        records = pipeline.read()
        last = records.history.last
        if last is not None and last != expected.history.last:
            step, release, actor = last.evidence.step, last.evidence.release, last.evidence.actor
            raise ConflictError(
                f"{step} of {release} by {actor} was completed in the meantime",
                hint="check `mlship status`, then run the command again if it is still needed",
            )
        yield pipeline.under(PRODUCTION, fence), records


def operation(step: Transition, release: Release, records: Records) -> Digest:
    """Return the id of a transition. It is the same until the transition is completed."""
    last = records.history.last.digest if records.history.last else None
    return digests.of_value([step, release.id, last])


def recorded(step: Transition, release: Release, records: Records) -> set[Step]:
    """Return the sub-steps that an interrupted run of the transition has recorded."""
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
    """Run every sub-step in order, record each once, and complete the transition.

    The caller holds the target's lock and has read the records under it. `facts` is called at the
    end; `seconds`, the duration of this run of the transition, is added.
    """
    started = pipeline.clock()
    current = operation(step, release, records)
    known = recorded(step, release, records)
    pipeline.load_ahead()
    for substep in substeps:
        pipeline.progress.note(substep.step.partition("/")[2])
        part = msgspec.structs.replace(substep.act(), operation=current)
        if substep.step not in known:
            record = pipeline.learn(release, substep.step, "passed", part, after=records)
            records = records.plus(record)
    seconds = round((pipeline.clock() - started).total_seconds(), 3)
    completed = msgspec.structs.replace(facts(), operation=current, seconds=seconds)
    return pipeline.learn(release, step, "passed", completed, after=records)


def ready(pipeline: Pipeline, release: Release, replicas: int, records: Records) -> Capacity:
    """Run this number of replicas of a release in production; traffic is unchanged.

    Raises:
        TimedOutError: they did not become ready in time.
    """
    artifact, slot = pipeline.artifact(release, PRODUCTION, records), slot_of(release)
    deployment = pipeline.target(PRODUCTION).deploy(release, artifact, slot, replicas=replicas)
    return Capacity(replicas=deployment.ready, slot=deployment.slot)


def split_of(shares: Mapping[Release, int], shadow: Release | None = None) -> Split:
    """Return the traffic split by slot from percentages by release."""
    return Split(
        weights={slot_of(release): weight for release, weight in shares.items() if weight},
        shadow=slot_of(shadow) if shadow else None,
    )


def set_route(
    target: Target, shares: Mapping[Release, int], shadow: Release | None = None
) -> Routed:
    """Set a target's route by compare-and-set against its current revision.

    Raises:
        ConflictError: the route was changed at the same time.
    """
    wanted = split_of(shares, shadow)
    # Also if it is unchanged: a process may have been killed between writing and applying it.
    target.route(wanted, expected=target.routes().revision)
    if target.routes().split != wanted:
        raise ConflictError(
            "the route was changed by another process at the same time",
            hint="check `mlship traffic`, then run the step again",
        )
    return Routed(weights=wanted.weights, shadow=wanted.shadow)
