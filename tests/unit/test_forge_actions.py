"""What a GitHub runner reads of us: nothing that a user wrote can be a command to it."""

import json
from pathlib import Path

import pytest

from mlship.adapters.forges.summary import LIMIT, StepSummary
from mlship.cli import actions, output
from mlship.cli.progress import Lines
from mlship.domain.job import Job, inert, of
from mlship.errors import ConfigError, UnavailableError
from tests.harness.runner_commands import Command, obeyed

HOSTILE = 'x";touch /tmp/pwn;#\nurl<<EOF\nhttps://evil.example\nEOF\nurl=https://evil.example'


def read(path: Path) -> dict[str, str]:
    """Read outputs as the runner does: `name=value` or `name<<delimiter`."""
    found, lines = {}, iter(path.read_text().split("\n"))
    for line in lines:
        name, heredoc, end = line.partition("<<")
        if heredoc and "=" not in name:
            value = []
            for inner in lines:
                if inner == end:
                    break
                value.append(inner)
            found[name] = "\n".join(value)
        elif "=" in line:
            name, _, text = line.partition("=")
            found[name] = text
    return found


def test_a_value_of_many_lines_sets_no_other_output(tmp_path: Path) -> None:
    path = tmp_path / "outputs"
    actions.set_outputs(path, {"branch": HOSTILE, "url": "https://good.example"})
    actions.set_outputs(path, {"more": "1"})
    assert read(path) == {"branch": HOSTILE, "url": "https://good.example", "more": "1"}


def test_a_guessed_delimiter_would_be_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="EOF"):
        actions.set_outputs(tmp_path / "outputs", {"branch": HOSTILE}, delimiter="EOF")
    assert not (tmp_path / "outputs").exists()


def test_outputs_that_cannot_be_written_are_told(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="cannot write the step's outputs"):
        actions.set_outputs(tmp_path / "no" / "outputs", {"url": "x"})


def test_annotations_are_escaped_as_documented() -> None:
    line = actions.annotation("error", "50%\r\n::add-mask::x", title="a:b,c")
    assert line == "::error title=a%3Ab%2Cc::50%25%0D%0A::add-mask::x"


COMMANDS = [
    "::set-output name=release::evil",
    "  ::stop-commands::x",
    "one\n\n\t::error::x",
    "one\r::add-mask::x",
    "\u2028\u00a0::warning::x",
    "one\n\t##[error]x",
    "Fix it ##[add-mask]secret ##[set-output name=release]evil",
    "##[group]::error::x",
]


def shown(text: str) -> None:
    """Print a text in every way that a command has."""
    output.line(text)
    output.as_json({text: text})
    output.table(text, (text, "b"), [(text, "b" * 200), ("b" * 200, text)])
    output.drawn(lambda console: console.print(text, markup=False))
    output.error(ConfigError(text, hint=text), json=True, annotate=False)
    Lines().note(text)
    Lines(folded=True).started("train")


@pytest.mark.parametrize("text", COMMANDS)
def test_nothing_that_we_print_is_a_command(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert obeyed(text), "a runner obeys the text as it is"
    shown(text)
    told = capsys.readouterr()
    assert obeyed(told.out + told.err) == [Command("group", "train")]


def test_json_says_the_same_as_before(capsys: pytest.CaptureFixture[str]) -> None:
    for text in COMMANDS:
        output.as_json({"subject": text})
        assert json.loads(capsys.readouterr().out) == {"subject": text}


def test_text_without_a_command_is_printed_as_it_is() -> None:
    text = "tests/unit/test_x.py::test_y failed ## [see] a::b"
    assert inert(text) == text


def test_an_error_is_an_annotation_too(capsys: pytest.CaptureFixture[str]) -> None:
    output.error(ConfigError("100% wrong\nhere"), json=False, annotate=True)
    assert "::error title=mlship::100%25 wrong%0Ahere" in capsys.readouterr().err


def test_a_notice_is_for_jobs_alone(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    output.notice("not posted")
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    output.notice("not posted\n::error::x")
    told = capsys.readouterr().err
    assert obeyed(told) == [Command("notice", "not posted%0A::error::x")]


def test_a_job_is_told_by_its_environment() -> None:
    environment = {
        "GITHUB_REPOSITORY": "ada/iris",
        "GITHUB_RUN_ID": "7",
        "GITHUB_SERVER_URL": "https://git.example",
        "GITHUB_REF": "refs/pull/12/merge",
        "GITHUB_REF_NAME": "12/merge",
        "GITHUB_HEAD_REF": 'x";touch /tmp/pwn;#',
        "GITHUB_SHA": "a" * 40,
        "GITHUB_STEP_SUMMARY": "/run/summary",
        "GITHUB_OUTPUT": "/run/output",
    }
    assert of(environment) == Job(
        url="https://git.example/ada/iris/actions/runs/7",
        pull=12,
        branch='x";touch /tmp/pwn;#',
        commit="a" * 40,
        summary=Path("/run/summary"),
        outputs=Path("/run/output"),
    )


def test_a_push_is_told_by_its_branch_and_a_tag_is_none() -> None:
    push = {"GITHUB_REF": "refs/heads/develop", "GITHUB_REF_NAME": "develop"}
    assert of({**push, "GITHUB_REF_TYPE": "branch"}).branch == "develop"
    assert of({**push, "GITHUB_REF_TYPE": "tag"}).branch == ""
    assert of({}) == Job()


def test_a_summary_is_added_to_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "summary"
    path.write_text("before")
    assert StepSummary(path).append(lambda _: "## after\n") == path
    assert path.read_text() == "before\n## after\n"


def test_a_summary_never_grows_over_githubs_limit(tmp_path: Path) -> None:
    path = tmp_path / "summary"
    path.write_text("x" * (LIMIT - 100))
    asked: list[int] = []

    def render(room: int) -> str:
        asked.append(room)
        return "é" * (room // 2)

    assert StepSummary(path).append(render) == path
    assert asked == [99]
    assert path.stat().st_size <= LIMIT
    before = path.stat().st_size
    assert StepSummary(path).append(lambda _: "too long for it" * 10) is None
    assert path.stat().st_size == before


def test_outside_of_a_job_there_is_no_summary() -> None:
    with pytest.raises(ConfigError, match="GITHUB_STEP_SUMMARY") as told:
        StepSummary(None).append(lambda _: "text")
    assert "--markdown" in told.value.hint
