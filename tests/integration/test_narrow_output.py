"""Commands whose output cannot hold all characters of the project's names."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.harness import commands

ENCODINGS = ("cp1252", "ascii:strict")
"""One that holds some of the characters, and one that holds none and replaces none."""
SETTINGS = """
name: cats
data: {train: данные/кошки.csv, target: порода, split: {fraction: 0.3, seed: 1}}
model: {train: "pipeline:train"}
tests: {unit: tests/unit}
gates: {test: {accuracy: {min: 0.1}}, baseline: false}
store: {kind: directory}
"""
PIPELINE = """
from sklearn.linear_model import LogisticRegression

def train(data, params):
    print("обучение 🚀 é")
    return LogisticRegression().fit(data[["вес", "рост"]], data["порода"])
"""
COMMANDS = (
    "train",
    "test",
    "report",
    "report --publish summary",
    "status",
    "trace 🐈",
    "trace",
    "doctor",
    "evaluate",
    "approve --by Лин@example.org --comment 好🚀",
    "promote",
    "rollback",
    "retire",
    "traffic 🐈=5",
    "feedback 🐈 кот",
    "deploy-production",
    "open-release-pr",
    "containerize нет@0123",
    "--set имя=é status",
    "--config нет.yaml status",
    "init --example 🐈",
    "down",
    "--help",
    "нет",
)


def mlship(
    root: Path, line: str, encoding: str, **variables: str
) -> subprocess.CompletedProcess[bytes]:
    """Run a command, and check that no character stopped it.

    An encoding alone is set in a fork of a warm process; a locale needs one of its own.
    """
    left_out = ("GITHUB", "MLSHIP", "MLFLOW", *(() if encoding else ("LC_", "LANG", "PYTHON")))
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(left_out)
    }
    environment |= {"PYTHONIOENCODING": encoding} if encoding else {}
    result = commands.output(
        *line.split(), folder=root, environment=environment | variables, is_cold=not encoding
    )
    for said in (result.stdout, result.stderr):
        assert b"UnicodeEncodeError" not in said, said
        assert b"UnicodeDecodeError" not in said, said
        assert b"internal error" not in said, said
        assert b"Traceback" not in said, said
    assert result.returncode in (0, 2, 3, 4, 5, 8), result
    return result


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("проект-🚀")
    breeds = "сиам🐈", "мэйн-кун"
    rows = [
        f"{3 + n % 7 * 0.3 + n % 2 * 3:.2f},{20 + n % 5 + n % 2 * 9},{breeds[n % 2]}"
        for n in range(60)
    ]
    files = {
        "данные/кошки.csv": "\n".join(["вес,рост,порода", *rows]) + "\n",
        "mlship.yaml": SETTINGS,
        "pipeline.py": PIPELINE,
        "tests/unit/test_x.py": "def test_кот():\n    print('кот 🐈')\n",
        ".gitignore": ".mlship/\n__pycache__/\n",
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    identity = ["-c", "user.name=Ада 🚀", "-c", "user.email=ада@example.org"]
    commit = [*identity, "commit", "-qm", "Начало: кошки 🐈"]
    for argv in (["init", "-q", "-b", "ветка-🚀"], ["add", "-A"], commit):
        subprocess.run(["git", *argv], cwd=root, check=True)
    trained = mlship(root, "train", "ascii")
    assert trained.returncode == 0, trained
    # What a process of the project prints travels as UTF-8 and is escaped only here.
    assert rb"\u043e\u0431\u0443\u0447\u0435\u043d\u0438\u0435 \U0001f680 \xe9" in trained.stderr
    return root


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_no_command_stops_at_a_character_that_its_output_does_not_have(
    project: Path, encoding: str
) -> None:
    for line in COMMANDS:
        mlship(project, line, encoding)


def test_no_command_stops_in_the_locale_c(project: Path) -> None:
    for line in COMMANDS:
        mlship(project, line, "", LC_ALL="C")


@pytest.mark.parametrize("line", ["train", "report", "status", "trace 🐈", "doctor"])
def test_piped_json_holds_the_same_values_in_any_encoding(project: Path, line: str) -> None:
    whole = json.loads(mlship(project, f"--json {line}", "utf-8").stdout)
    for encoding in ENCODINGS:
        narrow = mlship(project, f"--json {line}", encoding).stdout
        assert narrow.isascii() or encoding in ("latin-1", "cp1252")
        values = json.loads(narrow.decode(encoding.partition(":")[0]))
        assert values.keys() == whole.keys() if isinstance(values, dict) else values


def test_json_of_names_in_foreign_letters_is_ascii_and_holds_them(project: Path) -> None:
    narrow = mlship(project, "--json trace 🐈é", "ascii").stdout
    assert narrow.isascii()
    assert "🐈é" in json.loads(narrow)["message"]
    assert "🐈é".encode() in mlship(project, "--json trace 🐈é", "utf-8").stdout
