"""A workflow that a person deleted is not written again."""

from pathlib import Path

import pytest

from mlship.domain.commit import FileVersion, Repository
from mlship.templates import project
from mlship.templates.project import Plan, carry_out
from tests.unit.test_templates import INSTALLED, KUBERNETES, plan

PLACE = ".github/workflows"
DEVELOP, MAIN = f"{PLACE}/develop.yml", f"{PLACE}/main.yml"


@pytest.fixture
def top(tmp_path: Path) -> Path:
    (tmp_path / ".git").mkdir()
    carry_out(plan(tmp_path))
    return tmp_path


def known(top: Path) -> list[FileVersion]:
    """Return all workflows that are there, as git would have them after a commit."""
    return [
        FileVersion(path.relative_to(top).as_posix(), path.read_bytes())
        for path in sorted((top / PLACE).iterdir())
    ]


def init(folder: Path, versions: list[FileVersion], *force: str) -> Plan:
    planned = plan(folder, None, force, versions=versions)
    carry_out(planned)
    return planned


def test_a_deleted_workflow_stays_deleted_until_it_is_forced(top: Path) -> None:
    versions = known(top)
    (top / MAIN).unlink()
    planned = init(top, versions)
    assert planned.names("skip") == [MAIN]
    [skipped] = [change for change in planned.changes if change.what == "skip"]
    assert skipped.reason == "it was deleted"
    assert not (top / MAIN).exists()
    assert init(top, versions, MAIN).names("write") == [MAIN]
    assert (top / MAIN).exists()
    (top / MAIN).unlink()
    assert init(top, versions, PLACE).names("write") == [MAIN]


def test_an_edited_one_without_its_first_line_counts_too(top: Path) -> None:
    text = (top / MAIN).read_text().partition("\n")[2]
    (top / MAIN).unlink()
    assert init(top, [FileVersion(MAIN, text.encode())]).names("skip") == [MAIN]


def test_what_git_does_not_know_is_written_as_ever(top: Path) -> None:
    (top / MAIN).unlink()
    assert init(top, []).names("write") == [MAIN]


def test_a_workflow_that_is_newly_needed_is_written(top: Path) -> None:
    versions = known(top)
    (top / MAIN).unlink()
    settings = top / "mlship.yaml"
    settings.write_text(settings.read_text().partition("\ntargets:")[0] + KUBERNETES)
    planned = init(top, versions)
    assert {f"{PLACE}/evaluate.yml", f"{PLACE}/promote.yml"} <= set(planned.names("write"))
    assert planned.names("skip") == [MAIN]


def test_a_file_of_the_same_name_that_was_not_this_projects_does_not_count(top: Path) -> None:
    churn = known(top)[0].data.replace(
        b"\njobs:", b"\ndefaults:\n  run:\n    working-directory: x\njobs:"
    )
    (top / MAIN).unlink()
    for data in (b"name: main\non: push\njobs: {}\n", churn):
        assert init(top, [FileVersion(MAIN, data)]).names("write") == [MAIN]
        (top / MAIN).unlink()


def test_what_the_settings_did_not_need_was_not_deleted_by_a_person(top: Path) -> None:
    [develop] = [version for version in known(top) if version.path == DEVELOP]
    (top / DEVELOP).unlink()
    needed = (top / "mlship.yaml").read_text()
    main_only = f"{needed}\nworkflows: {{branches: {{develop: null}}}}\n"
    now, before = (FileVersion("mlship.yaml", text.encode()) for text in (needed, main_only))
    wrong = FileVersion("mlship.yaml", b"nmae: iris\n")
    for versions in ([develop, now, before], [before, develop, now], [develop], [develop, wrong]):
        assert init(top, versions).names("skip") == [DEVELOP]
    assert init(top, [now, develop, before, now]).names("write") == [DEVELOP]


