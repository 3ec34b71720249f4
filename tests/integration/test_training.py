"""Training and scoring through the processes that really do it."""

import gzip
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from mlship.adapters.checkout import jobs
from mlship.adapters.checkout.children import ScoreRequest
from mlship.adapters.checkout.jobs import Jobs
from mlship.adapters.checkout.predictor import ChildPredictor
from mlship.adapters.checkout.trainer import ChildTrainer
from mlship.config import installation
from mlship.config.data import DataConfig
from mlship.config.project import Config
from mlship.domain import bundle as bundles
from mlship.domain.bundle import Row
from mlship.domain.digests import Digest
from mlship.domain.prediction import Prediction
from mlship.domain.profiles import Profile
from mlship.domain.scores import Golden, Scores, Trained
from mlship.errors import ConfigError, ConflictError, IntegrityError, ProjectError, UnavailableError
from mlship.training.scoring.score import score
from mlship.training.train import train
from tests.harness.projects import InProcess, config, flowers, project, request

CODE = """
import json
from pathlib import Path
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from names import NAMES

def preprocess(rows):
    scale = json.loads((Path(__file__).parent / "scale.json").read_text())
    return rows.assign(area=rows.length * rows.width * scale)

def postprocess(outputs):
    return outputs.assign(common_name=[NAMES[name] for name in outputs.species])

def train(data, params):
    print("hello from the user")
    numbers = ["length", "area"]
    encoder = ("texts", OneHotEncoder(), ["colour"])
    columns = ColumnTransformer([("numbers", StandardScaler(), numbers), encoder])
    model = make_pipeline(columns, LogisticRegression(**params))
    return model.fit(data[[*numbers, "colour"]], data.species)

def semi(data, params):
    from sklearn.semi_supervised import LabelSpreading
    return LabelSpreading().fit(data[["length", "width"]], data.species)
"""
NAMES = "NAMES = {'rose': 'Rose', 'iris': 'Flag', 'tulip': 'Tulip'}\n"


class Notes:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)


def settings() -> Config:
    return config(
        params={"C": 0.5},
        preprocess="pipeline:preprocess",
        postprocess="pipeline:postprocess",
        include=["scale.json"],
    )


def write(root: Path, code: str = CODE) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / "pipeline.py").write_text(code)
    (root / "names.py").write_text(NAMES)
    (root / "unused.py").write_text("")
    (root / "scale.json").write_text("2.0")
    flowers().to_csv(root / "data.csv", index=False)
    subprocess.run(["git", "init", "--quiet"], cwd=root, check=True)
    return root


class Made(msgspec.Struct):
    root: Path
    trainer: ChildTrainer
    folder: Path
    digest: Digest
    profile: Profile | None
    notes: list[str]
    scores: Scores


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    root = write(tmp_path_factory.mktemp("project"))
    notes = Notes()
    trainer = ChildTrainer(root, settings(), notes)
    folder = root / ".mlship" / "bundle"
    trained = trainer.train(folder)
    scores = trainer.score(folder, folder, root / ".mlship" / "plots")
    return Made(root, trainer, folder, trained.bundle, trained.profile, notes.lines, scores)


def test_bundle_holds_what_serving_needs_and_no_more(made: Made) -> None:
    bundle = bundles.read(made.folder, expected=made.digest)
    assert (bundle.model.format, bundle.model.layout) == ("onnx", "columns")
    assert sorted(name for name in bundle.files if name.startswith("code/")) == [
        "code/names.py",
        "code/pipeline.py",
        "code/scale.json",
    ]
    assert [field.name for field in bundle.schema.inputs] == [
        "length",
        "width",
        "leaves",
        "colour",
        "price",
    ]
    assert [field.name for field in bundle.model.columns] == ["length", "area", "colour"]
    assert bundle.schema.outputs[-1].name == "common_name"
    needed = {line.partition("==")[0] for line in bundle.requirements}
    assert {"onnxruntime", "numpy", "pandas", "scikit-learn", "msgspec"} <= needed
    assert not needed & {"skl2onnx", "matplotlib", "mlship", "mlship-cd"}
    environment = (made.folder / "environment.txt").read_text()
    assert "mlship-cd==0.1.0\n" in environment
    assert not installation.strangers_named(environment)
    assert made.notes[0] == "63 rows, 5 features -> onnx"
    assert sorted(path.name for path in made.folder.parent.iterdir()) == ["bundle", "plots"]


