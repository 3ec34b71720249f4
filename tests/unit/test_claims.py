"""What a job that ran unreviewed code hands over: data, recorded as a claim or refused whole."""

import dataclasses
import os
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mlship.adapters.ledgers import handover as folders
from mlship.adapters.ledgers.directory import DirectoryLedger
from mlship.adapters.stores.directory import DirectoryStore
from mlship.domain import claims, digests, gates, shapes
from mlship.domain.evidence import Evidence, Record, encode
from mlship.domain.facts import Claimed
from mlship.domain.inputs import Opened
from mlship.domain.job import Job
from mlship.domain.records import Records
from mlship.domain.release import Release
from mlship.errors import IntegrityError, NotFoundError
from mlship.reports.report import collect
from mlship.steps import handover
from mlship.steps.deploy import deploy_production, deploy_staging
from mlship.steps.test import test as run_tests
from mlship.steps.train import train
from mlship.wire import handover as wire
from tests.fakes.ports import World, world
from tests.harness.samples import nothing

HOME = "github.com/ada/iris"
COMMIT = "a" * 40
JOB = Job(url="https://github.com/ada/iris/actions/runs/7", branch="feature/petals", commit=COMMIT)


def project(folder: Path) -> World:
    here = world(folder)
    here.pipeline = dataclasses.replace(here.pipeline, home=HOME, shares_ledger=True)
    return here


@pytest.fixture
def shared(tmp_path: Path) -> World:
    """Return the project as reviewed jobs see it, with ledger and store that jobs share."""
    return project(tmp_path / "shared")


@pytest.fixture
def branch(tmp_path: Path) -> World:
    """Return it as the job sees it that trains a branch: with ledger and store of its own."""
    here = project(tmp_path / "branch")
    here.pipeline = dataclasses.replace(here.pipeline, actor="mallory")
    return here


def said(here: World, folder: Path) -> Path:
    """Train and test, and hand over what comes of it; return the folder."""
    release = train(here.pipeline).evidence.release
    run_tests(here.pipeline, release)
    wire.write(handover.of_release(release, here.pipeline.read()), folder, "iris")
    return folder


def taken(here: World, folder: Path, commit: str = COMMIT) -> list[Record]:
    """Record what a folder claims, as `import-evidence` does."""
    records = here.pipeline.read()
    return handover.record(here.pipeline, wire.read(folder), records, commit=commit, job=JOB)


def test_a_training_and_its_tests_are_recorded_as_claims(
    shared: World, branch: World, tmp_path: Path
) -> None:
    trained, tested = taken(shared, said(branch, tmp_path / "said"))
    assert (trained.evidence.step, trained.evidence.verdict) == ("unreviewed/train", "passed")
    assert (tested.evidence.step, tested.evidence.verdict) == ("unreviewed/test", "passed")
    assert {trained.evidence.actor, tested.evidence.actor} == {"ada"}, "who recorded it"
    assert trained.evidence.home == HOME
    claim = shapes.of(tested, Claimed)
    assert (claim.branch, claim.run) == ("feature/petals", JOB.url)
    assert claim.metrics == {"accuracy": 0.9}
    assert [check.name for check in claim.checks][:2] == ["unit tests", "sanity tests"]
    assert shared.store.runs == {}, "no bundle and no run of it comes into the store"


def test_a_second_time_writes_nothing(shared: World, branch: World, tmp_path: Path) -> None:
    folder = said(branch, tmp_path / "said")
    assert len(taken(shared, folder)) == 2
    kept = dict(shared.ledger.stored)
    assert taken(shared, folder) == []
    # Another run of the workflow for the same commit says the same, at another time.
    again = project(tmp_path / "again")
    again.clock()
    assert taken(shared, said(again, tmp_path / "later")) == []
    assert shared.ledger.stored == kept


