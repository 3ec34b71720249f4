"""What `mlship init` writes: into an empty folder, an existing repository, and a second time."""

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from mlship.adapters.checkout.storage import kept_by_dvc
from mlship.config.installation import Installation, Origin
from mlship.config.layers import from_environment, from_flags
from mlship.domain.commit import FileVersion, Merger, Repository
from mlship.errors import ConfigError
from mlship.templates import project
from mlship.templates.project import Plan, carry_out
from tests.harness.workflows import SOURCE

MAIN = ".github/workflows/main.yml"
KUBERNETES = """
image: {repository: ghcr.io/ada/iris}
targets: {staging: {kind: kubernetes}, production: {kind: kubernetes}}
"""


INSTALLED = Installation(origin=Origin(kind="git"), source=SOURCE)


def plan(
    folder: Path,
    example: str | None = None,
    force: Sequence[str] = (),
    *,
    installed: Installation = INSTALLED,
    versions: Sequence[FileVersion] = (),
    sparse: Sequence[str] = (),
    merge: Merger | None = None,
) -> Plan:
    """Plan as the command does, where git ignores nothing and knows these versions."""
    top = next(filter(_is_top, (folder.resolve(), *folder.resolve().parents)), None)
    repository = None
    if top:
        repository = Repository(top=top, versions=tuple(versions), sparse=tuple(sparse))
    return project.plan(
        folder,
        example,
        force,
        installed=installed,
        repository=repository,
        kept_by_dvc=kept_by_dvc,
        merge=merge,
    )


def _is_top(folder: Path) -> bool:
    with suppress(OSError):  # a name may be too long
        return (folder / ".git").exists()
    return False


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


def test_the_next_steps_begin_with_the_way_to_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    steps = plan(Path("my iris"), "iris").next
    assert steps[0] == "cd 'my iris'"
    assert any("git init" in step for step in steps[1:])
    assert not any(step.startswith("cd ") for step in plan(Path(), "iris").next)
    assert not any(step.startswith("cd ") for step in plan(tmp_path, "iris").next)


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
    with pytest.raises(ConfigError, match="is not a file that mlship init writes") as caught:
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
    assert any("`kind: mlflow` under ledger" in step for step in made.next)
    assert init(tmp_path, None, ".github/workflows").names("overwrite") == [
        ".github/workflows/develop.yml"
    ]


def test_only_a_ledger_on_a_tracking_server_needs_one(tmp_path: Path) -> None:
    settings = tmp_path / "mlship.yaml"
    users = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"

    def asked() -> str:
        [step] = [step for step in init(tmp_path).next if "MLFLOW_TRACKING_" in step]
        assert users in step
        return step

    assert "if you have a tracking server" in asked()
    assert "without one, none of them" in asked()
    settings.write_text(settings.read_text() + "\nledger: {kind: mlflow}\n")
    assert "for a tracking server" in asked()
    assert "without one" not in asked()
    settings.write_text(settings.read_text().replace("kind: mlflow", "kind: registry"))
    with settings.open("a") as file:
        file.write("store: {kind: registry}\nimage: {repository: ghcr.io/ada/iris}\n")
    assert not [step for step in init(tmp_path).next if "MLFLOW_TRACKING_" in step]


def test_workflows_that_the_branches_do_not_need_are_removed_unless_edited(tmp_path: Path) -> None:
    init(tmp_path)
    settings = tmp_path / "mlship.yaml"
    settings.write_text(settings.read_text() + "workflows: {branches: {develop: null}}\n")
    edited = tmp_path / ".github/workflows/release.yml"
    edited.write_text(edited.read_text() + "# mine\n")
    made = init(tmp_path)
    assert made.names("remove") == [".github/workflows/develop.yml"]
    assert not (tmp_path / ".github/workflows/develop.yml").exists()
    assert edited.read_text().endswith("# mine\n")
    assert any(step.startswith(".github/workflows/release.yml is not needed") for step in made.next)


@pytest.mark.parametrize(
    ("branches", "missing"),
    [
        (("main", "develop", "feature/a"), ""),
        (("master",), "no develop and no main: `git branch develop` and `git branch main`, or"),
        (("main",), "no develop: `git branch develop`, or name your branches"),
        ((), ""),
    ],
)
def test_branches_that_no_workflow_would_run_for_are_told_of(
    branches: tuple[str, ...], missing: str, tmp_path: Path
) -> None:
    repository = Repository(top=tmp_path, branches=branches)
    planned = project.plan(tmp_path, None, installed=INSTALLED, repository=repository)
    told = [step for step in planned.next if step.startswith("the workflows run for")]
    assert bool(told) is bool(missing)
    assert all(missing in step for step in told)


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
    text = (tmp_path / ".github/workflows/iris-main.yml").read_text()
    assert 'working-directory: "models/iris"' in text
    assert "../../.github/workflows/iris-main.yml" in made.names("write")
    assert not (tmp_path / MAIN).exists()
    assert not any("git init" in step for step in made.next)
    assert {change.what for change in plan(tmp_path / "models" / "iris", "iris").changes} == {
        "keep"
    }


