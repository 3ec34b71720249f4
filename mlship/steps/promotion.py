"""What a promotion asks for: the reviews as they are now, and the gate.

`promote` asks for it, and `traffic` for more than the configured share.
"""

from typing import NamedTuple

from mlship.domain import approvals, checkpoint, checks, gates
from mlship.domain.checks import Decision
from mlship.domain.pullrequest import PullRequest, Reviews, number_of
from mlship.domain.records import Records
from mlship.domain.release import Release
from mlship.errors import IntegrityError, MlshipError, NotFoundError, RefusedError
from mlship.steps.approve import take
from mlship.steps.ledger import check_seen, trusted
from mlship.steps.pipeline import PRODUCTION, Pipeline
from mlship.steps.verify_image import check_anchors


class Answer(NamedTuple):
    """The decision of the gate.

    Attributes:
        records: those of the ledger, with what the reviews say.
        left_out: a line for each approval that does not count, with the reason.
    """

    decision: Decision
    records: Records
    left_out: tuple[str, ...]

    def check(self, refused: str, hint: str) -> None:
        """Raise an error if the gate did not pass.

        Args:
            refused: what is not done.
            hint: the next action.

        Raises:
            RefusedError: the message has each reason.
        """
        if self.decision.verdict == "passed":
            return
        message = f"{refused}: {checks.joined(self.decision.failed)}"
        if self.left_out and any(check.name == "approvals" for check in self.decision.failed):
            message += f"; not counted: {'; '.join(self.left_out)}"
        raise RefusedError(message, hint=hint, facts={"left_out": self.left_out})


class _Found(NamedTuple):
    """The reviews of pull requests, and a line for each pull request that does not exist."""

    reviews: tuple[Reviews, ...] = ()
    missing: tuple[str, ...] = ()


def ask(
    pipeline: Pipeline, release: Release, records: Records, number: int | None = None
) -> Answer:
    """Read the reviews again, record what they say, and decide whether a release may be promoted.

    An approval that came from a review counts only if the review is still as it was. Approvals by
    hand count as they are recorded: if there are enough of them, reviews that cannot be read do not
    matter.

    The caller holds the lock, and has read the records under it.

    Args:
        pipeline: of the holder of the lock.
        release: to promote.
        records: of the ledger.
        number: the pull request with the reviews. By default those of the recorded approvals, else
            those that contain the release's commit.

    Raises:
        ConfigError, NotFoundError, UnavailableError: the reviews cannot be read, and are needed.
        IntegrityError: the ledger lacks records that were there when an image was attested, or a
            pull request was written.
    """
    champion = records.history.champion
    check_anchors(pipeline, [each for each in (release, champion) if each], records)
    found = _read(pipeline, release, records, number)
    left_out, confirmed = list(found.missing), set()
    for reviews in found.reviews:
        _compare(pipeline, reviews.pull, records)
        taken = take(pipeline, release, reviews, records)
        records = taken.records
        confirmed |= {record.digest for record in taken.given}
        left_out += [f"pull request {reviews.pull.number}: {line}" for line in taken.left_out]
    places = {reviews.pull.url for reviews in found.reviews}
    for record, approval in approvals.standing(release, records):
        place = approvals.source(approval)[1]
        if place and place not in places and record.digest not in confirmed:
            left_out.append(f"{approval.by}: the review at {approval.url} was not read again")
    decision = gates.for_promotion(
        release,
        approvals.counted(records, confirmed),
        records.history,
        pipeline.config.gates.promote,
        pipeline.clock(),
        pipeline.container_test(PRODUCTION),
        pipeline.signatures.people,
    )
    return Answer(decision, records, tuple(left_out))


def _compare(pipeline: Pipeline, pull: PullRequest, records: Records) -> None:
    """Check that the ledger still has what it had when a release's pull request was written.

    Everybody who may edit the pull request can write there: what is not trusted is told only.
    """
    for data in checkpoint.marked(pipeline.config.name, pull.body):
        try:
            found = trusted(pipeline, data)
        except IntegrityError as error:
            note = f"what pull request {pull.number} says of the ledger does not count"
            pipeline.progress.note(f"{note}: {error.message}")
            continue
        check_seen(found, records, f"pull request {pull.number}")


def _read(pipeline: Pipeline, release: Release, records: Records, number: int | None) -> _Found:
    """Return the reviews; none if they cannot be read and approvals by hand are enough."""
    by_hand = approvals.approvers(release, approvals.counted(records), pipeline.signatures.people)
    named = _named(release, records)
    if number is None and not named and not pipeline.forge.is_set_up:
        return _Found()
    pipeline.progress.note(f"reading the reviews of {release}")
    try:
        if number is not None:
            return _Found((pipeline.forge.reviews(number),))
        if named:
            return _again(pipeline, named)
        numbers = pipeline.forge.containing(release.commit)
        return _Found(tuple(pipeline.forge.reviews(each) for each in numbers))
    except MlshipError as error:
        if by_hand.count < pipeline.config.gates.promote.approvals:
            raise
        note = f"the reviews were not read; approvals by hand are enough: {error.message}"
        pipeline.progress.note(note)
        return _Found()


def _named(release: Release, records: Records) -> list[int]:
    """Return the pull requests from which approvals of a release were recorded."""
    places = {approvals.source(approval)[1] for _, approval in approvals.standing(release, records)}
    return sorted({number for place in places if (number := number_of(place)) is not None})


def _again(pipeline: Pipeline, numbers: list[int]) -> _Found:
    """Read the reviews of pull requests that records name, which may be of another repository."""
    reviews, missing = [], []
    for number in numbers:
        try:
            reviews.append(pipeline.forge.reviews(number))
        except NotFoundError as error:
            missing.append(error.message)
    return _Found(tuple(reviews), tuple(missing))
