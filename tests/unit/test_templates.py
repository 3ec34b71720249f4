"""What `mlship init` writes: into an empty folder, an existing repository, and a second time."""

from pathlib import Path

import pytest

from mlship.errors import ConfigError
from mlship.templates.project import Plan, carry_out, plan

MAIN = ".github/workflows/main.yml"
KUBERNETES = """
image: {repository: ghcr.io/ada/iris}
targets: {staging: {kind: kubernetes}, production: {kind: kubernetes}}
"""


def init(folder: Path, example: str | None = None, *force: str) -> Plan:
    made = plan(folder, example, force)
    carry_out(made)
    return made


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("example", [None, "iris"])
def test_an_empty_folder_gets_all_that_a_project_needs(tmp_path: Path, example: str | None) -> None:
    made = init(tmp_path / "new", example)
    wanted = {
        "mlship.yaml",
        "README.md",
        "requirements.txt",
        ".dockerignore",
        ".gitignore",
        "pipeline.py",
        "tests/unit/test_pipeline.py",
        "tests/sanity/test_served_model.py",
        *(f".github/workflows/{name}.yml" for name in ("feature", "develop", "release", "main")),
    }
    assert wanted <= set(made.names("write")) <= set(files(tmp_path / "new"))
    assert any("git init" in step for step in made.next)
    assert any("MLFLOW_TRACKING_URI" in step for step in made.next)


def test_a_look_touches_nothing(tmp_path: Path) -> None:
    plan(tmp_path, "iris")
    assert files(tmp_path) == {}


def test_a_second_time_changes_nothing(tmp_path: Path) -> None:
    init(tmp_path, "iris")
    before = files(tmp_path)
    made = init(tmp_path, "iris")
    assert made.names("keep")
    assert {change.what for change in made.changes} == {"keep"}
    assert files(tmp_path) == before


def test_an_interrupted_init_begins_again(tmp_path: Path) -> None:
    made = plan(tmp_path, None)
    assert made.changes[-1].name == "mlship.yaml"
    (tmp_path / "pipeline.py").write_text("# mine\n")
    assert "tests/unit/test_pipeline.py" in init(tmp_path).names("write")
    assert (tmp_path / "pipeline.py").read_text() == "# mine\n"


def test_what_a_person_wrote_stays_until_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    (tmp_path / "pipeline.py").write_text("mine")
    made = init(tmp_path)
    assert {"README.md", "pipeline.py"} <= set(made.names("keep"))
    assert (tmp_path / "README.md").read_text() == "mine"
    assert init(tmp_path, "iris", "README.md").names("overwrite") == ["README.md"]
    assert (tmp_path / "README.md").read_text() != "mine"
    assert (tmp_path / "pipeline.py").read_text() == "mine"


def test_a_forced_name_that_is_no_file_of_ours_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file") as caught:
        plan(tmp_path, None, ["data.csv"])
    assert "pipeline.py" in caught.value.hint


def test_workflows_follow_mlship_yaml_unless_somebody_edited_them(tmp_path: Path) -> None:
    init(tmp_path)
    edited = tmp_path / ".github/workflows/develop.yml"
    edited.write_text(edited.read_text().replace("timeout-minutes: 45", "timeout-minutes: 90"))
    settings = tmp_path / "mlship.yaml"
    settings.write_text(settings.read_text().partition("\ntargets:")[0] + KUBERNETES)
    made = init(tmp_path)
    assert MAIN in made.names("update")
    assert "deploy-production" in (tmp_path / MAIN).read_text()
    assert ".github/workflows/promote.yml" in made.names("write")
    assert ".github/workflows/develop.yml" in made.names("keep")
    assert "timeout-minutes: 90" in edited.read_text()
    assert any("--force .github/workflows/develop.yml" in step for step in made.next)
    assert any("ledger: {kind: mlflow}" in step for step in made.next)
    assert init(tmp_path, None, ".github/workflows").names("overwrite") == [
        ".github/workflows/develop.yml"
    ]


def test_a_repository_with_settings_of_its_own_gets_no_skeleton(tmp_path: Path) -> None:
    (tmp_path / "mlship.yaml").write_text(
        "name: iris\ndata: {train: d.csv, test: t.csv}\nmodel: {train: 'mine:fit'}\n"
    )
    made = init(tmp_path)
    assert "pipeline.py" not in files(tmp_path)
    assert {"requirements.txt", ".dockerignore", MAIN} <= set(made.names("write"))


def test_a_project_below_the_top_of_its_repository(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    made = init(tmp_path / "models" / "iris", "iris")
    text = (tmp_path / MAIN).read_text()
    assert 'working-directory: "models/iris"' in text
    assert f"../../{MAIN}" in made.names("write")
    assert not any("git init" in step for step in made.next)
    assert {change.what for change in plan(tmp_path / "models" / "iris", "iris").changes} == {
        "keep"
    }


def test_a_gitignore_that_does_not_know_mlship_is_told_of(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("*.tmp\n")
    made = init(tmp_path)
    assert (tmp_path / ".gitignore").read_text() == "*.tmp\n"
    assert any(".mlship/" in step and ".gitignore" in step for step in made.next)
    assert (tmp_path / ".mlship/.gitignore").read_text() == "*\n"


def test_settings_that_are_wrong_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "mlship.yaml").write_text("name: iris\nmodle: {}\n")
    with pytest.raises(ConfigError, match="modle"):
        plan(tmp_path, None)
    assert set(files(tmp_path)) == {"mlship.yaml"}


def test_images_need_a_repository(tmp_path: Path) -> None:
    init(tmp_path)
    settings = tmp_path / "mlship.yaml"
    settings.write_text(
        settings.read_text().partition("\ntargets:")[0]
        + "\ntargets: {staging: {kind: kubernetes}, production: {kind: local}}\n"
    )
    with pytest.raises(ConfigError, match=r"targets\.staging runs images"):
        plan(tmp_path, None)


def test_the_two_projects_that_are_shipped_ignore_the_same_files() -> None:
    root = Path(__file__).parents[2]
    for name in (".dockerignore", ".gitignore"):
        ours = [
            (root / folder / name).read_text() for folder in ("iris_example", "templates/project")
        ]
        assert ours[0] == ours[1]
        assert "gha-creds-*.json" in ours[0]
