"""`init` in a repository whose dvc.yaml trains."""

from pathlib import Path

import pytest

from mlship.config.installation import Installation, Origin
from mlship.templates import existing, project

SCRIPT = "joblib.dump(model.fit(X, y), 'model.joblib')\n"
INSTALLED = Installation(origin=Origin(kind="git"), source="")


def repository(root: Path, stages: str, **files: str) -> Path:
    for name, text in {"train.py": SCRIPT, "dvc.yaml": stages, **files}.items():
        (root / name).write_text(text)
    return root


def stage(command: str, more: str = "") -> str:
    return f"stages:\n  fit:\n    cmd: {command}\n    outs: [model.joblib]\n{more}"


@pytest.mark.parametrize(
    ("stages", "reason"),
    [
        (stage("rm -rf models && python train.py"), "its command needs a shell (&&)"),
        (stage("python train.py > log.txt"), "its command needs a shell (>)"),
        (stage('"OUT=a python train.py"'), "its command needs a shell (OUT=)"),
        (stage("[python a.py, python train.py]"), "it has several commands"),
        (stage("python train.py ${train.c}"), "the value of ${train.c} was not found"),
        (stage("python train.py ${layers}"), "the value of ${layers} was not found"),
        (stage("python train.py ${layers[0]}"), "its command needs a shell ($)"),
        (stage("python 'train.py"), "its quotation marks do not match"),
        (stage("python train.py", "    wdir: src\n"), "it runs in src (wdir)"),
        (
            "stages: {fit: {foreach: [a, b], do: {cmd: python a.py, outs: ['${item}.joblib']}}}",
            "it stands for several trainings (foreach)",
        ),
        (stage("python train.py ${item.m}", "    matrix: {m: [a, b]}\n"), "trainings (matrix)"),
        ("stages: {fit: {cmd: python train.py, outs: [../m.pkl]}}", "is outside of the project"),
    ],
)
def test_a_stage_that_cannot_be_the_command_is_named_and_nothing_is_proposed(
    stages: str, reason: str, tmp_path: Path
) -> None:
    folder = repository(tmp_path, stages, **{"params.yaml": "layers: [1]\n"})
    planned = project.plan(folder, None, installed=INSTALLED)
    assert existing.find(folder).training is None
    assert "command:" not in planned.proposed
    (said,) = [step for step in planned.next if "dvc.yaml" in step]
    assert said.startswith("dvc.yaml: stage fit, which writes ")
    assert reason in said
    assert not [step for step in planned.next if "joblib.dump" in step]


@pytest.mark.parametrize(
    ("stages", "command"),
    [
        (stage("python train.py --c ${train.c}"), "python train.py --c 0.5"),
        (stage("python train.py ${ fast }"), "python train.py true"),
        ("vars: [{depth: 3}]\n" + stage("python train.py ${depth}"), "python train.py 3"),
        (stage("python train.py ${depth}", "    vars: [{depth: 4}]\n"), "python train.py 4"),
        (stage("[python train.py]"), "python train.py"),
        (stage("sh train.sh", "    wdir: ./\n"), "sh train.sh"),
        (stage("python train.py --name 'a && b'"), "python train.py --name 'a && b'"),
    ],
)
def test_a_stage_is_taken_with_the_values_of_its_parameters(
    stages: str, command: str, tmp_path: Path
) -> None:
    params = {"params.yaml": "train: {c: 0.5}\nfast: true\n"}
    found = existing.find(repository(tmp_path, stages, **params))
    assert found.training is not None
    assert (found.training.command, found.training.saved) == (command, "model.joblib")
    assert found.notes == ()


def test_the_first_stage_that_can_be_taken_is_and_the_others_are_named(tmp_path: Path) -> None:
    stages = (
        "stages:\n"
        "  one: {cmd: python a.py | tee log, outs: [a.pkl]}\n"
        "  two: {cmd: python b.py, outs: [b.pkl]}\n"
        "  three: {cmd: python c.py, outs: [c.pkl]}\n"
        "  plots: {cmd: python d.py > d.txt, outs: [d.png]}\n"
    )
    found = existing.find(repository(tmp_path, stages))
    assert found.training is not None
    assert found.training.command == "python b.py"
    assert [note.partition(",")[0] for note in found.notes] == [
        "dvc.yaml: stage one",
        "dvc.yaml: stage three",
    ]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("stages: [\n\t", "line 2: "),
        ("stages: [1, 2]", "`stages` is not a mapping"),
        ("- a", "it is not a mapping"),
    ],
)
def test_a_broken_dvc_yaml_is_named(text: str, reason: str, tmp_path: Path) -> None:
    found = existing.find(repository(tmp_path, text))
    (note,) = found.notes
    assert note.startswith(f"dvc.yaml was not used: {reason}")
    assert found.training is not None  # that of train.py


@pytest.mark.parametrize("text", ["", "stages:\n", "stages: {a: 3, b: {cmd: null, outs: [null]}}"])
def test_a_dvc_yaml_without_a_model_has_no_say(text: str, tmp_path: Path) -> None:
    found = existing.find(repository(tmp_path, text))
    assert found.notes == ()
    assert found.training is not None


def test_data_in_dvc_lock_are_named_before_they_are_pulled(tmp_path: Path) -> None:
    entries = ("data/my test.csv", "data/train.csv", "metrics.csv", "../x/train.csv")
    outs = ", ".join(f"{{path: {path}, md5: {32 * '0'}}}" for path in entries)
    lock = f"stages: {{prepare: {{cmd: x, outs: [{outs}]}}, odd: 3, none: {{outs: 1}}}}"
    files = {"dvc.lock": lock, "train.py": "d = pd.read_csv('data/train.csv')\n" + SCRIPT}
    found = existing.find(repository(tmp_path, stage("python train.py"), **files)).training
    assert found is not None
    assert (found.train, found.test) == ("data/train.csv", "data/my test.csv")
