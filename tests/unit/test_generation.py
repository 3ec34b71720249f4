"""A job of an older generation deploys nothing over a later release, unless it is told to."""

import pytest

from mlship.domain.release import Release
from mlship.errors import RefusedError
from mlship.steps.approve import approve
from mlship.steps.deploy import deploy_next, deploy_production, deploy_staging
from mlship.steps.promote import promote
from mlship.steps.retire import retire
from mlship.steps.rollback import rollback
from mlship.steps.train import train
from tests.fakes.ports import World
from tests.unit.test_steps import here, made, preferred

__all__ = ["here"]

HISTORY = {"b" * 40: "a" * 40, "c" * 40: "b" * 40, "f" * 40: "a" * 40}
"""Commits and their parents: a, b, c on develop, and f on a branch from a."""


def trained(here: World, sha: str) -> Release:
    """Train a release of a commit; each has another model."""
    here.source.sha, here.trainer.params = sha * 40, sha
    return train(here.pipeline).evidence.release


def proven(here: World, sha: str) -> Release:
    """Train a release of a commit and prove it; staging has it then."""
    here.source.sha = sha * 40
    return made(here, sha)


@pytest.fixture(params=["git", "shallow clone"])
def project(here: World, request: pytest.FixtureRequest) -> World:
    """Give a project whose history is known, or only the order in which it was trained."""
    here.source.parents = HISTORY if request.param == "git" else None
    return here


def test_runs_that_end_in_the_order_c_a_leave_c_in_staging(project: World) -> None:
    a, b, c = (trained(project, sha) for sha in "abc")
    deploy_staging(project.pipeline, c)
    for late in (a, b):
        with pytest.raises(RefusedError, match=rf"superseded by release {c} \(commit cccc") as told:
            deploy_staging(project.pipeline, late)
        assert "--older" in told.value.hint
    assert [one.release for one in project.targets["staging"].inspect().values()] == [c.id]
    deploy_staging(project.pipeline, c)


def test_git_knows_better_than_the_order_of_the_trainings(here: World) -> None:
    here.source.parents = HISTORY
    c, a = trained(here, "c"), trained(here, "a")
    deploy_staging(here.pipeline, c)
    with pytest.raises(RefusedError, match="superseded"):
        deploy_staging(here.pipeline, a)


def test_on_purpose_an_older_release_is_deployed_and_later_ones_after_it(project: World) -> None:
    a, b, c = (trained(project, sha) for sha in "abc")
    deploy_staging(project.pipeline, c)
    deploy_staging(project.pipeline, a, older=True)
    deploy_staging(project.pipeline, a)
    deploy_staging(project.pipeline, b)


def test_another_branch_and_another_release_of_one_commit_are_not_older(here: World) -> None:
    here.source.parents = HISTORY
    feature, c = trained(here, "f"), trained(here, "c")
    here.trainer.params = "other"
    again = train(here.pipeline).evidence.release
    for each in (c, feature, c, again, c):
        deploy_staging(here.pipeline, each)


def test_a_branch_that_was_deployed_in_between_hides_no_later_release(here: World) -> None:
    here.source.parents = HISTORY
    a, c = trained(here, "a"), trained(here, "c")
    deploy_staging(here.pipeline, c)
    here.source.branch = "feature/f"
    feature = trained(here, "f")
    deploy_staging(here.pipeline, feature)
    with pytest.raises(RefusedError, match=f"superseded by release {c}"):
        deploy_staging(here.pipeline, a)


def test_production_refuses_an_older_release_even_after_the_later_one_was_retired(
    project: World,
) -> None:
    a, b, c = (proven(project, sha) for sha in "abc")
    deploy_production(project.pipeline, a)
    deploy_production(project.pipeline, c)
    retire(project.pipeline, c)
    with pytest.raises(RefusedError, match=f"superseded by release {c}") as told:
        deploy_production(project.pipeline, b)
    assert "mlship rollback" in told.value.hint
    deploy_production(project.pipeline, b, older=True)
    assert project.pipeline.read().history.challenger == b


def test_a_rollback_and_a_release_that_runs_are_no_older_job(project: World) -> None:
    a, c = proven(project, "a"), proven(project, "c")
    deploy_production(project.pipeline, a)
    deploy_production(project.pipeline, c)
    preferred(project, c, a)
    approve(project.pipeline, c, "grace@example.org")
    promote(project.pipeline, c)
    rollback(project.pipeline)
    deploy_production(project.pipeline, a)
    assert project.pipeline.read().history.champion == a


def test_an_older_release_does_not_take_the_place_of_a_later_one_that_waits(
    project: World,
) -> None:
    a, b, c = (proven(project, sha) for sha in "abc")
    first = proven(project, "0")
    deploy_production(project.pipeline, first)
    project.source.parents = project.source.parents and {**HISTORY, "a" * 40: "0" * 40}
    deploy_production(project.pipeline, a, older=True)
    deploy_production(project.pipeline, c, occupied="wait")
    with pytest.raises(RefusedError, match=f"superseded by release {c}"):
        deploy_production(project.pipeline, b, occupied="wait")
    assert project.pipeline.read().history.waiting == (c,)


def test_who_waits_in_a_queue_is_not_superseded_by_those_behind_it(project: World) -> None:
    first, a, b = (proven(project, sha) for sha in "0ab")
    project.source.parents = project.source.parents and {**HISTORY, "a" * 40: "0" * 40}
    deploy_production(project.pipeline, first)
    deploy_production(project.pipeline, a)
    for waiting in (b, proven(project, "c")):
        deploy_production(project.pipeline, waiting, occupied="queue")
    retire(project.pipeline, a)
    record = deploy_next(project.pipeline)
    assert record is not None
    assert record.evidence.release == b


def test_who_waits_and_was_superseded_gives_way(project: World) -> None:
    first, a, b, c = (proven(project, sha) for sha in "0abc")
    project.source.parents = project.source.parents and {**HISTORY, "a" * 40: "0" * 40}
    deploy_production(project.pipeline, first)
    deploy_production(project.pipeline, a)
    deploy_production(project.pipeline, b, occupied="queue")
    deploy_production(project.pipeline, c, occupied="replace", older=True)
    retire(project.pipeline, c)
    assert deploy_next(project.pipeline) is None
    assert f"{b} waits no longer: it was superseded by {c}" in project.progress.notes