@pytest.mark.parametrize(
    ("step", "is_told"),
    [
        ("cml comment create report.md", True),
        ("npx cml send-comment report.md", True),
        ("cml-send-comment report.md", True),
        ("# cml comment create report.md", False),
        ("cml runner launch", False),
    ],
)
def test_one_comment_is_asked_for_where_a_persons_own_workflow_comments_by_cml(
    tmp_path: Path, step: str, is_told: bool
) -> None:
    own = tmp_path / ".github" / "workflows" / "ci.yml"
    own.parent.mkdir(parents=True)
    text = f"on: push\njobs:\n  report:\n    steps:\n      - run: |\n          {step}\n"
    own.write_text(text)
    planned = plan(tmp_path)
    told = [line for line in planned.next if "report.include" in line]
    assert bool(told) == is_told
    assert not is_told or told[0].startswith("ci.yml comments by CML too")
    carry_out(planned)
    assert own.read_text() == text


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


def test_the_projects_that_are_shipped_ignore_the_same_files() -> None:
    root = Path(__file__).parents[2]
    for name in (".dockerignore", ".gitignore"):
        ours = [
            (root / folder / name).read_text()
            for folder in ("iris_example", "sentiment_example", "templates/project")
        ]
        assert ours[0] == ours[1] == ours[2]
        assert "gha-creds-*.json" in ours[0]
        larger = (root / "churn_example" / name).read_text()
        assert larger == f"{ours[0]}lake/\nscores/\n"


def test_readme_and_workflows_install_mlship_from_where_it_came(tmp_path: Path) -> None:
    for example in (None, "iris"):
        folder = tmp_path / str(example)
        init(folder, example)
        wanted = f"pip install 'mlship-cd[all] @ {SOURCE}' -r requirements.txt"
        assert wanted in (folder / "README.md").read_text()
        wanted = f"uv pip install 'mlship-cd[train,mlflow,local] @ {SOURCE}' -r requirements.txt"
        assert wanted in (folder / MAIN).read_text()
        assert "mlship" not in (folder / "requirements.txt").read_text().partition("\n")[2]


def test_without_a_source_that_jobs_reach_no_workflow_is_written_and_that_is_told(
    tmp_path: Path,
) -> None:
    unknown = Installation(origin=Origin(kind="index", version="0.1.0"), reason="no hash is known")
    made = plan(tmp_path, "iris", installed=unknown)
    carry_out(made)
    assert not (tmp_path / ".github").exists()
    [step] = [step for step in made.next if step.startswith("no workflows were written: ")]
    assert step.startswith("no workflows were written: no hash is known; set `workflows.")
    line = 'pip install "mlship-cd[all]==0.1.0" -r requirements.txt\n'
    assert line in (tmp_path / "README.md").read_text()
    settings = tmp_path / "mlship.yaml"
    settings.write_text(settings.read_text() + f"\nworkflows: {{mlship: '{SOURCE}'}}\n")
    carry_out(plan(tmp_path, installed=unknown))
    assert SOURCE in (tmp_path / MAIN).read_text()


@pytest.mark.parametrize(
    ("origin", "wanted"),
    [
        (Origin(kind="folder", url="/opt/mlship"), 'pip install "/opt/mlship[all]" -r req'),
        (
            Origin(kind="archive", url="https://h/m.whl"),
            'pip install "mlship-cd[all] @ https://h/m',
        ),
        (Origin(kind="none"), "# install mlship first, from its source\npip install -r req"),
    ],
)
def test_a_readme_installs_mlship_as_it_was_installed_here(
    tmp_path: Path, origin: Origin, wanted: str
) -> None:
    for example in (None, "iris", "sentiment", "churn"):
        folder = tmp_path / str(example)
        carry_out(plan(folder, example, installed=Installation(origin=origin, reason="unknown")))
        assert wanted in (folder / "README.md").read_text()


@pytest.mark.parametrize("source", ["mlship==0.1.0", "mlship-cd==0.1.0", "git+https://h/m@main"])
def test_a_source_that_is_not_verifiably_ours_is_refused_before_anything_is_written(
    tmp_path: Path, source: str
) -> None:
    settings = tmp_path / "mlship.yaml"
    settings.write_text(
        "name: iris\ndata: {train: d.csv, test: t.csv}\nmodel: {train: 'mine:fit'}\n"
        f"workflows: {{mlship: '{source}'}}\n"
    )
    with pytest.raises(ConfigError, match=r"workflows\.mlship"):
        plan(tmp_path)
    assert set(files(tmp_path)) == {"mlship.yaml"}


