"""Several projects in one repository: each has workflows of its own, and none takes another's."""

import re
from pathlib import Path

import msgspec
import pytest
import yaml

from mlship import files, wire
from mlship.config.layers import from_yaml, resolve
from mlship.config.project import Config
from mlship.domain.commit import Repository
from mlship.errors import ConfigError
from mlship.templates import names, outside, workflows
from mlship.templates.project import Plan, carry_out
from tests.harness.workflows import SOURCE, config
from tests.harness.workflows import parsed as workflow
from tests.unit.test_templates import plan

KINDS = ["develop", "feature", "main", "release"]
PLACE = Path(".github/workflows")


@pytest.fixture
def top(tmp_path: Path) -> Path:
    (tmp_path / ".git").mkdir()
    return tmp_path


def init(top: Path, folder: str, name: str, *force: str) -> Plan:
    place = top / folder
    planned = plan(place, None, force)
    carry_out(planned)
    settings = place / "mlship.yaml"
    settings.write_text(re.sub(r"(?m)^name: .*$", f"name: {name}", settings.read_text()))
    return planned


def texts(top: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted((top / PLACE).iterdir())}


def former(top: Path, folder: str) -> dict[str, str]:
    """Write workflows into a repository as the version before named them."""
    written = workflows.render(config("one machine"), SOURCE, folder)
    for name, text in written.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(text)
    return {Path(name).name: text for name, text in written.items()}


def test_each_project_is_named_by_its_folder_and_leaves_the_others_alone(top: Path) -> None:
    init(top, "", "all")
    init(top, "models/churn", "churn")
    before = texts(top)
    init(top, "models/fraud", "fraud")
    after = texts(top)
    assert sorted(after) == sorted(
        f"{prefix}{kind}.yml" for prefix in ("", "churn-", "fraud-") for kind in KINDS
    )
    assert {name: after[name] for name in before} == before


def test_names_groups_and_filters_are_the_projects_own(top: Path) -> None:
    for folder in ("", "models/churn", "models/fraud", "old/churn"):
        init(top, folder, folder.replace("/", "-") or "all")
    parsed = {name: workflow(text) for name, text in texts(top).items()}
    assert len(parsed) == 16
    assert len({one["name"] for one in parsed.values()}) == 16
    assert len({one["concurrency"]["group"] for one in parsed.values()}) == 16
    checks = [job["name"] for one in parsed.values() for job in one["jobs"].values()]
    assert "train, test and report of churn" in checks
    assert {name.removesuffix("-main.yml") for name in parsed if name.endswith("-main.yml")} == {
        "churn",
        "fraud",
        "old-churn",
    }
    churn = parsed["old-churn-main.yml"]
    assert churn["defaults"]["run"]["working-directory"] == "old/churn"
    # YAML reads the key `on` as true.
    assert churn[True]["push"]["paths"] == ["old/churn/**", f"{PLACE}/old-churn-main.yml"]
    assert "paths" not in parsed["main.yml"][True]["push"]


def test_a_project_keeps_its_names_whoever_comes(top: Path) -> None:
    init(top, "a/churn", "one")
    init(top, "b/churn", "two")
    before = texts(top)
    assert {name.rpartition("-")[0] for name in before} == {"churn", "b-churn"}
    for folder in ("b/churn", "a/churn"):
        assert not [one for one in plan(top / folder).changes if one.what != "keep"]
    assert texts(top) == before


@pytest.mark.parametrize(
    ("folder", "prefix"),
    [
        ("", ""),
        ("models/churn", "churn-"),
        ("models/Iris of 2024", "Iris-of-2024-"),
        ("models/été", "été-"),
        ("models/$(id)", "id-"),
        ("models/\U0001f600", "models-"),
    ],
)
def test_any_folder_gives_a_name_that_files_and_groups_can_have(folder: str, prefix: str) -> None:
    assert names.prefix(folder, {}) == prefix.replace("été", "t")


