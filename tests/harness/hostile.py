"""A repository in which everything that a contributor may name is an attack.

What runs in spite of all leaves a file `pwn-STEP` in the home folder of the runner. `CARELESS` is
the control: a workflow that makes the same texts a part of its scripts.
"""

import csv
import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from markdown_it import MarkdownIt

from tests.harness.act import Ran, Runner, init
from tests.harness.pictures import png
from tests.harness.repositories import QUICK
from tests.harness.runner_commands import Command, obeyed
from tests.stand_ins.github_state import State

REPOSITORY = "ada/iris"

_TOUCH = "touch $HOME/pwn-$GITHUB_ACTION"
_MARKUP = "</details><script>x</script> ![x](https://evil.example/x.png) @everyone #1 | x |"
_ORDERS = "##[set-output name=release]evil"
LINE = f'x"; {_TOUCH}; # $({_TOUCH}) `{_TOUCH}` ${{{{ github.token }}}} {_MARKUP} {_ORDERS}'
TEXT = f"""{LINE}
::set-output name=release::evil
release<<EOF
evil
EOF
::error::evil
"""
# What git allows in the name of a branch or a tag: no space, no colon, no question mark.
REF = 'x";{0};#$({0})`{0}`${{{{github.token}}}}|<script>@everyone'.format(
    _TOUCH.replace(" ", "${IFS}")
)
FEATURE = f"feature/{REF}"
# No slash, for the name of a file.
FILE = 'x";{0};#$({0})`{0}`|<script>@everyone\n::error::evil\r##[error]evil'.format(
    "cd && touch pwn-$GITHUB_ACTION"
)

_FIELDS = {
    "ref_name": "github.ref_name",
    "head_ref": "github.head_ref",
    "title": "github.event.pull_request.title",
    "body": "github.event.pull_request.body",
    "login": "github.event.pull_request.user.login",
    "message": "github.event.head_commit.message",
    "author": "github.event.head_commit.author.name",
    "email": "github.event.head_commit.author.email",
    "release": "inputs.release",
    "number": "inputs.pull_request",
}
_STEP = """
      - id: {id}
        if: always()
        run: echo "${{{{ {field} }}}}"
"""
CARELESS = """
on:
  push:
  pull_request:
  workflow_dispatch:
    inputs: {release: {type: string}, pull_request: {type: string}}
jobs:
  greet:
    runs-on: ubuntu-latest
    steps:
""" + "".join(_STEP.format(id=name, field=field) for name, field in _FIELDS.items())

# act obeys what begins a line, and shows it again behind a sign.
_OBEYED = re.compile(r"^\[[^\]]*\]   +[^\s|]+  ::([\w-]+):*(.*)$", re.MULTILINE)
_BEFORE = re.compile(r"^\[[^\]]*\]   \| ", re.MULTILINE)

_FAILS_FOR_MAIN = f"""
import os


def test_it():
    if os.environ.get("GITHUB_BASE_REF") == "main":
        print({TEXT!r})
        raise ValueError({TEXT!r})
"""


def write(repository: Path, places: Path) -> str:
    """Make the repository on the branch `FEATURE`, with a tag, and return its commit.

    Args:
        repository: where it is to be.
        places: a folder for ledger and store, which its jobs share.
    """
    # The ledger is one that jobs share, so that what the code of a branch says is claimed there.
    sets = (f"ledger.uri={places / 'ledger'}", "workflows.public_data=true")
    init(repository, "--example", "iris", sets=sets)
    _rename(repository)
    (repository / "data" / "test.csv").rename(repository / "data" / f"{FILE}.csv")
    unit = repository / "tests" / "unit"
    (unit / "test_pipeline.py").unlink()  # it loads a lot, in every run
    (unit / f"test_{FILE}.py").write_text(_FAILS_FOR_MAIN)
    code = repository / "pipeline.py"
    seam = "    features = params.get("
    assert seam in code.read_text()
    code.write_text(code.read_text().replace(seam, f'    print(params.get("note", ""))\n{seam}'))
    settings = repository / "mlship.yaml"
    values = yaml.safe_load(settings.read_text())
    values["data"]["test"] = f"data/{FILE}.csv"
    values["model"]["environment"] = ["GITHUB_BASE_REF"]  # that test reads it
    values["model"]["params"]["note"] = TEXT
    values["report"] = {"include": ["shown/*"]}
    _show(repository / "shown")
    for kind in ("store", "ledger"):
        values[kind] = {"kind": "directory", "uri": str(places / kind)}
    settings.write_text(yaml.safe_dump(values))
    return _committed(repository)


def _show(folder: Path) -> None:
    """Write what the report is to show: a table, a text, a picture, and a way out."""
    folder.mkdir()
    with (folder / f"{FILE}.csv").open("w", newline="") as file:
        csv.writer(file).writerows([[LINE, TEXT], [TEXT, LINE, "one more"]])
    (folder / f"{FILE}.md").write_text(f"```\n{TEXT}\n```\n# evil\n{LINE}")
    (folder / f"{FILE}.png").write_bytes(png())
    (folder / "none.png").write_text(LINE)
    (folder / "out.txt").symlink_to("/etc/passwd")


