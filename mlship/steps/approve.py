"""approve: record a person's approval of one release, or its withdrawal."""

from typing import Final, NamedTuple

import msgspec

from mlship.domain import approvals
from mlship.domain.evidence import Record
from mlship.domain.facts import Approved, Withdrawn
from mlship.domain.people import person
from mlship.domain.pullrequest import Review, Reviews
from mlship.domain.records import Records
from mlship.domain.release import Release
from mlship.errors import ConfigError, RefusedError
from mlship.steps.pipeline import Pipeline

_SIGN: Final = (
    "sign with the person's own key, such as --key ~/.ssh/id_ed25519, which `trust` names with an "
    "email address; or set trust.names, and a name is enough"
)


class Approvals(msgspec.Struct, frozen=True, kw_only=True):
    """The approvals of a release in the reviews of a pull request.

    Attributes:
        given: the evidence of each approval that counts.
        withdrawn: the evidence of each earlier approval that is no longer valid.
        left_out: a line for each review that does not count, with the reason.
        people: everybody whose approval of the release counts now, from a review or not.
        count: the number of people who are certainly different.
    """

    given: tuple[Record, ...]
    withdrawn: tuple[Record, ...]
    left_out: tuple[str, ...]
    people: tuple[str, ...]
    count: int


class Taken(NamedTuple):
    """What the reviews of a pull request say of a release, as it was recorded.

    Attributes:
        given: the evidence of each approval that counts.
        withdrawn: the evidence of each earlier approval that is no longer valid.
        left_out: a line for each review that does not count, with the reason.
        records: those of the ledger, with the new ones.
    """

    given: tuple[Record, ...]
    withdrawn: tuple[Record, ...]
    left_out: tuple[str, ...]
    records: Records


def approve(
    pipeline: Pipeline,
    release: Release,
    by: str,
    comment: str = "",
    *,
    url: str = "",
    records: Records | None = None,
) -> Record:
    """Record an approval. It holds for this release only: another bundle needs its own.

    Args:
        pipeline: the project.
        release: the release to approve.
        by: the person, as an email address or an account's name.
        comment: a text to record.
        url: of the review, if there is one; by hand, see `approve_by_hand`.
        records: the records that the command has read; by default the ledger is read.

    Returns:
        The evidence `approve`; the earlier record, if the person has approved there already.

    Raises:
        RefusedError: the person is the release's author, or `by` is empty.
    """
    approver = by.strip()
    if not person(approver):
        raise RefusedError(
            f"the approval of {release} has no approver", hint="give --by ada@example.org"
        )
    records, people = pipeline.read(records), pipeline.signatures.people
    if people.are_one(approver, approvals.author(release, records)):
        raise RefusedError(
            f"{approver} wrote commit {release.commit[:12]} and cannot approve {release}",
            hint=f"ask another person to run `mlship approve {release}`",
        )
    approval = Approved(by=approver, comment=comment[:500], url=url)
    for record, earlier in approvals.standing(release, records, people):
        is_same = approvals.source(earlier) == approvals.source(approval)
        if is_same and (approval.url or _is_as_good(pipeline, record, earlier)):
            return record
    return pipeline.learn(release, "approve", "passed", approval, after=records)


def approve_by_hand(
    pipeline: Pipeline,
    release: Release,
    by: str | None = None,
    comment: str = "",
    *,
    records: Records | None = None,
) -> Record:
    """Record an approval without a review: of the person whose key signs here, or by name.

    Args:
        pipeline: the project.
        release: the release to approve.
        by: the person. By default the one who has the key; else who runs the command.
        comment: a text to record.
        records: the records that the command has read; by default the ledger is read.

    Raises:
        ConfigError: the approval would not count: it needs the signature of that person.
        RefusedError: the person is the release's author, or `by` is empty.
    """
    pipeline.check_may("approve")
    trust, signing = pipeline.signatures.trust(), pipeline.signatures.signing
    signer = trust.signer(signing.key) if signing else None
    if signer is not None and signer.emails:
        if by is not None and person(by) not in map(person, signer.emails):
            message = (
                f"signer {signer.name} may not approve as {by!r}: the key is of another person"
            )
            raise ConfigError(message, hint=f"leave out --by, or give --by {signer.emails[0]}")
        by = by or signer.emails[0]
    elif not trust.names:
        why = f"signer {signer.name} is none" if signer else "nothing is signed here"
        message = f"an approval of {release} needs the signature of a person, and {why}"
        raise ConfigError(message, hint=_SIGN)
    name = pipeline.actor if by is None else by
    return approve(pipeline, release, name, comment, records=records)