def test_other_numbers_of_the_same_release_are_another_claim(
    shared: World, branch: World, tmp_path: Path
) -> None:
    taken(shared, said(branch, tmp_path / "said"))
    other = project(tmp_path / "other")
    other.trainer.metrics = {"accuracy": 0.95}
    added = taken(shared, said(other, tmp_path / "later"))
    assert [record.evidence.step for record in added] == ["unreviewed/test"]


def test_a_failed_test_is_a_claim_and_changes_no_report_of_a_reviewed_job(
    shared: World, branch: World, tmp_path: Path
) -> None:
    release = train(shared.pipeline).evidence.release
    run_tests(shared.pipeline, release)
    branch.tester.failed = 1
    added = taken(shared, said(branch, tmp_path / "said"))
    assert [(each.evidence.step, each.evidence.verdict) for each in added] == [
        ("unreviewed/test", "failed")
    ]
    report = collect(release, shared.pipeline.read())
    assert report.verdict == "passed"
    assert [moment.step for moment in report.timeline][-1] == "unreviewed/test"


def test_no_gate_counts_a_claim_and_develop_trains_again(
    shared: World, branch: World, tmp_path: Path
) -> None:
    taken(shared, said(branch, tmp_path / "said"))
    records = shared.pipeline.read()
    [release] = records.releases
    decision = gates.for_production(release, records, "no image")
    assert {check.name for check in decision.failed} == {"train", "test", "verify-staging-workload"}
    # The same commit, now reviewed and merged: the same release, from a training of its own.
    made = train(shared.pipeline).evidence
    assert (made.release, made.step, shared.trainer.trainings) == (release, "train", 1)
    run_tests(shared.pipeline, release)
    deploy_staging(shared.pipeline, release)
    shared.pipeline.learn(
        release, "verify-staging-workload", "passed", nothing("verify-staging-workload")
    )
    decision = gates.for_production(release, shared.pipeline.read(), "no image")
    assert decision.verdict == "passed"


def test_a_release_of_claims_alone_stays_out_of_production_by_name_too(
    shared: World, branch: World, tmp_path: Path
) -> None:
    taken(shared, said(branch, tmp_path / "said"))
    [release] = shared.pipeline.read().releases
    records = Records(
        (
            *shared.pipeline.read(),
            # What a person may do who names it: the training is still unreviewed.
            *(
                shared.pipeline.learn(release, step, "passed", nothing(step))
                for step in ("test", "verify-staging-workload")
            ),
        )
    )
    decision = gates.for_production(release, records, "no image")
    assert [check.text for check in decision.failed] == ["train: never run"]


def of_commit(here: World, folder: Path, commit: str) -> tuple[Records, DirectoryStore]:
    """Hand over what a job needs that trains a commit, and read it as that job does."""
    written = handover.for_commit(here.pipeline, here.pipeline.read(), commit)
    wire.write(written, folder, "iris")
    ledger = DirectoryLedger(folder / "ledger")
    return Records(tuple(ledger.records())), DirectoryStore(folder / "store", "iris")


def in_production(here: World, params: str, commit: str) -> Release:
    """Bring a release of a commit to production."""
    here.trainer.params, here.source.sha = params, commit
    release = train(here.pipeline).evidence.release
    run_tests(here.pipeline, release)
    deploy_staging(here.pipeline, release)
    here.pipeline.learn(
        release, "verify-staging-workload", "passed", nothing("verify-staging-workload")
    )
    deploy_production(here.pipeline, release)
    return release


def test_the_champion_and_the_challenger_go_to_the_job_that_trains_and_no_person_does(
    shared: World, tmp_path: Path
) -> None:
    champion = in_production(shared, "C=1", "b" * 40)
    challenger = in_production(shared, "C=2", "c" * 40)
    shared.pipeline.learn(challenger, "approve", "passed", nothing("approve"))
    records, store = of_commit(shared, tmp_path / "ledger", COMMIT)
    kept = shared.pipeline.read().history
    assert (records.history.champion, records.history.challenger) == (champion, challenger)
    assert records.history.challenger_since == kept.challenger_since
    assert records.latest("approve") is None
    assert store.fetch(champion, tmp_path / "bundle").is_dir()
    with pytest.raises(NotFoundError):
        store.fetch(challenger, tmp_path / "none")
    hidden = [path.name for path in tmp_path.rglob("ledger/**/.*")]
    assert hidden == [], "artifacts leave hidden files out"