def test_workflows_are_made_from_the_file_the_environment_and_the_flags(tmp_path: Path) -> None:
    init(tmp_path)
    shown = f"git+https://example.org/environment@{'a' * 40}"
    flag = f"git+https://example.org/flag@{'b' * 40}"
    variables = {"MLSHIP_WORKFLOWS__MLSHIP": shown}
    layer = from_environment(variables)
    made = project.plan(tmp_path, None, above=[layer], installed=INSTALLED)
    [text] = [change.data.decode() for change in made.changes if change.name == MAIN]
    assert shown in text
    above = [layer, from_flags([f"workflows.mlship={flag}"])]
    made = project.plan(tmp_path, None, above=above, installed=INSTALLED)
    [text] = [change.data.decode() for change in made.changes if change.name == MAIN]
    assert flag in text
    assert shown not in text
    wrong = from_environment({"MLSHIP_WORKFLOWS__NONE": "1"})
    with pytest.raises(ConfigError, match="MLSHIP_WORKFLOWS__NONE"):
        project.plan(tmp_path, None, above=[wrong], installed=INSTALLED)


def test_a_folder_of_the_repository_must_hold_this_distribution(tmp_path: Path) -> None:
    inside = Installation(origin=Origin(kind="folder"), source="./tools")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "pyproject.toml").write_text('[project]\nname = "mlship-cd"\n')
    tmp_path = tmp_path / "repository"
    tmp_path.mkdir()
    with pytest.raises(ConfigError, match=r"\./tools has no pyproject\.toml of mlship-cd"):
        plan(tmp_path, installed=inside)
    (tmp_path / "tools").symlink_to(elsewhere)
    with pytest.raises(ConfigError, match=r"\./tools is a link that leads out of the repository"):
        plan(tmp_path, installed=inside)
    (tmp_path / "tools").unlink()
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools/pyproject.toml").write_text('[project]\nname = "mlship"\n')
    with pytest.raises(ConfigError, match=r"\./tools has no pyproject\.toml of mlship-cd"):
        plan(tmp_path, installed=inside)
    (tmp_path / "tools/pyproject.toml").write_text('[project]\nname = "mlship-cd"\n')
    carry_out(plan(tmp_path, installed=inside))
    assert "uv pip install './tools[train,mlflow,local]'" in (tmp_path / MAIN).read_text()


def test_requirements_of_a_former_version_are_renewed_and_edited_ones_refused(
    tmp_path: Path,
) -> None:
    init(tmp_path)
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("mlship[all]\nscikit-learn\npandas\n")
    assert init(tmp_path).names("update") == ["requirements.txt"]
    assert "mlship[all]" not in requirements.read_text()
    requirements.write_text("mlship[all]\nxgboost\n")
    with pytest.raises(ConfigError, match=r"requirements\.txt:1: .* unrelated package") as caught:
        plan(tmp_path)
    assert "delete the line" in caught.value.hint


def test_versions_with_hashes_are_installed_from_the_requirements_alone(tmp_path: Path) -> None:
    unknown = Installation(origin=Origin(kind="index", version="0.1.0"), reason="no hash is known")
    init(tmp_path)
    pins = "mlship-cd[all]==0.1.0 \\\n    --hash=sha256:aa\npandas==2.3.0 --hash=sha256:bb\n"
    (tmp_path / "requirements.txt").write_text(pins)
    carry_out(plan(tmp_path, installed=unknown))
    text = (tmp_path / MAIN).read_text()
    assert "pip install --require-hashes -r requirements.txt\n" in text
    (tmp_path / "requirements.txt").write_text(f"{pins}numpy==2.4.0\n")
    with pytest.raises(ConfigError, match=r"requirements\.txt:4: numpy==2\.4\.0 has no hash"):
        plan(tmp_path, installed=unknown)


def test_an_edited_workflow_that_installs_the_stranger_is_refused(tmp_path: Path) -> None:
    init(tmp_path)
    main = tmp_path / MAIN
    edited = main.read_text().replace(f"[train,mlflow,local] @ {SOURCE}", "[all]==0.1.0")
    edited = edited.replace("mlship-cd[", "mlship[")
    main.write_text(edited)
    with pytest.raises(ConfigError, match="installs another program") as caught:
        plan(tmp_path)
    assert f"--force {MAIN}" in caught.value.hint
    assert main.read_text() == edited
    assert init(tmp_path, None, MAIN).names("overwrite") == [MAIN]


def test_another_distribution_that_provides_the_module_is_told_of(tmp_path: Path) -> None:
    installed = Installation(origin=Origin(kind="git"), source=SOURCE, others=("mlship",))
    steps = plan(tmp_path, installed=installed).next
    assert any(step.startswith("uninstall mlship: it provides") for step in steps)