def test_a_project_that_begins_again_gets_all_workflows(top: Path) -> None:
    versions = known(top)
    (top / MAIN).unlink()
    (top / "mlship.yaml").unlink()
    assert MAIN in init(top, versions).names("write")


def test_a_rename_by_init_is_no_deletion_and_a_deletion_before_it_is_one(top: Path) -> None:
    for path in (top / PLACE).iterdir():
        path.unlink()
    folder = top / "models/churn"
    carry_out(plan(folder))
    texts = {path.name: path.read_bytes() for path in (top / PLACE).iterdir()}
    former = [FileVersion(f"{PLACE}/{name.removeprefix('churn-')}", texts[name]) for name in texts]
    assert len(former) == 4
    for name in texts:
        (top / PLACE / name).unlink()
    for version in former:
        (top / version.path).write_bytes(version.data)
    (top / MAIN).unlink()
    planned = init(folder, former)
    renamed = [f"../../{PLACE}/churn-{kind}.yml" for kind in ("develop", "feature", "release")]
    assert planned.names("write") == renamed
    assert planned.names("skip") == [f"../../{PLACE}/churn-main.yml"]
    versions = [*known(top), *former]
    assert init(folder, versions).names("skip") == [f"../../{PLACE}/churn-main.yml"]
    own = init(top, versions)
    assert len([name for name in own.names("write") if PLACE in name]) == 4, "another project's"


def test_each_project_has_its_own_deletions(top: Path) -> None:
    for folder in ("models/churn", "models/fraud"):
        carry_out(plan(top / folder))
    versions = known(top)
    (top / PLACE / "churn-main.yml").unlink()
    assert init(top / "models/fraud", versions).names("skip") == []
    assert init(top, versions).names("skip") == []
    assert init(top / "models/churn", versions).names("skip") == [f"../../{PLACE}/churn-main.yml"]


def test_a_shallow_clone_does_not_show_what_was_deleted_and_brings_nothing_back(top: Path) -> None:
    (top / MAIN).unlink()
    settings = FileVersion("mlship.yaml", (top / "mlship.yaml").read_bytes())
    shallow = Repository(top=top, versions=(settings,), gap="this clone is shallow: fetch it all")
    planned = project.plan(top, None, installed=INSTALLED, repository=shallow)
    assert planned.names("skip") == [MAIN]
    [skipped] = [change for change in planned.changes if change.what == "skip"]
    assert skipped.reason == (
        "it is missing, and may have been deleted; this clone is shallow: fetch it all"
    )
    forced = project.plan(top, None, [MAIN], installed=INSTALLED, repository=shallow)
    assert forced.names("write") == [MAIN]


def test_in_a_shallow_clone_a_project_that_no_commit_has_begins(top: Path) -> None:
    (top / MAIN).unlink()
    shallow = Repository(top=top, gap="this clone is shallow")
    planned = project.plan(top, None, installed=INSTALLED, repository=shallow)
    assert planned.names("write") == [MAIN]


def test_secrets_and_variables_are_those_of_the_workflows_that_are_there(top: Path) -> None:
    settings = (top / "mlship.yaml").read_text().partition("\ntargets:")[0] + KUBERNETES
    (top / "mlship.yaml").write_text(settings)
    [asked] = asked_for(init(top, []))
    assert "STAGING_KUBECONFIG" in asked
    assert "PRODUCTION_KUBECONFIG" in asked
    versions = [*known(top), FileVersion("mlship.yaml", settings.encode())]
    for kind in ("main", "evaluate", "promote", "rollback", "retire"):
        (top / PLACE / f"{kind}.yml").unlink()
    [asked] = asked_for(init(top, versions))
    assert "STAGING_KUBECONFIG" in asked
    assert "PRODUCTION_KUBECONFIG" not in asked
    for path in (top / PLACE).iterdir():
        path.unlink()
    assert asked_for(init(top, versions)) == []


def asked_for(planned: Plan) -> list[str]:
    return [step for step in planned.next if step.startswith("on GitHub, for the workflows: ")]
