"""A promotion reads the reviews again: what a record says of them does not count by itself."""

import dataclasses
from pathlib import Path

import msgspec
import pytest

from mlship.adapters.keys import PrivateKey
from mlship.domain.deployment import slot_of
from mlship.domain.evidence import Saw, Step
from mlship.domain.facts import Approved
from mlship.domain.policy import PromotePolicy
from mlship.domain.pullrequest import Review, number_of
from mlship.domain.release import Release
from mlship.domain.trust import Signatures, Signer, Trust
from mlship.errors import (
    ConfigError,
    IntegrityError,
    MlshipError,
    NotFoundError,
    RefusedError,
    UnavailableError,
)
from mlship.steps.approve import approve, approve_from_pull_request
from mlship.steps.deploy import deploy_production
from mlship.steps.open_release_pr import open_release_pr
from mlship.steps.promote import promote
from mlship.steps.traffic import traffic
from mlship.steps.train import train
from tests.fakes.ports import CONFIG, World, world
from tests.harness.samples import better, nothing
from tests.harness.signing import key, verified

PULL = "https://github.com/ada/iris/pull/1"
GOOD = Review(
    by="grace",
    decision="approved",
    commit="a" * 40,
    text="fine",
    url=f"{PULL}#pullrequestreview-2",
    time=None,
    is_person=True,
    may_write=True,
)
AWAY = UnavailableError("cannot reach https://api.github.com: timed out", hint="retry")
NO_TOKEN = ConfigError("GITHUB_TOKEN is not set, and GitHub needs it", hint="set it")


def duel(folder: Path, approvals: int = 1) -> World:
    """Give a world whose challenger has won, from the commit of pull request 1."""
    policy = PromotePolicy(min_labels=50, approvals=approvals)
    gates = msgspec.structs.replace(CONFIG.gates, promote=policy)
    here = world(folder, msgspec.structs.replace(CONFIG, gates=gates))
    here.forge.add("develop", "main")
    steps: tuple[Step, ...] = ("test", "verify-staging-workload")
    for params in ("C=1", "C=2"):
        here.trainer.params = params
        release = train(here.pipeline).evidence.release
        for step in steps:
            here.pipeline.learn(release, step, "passed", nothing(step))
        deploy_production(here.pipeline, release)
    champion = here.pipeline.release("champion")
    here.pipeline.learn(release, "evaluate", "passed", better(300), Saw(champion=champion.id))
    return here


@pytest.fixture
def here(tmp_path: Path) -> World:
    return duel(tmp_path)


def challenger(here: World) -> Release:
    return here.pipeline.release("challenger")


def is_champion(here: World, release: Release) -> bool:
    return here.pipeline.read().history.champion == release


def recorded(here: World, step: Step) -> list[dict[str, object]]:
    records = here.ledger.records()
    return [record.evidence.facts for record in records if record.evidence.step == step]


def refused(here: World) -> str:
    """Return why the challenger is not promoted, which changed neither roles nor traffic."""
    before = here.targets["production"].routes().split
    with pytest.raises(RefusedError) as told:
        promote(here.pipeline, challenger(here))
    assert here.targets["production"].routes().split == before
    assert recorded(here, "promote") == []
    assert "0 of 1 approvals" in told.value.message
    return told.value.message


def test_a_review_is_found_and_recorded_by_the_promotion_itself(here: World) -> None:
    here.forge.latest[1] = (GOOD,)
    release = challenger(here)
    promote(here.pipeline, release)
    assert is_champion(here, release)
    assert recorded(here, "approve") == [{"by": "grace", "comment": "fine", "url": GOOD.url}]
    before = len(here.ledger.records())
    promote(here.pipeline, release)
    assert len(here.ledger.records()) == before


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"decision": "dismissed"}, "pull request 1: grace: dismissed"),
        ({"decision": "changes requested"}, "pull request 1: grace: changes requested"),
        ({"commit": "c" * 40}, "pull request 1: grace: reviewed commit cccccccccccc"),
        ({"may_write": False}, "pull request 1: grace: may not push"),
    ],
)
def test_a_recorded_approval_counts_only_if_its_review_is_as_it_was(
    here: World, changes: dict[str, object], reason: str
) -> None:
    here.forge.latest[1] = (GOOD,)
    approve_from_pull_request(here.pipeline, challenger(here), 1)
    here.forge.latest[1] = (msgspec.structs.replace(GOOD, **changes),)
    assert f"not counted: {reason}" in refused(here)
    taken_back = changes.get("decision")
    withdrawn = [facts["reason"] for facts in recorded(here, "withdraw-approval")]
    assert withdrawn == ([taken_back] if taken_back else [])
    here.forge.latest[1] = (GOOD,)
    promote(here.pipeline, challenger(here))


def test_a_review_of_what_the_pull_request_was_does_not_count(here: World) -> None:
    here.forge.latest[1] = (GOOD,)
    approve_from_pull_request(here.pipeline, challenger(here), 1)
    here.forge.pulls[1] = msgspec.structs.replace(here.forge.pulls[1], commit="e" * 40)
    assert "grace: reviewed commit aaaaaaaaaaaa; the pull request is at eeee" in refused(here)


@pytest.mark.parametrize(
    ("by", "url", "reason"),
    [
        ("mallory", f"{PULL}#pullrequestreview-9", "0 of 1 approvals"),
        ("ada", f"{PULL}#pullrequestreview-9", "0 of 1 approvals"),
        ("grace", "https://github.com/ada/wine/pull/1#review", "was not read again"),
        ("grace", "https://github.com/ada/wine/pull/99", "no pull request 99"),
        ("grace", "https://example.org/review", "was not read again"),
    ],
)
def test_a_record_of_a_review_that_there_is_not_does_not_count(
    here: World, by: str, url: str, reason: str
) -> None:
    here.pipeline.learn(challenger(here), "approve", "passed", Approved(by=by, url=url))
    assert reason in refused(here)


