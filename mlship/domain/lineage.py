"""Which of two releases is of a later generation: by git, or by the order of the ledger."""

from datetime import datetime
from typing import Protocol

from mlship.domain import shapes
from mlship.domain.evidence import Record, Step
from mlship.domain.facts import Trained
from mlship.domain.records import Records
from mlship.domain.release import Release


class Lineage(Protocol):
    """The history of commits."""

    def descends(self, commit: str, earlier: str) -> bool | None:
        """Return whether a commit was made after another one, from it.

        `None` if that is not known here: one of them is missing, or the clone is shallow.
        """

    def changed(self, path: str) -> datetime | None:
        """Return when a file of the project was last changed by a commit; `None` if by none."""


def superseding(release: Release, step: Step, records: Records, lineage: Lineage) -> Release | None:
    """Return a later release that a step has deployed; `None` if there is none.

    Of each branch, the release that was deployed last counts, so that whoever deployed an earlier
    one on purpose has begun anew from there.

    A release is later if its commit descends from the other's. If git does not know, it is later if
    it was trained later on the same branch. Releases of one commit, and of branches that diverged,
    are not compared.

    Args:
        release: the one to deploy.
        step: that deploys it.
        records: of the project.
        lineage: the history of commits.
    """
    trainings = _trainings(records)
    places = {each: place for place, each in enumerate(trainings)}
    deployed = {_branch(trainings.get(each)): each for each in _deployed(step, records)}
    others = [*deployed.values()]
    if step == "deploy-production" and release not in records.history.waiting:
        others += records.history.waiting
    for other in others:
        is_later = lineage.descends(other.commit, release.commit)
        if is_later is None:
            both = [trainings.get(release), trainings.get(other)]
            is_comparable = None not in both and len(set(map(_branch, both))) == 1
            is_later = is_comparable and places[other] > places[release]
        if is_later and other.commit != release.commit:
            return other
    return None


def _deployed(step: Step, records: Records) -> list[Release]:
    """Return the releases that a step has deployed, in that order."""
    passed = (record.evidence for record in records if record.evidence.verdict == "passed")
    return [evidence.release for evidence in passed if evidence.step == step]


def _trainings(records: Records) -> dict[Release, Record]:
    """Return the first record of each training, in the order of the ledger."""
    trainings: dict[Release, Record] = {}
    for record in records:
        if record.evidence.step == "train":
            trainings.setdefault(record.evidence.release, record)
    return trainings


def _branch(training: Record | None) -> str:
    commit = shapes.of(training, Trained).commit if training else None
    return commit.branch if commit else ""