def test_a_bundle_against_itself_has_slices_none_of_which_got_worse(made: Made) -> None:
    assert made.scores.slices is not None
    assert made.scores.slices.worse == 0
    assert made.scores.slices.judged + made.scores.slices.small > 5


def test_a_training_tells_what_its_data_look_like(made: Made) -> None:
    assert made.profile is not None
    assert made.profile.rows == 63
    names = [column.name for column in made.profile.columns]
    assert names == ["species", "length", "width", "leaves", "colour", "price"]
    assert sum(made.profile.columns[0].named.values()) == 63


def test_golden_examples_are_what_the_bundle_answers(made: Made) -> None:
    lines = (made.folder / "golden.jsonl").read_bytes().splitlines()
    golden = [msgspec.json.decode(line, type=Golden) for line in lines]
    assert len(golden) == 40
    answers = ChildPredictor().predict(made.folder, [line.inputs for line in golden])
    assert answers == [line.outputs for line in golden]
    assert {"species", "common_name", "probability_rose"} <= set(answers[0])


def test_scores_of_a_champion_that_is_the_same_model_differ_by_nothing(made: Made) -> None:
    scores = made.scores
    assert scores.samples == 27
    assert scores.metrics == scores.champion == bundles.read(made.folder).metrics
    assert set(scores.differences) == set(scores.metrics)
    assert all(entry.estimate == 0 for entry in scores.differences.values())
    assert sum(map(sum, scores.confusion)) == 27
    assert scores.labels == ("iris", "rose", "tulip")
    assert (made.root / ".mlship" / "plots" / scores.plots[0]).is_file()


def test_inputs_change_with_what_goes_in(made: Made) -> None:
    before = made.trainer.inputs()
    assert made.trainer.inputs() == before
    other = ChildTrainer(made.root, config(params={"C": 1}), Notes()).inputs()
    assert (other.data, other.environment) == (before.data, before.environment)
    assert other.params != before.params
    scale = made.root / "scale.json"
    scale.write_text("3.0")
    assert made.trainer.inputs().files != before.files
    scale.write_text("2.0")
    data = made.root / "data.csv"
    text = data.read_text()
    data.write_text(text + text.splitlines()[-1] + "\n")
    assert made.trainer.inputs().data != before.data
    data.write_text(text)
    assert made.trainer.inputs() == before
    (made.root / "other.csv").write_text(text + text.splitlines()[-1] + "\n")
    parts = [("data.csv", "other.csv"), ("other.csv", "data.csv")]
    told = []
    for train_file, test_file in parts:
        both = DataConfig(train=train_file, test=test_file, target="species")
        setting = msgspec.structs.replace(settings(), data=both)
        told.append(ChildTrainer(made.root, setting, Notes()).inputs().data)
    (made.root / "other.csv").unlink()
    assert told[0] != told[1]


def test_params_that_have_no_json_are_refused(made: Made) -> None:
    trainer = ChildTrainer(made.root, config(params={"C": float("nan")}), Notes())
    with pytest.raises(ConfigError, match="nan"):
        trainer.inputs()
    with pytest.raises(ConfigError, match="nan"):
        trainer.train(made.root / ".mlship" / "nan")


def test_a_folder_that_exists_is_not_overwritten(made: Made) -> None:
    with pytest.raises(ConflictError, match="exists already"):
        made.trainer.train(made.folder)
    assert bundles.read(made.folder, expected=made.digest)


def test_a_changed_bundle_is_not_predicted_from(made: Made, tmp_path: Path) -> None:
    copy = shutil.copytree(made.folder, tmp_path / "copy")
    (copy / "code" / "names.py").write_text("raise SystemExit")
    with pytest.raises(IntegrityError, match=r"code/names\.py"):
        ChildPredictor().predict(copy, [{"length": 1.0}])