def test_a_name_of_last_resort_has_a_separator_and_a_former_one_stays() -> None:
    taken = {name: names.workflow_of("") for name in names.names("sub-")}
    prefix = names.prefix("sub", taken)
    assert re.fullmatch(r"sub-[0-9a-f]{8}-", prefix)
    text = "defaults:\n  run:\n    working-directory: sub\n"
    former = {f"{prefix.removesuffix('-')}main.yml": names.workflow_of(text)}
    assert names.prefix("sub", taken | former) == prefix.removesuffix("-")
    assert names.prefix("sub", {f"{prefix}main.yml": names.workflow_of(text)}) == prefix


def test_a_folder_that_github_would_take_for_an_expression_is_refused(top: Path) -> None:
    with pytest.raises(ConfigError, match="an expression") as caught:
        init(top, "models/e${{ github.token }}", "churn")
    assert caught.value.hint == "rename the folder"
    assert not (top / PLACE).exists()


def test_a_pattern_fits_the_projects_folder_and_nothing_else() -> None:
    text = workflows.render(config("one machine"), SOURCE, "models/[a]*", "a-")[
        f"{PLACE}/a-main.yml"
    ]
    assert yaml.safe_load(text)[True]["push"]["paths"][0] == r"models/\[a\]\*/**"


def paths(
    settings: Config, source: str = SOURCE, repository: Repository | None = None
) -> list[str] | None:
    """Return the paths of a project in models/churn, without its folder and its workflow."""
    folder = "models/churn"
    elsewhere = outside.patterns_of(settings, folder, repository=repository)
    text = workflows.render(settings, source, folder, "churn-", elsewhere=elsewhere)
    push = yaml.safe_load(text[f"{PLACE}/churn-main.yml"])[True]["push"]
    if "paths" not in push:
        return None
    found: list[str] = push["paths"]
    assert (found[0], found[-1]) == (f"{folder}/**", f"{PLACE}/churn-main.yml")
    return found[1:-1]


def test_what_training_reads_outside_of_the_folder_and_a_mlship_in_the_repository_count() -> None:
    settings = config("one machine")
    data = msgspec.structs.replace(settings.data, train="../../data/train.csv")
    settings = msgspec.structs.replace(settings, data=data)
    assert paths(settings) == ["data/train.csv", "data/train.csv.dvc"]
    assert "tools/mlship/**" in (paths(settings, "./tools/mlship") or [])
    more = msgspec.structs.replace(settings.workflows, paths=("shared/**",))
    settings = msgspec.structs.replace(settings, workflows=more)
    assert "shared/**" in (paths(settings) or [])
    assert paths(settings, ".") is None


OUTSIDE = """
name: churn
data: {train: data/train.csv, test: ../../tables/held}
model:
  command: >-
    python ../../shared/train.py --config=../../conf/a.yaml --all '../../reports/*/a.csv'
    ../common/lookup.json https://example.org/../x
  saved: model.joblib
tests: {unit: "../../shared/tests", sanity: ["../../checks/test_it.py", tests/sanity]}
image: {extend: ../../shared/Dockerfile, builder: docker}
workflows: {steps: {before_train: [{run: "pip install ../../libs/tools"}]}}
"""


def test_all_files_outside_of_the_folder_that_the_settings_name_count() -> None:
    settings = resolve([from_yaml(OUTSIDE, "mlship.yaml")]).config
    assert set(paths(settings) or []) == {
        *("tables/held", "tables/held.dvc", "tables/held/**"),
        *("shared/train.py", "shared/*.py", "conf/a.yaml"),
        "models/common/lookup.json",
        *("shared/tests", "shared/tests/**", "checks/test_it.py"),
        *("shared/Dockerfile", "shared/Dockerfile/**"),
        *("reports", "reports/**"),
        *("libs/tools", "libs/tools/**"),
    }