def test_what_reviewed_jobs_know_of_the_commit_goes_too_and_no_claim_does(
    shared: World, branch: World, tmp_path: Path
) -> None:
    taken(shared, said(branch, tmp_path / "said"))
    records, _ = of_commit(shared, tmp_path / "first", COMMIT)
    assert len(records) == 0
    shared.pipeline.root.mkdir(exist_ok=True)
    (shared.pipeline.root / "metrics.json").write_text("{}")
    shared.trainer.opened = Opened(written=("metrics.json",))
    shared.trainer.outputs = ("metrics.json",)
    release = train(shared.pipeline).evidence.release
    run_tests(shared.pipeline, release)
    records, store = of_commit(shared, tmp_path / "second", COMMIT)
    assert [record.evidence.step for record in records] == ["train", "test"]
    assert store.fetch(release, tmp_path / "bundle").is_dir()
    files = store.fetch(release, tmp_path / "files", files=["outputs/metrics.json"])
    assert (files / "outputs/metrics.json").read_text() == "{}"
    # The other job reuses it, and has nothing new to say of its training.
    added = taken(shared, said(branch, tmp_path / "again"))
    assert "unreviewed/train" not in [record.evidence.step for record in added]


def replaced(folder: Path, change: Callable[[Evidence], Evidence | None]) -> None:
    """Rewrite the records of a folder as a whole chain with right digests."""
    kept = [record.evidence for record in folders.read(folder)]
    for path in folder.rglob("*.json"):
        path.unlink()
    changed = [change(evidence) for evidence in kept]
    folders.write([evidence for evidence in changed if evidence], folder)