def _rename(repository: Path) -> None:
    """Give a class and a column other names: in the data, the workload, the code and the tests."""
    names = {"setosa": TEXT, "petal_width": LINE, "probability_setosa": f"probability_{TEXT}"}
    for path in (repository / "data").glob("*.csv"):
        with path.open(newline="") as file:
            rows = [[names.get(cell, cell) for cell in row] for row in csv.reader(file)]
        with path.open("w", newline="") as file:
            csv.writer(file).writerows(rows)
    sanity = repository / "tests" / "sanity" / "test_served_model.py"
    # An answer is JSON, in which the name is written in another way.
    sanity.write_text(sanity.read_text().replace(' "petal_width" in', ' "evil" in'))
    code = repository / "pipeline.py"
    for path in (repository / "workload" / "staging.jsonl", sanity, code):
        quoted: Callable[[str], str] = repr if path.suffix == ".py" else json.dumps
        text = path.read_text()
        for before, after in names.items():
            text = text.replace(f'"{before}"', quoted(after))
        path.write_text(text)


def _committed(repository: Path) -> str:
    identity = ("-c", f"user.name={LINE}", "-c", f"user.email={LINE}")
    for arguments in (
        ("init", "-q", "-b", FEATURE),
        ("remote", "add", "origin", f"https://github.com/{REPOSITORY}.git"),
        ("add", "-A"),
        (*identity, "commit", "-q", "-m", TEXT),
        ("tag", REF),
        ("rev-parse", "HEAD"),
    ):
        done = subprocess.run(
            ["git", *QUICK, *arguments], cwd=repository, check=True, capture_output=True, text=True
        )
    return done.stdout.strip()


def github(commit: str) -> State:
    """Return a GitHub that has the commit on `FEATURE`, and a develop that is ahead of main.

    The job's token is `job`, and `forks` that of a job of a fork: it may read. act gives all jobs
    the same token; that only the job `comment` may write is a matter of the workflow's text.
    """
    state = State()
    for login in ("ada", LINE):
        state.add_account(login)
    state.add_repository(REPOSITORY)
    state.add_token("job", "github-actions[bot]", pull_requests="write", contents="write")
    state.add_token("forks", "github-actions[bot]", pull_requests="read", contents="read")
    for branch in ("main", "develop", FEATURE):
        state.commit(REPOSITORY, branch, "b" * 40, "ada@example.org")
    state.commit(REPOSITORY, "develop", "c" * 40, LINE)
    state.commit(REPOSITORY, FEATURE, commit, LINE)
    return state


def push(branch: str) -> dict[str, Any]:
    """Return the event of a push."""
    person = {"name": LINE, "email": LINE, "username": LINE}
    commit = {"message": TEXT, "author": person, "committer": person}
    return {"ref": f"refs/heads/{branch}", "head_commit": commit, "commits": [commit]}


def pull_request(state: State, base: str, *, fork: str = "") -> dict[str, Any]:
    """Open a pull request from `FEATURE` and return its event."""
    commit = state.head_of(REPOSITORY, FEATURE)
    source = {"head_repository": fork, "head_sha": commit} if fork else {}
    made = state.open_pull(
        REPOSITORY, LINE, head=FEATURE, base=base, title=LINE, body=TEXT, **source
    )
    pull = {
        "number": made["number"],
        "title": LINE,
        "body": TEXT,
        "user": {"login": LINE},
        "head": {"ref": FEATURE, "sha": commit, "repo": {"full_name": fork or REPOSITORY}},
        "base": {"ref": base, "repo": {"full_name": REPOSITORY}},
    }
    return {"action": "opened", "number": made["number"], "pull_request": pull}


def by_hand(**inputs: str) -> dict[str, Any]:
    """Return the event of a person who starts a workflow, on a tag."""
    return {"ref": f"refs/tags/{REF}", "inputs": inputs}


def ran(
    runner: Runner, workflow: str, name: str, event: Mapping[str, Any], *, by: str = "job"
) -> Ran:
    """Run a workflow for an event; `by` is the job's token."""
    payload = runner.home / "event.json"
    payload.write_text(json.dumps(event))
    return runner.run(workflow, name, payload=payload, secrets={"GITHUB_TOKEN": by}, seconds=600)


def end(runner: Runner) -> None:
    """Take away the folders of the jobs, and wait until what they left running has noticed."""
    shutil.rmtree(runner.home / ".cache", ignore_errors=True)
    until = time.monotonic() + 60
    while (alive := _processes(str(runner.home))) and time.monotonic() < until:
        time.sleep(0.2)
    assert not alive


def _processes(about: str) -> list[str]:
    """Return the command lines that name something."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has ended
            found.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return [line for line in found if about in line]


def marks(runner: Runner) -> set[str]:
    """Return the steps in which a text was run, and forget them."""
    found = list(runner.home.glob("pwn*"))
    for path in found:
        path.unlink()
    return {path.name.removeprefix("pwn-") for path in found}


def harms(text: str) -> list[str]:
    """Return what a text of Markdown does to a reader besides showing: tags, links, mentions.

    A block of code mentions nobody.
    """
    page = str(MarkdownIt("gfm-like", {"html": True, "linkify": False}).render(text))
    page = re.sub(r"<pre><code[^>]*>[^<]*</code></pre>", "", page)
    found = re.findall(r"<(?:script|img)\b|(?:href|src)=.https?://evil|@everyone", page)
    opened, closed = page.count("<details>"), page.count("</details>")
    return found + ["</details>"] * (closed - opened)


def orders(log: str) -> list[Command]:
    """Return what a GitHub runner would obey in the log, and what act has obeyed."""
    by_act = [Command(*found) for found in _OBEYED.findall(log)]
    return [*by_act, *obeyed(_BEFORE.sub("", _OBEYED.sub("", log)))]