def test_files_of_requirements_and_behind_links_count(top: Path) -> None:
    for name in ("req/more.txt", "req/limits.txt", "libs/tools/pyproject.toml", "data/real.csv"):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).touch()
    (top / "req/more.txt").write_text("-c limits.txt\n")
    folder = top / "models/churn"
    (folder / "data").mkdir(parents=True)
    (folder / "requirements.txt").write_text("-r ../../req/more.txt\npandas\n-e ../../libs/tools\n")
    (top / "vendored/.git").mkdir(parents=True)
    (top / "vendored/lookup").mkdir()
    links = {
        "models/churn/data/train.csv": "../../../data/link.csv",
        "data/link.csv": "real.csv",
        "models/churn/shared": "../../vendored/lookup",
        "models/churn/out": "/etc/hosts",
        "models/churn/inside": "data",
        "other/link": "../req",
    }
    (top / "other").mkdir()
    for link, target in links.items():
        (top / link).symlink_to(target)
    repository = Repository(top=top, links=tuple(links))
    assert set(paths(config("one machine"), repository=repository) or []) == {
        *("req/more.txt", "req/limits.txt", "libs/tools/**"),
        *("data/link.csv", "data/real.csv"),
        *("vendored", "vendored/lookup/**"),
    }


def test_the_names_of_a_former_version_are_given_up(top: Path) -> None:
    former(top, "models/churn")
    planned = init(top, "models/churn", "churn")
    assert sorted(texts(top)) == [f"churn-{kind}.yml" for kind in KINDS]
    assert sorted(planned.names("remove")) == [f"../../{PLACE}/{kind}.yml" for kind in KINDS]
    assert not init(top, "models/churn", "churn").names("remove")


def test_an_edited_workflow_of_a_former_version_stays_until_it_is_moved(top: Path) -> None:
    written = former(top, "models/churn")
    edited = written["main.yml"].replace("timeout-minutes: 45", "timeout-minutes: 90")
    (top / PLACE / "main.yml").write_text(edited)
    planned = init(top, "models/churn", "churn")
    assert texts(top)["main.yml"] == edited
    assert "churn-main.yml" not in texts(top), "one push would be deployed twice"
    [told] = [step for step in planned.next if "was edited" in step]
    old, new = f"../../{PLACE}/main.yml", f"../../{PLACE}/churn-main.yml"
    assert f"`git mv {old} {new}`" in told
    (top / PLACE / "main.yml").rename(top / PLACE / "churn-main.yml")
    init(top, "models/churn", "churn")
    assert texts(top)["churn-main.yml"] == edited


def test_a_workflow_of_a_persons_own_is_none_of_a_former_version(top: Path) -> None:
    (top / PLACE).mkdir(parents=True)
    own = "name: main\non: push\ndefaults:\n  run:\n    working-directory: models/churn\njobs: {}\n"
    (top / PLACE / "main.yml").write_text(own)
    init(top, "models/churn", "churn")
    assert texts(top)["main.yml"] == own
    assert "churn-main.yml" in texts(top)


def test_a_workflow_of_a_former_version_without_its_first_line_counts_as_edited(top: Path) -> None:
    written = former(top, "models/churn")
    (top / PLACE / "main.yml").write_text(written["main.yml"].partition("\n")[2])
    planned = init(top, "models/churn", "churn")
    assert "churn-main.yml" not in texts(top), "one push would be deployed twice"
    assert any("main.yml was edited" in step for step in planned.next)


def test_an_edited_workflow_of_a_former_version_is_renewed_by_force(top: Path) -> None:
    written = former(top, "models/churn")
    (top / PLACE / "main.yml").write_text(written["main.yml"] + "# mine\n")
    init(top, "models/churn", "churn", f"../../{PLACE}/main.yml")
    assert sorted(texts(top)) == [f"churn-{kind}.yml" for kind in KINDS]


def test_a_former_versions_names_are_not_taken_from_another_project(top: Path) -> None:
    written = former(top, "models/churn")
    init(top, "models/fraud", "fraud")
    assert {name: texts(top)[name] for name in written} == written
    with pytest.raises(
        ConfigError,
        match=r"main\.yml belongs to the project in models/churn|"
        r"feature\.yml belongs to",
    ) as caught:
        plan(top)
    assert "`mlship init models/churn`" in caught.value.hint
    init(top, "models/churn", "churn")
    init(top, "", "all")
    assert "main.yml" in texts(top)


def test_a_workflow_that_a_person_wrote_is_not_taken(top: Path) -> None:
    (top / PLACE).mkdir(parents=True)
    own = "name: churn-main\non: push\njobs: {}\n"
    (top / PLACE / "churn-main.yml").write_text(own)
    init(top, "models/churn", "churn")
    assert texts(top)["churn-main.yml"] == own
    assert "models-churn-main.yml" in texts(top)