def added(folder: Path, **fields: Any) -> None:
    """Add a forged record to a folder, after its own."""
    evidence = [record.evidence for record in folders.read(folder)]
    folders.write([*evidence, msgspec.structs.replace(evidence[-1], **fields)], folder)
    first = min(folder.rglob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    assert first.is_file()


def forged(step: str, **facts: Any) -> Callable[[Path], None]:
    """Return what adds a record of a step that no such job may claim."""
    return lambda folder: added(folder, step=step, verdict="passed", facts=facts)


def of(**fields: Any) -> Callable[[Path], None]:
    """Return what gives the release other fields."""

    def change(evidence: Evidence) -> Evidence:
        release = msgspec.structs.replace(evidence.release, **fields)
        return msgspec.structs.replace(evidence, release=release)

    return lambda folder: replaced(folder, change)


def facts(step: str, **changes: Any) -> Callable[[Path], None]:
    """Return what changes facts of a step."""

    def change(evidence: Evidence) -> Evidence:
        if evidence.step != step:
            return evidence
        return msgspec.structs.replace(evidence, facts={**evidence.facts, **changes})

    return lambda folder: replaced(folder, change)


def place(folder: Path) -> Path:
    return next(iter(sorted(folder.rglob("*.json"))))


def linked(folder: Path) -> None:
    target = folder.parent / "elsewhere.json"
    path = place(folder)
    path.rename(target)
    path.symlink_to(target)


def folder_linked(folder: Path) -> None:
    (folder / "ledger").rename(folder.parent / "elsewhere")
    (folder / "ledger").symlink_to(folder.parent / "elsewhere")


def renamed(folder: Path) -> None:
    (folder / "ledger" / "3f").mkdir(exist_ok=True)
    place(folder).rename(folder / "ledger" / "3f" / "x.json")


def accompanied(folder: Path) -> None:
    (folder / "mlship.yaml").write_text("name: iris")


def piped(folder: Path) -> None:
    path = place(folder)
    path.unlink()
    os.mkfifo(path)


def edited(folder: Path) -> None:
    path = place(folder)
    path.write_bytes(path.read_bytes().replace(b'"accuracy":0.9', b'"accuracy":1.0') + b" ")


def headless(folder: Path) -> None:
    """Remove the first record; the second one names it as its parent."""
    [first] = [each for each in folders.read(folder) if not each.evidence.parents]
    next(folder.rglob(f"{first.digest.removeprefix('sha256:')}.json")).unlink()


def raw(folder: Path, data: bytes) -> None:
    digits = digests.of_bytes(data).removeprefix("sha256:")
    path = folder / "ledger" / digits[:2] / f"{digits}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def other_subject(folder: Path) -> None:
    evidence = folders.read(folder)[0].evidence
    statement = msgspec.json.decode(encode(evidence))
    statement["subject"][0]["digest"]["sha256"] = "0" * 64
    raw(folder, msgspec.json.encode(statement))


def without_zone(folder: Path) -> None:
    evidence = folders.read(folder)[0].evidence
    raw(folder, encode(msgspec.structs.replace(evidence, time=datetime(2026, 1, 1))))  # noqa: DTZ001


def crowded(folder: Path) -> None:
    test = folders.read(folder)[-1].evidence
    for number in range(folders.RECORDS_MOST):
        raw(folder, encode(msgspec.structs.replace(test, actor=str(number), parents=())))


def heavy(folder: Path) -> None:
    """Write three records that are each just small enough."""
    for number in range(3):
        raw(folder, b" " * (folders.RECORD_MOST - number))


def nested(depth: int) -> Callable[[Path], None]:
    """Return what adds a training with a parameter that is nested so deeply."""

    def write(folder: Path) -> None:
        data = encode(folders.read(folder)[0].evidence)
        assert data.count(b'"params":{}') == 1
        deep = b'"params":{"a":' + b"[" * depth + b"]" * depth + b"}"
        replaced(folder, lambda _: None)
        raw(folder, data.replace(b'"params":{}', deep))

    return write


ATTACKS: Mapping[str, tuple[Callable[[Path], None], str]] = {
    "a verification": (forged("verify-staging-workload"), "it claims verify-staging-workload"),
    "an approval": (forged("approve", by="grace"), "it claims approve"),
    "an evaluation": (forged("evaluate"), "it claims evaluate"),
    "a container test": (forged("test-container"), "it claims test-container"),
    "a pushed image": (forged("push-to-registry"), "it claims push-to-registry"),
    "a deployment": (forged("deploy-production", role="champion"), "it claims deploy-production"),
    "an alias": (forged("promote/alias", alias="champion"), "it claims promote/alias"),
    "a promotion": (forged("promote"), "it claims promote"),
    "a rollback": (forged("rollback"), "it claims rollback"),
    "a claim of claims": (forged("unreviewed/test"), "it claims unreviewed/test"),
    "another commit": (of(commit="d" * 40), "is about commit 'dddddddddddd', and aaaaaaaaaaaa"),
    "a commit that is none": (of(commit="\x1b[2J::error::x"), "is about commit '\\x1b[2J::error"),
    "another project": (of(name="churn"), "is about project 'churn', and this one is iris"),
    "a digest that is none": (of(bundle="../../etc/passwd"), "has no digest of its bundle"),
    "a second release": (
        lambda folder: replaced(
            folder,
            lambda evidence: msgspec.structs.replace(
                evidence,
                release=msgspec.structs.replace(evidence.release, dirty=evidence.step == "test"),
            ),
        ),
        "it is about 2 releases",
    ),
    "the home of another": (
        lambda folder: replaced(
            folder, lambda each: msgspec.structs.replace(each, home="github.com/eve/iris")
        ),
        "is about a project at the top of github.com/eve/iris",
    ),
    "no home": (
        lambda folder: replaced(folder, lambda each: msgspec.structs.replace(each, home="")),
        "of an unknown repository",
    ),
    "a test without its training": (
        lambda folder: replaced(folder, lambda each: each if each.step == "test" else None),
        "no training",
    ),
    "nothing at all": (lambda folder: replaced(folder, lambda _: None), "about 0 releases"),
    "a training that failed": (
        lambda folder: replaced(
            folder, lambda each: msgspec.structs.replace(each, verdict="failed")
        ),
        "train claims failed, and its facts say passed",
    ),
    "a test that passed without checks": (facts("test", checks=[]), "its facts say failed"),
    "a test that passed with a failed check": (
        facts("test", checks=[{"name": "a", "holds": False, "text": "a"}]),
        "its facts say failed",
    ),
    "facts of another type": (facts("test", samples="many"), "facts that cannot be read"),
    "parameters without end": (facts("train", params={"a": "x" * 200_000}), "bytes of metrics"),
    "parameters that are nested": (nested(800), "nested too deeply"),
    "an edited record": (edited, "was changed"),
    "a removed record": (headless, "which is missing"),
    "another subject": (other_subject, "another release as its subject"),
    "a time without a zone": (without_zone, "not a record of the ledger"),
    "no JSON": (lambda folder: raw(folder, b"x"), "not a record of the ledger"),
    "JSON without end": (nested(100_000), "nested too deeply"),
    "another kind of statement": (lambda folder: raw(folder, b"{}"), "not a record of the ledger"),
    "a link to a record": (linked, "is not a record"),
    "a link to the folder": (folder_linked, "'ledger' is not a record"),
    "a pipe": (piped, "is not a record"),
    "a file with another name": (renamed, "'x.json' is not a record"),
    "a file beside the ledger": (accompanied, "'mlship.yaml' is not a record"),
    "a store beside the ledger": (lambda folder: (folder / "store").mkdir(), "'store' is not"),
    "a folder too deep": (
        lambda folder: (folder / "ledger" / "3f" / "deep").mkdir(parents=True),
        "'deep' is not a record",
    ),
    "too many records": (crowded, "more than 50 records"),
    "a record that is too large": (
        lambda folder: raw(folder, b" " * (folders.RECORD_MOST + 1)),
        "bytes, more than allowed",
    ),
    "records that are too large together": (heavy, "bytes, more than allowed"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_hostile_handover_is_refused_with_its_reason_and_nothing_of_it_is_recorded(
    attack: str, shared: World, branch: World, tmp_path: Path
) -> None:
    folder = said(branch, tmp_path / "said")
    change, reason = ATTACKS[attack]
    change(folder)
    with pytest.raises(IntegrityError) as caught:
        taken(shared, folder)
    assert "evidence of another job was refused" in caught.value.message
    assert reason in caught.value.message
    assert caught.value.exit_code == 7
    assert "nothing of it was recorded" in caught.value.hint
    assert shared.ledger.stored == {}


def test_without_the_check_a_forged_promotion_would_make_a_champion(
    branch: World, shared: World, tmp_path: Path
) -> None:
    """The control: a job that appended what it is given would crown whatever a branch says."""
    folder = said(branch, tmp_path / "said")
    forged("deploy-production", role="champion")(folder)
    for record in folders.read(folder):
        shared.ledger.append(record.evidence)
    assert shared.pipeline.read().history.champion == folders.read(folder)[0].evidence.release


def test_a_folder_that_is_missing_or_a_link_is_no_handover(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    for name in ("none", "link"):
        with pytest.raises(NotFoundError, match="no evidence in"):
            wire.read(tmp_path / name)


def test_claims_are_what_a_training_job_may_say_and_all_of_it() -> None:
    assert set(claims.CLAIMED) == {"train", "test"}
