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
from mlship.domain.history import History
from mlship.domain.ports import Target
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
def changing(pipeline: Pipeline, seen: History | None = None) -> Iterator[History]:
    """Hold the right to change production; give its history, which nobody else changes meanwhile.

    The lock alone would let the second of two commands that start together decide anew on what the
    first has made of production. So what was seen at the start is compared under the lock.

    Args:
        pipeline: the project.
        seen: the history that the caller has decided on; by default the one of now.

    Raises:
        ConflictError: another command changes production, or has changed it since it was seen.
    """
    seen = pipeline.history() if seen is None else seen
    with pipeline.locks.exclusive(PRODUCTION):
        history = pipeline.history()
        if history.last is not None and history.last != seen.last:
            made = history.last.evidence
            raise ConflictError(
                f"{made.step} of {made.release} by {made.actor} was completed meanwhile",
                hint="look at `mlship status`, then decide again",
            )
        yield history


def operation(step: Transition, release: Release, history: History) -> Digest:
    """Return what tells one transition from the next: the same until it is completed."""
    last = history.last.digest if history.last else None
    return digests.of_value([step, release.id, last])


def recorded(pipeline: Pipeline, step: Transition, release: Release, history: History) -> set[Step]:
    """Return the sub-steps of the transition that the ledger has already; it may be resumed."""
    operated = operation(step, release, history)
    return {
        record.evidence.step
        for record in pipeline.ledger.records()
        if shapes.operation(record) == operated
    }


def carry_out(
    pipeline: Pipeline,
    release: Release,
    step: Transition,
    substeps: Sequence[SubStep],
    facts: Callable[[], Completed],
) -> Record:
    """Do every sub-step in order, record each once, and complete the transition.

    The caller holds the target's lock. `facts` are asked for when all is done; `seconds`, how long
    this run of the transition took, is added.
    """
    started = pipeline.clock()
    history = pipeline.history()
    operated = operation(step, release, history)
    known = recorded(pipeline, step, release, history)
    for substep in substeps:
        if substep.once and substep.step in known:
            continue
        pipeline.progress.note(substep.step.partition("/")[2])
        part = msgspec.structs.replace(substep.act(), operation=operated)
        if substep.step not in known:
            pipeline.learn(release, substep.step, "passed", part)
    seconds = round((pipeline.clock() - started).total_seconds(), 3)
    completed = msgspec.structs.replace(facts(), operation=operated, seconds=seconds)
    return pipeline.learn(release, step, "passed", completed)


def ready(pipeline: Pipeline, release: Release, replicas: int) -> Capacity:
    """Run so many replicas of a release in production; traffic is untouched.

    Raises:
        TimedOutError: they did not get ready in time.
    """
    artifact, slot = pipeline.artifact(release, PRODUCTION), slot_of(release)
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
            "the route was changed while this step set it",
            hint="look at `mlship traffic`, then run the step again",
        )
    return Routed(weights=wanted.weights, shadow=wanted.shadow)