def _is_as_good(pipeline: Pipeline, record: Record, approval: Approved) -> bool:
    """Return whether an approval is signed by its person, or nothing here would sign it so."""
    signing, people = pipeline.signatures.signing, pipeline.signatures.people
    signs = signing is not None and person(approval.by) in people.keys.get(signing.key, ())
    return people.signed(record, approval.by) or not signs


def approve_from_pull_request(
    pipeline: Pipeline, release: Release, number: int, records: Records | None = None
) -> Approvals:
    """Record the approvals of a release in the reviews of a pull request.

    The last decision of an account counts. It must approve the commit of the release, and come
    from a person who may push and who wrote neither the commit nor the pull request. A merge that
    adds nothing else counts as that commit. An approval that was recorded from this pull request
    before is withdrawn if the review was dismissed or changed.

    Raises:
        RefusedError: the release still has fewer approvals than `gates.promote.approvals`; the
            facts list the reviews that do not count, and why.
    """
    taken = take(pipeline, release, pipeline.forge.reviews(number), pipeline.read(records))
    approvers = approvals.approvers(release, taken.records, pipeline.signatures.people)
    needed = pipeline.config.gates.promote.approvals
    if approvers.count < needed:
        raise RefusedError(
            f"{approvers.count} of {needed} approvals of {release}; pull request {number}: "
            + ("; ".join(taken.left_out) or "nobody else has reviewed it"),
            hint=f"ask for a review of commit {release.commit[:12]}, then run the command again",
            facts={"left_out": taken.left_out, "people": approvers.names},
        )
    return Approvals(
        given=taken.given,
        withdrawn=taken.withdrawn,
        left_out=taken.left_out,
        people=approvers.names,
        count=approvers.count,
    )


def take(pipeline: Pipeline, release: Release, reviews: Reviews, records: Records) -> Taken:
    """Record what the reviews of a pull request say of a release, each approval once."""
    withdrawn = _withdraw(pipeline, release, reviews, records)
    records = records.plus(*withdrawn)
    given: list[Record] = []
    left_out: list[str] = []
    for review in reviews.latest:
        reason = _objection(review, reviews, release)
        if reason:
            left_out.append(f"{review.by}: {reason}")
            continue
        try:
            review_url = review.url or reviews.pull.url
            record = approve(
                pipeline, release, review.by, review.text, url=review_url, records=records
            )
        except RefusedError as error:
            left_out.append(f"{review.by}: {error.message}")
        else:
            given.append(record)
            records = records.plus(record)
    return Taken(tuple(given), tuple(withdrawn), tuple(left_out), records)


def _withdraw(
    pipeline: Pipeline, release: Release, reviews: Reviews, records: Records
) -> list[Record]:
    """Withdraw each approval from this pull request whose account has changed its decision."""
    last = {person(review.by): review.decision for review in reviews.latest}
    withdrawn: list[Record] = []
    for _, approval in approvals.standing(release, records):
        name, place = approvals.source(approval)
        decision = last.get(name, "the review is gone")
        if place == reviews.pull.url and decision != "approved":
            facts = Withdrawn(by=approval.by, url=approval.url, reason=decision)
            after = records.plus(*withdrawn)
            record = pipeline.learn(release, "withdraw-approval", "passed", facts, after=after)
            withdrawn.append(record)
    return withdrawn


def _objection(review: Review, reviews: Reviews, release: Release) -> str:
    """Return why a review does not count as an approval; empty if it counts."""
    authors = {author.casefold() for author in reviews.authors}
    elsewhere = f"reviewed commit {review.commit[:12]}; the release is from {release.commit[:12]}"
    if review.commit == release.commit:
        now = reviews.pull.commit[:12]
        elsewhere = f"reviewed commit {release.commit[:12]}; the pull request is at {now} now"
    checks = [
        (review.decision == "approved", review.decision),
        (review.by.casefold() not in authors, "is an author of the pull request"),
        (review.is_person, "is not a person"),
        (review.may_write, "may not push to the repository"),
        (
            review.commit == reviews.pull.commit and release.commit in reviews.contents,
            elsewhere,
        ),
    ]
    return next((reason for holds, reason in checks if not holds), "")