def test_the_author_of_the_last_commit_does_not_count(here: World) -> None:
    here.forge.latest[1] = (GOOD,)
    here.forge.authors[1] = ("Grace",)
    assert "grace: is an author of the pull request" in refused(here)


@pytest.mark.parametrize("fault", [AWAY, NO_TOKEN])
@pytest.mark.parametrize("is_set_up", [True, False])
def test_reviews_that_cannot_be_read_do_not_count(
    here: World, fault: MlshipError, is_set_up: bool
) -> None:
    here.forge.latest[1] = (GOOD,)
    approve_from_pull_request(here.pipeline, challenger(here), 1)
    here.forge.fault, here.forge.is_set_up = fault, is_set_up
    before = len(here.ledger.records())
    with pytest.raises(type(fault), match=fault.message):
        promote(here.pipeline, challenger(here))
    assert len(here.ledger.records()) == before
    release = challenger(here)
    approve(here.pipeline, release, "lin@example.org")
    promote(here.pipeline, release)
    assert is_champion(here, release)
    assert any("approvals by hand are enough" in note for note in here.progress.notes)
    (gate,) = recorded(here, "promote/gate")
    assert "author: lin@example.org (by name, not verified)" in str(gate["checks"])


def test_where_no_forge_is_set_up_none_is_asked(here: World) -> None:
    here.forge.latest[1] = (GOOD,)
    here.forge.fault, here.forge.is_set_up = AWAY, False
    refused(here)


def test_two_people_are_counted_once_each(tmp_path: Path) -> None:
    here = duel(tmp_path, approvals=2)
    release = challenger(here)
    here.forge.latest[1] = (GOOD,)
    approve(here.pipeline, release, "grace@example.org")
    with pytest.raises(RefusedError, match="1 of 2 approvals"):
        promote(here.pipeline, release)
    here.forge.latest[1] = (GOOD, msgspec.structs.replace(GOOD, by="lin"))
    promote(here.pipeline, release)
    assert is_champion(here, release)


def test_only_the_pull_request_that_is_named_is_read(here: World) -> None:
    here.forge.add("develop", "main")
    here.forge.latest[1] = (GOOD,)
    with pytest.raises(RefusedError, match="0 of 1 approvals"):
        promote(here.pipeline, challenger(here), number=2)
    with pytest.raises(NotFoundError, match="no pull request 3"):
        promote(here.pipeline, challenger(here), number=3)
    promote(here.pipeline, challenger(here), number=1)


def test_after_a_kill_behind_the_route_no_forge_is_needed(
    here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    here.forge.latest[1] = (GOOD,)
    release = challenger(here)
    with monkeypatch.context() as patched:
        fault = UnavailableError("the store is away", hint="retry")
        patched.setattr(here.store, "point", lambda *_: (_ for _ in ()).throw(fault))
        with pytest.raises(UnavailableError, match="the store is away"):
            promote(here.pipeline, release)
    here.forge.fault = AWAY
    promote(here.pipeline, release)
    assert is_champion(here, release)


def test_more_traffic_reads_the_reviews_as_a_promotion_does(here: World) -> None:
    release = challenger(here)
    with pytest.raises(RefusedError, match="0 of 1 approvals"):
        traffic(here.pipeline, {"challenger": 60})
    here.forge.latest[1] = (GOOD,)
    traffic(here.pipeline, {"challenger": 60})
    assert here.targets["production"].routes().split.share(slot_of(release)) == 60
    assert len(recorded(here, "approve")) == 1
    heads = here.pipeline.read().heads
    assert heads == (here.ledger.records()[-1].digest,), "the chain has no fork"


def test_the_number_of_a_pull_request_is_the_end_of_its_page() -> None:
    assert number_of(PULL) == 1
    assert [number_of(url) for url in ("", f"{PULL}/files", "https://x/pull/0")] == [None] * 3


CI, EVE = key(), key()


def _trusting(here: World, trusted: PrivateKey) -> None:
    """Trust one signer beside unsigned records, and be this signer."""
    trust = Trust(signers=(Signer(name="ci", key=trusted.public),))
    by = Signatures(signing=trusted, trust=lambda: trust, verify=verified)
    here.pipeline = dataclasses.replace(here.pipeline, signatures=by)


def _proposed(here: World) -> Release:
    """Let the pull request say, signed, what the ledger has."""
    release = here.pipeline.release("challenger")
    open_release_pr(here.pipeline, release, "develop", "main")
    here.forge.latest[1] = [GOOD]
    return release


def test_what_was_removed_since_the_pull_request_was_written_is_found(here: World) -> None:
    _trusting(here, CI)
    release = here.pipeline.release("challenger")
    worse = here.pipeline.learn(release, "evaluate", "failed", better(301))
    opened = _proposed(here)
    for record in here.pipeline.read():
        if record.evidence.step == "open-release-pr" or record == worse:
            del here.ledger.stored[record.digest]
    with pytest.raises(IntegrityError, match="pull request 1 has seen"):
        promote(here.pipeline, opened)


def test_what_a_stranger_writes_into_a_pull_request_stops_no_promotion(here: World) -> None:
    _trusting(here, EVE)
    release = _proposed(here)
    _trusting(here, CI)
    promote(here.pipeline, release)
    told = "what pull request 1 says of the ledger does not count"
    assert any(note.startswith(told) for note in here.progress.notes)
