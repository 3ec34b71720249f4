"""approve: record that a person approves of one release's digests."""

from mlship.errors import RefusedError
from mlship.evidence import Record
from mlship.history import latest
from mlship.release import Release
from mlship.steps.pipeline import Pipeline


def approve(pipeline: Pipeline, release: Release, by: str, comment: str = "") -> Record:
    """Record an approval. It holds for this release only: another bundle needs its own.

    Args:
        pipeline: the project.
        release: what is approved.
        by: the person, as an email address or an account's name.
        comment: anything that they want to add.

    Returns:
        The evidence `approve`; the first one, where the person approved before.

    Raises:
        RefusedError: the person is the release's author, or nobody is named.
    """
    person = by.strip()
    if not person:
        raise RefusedError("an approval needs a person", hint="give --by ada@example.org")
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
    return pipeline.learn(release, "approve", "passed", {"by": person, "comment": comment[:500]})