def test_two_projects_of_one_name_are_told_of(top: Path) -> None:
    init(top, "models/churn", "churn")
    init(top, "models/fraud", "churn")
    planned = plan(top / "models/fraud")
    assert any("models/churn is called churn too" in step for step in planned.next)
    assert files.is_untouched(texts(top)["fraud-main.yml"], "`mlship init` from mlship.yaml")


def test_a_new_project_inside_another_one_is_warned_of(top: Path) -> None:
    assert not init(top, "", "all").warning
    assert not init(top, "", "all").warning
    warning = init(top, "models/churn", "churn").warning
    assert warning.startswith(f"this is a new project inside the project in {top};")
    assert not init(top, "models/churn", "churn").warning, "it is there"
    assert not init(top, "other", "other").warning.count("churn")
    (top / "apart" / ".git").mkdir(parents=True)
    assert not init(top, "apart", "apart").warning, "it is a repository of its own"


@pytest.mark.parametrize("name", ["main.yml", "Release.yml"])
def test_beside_a_workflow_of_a_persons_own_ours_have_other_names(top: Path, name: str) -> None:
    (top / PLACE).mkdir(parents=True)
    own = "name: main\non: push\njobs: {}\n"
    (top / PLACE / name).write_text(own)
    planned = init(top, "", "iris")
    assert sorted(texts(top)) == sorted([name, *(f"mlship-{kind}.yml" for kind in KINDS)])
    assert texts(top)[name] == own
    assert yaml.safe_load(texts(top)["mlship-main.yml"])["name"] == "mlship-main"
    assert not [step for step in planned.next if "edited" in step or "--force" in step]
    (top / PLACE / name).unlink()
    assert not [one for one in plan(top).changes if one.what != "keep"], "it keeps its names"
    (top / PLACE / name).write_text(own + "# pip install mlship\n")
    with pytest.raises(ConfigError, match="installs another program") as caught:
        init(top, "", "iris")
    assert "--force" not in caught.value.hint


def test_workflows_give_way_to_one_that_a_person_adds_later(top: Path) -> None:
    init(top, "", "iris")
    (top / PLACE / "main.yml").write_text("name: main\non: push\njobs: {}\n")
    init(top, "", "iris")
    assert sorted(texts(top)) == sorted(["main.yml", *(f"mlship-{kind}.yml" for kind in KINDS)])


def test_a_project_gets_a_name_that_no_other_has(top: Path) -> None:
    found = []
    for folder in ("models/churn", "old/churn"):
        carry_out(plan(top / folder))
        found.append(yaml.safe_load((top / folder / "mlship.yaml").read_text())["name"])
    assert found == ["churn", "old-churn"]


def test_what_is_in_the_way_of_a_file_is_named(top: Path) -> None:
    folder = top / "models/churn"
    (top / PLACE / "churn-main.yml").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"churn-main\.yml is not a file"):
        init(top, "models/churn", "churn")
    (top / PLACE / "churn-main.yml").rmdir()
    (top / PLACE).rmdir()
    (top / ".github").rmdir()
    (top / ".github").write_text("mine")
    with pytest.raises(ConfigError, match=r"\.github is not a folder"):
        init(top, "models/churn", "churn")
    (top / ".github").unlink()
    init(top, "models/churn", "churn")
    for name in ("mlship.yaml/x", "x" * 300, f"{'x' * 300}/y", "y" * 252):
        with pytest.raises(ConfigError, match=r"is not a folder|too long"):
            plan(folder / name)


def test_workflows_that_a_sparse_checkout_leaves_out_are_not_written(top: Path) -> None:
    init(top, "models/churn", "churn")
    kept = top / PLACE / "churn-main.yml"
    kept.unlink()
    name = "../../.github/workflows/churn-main.yml"
    for force in ((), (name,)):
        planned = plan(top / "models/churn", force=force, sparse=[f"{PLACE}/churn-main.yml"])
        [change] = [change for change in planned.changes if change.name == name]
        assert (change.what, change.is_sparse) == ("skip", True)
        assert "`git sparse-checkout add .github/workflows`" in change.reason
        carry_out(planned)
        assert not kept.exists()


