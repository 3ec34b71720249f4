"""Every mistake gets a clear error with a next step and the right exit code; nothing is half-made.

The table is in `tests/mistakes`; here it is met row by row, and after it what takes more than one
command.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from tests.mistakes.kept import damage, files, predictions
from tests.mistakes.mistake import Mistake, faults
from tests.mistakes.project import can_mount, fill, small_disk
from tests.mistakes.starts import FLOWER, Starts, meet
from tests.mistakes.table import MISTAKES
from tests.mistakes.training import SETTINGS, code

COMMON = [mistake for mistake in MISTAKES if not mistake.is_rare]
NEEDS_MOUNT = "needs root and mount, to make a small disk"


# Mistakes that share a running champion stay in one worker; all others go where one is free.
ROWS = [
    pytest.param(
        mistake,
        id=mistake.name,
        marks=[] if mistake.on == "shipped" else pytest.mark.xdist_group(f"mistake {number}"),
    )
    for number, mistake in enumerate(COMMON)
]
MOUNTABLE = can_mount()


@pytest.mark.parametrize("mistake", ROWS)
def test_a_mistake_is_answered(mistake: Mistake, starts: Starts, tmp_path: Path) -> None:
    if mistake.is_root and not MOUNTABLE:
        pytest.skip(NEEDS_MOUNT)
    found = meet(starts, mistake, tmp_path / "project")
    assert not found.wrong, "\n".join([*found.wrong, found.answer.stderr])


def test_every_mistake_has_a_name_of_its_own() -> None:
    assert len({mistake.name for mistake in MISTAKES}) == len(MISTAKES)


def test_an_answer_that_is_no_good_is_told_from_a_good_one(starts: Starts, tmp_path: Path) -> None:
    """The control: a crash with a traceback, and a state that was changed, are seen."""
    wrong = Mistake(
        name="control",
        do=lambda project: project.write("pipeline.py", "def train(data, params): 1 / 0\n"),
        command=("--debug", "train"),
        code=2,
        says="nothing of the kind",
        hints="",
    )
    found = meet(starts, wrong, tmp_path / "control").wrong
    assert "a traceback" in found
    assert "0 lines `error:`" in found
    approve = ("approve", "--by", "grace@example.org")
    right = Mistake(name="control", on="trained", command=approve, code=0, says="", hints="")
    found = meet(starts, right, tmp_path / "other").wrong
    assert any(fault.startswith("new: ledger/") for fault in found)


def test_what_training_prints_does_not_break_json(starts: Starts, tmp_path: Path) -> None:
    project = starts.give("fresh", tmp_path / "project")
    text = project.read("pipeline.py").replace(
        "    features =", "    print('{')\n    features =", 1
    )
    project.write("pipeline.py", text)
    answer = project.mlship("train", "--json")
    assert json.loads(answer.stdout)["verdict"] == "passed"
    assert "{" in answer.stderr.splitlines()


def test_an_error_is_json_too_and_one_document(starts: Starts, tmp_path: Path) -> None:
    project = starts.give("shipped", tmp_path / "project")
    answer = project.mlship("--json", "report", "iris@000000000000")
    assert json.loads(answer.stdout)["exit_code"] == answer.code == 5
    strict = ("--set", "gates.test.accuracy.min=0.99")
    answer = project.mlship("--json", *strict, "test", "champion")
    said = json.loads(answer.stdout)
    assert (said["verdict"], said["error"], answer.code) == ("failed", "RefusedError", 3)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_training_that_is_interrupted_ends_quietly_and_is_repeated(
    starts: Starts, tmp_path: Path, number: signal.Signals
) -> None:
    project = starts.give("fresh", tmp_path / "project")
    code("open('begun', 'w').close()\nimport time\ntime.sleep(60)")(project)
    before = project.state()
    # A shell that runs the tests in the background has them ignore it, and all that they start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        [sys.executable, "-m", "mlship", "train"],
        cwd=project.folder,
        env=project.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        until = time.monotonic() + 60
        while not (project.folder / "begun").exists() and time.monotonic() < until:
            time.sleep(0.05)
        if number == signal.SIGINT:
            # As a terminal does it: to the command and to the training that it started.
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    assert process.returncode == 128 + number
    assert ("error: terminated by SIGTERM" in errors) == (number == signal.SIGTERM)
    assert "Traceback" not in errors
    assert project.state() == before
    assert project.drafts() == []
    project.git("checkout", "pipeline.py")
    (project.folder / "begun").unlink()
    project.done("train")


def test_a_damaged_bundle_is_fetched_again_and_one_damaged_everywhere_is_refused(
    starts: Starts, tmp_path: Path
) -> None:
    project = starts.give("trained", tmp_path / "project")
    (cached,) = files(project, "bundles/*/**/*.onnx")
    (stored,) = files(project, "store/**/*.onnx")
    whole = cached.read_bytes()
    damage(cached)
    assert "fetching it again" in project.mlship("train").stderr
    assert cached.read_bytes() == whole
    damage(cached)
    damage(stored)
    answer = project.mlship("train")
    wanted = Mistake(
        name="",
        code=7,
        says="model/model.onnx does not match its digest",
        hints="mlship train --anew",
    )
    assert faults(wanted, answer) == []
    project.done("train", "--anew")
    assert cached.read_bytes() == stored.read_bytes() == whole


def test_a_command_below_the_project_says_where_it_is(starts: Starts, tmp_path: Path) -> None:
    project = starts.give("trained", tmp_path / "project")
    answer = project.mlship("status", below="data")
    wanted = Mistake(name="", code=2, says="mlship.yaml not found in", hints=str(project.folder))
    assert faults(wanted, answer) == []
    assert project.mlship("--config", "../mlship.yaml", "report", below="data").code == 0
    assert not (project.folder / "data/.mlship").exists()


def test_a_folder_with_blanks_and_a_hostile_branch_are_only_names(
    starts: Starts, tmp_path: Path
) -> None:
    project = starts.give("fresh", tmp_path / "Übung 1; 'ça va' $(touch pwned)")
    branch = 'x";touch${IFS}pwned;#'
    project.git("checkout", "-q", "-b", branch)
    try:
        project.done("run")
        assert json.loads(project.done("report", "--json"))
        assert "champion" in project.done("status")
    finally:
        project.done("down")
    found = json.loads(project.done("train", "--json"))["facts"]["commit"]["branch"]
    assert found == branch
    assert not list(tmp_path.rglob("pwned"))
    assert not (Path.cwd() / "pwned").exists()


@pytest.mark.parametrize(
    ("line", "exit_code", "says", "tells"),
    [
        (None, 2, "no-such.jsonl", ""),
        ("{", 2, "other.jsonl:1", ""),
        ("", 2, "other.jsonl has no requests", ""),
        (
            json.dumps({"name": "one", "request": FLOWER, "expect": {"species": "virginica"}}),
            3,
            "mismatches 1",
            'one: species is "setosa", expected "virginica" (the workload)',
        ),
        (
            json.dumps({"name": "two", "request": {"petals": 3}}),
            2,
            "request two: petals: unknown",
            "",
        ),
    ],
    ids=["missing", "not JSON", "empty", "expects otherwise", "other columns"],
)
def test_a_workload_that_is_wrong(
    starts: Starts, line: str | None, exit_code: int, says: str, tells: str
) -> None:
    project = starts.original("shipped")
    name = ".mlship/no-such.jsonl" if line is None else ".mlship/other.jsonl"
    if line is not None:
        project.write(name, line + "\n")
    answer = project.mlship("--set", f"workload={name}", "verify-staging-workload", "challenger")
    assert faults(Mistake(name="", code=exit_code, says=says, hints=""), answer) == []
    assert tells in answer.stdout


def test_some_outcomes_of_unknown_predictions_do_not_lose_the_others(
    starts: Starts, tmp_path: Path
) -> None:
    project = starts.give("shipped", tmp_path / "project")
    first, second = predictions(project)[:2]
    project.write("outcomes.csv", f"id,label\n{first},setosa\nnobody,setosa\n{second},setosa\n")
    told = json.loads(project.done("feedback", "outcomes.csv", "--json"))
    assert (told["new"], told["unknown"]) == (2, ["nobody"])
    assert json.loads(project.done("feedback", "outcomes.csv", "--json"))["known"] == 2


@pytest.mark.skipif(not MOUNTABLE, reason=NEEDS_MOUNT)
def test_a_replica_on_a_full_disk_answers_nothing_that_it_did_not_log(
    starts: Starts, tmp_path: Path
) -> None:
    project = starts.give("trained", tmp_path / "project")
    logs = project.folder / ".mlship/predictions"
    with small_disk(logs, 64), httpx.Client(trust_env=False) as client:
        try:
            project.done("deploy-staging")
            status = json.loads(project.done("status", "--json"))
            url = f"{status['endpoints']['staging']}/predict"
            assert client.post(url, json=FLOWER).status_code == 200
            ballast = fill(logs)
            refused = [client.post(url, json=FLOWER) for _ in range(20)][-1]
            assert refused.status_code == 503
            assert "No space left" in refused.json()["error"]["message"]
            assert str(logs) not in refused.text
            ballast.unlink()
            assert client.post(url, json=FLOWER).status_code == 200
        finally:
            project.done("down")
        lines = [line for log in logs.rglob("*.jsonl") for line in log.read_text().splitlines()]
        assert all(json.loads(line)["id"] for line in lines)


def test_what_nobody_foresaw_is_one_line_too(starts: Starts, tmp_path: Path) -> None:
    project = starts.give("fresh", tmp_path / "project")
    shutil.rmtree(project.folder / "data")
    (project.folder / SETTINGS).rename(project.folder / "kept")
    (project.folder / SETTINGS).mkdir()
    answer = project.mlship("train")
    assert faults(Mistake(name="", code=2, says=SETTINGS, hints=""), answer) == []