def test_data_that_dvc_keeps_are_fetched_by_a_job(tmp_path: Path) -> None:
    init(tmp_path, "iris")
    (tmp_path / "data/train.csv").rename(tmp_path / "data/train.csv.dvc")
    pointer = f"outs:\n- md5: {'a' * 32}\n  hash: md5\n  path: train.csv\n"
    (tmp_path / "data/train.csv.dvc").write_text(pointer)
    made = init(tmp_path)
    assert any(step.startswith("DVC keeps data/train.csv, and jobs cannot") for step in made.next)
    assert "dvc pull" in made.next
    assert "fetch-data" not in (tmp_path / MAIN).read_text()
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text("['remote \"a\"']\nurl = s3://bucket\n")
    made = init(tmp_path)
    assert MAIN in made.names("update")
    assert "--remote=s3://bucket" in (tmp_path / MAIN).read_text()
    assert any("DVC_ACCESS_KEY_ID" in step for step in made.next)
    assert not any(step.startswith("DVC keeps") for step in made.next)


def test_a_link_to_nothing_is_not_replaced(tmp_path: Path) -> None:
    for name in ("mlship.yaml", "requirements.txt", MAIN):
        project = tmp_path / name.rpartition("/")[2]
        (project / name).parent.mkdir(parents=True)
        (project / name).symlink_to("../shared/file")
        with pytest.raises(ConfigError) as caught:
            init(project)
        assert f"{name} is a link to ../shared/file, which does not exist" in caught.value.message
        assert [one.name for one in project.rglob("*") if one.is_symlink()] == [project.name]


@pytest.mark.parametrize("link", [".github", ".github/workflows", ".github/mlship", "tests"])
@pytest.mark.parametrize("inside", ["", "models/churn"])
def test_nothing_is_written_through_a_link_out_of_the_repository(
    tmp_path: Path, link: str, inside: str
) -> None:
    (tmp_path / "elsewhere").mkdir()
    top = tmp_path / "repository"
    folder = top / inside
    for place in (folder, top / ".git", (top / link).parent):
        place.mkdir(parents=True, exist_ok=True)
    place = folder / link if link == "tests" else top / link
    place.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match=r"is a link to .*elsewhere: .* would not be written"):
        init(folder)
    assert not list((tmp_path / "elsewhere").iterdir())
    place.unlink()
    place.symlink_to(tmp_path / "missing")
    with pytest.raises(ConfigError):
        init(folder)
    place.unlink()
    assert init(folder).names("write")


def test_a_linked_folder_of_the_repository_may_have_tests_and_no_workflows(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name / "kept").mkdir(parents=True)
    (tmp_path / "one/tests").symlink_to("kept")
    assert "tests/sanity/test_served_model.py" in init(tmp_path / "one").names("write")
    (tmp_path / "two/.github").symlink_to("kept")
    with pytest.raises(ConfigError, match=r"\.github is a link to kept"):
        init(tmp_path / "two")


def test_what_a_killed_init_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    init(tmp_path)
    workflow = tmp_path / MAIN
    workflow.unlink()
    dead = 1 << 22  # the highest number of a process on Linux is one less
    ours = workflow.with_name(f".main.yml.{dead}.tmp")
    others = [
        workflow.with_name(name)
        for name in (f".main.yml.{os.getppid()}.tmp", ".main.yml.x.tmp", f".mine.yml.{dead}.tmp")
    ]
    for path in (ours, *others):
        path.write_text("name: m")
    init(tmp_path)
    assert workflow.exists()
    assert not ours.exists()
    assert all(path.exists() for path in others)


def test_a_second_init_asks_for_what_is_left_to_do(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / ".github" / "workflows").mkdir(parents=True)
    (tmp_path / ".github" / "workflows" / "ci.yml").write_text("- run: cml comment create a.md\n")
    first = init(tmp_path)
    assert 'git add -A && git commit -m "Start with mlship"' in first.next
    assert any("name its tables and plots in `report.include`" in step for step in first.next)
    settings = tmp_path / "mlship.yaml"
    settings.write_text(settings.read_text() + "\nreport: {include: [metrics.csv]}\n")
    committed = [FileVersion("mlship.yaml", settings.read_bytes())]
    second = plan(tmp_path, versions=committed)
    assert not any("git commit" in step for step in second.next)
    (told,) = [step for step in second.next if "ci.yml comments by CML too" in step]
    assert told.endswith("remove that step, if the comment of mlship shows all by `report.include`")
    (tmp_path / MAIN).unlink()
    later = plan(tmp_path, None, [MAIN], versions=committed).next
    assert 'git add -A && git commit -m "Update the files of mlship"' in later