def test_a_project_that_a_sparse_checkout_leaves_out_does_not_begin_anew(top: Path) -> None:
    with pytest.raises(ConfigError, match="`git sparse-checkout add models/churn`"):
        plan(top / "models/churn", sparse=["models/churn/mlship.yaml"])


def test_workflows_of_a_folder_that_was_moved_are_named(top: Path) -> None:
    init(top, "models/churn", "churn")
    init(top, "models/fraud", "fraud")
    assert not [step for step in plan(top / "models/fraud").next if "no mlship.yaml" in step]
    (top / "models/churn").rename(top / "models/retention")
    said = [step for step in plan(top / "models/retention").next if "no mlship.yaml" in step]
    names = " ".join(f"{PLACE}/churn-{kind}.yml" for kind in KINDS)
    which = "workflows still work in models/churn, which has no mlship.yaml any more"
    assert said == [f"{which}: `git -C {top} rm {names}`"]
    elsewhere = plan(top / "models/fraud", sparse=["models/churn/mlship.yaml"])
    assert not [step for step in elsewhere.next if "no mlship.yaml" in step]


def test_files_that_git_ignores_are_named(top: Path) -> None:
    planned = plan(top / "models/churn")
    assert planned.noting_ignored(list) == planned
    noted = planned.noting_ignored(lambda paths: [path for path in paths if ".yml" not in path])
    assert noted.next[1:] == planned.next
    assert noted.next[0].startswith("git ignores ../../.github/workflows/churn-develop.yml, ")
    assert "GitHub runs no workflow that is in no commit" in noted.next[0]


def test_a_command_above_projects_names_them(top: Path) -> None:
    init(top, "models/churn", "churn")
    with pytest.raises(ConfigError) as caught:
        wire.read(top / "mlship.yaml", {}, ())
    assert caught.value.hint.startswith("there is a project in models/churn: run the command there")
    init(top, "models/fraud", "fraud")
    (top / "node_modules" / "other").mkdir(parents=True)
    (top / "node_modules" / "other" / "mlship.yaml").write_text("name: other\n")
    with pytest.raises(ConfigError) as caught:
        wire.read(top / "mlship.yaml", {}, ())
    assert "projects in models/churn, models/fraud: " in caught.value.hint
    assert f"--config {top}/models/churn/mlship.yaml" in caught.value.hint
    with pytest.raises(ConfigError) as caught:
        wire.read(top / "models" / "churn" / "other.yaml", {}, ())
    assert "`mlship init`" in caught.value.hint


def test_a_new_project_above_others_is_warned_of_and_takes_nothing_of_theirs(top: Path) -> None:
    script = "import joblib\njoblib.dump(model.fit(rows), 'model.joblib')\n"
    init(top, "models/churn", "churn")
    for place in ("models/churn", "tools/mlship/benchmarks"):
        (top / place).mkdir(parents=True, exist_ok=True)
        (top / place / "train.py").write_text(script)
    (top / "tools/mlship/pyproject.toml").write_text('[project]\nname = "mlship-cd"\n')
    planned = plan(top)
    assert "above the project in models/churn; " in planned.warning
    assert f"`mlship init {top}/models/churn`" in planned.warning
    assert planned.proposed == ""
    (top / "train.py").write_text(script)
    assert "python train.py" in plan(top).proposed
    carry_out(planned)
    assert plan(top).warning == ""


def test_paths_are_shown_and_taken_from_where_the_user_stands(
    top: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(top)
    init(top, "models/churn", "churn")
    planned = plan(Path("models/churn"), None)
    shown = [planned.shown(change.name) for change in planned.changes]
    assert {"models/churn/mlship.yaml", ".github/workflows/churn-main.yml"} <= set(shown)
    name = ".github/workflows/churn-main.yml"
    (top / name).write_text("# mine\n")
    for forced in (name, f"../../{name}"):
        overwritten = plan(Path("models/churn"), None, [forced]).names("overwrite")
        assert overwritten == [f"../../{name}"]
    with pytest.raises(ConfigError, match="is not a file that mlship init writes"):
        plan(Path("models/churn"), None, [".github/workflows/churn-other.yml"])
