"""Settings of the workflows that GitHub would refuse, or run otherwise than they read."""

import json
from collections.abc import Mapping

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


@pytest.mark.parametrize(
    ("schedule", "reason"),
    [
        ("99 99 * * *", "minute 99 is not within 0 to 59"),
        ("0 24 * * *", "hour 24 is not within 0 to 23"),
        ("0 0 0 * *", "day of the month 0 is not within 1 to 31"),
        ("0 0 * 1-13 *", "month 1-13 is not within 1 to 12"),
        ("0 0 * * 7", "day of the week 7 is not within 0 to 6"),
        ("5-1 0 * * *", "minute 5-1 is not"),
        ("*/0 0 * * *", "minute */0 is not"),
        ("1,,2 0 * * *", "minute 1,,2 is not"),
        ("-- 0 * * *", "minute -- is not"),
        ("0 0 31 2,4 *", "no month 2,4 has a day 31"),
    ],
)
def test_a_schedule_that_never_comes_is_refused(schedule: str, reason: str) -> None:
    message, hint = complaint(f"{{evaluate: '{schedule}'}}")
    assert f"workflows.evaluate: '{schedule}': {reason}" in message
    assert "0 is Sunday" in hint


@pytest.mark.parametrize(
    "schedule",
    [
        "0 4 * * 1-5",
        "*/15 0-23/2 1,15 * *",
        "5/10 * * * *",
        "0 0 29 2 *",
        "0 0 31 2 1",
        "0 0 30,31 4 *",
    ],
)
def test_schedules_that_come(schedule: str) -> None:
    assert read(f"{{evaluate: '{schedule}'}}").evaluate == schedule


def steps(step: Mapping[str, object]) -> str:
    return json.dumps({"steps": {"after_test": [{"run": "true"}, step]}})


@pytest.mark.parametrize(
    "expression",
    [
        "github.event.pull_request.title",
        "github.head_ref",
        "github.ref_name",
        "github.ref",
        "GitHub.Head_Ref",
        "github . head_ref",
        "github['head_ref']",
        "toJSON(github)",
        "format('{0}', github.event.issue.body)",
        "inputs.reason",
        "github.event.inputs.reason",
        "github.sha || github.actor",
        "github.*",
    ],
)
def test_a_script_takes_no_text_of_an_event(expression: str) -> None:
    text = f"${{{{ {expression} }}}}"
    for step in (
        {"run": f"echo ${{{{ github.sha }}}}\necho {text}"},
        {"uses": f"actions/github-script@{'a' * 40}", "with": {"script": f"log('{text}')"}},
    ):
        message, hint = complaint(steps(step))
        assert f"workflows.steps.after_test[1]: {text} would become a part of the script" in message
        assert f'env: {{TEXT: "{text}"}}' in hint
    assert read(steps({"run": 'echo "$TEXT"', "env": {"TEXT": text}}))


@pytest.mark.parametrize(
    "text",
    [
        "github.sha",
        "github.event_name",
        "github.ref_type",
        "github.actor_id",
        "steps.a.outputs.inputs",
        "secrets.TOKEN",
        "env.github",
        "runner.os",
    ],
)
def test_a_script_may_have_other_expressions(text: str) -> None:
    assert read(steps({"run": f"echo ${{{{ {text} }}}} github.head_ref inputs.x"}))


@pytest.mark.parametrize(
    ("expression", "hint"),
    [
        ("env.WHO", 'the script has the variable WHO anyway: write "$WHO"'),
        ("env.who", "the script has the variable who anyway"),
        ("env['WHO']", "pass it as a variable"),
        ("env[vars.NAME]", "pass it as a variable"),
        ("toJSON(env)", "pass it as a variable"),
        ("format('{0}', env . WHO)", "pass it as a variable"),
    ],
)
def test_a_variable_with_a_text_of_an_event_is_no_part_of_a_script(
    expression: str, hint: str
) -> None:
    text = f"${{{{ {expression} }}}}"
    who = {"WHO": "${{ github.head_ref }}", "FIXED": "a"}
    message, told = complaint(steps({"run": f"echo {text}", "env": who}))
    assert f"{text} would become a part of the script" in message
    assert hint in told
    for env in ({}, {"WHO": "${{ github.sha }}"}):
        assert read(steps({"run": f"echo {text}", "env": env}))
    assert read(steps({"run": "echo ${{ env.FIXED }} ${{ env.OTHER }}", "env": who}))


@pytest.mark.parametrize("name", ["script", "run", "command", "inline-script", "args", "Code"])
def test_inputs_that_an_action_runs_are_scripts(name: str) -> None:
    text = "${{ github.event.pull_request.title }}"
    action = {"uses": f"ada/retry@{'a' * 40}"}
    message, _ = complaint(steps(action | {"with": {name: f"echo {text}"}}))
    assert f"{text} would become a part of the script" in message
    assert read(steps(action | {"with": {"title": text}}))


@pytest.mark.parametrize(
    ("step", "says"),
    [
        ({"run": "echo ${{ envs.A }}"}, "names envs, which GitHub does not know there"),
        ({"run": "true", "if": "branch == 'main'"}, "names branch, which GitHub does not"),
        ({"run": "true", "env": {"A": "${{ A }}"}}, "names A, which GitHub does not know there"),
        ({"run": "x", "env": {"A": "${{ toJSON(secrets) }}"}}, "takes secrets without their names"),
        ({"run": "x", "env": {"A": "${{ secrets[vars.A] }}"}}, "takes secrets without their names"),
        ({"run": "true", "if": "secrets.A != ''"}, "`if` cannot name `secrets` on GitHub"),
        ({"run": "true", "if": "${{ secrets.A }}"}, "`if` cannot name `secrets` on GitHub"),
    ],
)
def test_an_expression_that_github_refuses_or_that_takes_too_much_is_refused(
    step: Mapping[str, object], says: str
) -> None:
    message, _ = complaint(steps(step))
    assert says in message


@pytest.mark.parametrize(
    "condition",
    [
        "always() && steps.train.outcome == 'success'",
        "${{ !cancelled() }} ",
        "github.event_name == 'pull_request' && vars.A != 'secrets it''s branch'",
        "hashFiles('**/uv.lock') != '' || 0x1f > 1e5 && true",
        "fromJSON(env.A).b[0] == null",
    ],
)
def test_a_condition_is_an_expression(condition: str) -> None:
    assert read(steps({"run": "detect-secrets scan # secrets", "if": condition}))


def test_the_secrets_of_own_steps_are_known_by_name() -> None:
    env = {"A": "${{ secrets.TOKEN }}", "B": "${{ secrets.OTHER || secrets.GITHUB_TOKEN }}"}
    assert read(steps({"run": "cat secrets.txt", "env": env})).steps.secrets == ["OTHER", "TOKEN"]
    assert read(steps({"run": "cat secrets.txt"})).steps.secrets == []


@pytest.mark.parametrize("minutes", [-1, 0, "-1", "five", "", "5", "x ${{ vars.A }}"])
def test_a_step_has_time(minutes: object) -> None:
    message, _ = complaint(steps({"run": "true", "timeout-minutes": minutes}))
    assert "`timeout-minutes` needs a number above 0" in message
    for right in (1, 0.5, "${{ vars.MINUTES }}"):
        assert read(steps({"run": "true", "timeout-minutes": right}))


@pytest.mark.parametrize("script", ["", "  ", "\n"])
def test_a_step_does_something(script: str) -> None:
    message, hint = complaint(steps({"run": script}))
    assert "`run` is empty" in message
    assert "a section with name, id, if, uses, with, env, run" in hint