def test_a_row_that_does_not_fit_is_named(made: Made) -> None:
    with pytest.raises(ProjectError, match="lenght") as caught:
        ChildPredictor().predict(made.folder, [{"lenght": 1.0}])
    assert caught.value.hint == "did you mean length?"


def test_a_champion_of_other_columns_is_no_failure(made: Made, tmp_path: Path) -> None:
    code = "from sklearn.tree import DecisionTreeClassifier as M\n"
    code += "def train(data, params):\n    return M().fit(data[['length']], data.species)\n"
    setting = config(module=project(tmp_path, code, flowers().drop(columns="colour")))
    asked = request(tmp_path, setting)
    train(asked, InProcess())
    question = ScoreRequest(
        root=tmp_path, config=setting, bundle=asked.into, champion=made.folder, plots=tmp_path
    )
    scores = score(question, ChildPredictor())
    assert not scores.champion
    assert not scores.differences
    assert "colour" in scores.champion_error
    assert scores.metrics["accuracy"]
    # The other way round the champion reads the columns that it knows.
    question = ScoreRequest(
        root=made.root, config=settings(), bundle=made.folder, champion=asked.into, plots=tmp_path
    )
    scores = score(question, ChildPredictor())
    assert scores.champion_error == ""
    assert "accuracy" in scores.differences


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_same_inputs_give_the_same_bundles_elsewhere(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In another folder, and in a process of its own with another hash seed."""
    here, elsewhere = write(tmp_path / "here"), write(tmp_path / "elsewhere")
    model = msgspec.structs.replace(settings().model, train="pipeline:semi")
    semi = msgspec.structs.replace(settings(), model=model)
    one = Jobs(here, os.environ).ask("train", request(here, semi), Trained)
    monkeypatch.setattr(jobs, "_PROCESS_SEED", {"PYTHONHASHSEED": "1"})
    monkeypatch.setattr(jobs, "subprocess", subprocess)
    process = Jobs(elsewhere, os.environ)
    two = process.ask("train", request(elsewhere, semi), Trained)
    assert one == two
    assert one.format == "skops"
    assert "LabelSpreading" in one.notes[0]
    assert bytes_of(here / "out" / "bundle") == bytes_of(elsewhere / "out" / "bundle")
    again = process.ask("train", request(elsewhere, settings(), "onnx"), Trained)
    assert (again.bundle, again.format) == (made.digest, "onnx")
    assert bytes_of(elsewhere / "out" / "onnx") == bytes_of(made.folder)


def crash(body: str) -> str:
    return f"def train(data, params):\n    import os, sys, errno\n    {body}\n"


CRASHES: dict[str, tuple[str, type[Exception], str]] = {
    "raises": (
        "raise ValueError('no good')",
        ProjectError,
        r"pipeline:train failed at pipeline\.py:3: ValueError: no good",
    ),
    "killed": (
        "print('so far', flush=True); os.kill(os.getpid(), 9)",
        ProjectError,
        "was killed by SIGKILL .*so far",
    ),
    "exit": ("os._exit(3)", ProjectError, "ended with exit code 3"),
    "disk": ("raise OSError(errno.ENOSPC, 'No space left')", UnavailableError, "no space left"),
}


@pytest.fixture(scope="module")
def dying(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ChildTrainer]:
    """A project whose code each test writes, with one process of its own for the trainings."""
    root = write(tmp_path_factory.mktemp("dying") / "p")
    return root, ChildTrainer(root, config(), Notes())


@pytest.mark.cold
@pytest.mark.parametrize("name", CRASHES)
def test_a_training_that_dies_leaves_nothing_behind(
    name: str, dying: tuple[Path, ChildTrainer], tmp_path: Path
) -> None:
    body, kind, said = CRASHES[name]
    root, trainer = dying
    write(root, crash(body))
    into = tmp_path / "out" / "bundle"
    with pytest.raises(kind, match=f"(?s){said}"):
        trainer.train(into)
    assert list(into.parent.iterdir()) == []


COST = """
import os

def cost(truth, outputs):
    if "REGISTRY_PASSWORD" in os.environ:
        raise RuntimeError("a credential is here")
    print("hello from the cost")
    return 5.0 * (truth != outputs["species"])

def crash(truth, outputs):
    os.kill(os.getpid(), 9)
"""


def test_predictions_are_rated_in_another_process_with_few_variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("REGISTRY_PASSWORD", "secret")
    trainer = ChildTrainer(write(tmp_path / "p", COST), config(), Notes())
    rows: list[Row] = [{"species": "rose"}, {"species": "iris"}]
    rated = [
        Prediction(
            id=f"a.{n}",
            release=Digest("sha256:1"),
            slot="one",
            time=datetime(2026, 1, 1, tzinfo=UTC),
            inputs={},
            outputs=row,
            latency_ms=1.0,
        )
        for n, row in enumerate(rows)
    ]
    assert trainer.rate("pipeline:cost", rated, ["rose", "tulip"]) == [0.0, 5.0]
    assert capfd.readouterr().out == ""
    bare = [msgspec.structs.replace(rated[0], outputs={"price": 1.0})]
    with pytest.raises(ProjectError, match=r"prediction a\.0 .*KeyError"):
        trainer.rate("pipeline:cost", bare, ["rose"])
    with pytest.raises(ProjectError, match="the evaluating process was killed by SIGKILL"):
        trainer.rate("pipeline:crash", rated, ["rose", "tulip"])


@pytest.mark.cold
def test_a_training_sees_nothing_of_the_one_before(
    dying: tuple[Path, ChildTrainer], tmp_path: Path
) -> None:
    body = "import pandas; assert not hasattr(pandas, 'left'); pandas.left = 1; raise ValueError"
    root, trainer = dying
    write(root, crash(body))
    for _ in range(2):
        with pytest.raises(ProjectError, match="ValueError"):
            trainer.train(tmp_path / "out" / "bundle")


@pytest.mark.cold
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the parent is the test itself")
def test_a_training_that_died_keeps_nobody_from_the_next_one(
    dying: tuple[Path, ChildTrainer], tmp_path: Path
) -> None:
    root, trainer = dying
    write(root, crash("os.kill(os.getppid(), 9); os.kill(os.getpid(), 9)"))
    with pytest.raises(ProjectError, match="was killed by SIGKILL"):
        trainer.train(tmp_path / "out" / "bundle")
    (root / "pipeline.py").write_text(crash("raise ValueError('again')"))
    with pytest.raises(ProjectError, match="again"):
        trainer.train(tmp_path / "out" / "bundle")


@pytest.mark.cold
def test_libraries_that_cannot_be_imported_are_told_with_their_last_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "pandas.py").write_text("raise ImportError('half of pandas is missing')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "broken"))
    trainer = ChildTrainer(write(tmp_path / "p"), config(), Notes())
    message = "(?s)training process ended with exit code 1 .*half of pandas is missing"
    with pytest.raises(ProjectError, match=message):
        trainer.train(tmp_path / "out" / "bundle")


ENDS = """
import atexit, gzip, threading, time, zipfile
from pathlib import Path
from sklearn.linear_model import LogisticRegression

HERE = Path(__file__).parent
held = open(HERE / "held.txt", "w")
packed = gzip.open(HERE / "packed.gz", "wt")
archive = zipfile.ZipFile(HERE / "archive.zip", "w")

def late():
    time.sleep(0.2)
    (HERE / "thread.txt").write_text("thread")

def train(data, params):
    held.write("held")
    packed.write("packed")
    archive.writestr("name", "archived")
    atexit.register((HERE / "registered.txt").write_text, "registered")
    threading.Thread(target=late).start()
    return LogisticRegression().fit(data[["length", "width"]], data.species)
"""


def test_what_code_leaves_for_the_end_of_its_process_is_done(tmp_path: Path) -> None:
    root = write(tmp_path / "p", ENDS)
    ChildTrainer(root, config(), Notes()).train(tmp_path / "out" / "bundle")
    for name in ("held", "thread", "registered"):
        assert (root / f"{name}.txt").read_text() == name
    assert gzip.decompress((root / "packed.gz").read_bytes()) == b"packed"
    with zipfile.ZipFile(root / "archive.zip") as archive:
        assert archive.read("name") == b"archived"


def wait_for(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + 60
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


COMMAND = """
import sys
from pathlib import Path
from types import SimpleNamespace
import msgspec
from mlship.adapters.checkout.trainer import ChildTrainer
from mlship.config.project import Config
setting = msgspec.json.decode(sys.argv[1], type=Config)
trainer = ChildTrainer(Path(sys.argv[2]), setting, SimpleNamespace(note=print))
trainer.train(Path(sys.argv[3]))
"""


def command_line(root: Path, into: Path) -> list[str]:
    """Return a command that trains, and imports nothing else for it."""
    setting = msgspec.json.encode(config(environment=["MARK"]), enc_hook=str).decode()
    return [sys.executable, "-c", COMMAND, setting, str(root), str(into)]


def test_a_killed_command_stops_its_training_and_the_next_one_sweeps_up(tmp_path: Path) -> None:
    body = "open('begun', 'w').write(str(os.getpid())); import time; time.sleep(60)"
    root = write(tmp_path / "p", crash(body))
    into = tmp_path / "out" / "bundle"
    command = subprocess.Popen(
        command_line(root, into),
        cwd=Path(__file__).parents[2],
        stderr=subprocess.DEVNULL,
    )
    assert wait_for((root / "begun").exists)
    time.sleep(0.1)
    child = int((root / "begun").read_text())
    command.kill()
    command.wait()

    def is_gone() -> bool:
        status = Path(f"/proc/{child}/stat")
        return not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z"

    assert wait_for(is_gone)
    assert not into.exists()
    (into.parent / f".bundle.{command.pid}.tmp").mkdir(parents=True, exist_ok=True)
    (root / "pipeline.py").write_text(crash("raise ValueError"))
    with pytest.raises(ProjectError):
        ChildTrainer(root, config(), Notes()).train(into)
    assert list(into.parent.iterdir()) == []


WORKERS = """
import multiprocessing, os, subprocess, time
from pathlib import Path
from sklearn.linear_model import LogisticRegression

def work(number):
    Path(f"begun{number}").touch()
    time.sleep(60 if Path("wait").exists() else 0)

def train(data, params):
    subprocess.Popen(["sleep", "60"])
    subprocess.Popen(["sh", "-c", "trap '' TERM; sleep 60 & wait; sleep 60"])
    subprocess.Popen(["sleep", "60"], start_new_session=True)
    if os.fork() == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        time.sleep(60)
        os._exit(0)
    pool = multiprocessing.Pool(2)
    running = pool.map_async(work, [0, 1], 1)
    while not (Path("begun0").exists() and Path("begun1").exists()):
        time.sleep(0.02)
    Path("begun").touch()
    if Path("wait").exists():
        running.get()
    return LogisticRegression().fit(data[["length", "width"]], data.species)
"""


def marked(mark: str) -> list[str]:
    """Return the processes in whose environment a text is, zombies not counted."""
    names = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdecimal() and mark.encode() in (entry / "environ").read_bytes():
                words = (entry / "cmdline").read_bytes().decode().split("\0")
                names.append(" ".join([entry.name, *words])[:200])
        except OSError:
            continue
    return names


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no process adopts orphans")
@pytest.mark.parametrize("number", [0, signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_no_process_of_a_training_outlives_the_command(number: int, tmp_path: Path) -> None:
    root = write(tmp_path / "p", WORKERS)
    if number:
        (root / "wait").touch()
    command = subprocess.Popen(
        command_line(root, tmp_path / "out" / "bundle"),
        cwd=Path(__file__).parents[2],
        env={**os.environ, "MARK": str(tmp_path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        assert wait_for((root / "begun").exists)
        if number:
            assert len(marked(str(tmp_path))) >= 8
        if number == signal.SIGINT:
            os.killpg(command.pid, number)
        elif number:
            command.send_signal(number)
        code = command.wait(timeout=30)
        assert code == (0 if number == 0 else -number)
        assert wait_for(lambda: not marked(str(tmp_path))), marked(str(tmp_path))
    finally:
        command.kill()
        for line in marked(str(tmp_path)):
            os.kill(int(line.split()[0]), signal.SIGKILL)
