"""approve: record that a person approves of one release's digests."""

import msgspec

from mlship.errors import RefusedError
from mlship.evidence import Record
from mlship.gates import approvers
from mlship.history import latest
from mlship.pullrequest import Review, Reviews
from mlship.release import Release
from mlship.steps.pipeline import Pipeline


class Approvals(msgspec.Struct, frozen=True, kw_only=True):
    """What the reviews of a pull request say of a release.

    Attributes:
        given: the evidence of each approval that counts.
        left_out: a line for each review that does not, with the reason.
        people: everybody whose approval of the release counts now, however it was given.
    """

    given: tuple[Record, ...]
    left_out: tuple[str, ...]
    people: tuple[str, ...]


def approve(
    pipeline: Pipeline, release: Release, by: str, comment: str = "", *, url: str = ""
) -> Record:
    """Record an approval. It holds for this release only: another bundle needs its own.

    Args:
        pipeline: the project.
        release: what is approved.
        by: the person, as an email address or an account's name.
        comment: anything that they want to add.
        url: where they said so, if it was in a review.

    Returns:
        The evidence `approve`; the first one, where the person approved before.

    Raises:
        RefusedError: the person is the release's author, or nobody is named.
    """
    person = by.strip()
    if not person:
        raise RefusedError(
            f"an approval of {release} needs a person", hint="give --by ada@example.org"
        )
    records = pipeline.ledger.records()
    trained = latest(records, "train", release)
    commit = trained.evidence.facts.get("commit", {}) if trained else {}
    if str(commit.get("author", "")).strip().casefold() == person.casefold():
        raise RefusedError(
            f"{person} wrote commit {release.commit[:12]} and cannot approve {release}",
            hint=f"ask somebody else to run `mlship approve {release}`",
        )
    for record in records:
        evidence = record.evidence
        if (evidence.step, evidence.release) == ("approve", release) and str(
            evidence.facts.get("by")
        ).casefold() == person.casefold():
            return record
    facts = {"by": person, "comment": comment[:500], **({"url": url} if url else {})}
    return pipeline.learn(release, "approve", "passed", facts)


def approve_from_pull_request(pipeline: Pipeline, release: Release, number: int) -> Approvals:
    """Record the approvals that the reviews of a pull request give to a release.

    An account's last decision counts: an approval of the very commit that the release was made
    from, by a person who may push and who wrote neither. After a merge that brought in nothing
    else, the merge is that commit too.

    Raises:
        RefusedError: the release has fewer approvals than `gates.promote.approvals` after all;
            the facts say which reviews were left out, and why.
    """
    reviews = pipeline.forge.reviews(number)
    given: list[Record] = []
    left_out: list[str] = []
    for review in reviews.latest:
        reason = _objection(review, reviews, release)
        if reason:
            left_out.append(f"{review.by}: {reason}")
            continue
        try:
            record = approve(pipeline, release, review.by, review.text, url=review.url)
        except RefusedError as error:
            left_out.append(f"{review.by}: {error.message}")
        else:
            given.append(record)
    people = tuple(approvers(release, pipeline.ledger.records()))
    needed = pipeline.config.gates.promote.approvals
    if len(people) < needed:
        raise RefusedError(
            f"{len(people)} of {needed} approvals of {release}; pull request {number}: "
            + ("; ".join(left_out) or "nobody else has reviewed it"),
            hint=f"ask for a review of commit {release.commit[:12]}, then run it again",
            facts={"left_out": left_out, "people": people},
        )
    return Approvals(given=tuple(given), left_out=tuple(left_out), people=people)


def _objection(review: Review, reviews: Reviews, release: Release) -> str:
    """Return why a review is no approval of the release; nothing where it is one."""
    authors = {author.casefold() for author in reviews.authors}
    checks = [
        (review.decision == "approved", review.decision),
        (review.by.casefold() not in authors, "wrote or opened what is approved"),
        (review.is_person, "is no person"),
        (review.may_write, "may not push to the repository"),
        (
            review.commit == reviews.pull.commit and release.commit in reviews.contents,
            f"looked at commit {review.commit[:12]}, the release is of {release.commit[:12]}",
        ),
    ]
    return next((reason for holds, reason in checks if not holds), "")
