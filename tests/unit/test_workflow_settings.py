"""Settings of the workflows that GitHub would refuse, or run otherwise than they read."""

import json

import pytest

from mlship.config.layers import from_yaml, resolve
from mlship.config.workflows import WorkflowsConfig, matches, paths_of
from mlship.errors import ConfigError

LEAST = """
name: iris
data: {train: data/train.csv, test: data/test.csv}
model: {train: "pipeline:train"}
"""


def read(section: str) -> WorkflowsConfig:
    text = f"{LEAST}workflows: {section}"
    return resolve([from_yaml(text, "mlship.yaml")]).config.workflows


def complaint(section: str) -> tuple[str, str]:
    with pytest.raises(ConfigError) as caught:
        read(section)
    return caught.value.message, caught.value.hint


@pytest.mark.parametrize(
    ("branches", "says", "explains"),
    [
        ("{develop: main}", "branches.develop and workflows.branches.main", "develop: null"),
        ("{main: develop}", "branches.develop and workflows.branches.main", "develop: null"),
        ("{release: main}", "branches.release: main includes main", "leave `release` out"),
        ("{release: 'm*'}", "branches.release: m* includes main", "release/**"),
        ("{release: '**'}", "branches.release: ** includes develop", "release/**"),
        ("{release: develop}", "branches.release: develop includes develop", "leave `release` out"),
        ("{develop: null, release: main}", "branches.release: main includes main", "release/**"),
        ("{feature: main}", "branches.feature and workflows.branches.main", "feature/**"),
        ("{main: 'ma*n'}", "branches.main: expected a string in another format: 'ma*n'", "one"),
        ("{develop: 'dev/**'}", "branches.develop: expected a string", "not a pattern"),
    ],
)
def test_branches_with_two_workflows_for_one_are_refused(
    branches: str, says: str, explains: str
) -> None:
    message, hint = complaint(f"{{branches: {branches}}}")
    assert says in message
    assert explains in hint


@pytest.mark.parametrize(
    "branches",
    [
        "{develop: null}",
        "{develop: null, main: trunk}",
        "{develop: dev/next, main: rel/main}",
        "{release: 'release/**'}",
        "{release: 'main*/**'}",
        "{develop: null, release: rc}",
        "{feature: '**'}",
    ],
)
def test_branches_of_which_each_has_its_workflow(branches: str) -> None:
    assert read(f"{{branches: {branches}}}").branches


@pytest.mark.parametrize(
    ("pattern", "name", "does"),
    [
        ("main", "main", True),
        ("main", "mainly", False),
        ("m*", "main", True),
        ("*", "a/b", False),
        ("**", "a/b", True),
        ("release/**", "release/1/2", True),
        ("**/x.py", "x.py", True),
        ("**/x.py", "a/b/x.py", True),
        ("a.b", "axb", False),
        ("v[0-9]+.x?", "v12.", True),
        ("[", "[", False),
    ],
)
def test_a_pattern_matches_as_on_github(pattern: str, name: str, *, does: bool) -> None:
    assert matches(pattern, name) is does


@pytest.mark.parametrize(
    ("path", "pattern"),
    [
        ("./shared/**", "shared/**"),
        ("././shared/./a.csv", "shared/a.csv"),
        ("shared/", "shared/**"),
        ("./", "**"),
        ("shared//a", "shared/a"),
        ("shared dir/**", "shared dir/**"),
        (".github/actions/", ".github/actions/**"),
        ("a..b/**", "a..b/**"),
        ("!**/*.md", "!**/*.md"),
        ("!./churn/docs/", "!churn/docs/**"),
        ("!churning/**", "!churning/**"),
    ],
)
def test_paths_are_written_as_github_matches_them(path: str, pattern: str) -> None:
    assert paths_of(read(f"{{paths: ['{path}']}}"), "churn") == [pattern]


@pytest.mark.parametrize(
    "path",
    ["../x", "shared/../x", "x/..", "!../x", "/etc/**", "!/x", "-x", "", "!", 'a"b', "a'", "a\nb"],
)
def test_paths_that_never_match_are_refused_with_their_value_and_the_form(path: str) -> None:
    message, hint = complaint(f"{{paths: {json.dumps(['docs', path])}}}")
    assert "workflows.paths[1]: expected a string in another format: " in message
    assert "from the repository's top" in hint


@pytest.mark.parametrize("path", ["!churn/**", "!./churn/", "!**", "!churn/*", "!./"])
def test_paths_that_leave_out_the_project_are_refused(path: str) -> None:
    with pytest.raises(ConfigError, match="leaves out the project's own folder, churn") as caught:
        paths_of(read(f"{{paths: ['{path}']}}"), "churn")
    assert path in caught.value.message
    assert "!**/*.md" in caught.value.hint


def test_a_wrong_item_of_a_list_is_shown_with_its_form() -> None:
    text = f"{LEAST}report: {{include: [metrics.csv, ../secret]}}"
    with pytest.raises(ConfigError) as caught:
        resolve([from_yaml(text, "mlship.yaml")])
    assert "report.include[1]: expected a string in another format: '../secret'" in str(
        caught.value
    )
    assert "a glob in the project's folder" in caught.value.hint
