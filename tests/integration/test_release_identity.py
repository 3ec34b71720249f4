"""What belongs to a release: the files that a training really reads, whatever it writes itself."""

import json
import os
import py_compile
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from mlship.adapters.checkout import code
from mlship.adapters.checkout.trainer import ChildTrainer
from mlship.domain.inputs import Opened
from mlship.domain.scores import Trained
from mlship.errors import ConflictError, ProjectError
from tests.harness import commands
from tests.harness.projects import config, flowers
from tests.harness.repositories import ADA

MODEL = """
from sklearn.linear_model import LogisticRegression

def model(data):
    return LogisticRegression().fit(data[["length", "width"]], data.species)
"""


class Notes:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)


def git(root: Path, *arguments: str) -> None:
    subprocess.run(["git", *ADA, *arguments], cwd=root, check=True, capture_output=True)


def write(root: Path, body: str, above: str = "", **files: str) -> Path:
    """Write a project whose training runs `body` first, and commit it."""
    root.mkdir(parents=True, exist_ok=True)
    lines = "".join(f"    {line}\n" for line in body.strip().splitlines())
    code = f"{MODEL}\n{above}\n\ndef train(data, params):\n{lines}    return model(data)\n"
    (root / "pipeline.py").write_text(code)
    (root / ".gitignore").write_text(".mlship/\n__pycache__/\nignored/\n")
    flowers().to_csv(root / "data.csv", index=False)
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_json", ".json")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    git(root, "init", "--quiet", "--initial-branch=main")
    git(root, "add", "-A")
    git(root, "commit", "--quiet", "--message", "Begin")
    return root


def trained(root: Path, notes: Notes | None = None, **settings: Any) -> Trained:
    trainer = ChildTrainer(root, config(**settings), notes or Notes())
    return trainer.train(root / ".mlship" / "bundle")


READS = """
import io, joblib, json, mmap, multiprocessing, os, pickle, sqlite3, sys, threading, zipfile
from pathlib import Path
import numpy, pandas, yaml
place = Path(__file__).resolve().parent / "in"
open("in/open.txt").close()
(place / "path.txt").read_text()
io.open(b"in/bytes.txt", "rb").close()
os.close(os.open("in/os.txt", os.O_RDONLY))
pandas.read_csv("in/c.csv"); pandas.read_csv(place / "python.csv", engine="python")
pandas.read_csv("in/mapped.csv", memory_map=True)
pandas.read_csv("in/arrow.csv", engine="pyarrow"); pandas.read_parquet("in/frame.parquet")
pandas.read_json("in/frame.json"); pandas.read_pickle("in/frame.pkl")
numpy.load("in/array.npy"); numpy.load("in/mapped.npy", mmap_mode="r")
numpy.loadtxt("in/array.txt"); numpy.fromfile("in/array.bin")
numpy.memmap("in/memory.bin", mode="r")
joblib.load("in/model.joblib"); joblib.load("in/mapped.joblib", mmap_mode="r")
sqlite3.connect("in/base.db").execute("select 1").fetchall()
sqlite3.connect("file:in/uri.db?mode=ro", uri=True).close()
zipfile.ZipFile("in/archive.zip").close()
yaml.safe_load(open("in/settings.yaml"))
with open("in/mmap.bin", "rb") as file: mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
thread = threading.Thread(target=lambda: open("in/thread.txt").close())
thread.start(); thread.join()
fork = multiprocessing.get_context("fork").Process(target=Path("in/fork.txt").read_text)
fork.start(); fork.join()
Path("in/link.txt").read_text()
import ignored.helper
os.chdir("in"); open("moved.txt").close(); os.chdir("..")
for name in ("in/missing.json", "a\\0b", "in", "x" * 5000, b"\\xff.txt"):
    try: open(name).close()
    except (ValueError, OSError): pass
    else: raise SystemExit(1)
Path("in/looked.txt").exists(); os.path.getsize("in/sized.txt"); os.path.isdir("in/no_folder")
os.path.islink("in/linked.txt"); Path("in/no_file.txt").exists(); os.path.exists(b"in/no_bytes")
folder = os.open("in", os.O_RDONLY); os.stat("path.txt", dir_fd=folder); os.close(folder)
os.mkfifo("pipe"); os.close(os.open("pipe", os.O_RDONLY | os.O_NONBLOCK))
"""


def fill(folder: Path) -> None:
    """Write a file for each way of reading."""
    import sqlite3
    import zipfile

    import joblib
    import numpy as np

    frame = flowers(6)
    names = ("open", "path", "bytes", "os", "thread", "fork", "moved", "target")
    for name in (*names, "looked", "sized", "linked"):
        (folder / f"{name}.txt").write_text("text")
    (folder / "link.txt").symlink_to("target.txt")
    for name in ("c", "python", "mapped", "arrow"):
        frame.to_csv(folder / f"{name}.csv", index=False)
    frame.to_parquet(folder / "frame.parquet")
    frame.to_json(folder / "frame.json")
    frame.to_pickle(folder / "frame.pkl")
    for name in ("array", "mapped"):
        np.save(folder / f"{name}.npy", np.zeros(4))
    np.savetxt(folder / "array.txt", np.zeros(4))
    for name in ("array", "memory", "mmap"):
        np.zeros(4).tofile(folder / f"{name}.bin")
    for name in ("model", "mapped"):
        joblib.dump(np.zeros(4), folder / f"{name}.joblib")
    for name in ("base", "uri"):
        connection = sqlite3.connect(folder / f"{name}.db")
        connection.execute("create table a (b)")
        connection.close()
    zipfile.ZipFile(folder / "archive.zip", "w").close()
    (folder / "settings.yaml").write_text("a: 1\n")


def test_every_way_of_reading_by_python_is_seen(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    fill(tmp_path / "in")
    write(tmp_path, READS, ignored__helper="")
    (tmp_path / "ignored" / "helper").rename(tmp_path / "ignored" / "helper.py")
    (tmp_path / ".gitignore").write_text(".mlship/\n__pycache__/\nignored/\nin/\n")
    notes = Notes()
    opened = trained(tmp_path, notes).opened
    wanted = {f"in/{path.name}" for path in (tmp_path / "in").iterdir()} - {"in/target.txt"}
    absent = {"in/missing.json", "in/no_folder", "in/no_file.txt", "in/no_bytes"}
    assert {path for path in opened.read if path.startswith("in/")} == wanted | absent
    assert not any(opened.read[path] for path in absent)
    assert all(opened.read[path] for path in wanted)
    assert "pipe" not in opened.read
    assert "ignored/helper.py" in opened.read
    assert "data.csv" not in opened.read
    assert not opened.left
    assert any(line.endswith(" more: part of the release") for line in notes.lines)


SCRIPT = """
import os
import joblib
import pandas as pd
from pipeline import model

joblib.dump(model(pd.read_csv({read})), "model.joblib")
"""


@pytest.mark.parametrize(
    ("read", "said"),
    [
        ('"data.csv"', "python train.py read data.csv itself"),
        ('os.path.abspath("data.csv")', "python train.py read data.csv itself"),
        ('os.environ["MLSHIP_TRAIN_DATA"]', ""),
        ('"copy.csv"', "python train.py may have read data.csv itself"),
    ],
)
def test_a_command_that_may_train_on_held_out_rows_is_named(
    tmp_path: Path, read: str, said: str
) -> None:
    write(tmp_path, "pass")
    flowers().to_csv(tmp_path / "copy.csv", index=False)
    (tmp_path / "train.py").write_text(SCRIPT.format(read=read))
    found = trained(tmp_path, train=None, command="python train.py", saved="model.joblib")
    assert found.exposed.startswith(said)
    assert bool(found.exposed) == bool(said)
    assert (found.notes[0] == f"WARNING: {found.exposed}") == bool(said)


def test_ignored_settings_and_code_are_known_and_ignored_data_only_to_doctor(
    tmp_path: Path,
) -> None:
    ignored = ".mlship/\n__pycache__/\nhelper.py\n_version.py\nmlship.yaml\ndata.csv\n"
    write(tmp_path, "pass", above="import helper, _version")
    for name in ("helper.py", "_version.py", "mlship.yaml"):
        (tmp_path / name).touch()
    assert not code.left_out(tmp_path, config())
    git(tmp_path, "rm", "--quiet", "--cached", "data.csv")
    (tmp_path / ".gitignore").write_text(ignored)
    assert trained(tmp_path).opened.ignored == ("mlship.yaml", "helper.py")
    assert code.left_out(tmp_path, config()) == ["mlship.yaml", "helper.py", "data.csv"]


def test_a_function_is_named_only_if_it_reads_the_file_that_is_split(tmp_path: Path) -> None:
    assert not trained(write(tmp_path / "one", "pass")).exposed
    leaky = write(tmp_path / "two", "import pandas; data = pandas.read_csv('data.csv')")
    assert trained(leaky).exposed.startswith("pipeline:train read data.csv itself")


def test_what_compiled_libraries_and_other_programs_read_is_not_seen(tmp_path: Path) -> None:
    """The guide says so; where one of these fails, correct it there."""
    body = """
import pyarrow.parquet, subprocess, sys
pyarrow.parquet.read_table("frame.parquet")
subprocess.run([sys.executable, "-c", "open('other.json')"], check=True)
import os; os.system("sh -c true")
import joblib; joblib.Parallel(2)(joblib.delayed(abs)(number) for number in range(2))
"""
    tmp_path.mkdir(exist_ok=True)
    flowers(6).to_parquet(tmp_path / "frame.parquet")
    write(tmp_path, body, other_json="{}")
    notes = Notes()
    assert not {"frame.parquet", "other.json"} & trained(tmp_path, notes).opened.read.keys()
    about = [line for line in notes.lines if line.startswith("training ran")]
    name = Path(sys.executable).name
    assert about == [f"training ran {name}, sh: what other programs read is not seen"]


def test_what_is_trained_is_the_source_and_not_a_cached_file_of_another(tmp_path: Path) -> None:
    write(tmp_path, 'open("one.txt")', one_txt="", two_txt="")
    (tmp_path / "one_txt").rename(tmp_path / "one.txt")
    (tmp_path / "two_txt").rename(tmp_path / "two.txt")
    source = tmp_path / "pipeline.py"
    status = source.stat()
    py_compile.compile(str(source))
    source.write_text(source.read_text().replace("one.txt", "two.txt"))
    os.utime(source, ns=(status.st_atime_ns, status.st_mtime_ns))
    opened = trained(tmp_path).opened
    assert "two.txt" in opened.read
    assert "one.txt" not in opened.read


WRITES = """
import os
from pathlib import Path
Path("out").mkdir(exist_ok=True)
Path("out/new.json").write_text("{}")
Path("out/new.json").read_text()
Path("out/draft.json").write_text("{}"); os.replace("out/draft.json", "out/final.json")
open("log.txt", "a").write("line")
Path("ignored/cache.bin").write_bytes(b"")
Path("tracked.json").write_text("[1]")
Path("removed.json").unlink()
scores = Path("scores.json").read_text()
Path("scores.json").write_text(scores + "x")
import xgboost, numpy
xgboost.XGBClassifier(n_estimators=1).fit(numpy.eye(4), [0, 1, 0, 1]).save_model("native.ubj")
"""


def test_what_the_training_writes_is_told_from_what_it_reads(tmp_path: Path) -> None:
    files = {"tracked_json": "[]", "removed_json": "", "scores_json": "x", "ignored__a": ""}
    write(tmp_path, WRITES, **files)
    notes = Notes()
    opened = trained(tmp_path, notes).opened
    assert opened.written == (
        "log.txt",
        "native.ubj",
        "out/final.json",
        "out/new.json",
        "removed.json",
        "scores.json",
        "tracked.json",
    )
    assert set(opened.read) - {"pipeline.py"} == {"scores.json"}
    assert set(opened.left) == {"scores.json"}
    assert opened.left["scores.json"] != opened.read["scores.json"]
    wrote = "log.txt, native.ubj, out/final.json, out/new.json, removed.json and 2 more"
    assert f"training wrote {wrote}: commit them, or add them to .gitignore" in notes.lines


def test_hooks_read_for_the_training_and_files_outside_are_named(tmp_path: Path) -> None:
    outside = tmp_path / "elsewhere" / "lookup.json"
    outside.parent.mkdir()
    outside.write_text("{}")
    above = """
import json

def preprocess(rows):
    return rows.assign(width=rows.width * json.load(open("scale.json")))

def postprocess(outputs):
    json.load(open("names.json"))
    return outputs
"""
    body = f"open({str(outside)!r}).close()\nimport tempfile\ntempfile.mkstemp()"
    root = write(tmp_path / "project", body, above, scale_json="2", names_json="{}")
    hooks = {name: f"pipeline:{name}" for name in ("preprocess", "postprocess")}
    notes = Notes()
    opened = trained(root, notes, include=["*.json"], **hooks).opened
    assert {"scale.json", "names.json"} <= opened.read.keys()
    about = [line for line in notes.lines if "not part of the release" in line]
    assert about == [f"training read {outside}, which is not part of the release"]


def test_uncommitted_code_elsewhere_in_the_repository_counts_as_in_the_project(
    tmp_path: Path,
) -> None:
    shared = tmp_path / "shared"
    for name in ("scale.py", "used.py", "other.py"):
        shared.mkdir(exist_ok=True)
        (shared / name).write_text("VALUE = 1\n")
    (shared / "scale.py").write_text("import used\nVALUE = used.VALUE\n")
    (shared / "table.json").write_text("{}")
    root = tmp_path / "models" / "churn"
    body = """
import sys
sys.path.insert(0, str(Path(__file__).parents[2] / "shared"))
import scale
open("../../shared/table.json").close()
open("../../shared/written.txt", "w").close()
if scale.VALUE == 3: Path("../../shared/table.json").write_text("[]")
"""
    write(root, body, "from pathlib import Path")
    (root / ".git").rename(tmp_path / ".git")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "--quiet", "--message", "Two folders")
    read = {f"../../shared/{name}" for name in ("scale.py", "used.py", "table.json")}

    def opened() -> Opened:
        shutil.rmtree(root / ".mlship", ignore_errors=True)
        return trained(root).opened

    clean = opened()
    assert read <= clean.read.keys()
    assert not any("other.py" in path or "written" in path for path in clean.read)
    assert clean.uncommitted(()) == ()
    (shared / "other.py").write_text("VALUE = 9\n")
    assert opened().uncommitted(()) == ()
    (shared / "used.py").write_text("VALUE = 2\n")
    dirty = opened()
    assert dirty.uncommitted(("a.py",)) == ("a.py", "../../shared/used.py")
    assert dirty.read["../../shared/used.py"] != clean.read["../../shared/used.py"]
    git(tmp_path, "update-index", "--assume-unchanged", "shared/used.py")
    assert opened().shared == ("../../shared/used.py",)
    (shared / "used.py").write_text("VALUE = 3\n")
    changed = opened()
    assert changed.shared == ("../../shared/table.json", "../../shared/used.py")
    assert "../../shared/table.json" in changed.left
    assert [path for path in changed.written if "written" in path] == []


def test_a_change_in_a_submodule_beside_the_project_counts(tmp_path: Path) -> None:
    library = tmp_path / "library"
    library.mkdir()
    (library / "scale.py").write_text("VALUE = 1\n")
    git(library, "init", "--quiet", "--initial-branch=main")
    git(library, "add", "-A")
    git(library, "commit", "--quiet", "--message", "Begin")
    top = tmp_path / "top"
    body = "import sys\nsys.path.insert(0, '../shared')\nimport scale"
    root = write(top / "churn", body)
    (root / ".git").rename(top / ".git")
    git(
        top,
        "-c",
        "protocol.file.allow=always",
        "submodule",
        "--quiet",
        "add",
        str(library),
        "shared",
    )
    git(top, "add", "-A")
    git(top, "commit", "--quiet", "--message", "Two folders")
    assert trained(root).opened.shared == ()
    (top / "shared" / "scale.py").write_text("VALUE = 2\n")
    shutil.rmtree(root / ".mlship")
    assert trained(root).opened.shared == ("../shared",)


def test_a_file_that_somebody_changes_after_it_was_read_is_refused(tmp_path: Path) -> None:
    body = """
import subprocess
open("params.json").read()
subprocess.run(["sh", "-c", "echo '{}' > params.json"], check=True)
"""
    write(tmp_path, body, params_json="{} ")
    with pytest.raises(ConflictError, match=r"params\.json changed while training ran"):
        trained(tmp_path)
    assert not (tmp_path / ".mlship" / "bundle").exists()


def test_a_pointer_and_a_submodule_that_were_not_fetched_are_named(tmp_path: Path) -> None:
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n"
    write(tmp_path, "import json\njson.load(open('lookup.json'))", lookup_json=text)
    git(tmp_path, "update-index", "--add", "--cacheinfo", f"160000,{'a' * 40},vendored")
    (tmp_path / "vendored").mkdir()
    notes = Notes()
    with pytest.raises(ProjectError, match=r"lookup\.json is a Git LFS pointer") as caught:
        trained(tmp_path, notes)
    hint = "git submodule update --init vendored"
    assert notes.lines == [f"submodule vendored is not checked out: {hint}"]
    assert caught.value.hint.startswith("git lfs pull")


CASE = """
name: small
data: {train: data.csv, target: species, split: {fraction: 0.25}}
model: {train: "pipeline:train"}
store: {kind: directory}
gates: {container: false}
targets: {staging: {}, production: {replicas: 1}}
"""


def mlship(root: Path, *arguments: str) -> tuple[int, dict[str, Any], str]:
    """Run a command; return its exit code, its answer and what it said beside."""
    done = commands.run("--json", *arguments, folder=root, environment=os.environ)
    return done.returncode, json.loads(done.stdout) if done.stdout else {}, done.stderr


def release_of(answer: Mapping[str, Any]) -> str:
    return str(answer["release"])


def test_params_in_a_file_of_the_projects_own_make_another_release(tmp_path: Path) -> None:
    body = 'import json\nparams = json.load(open("params.json"))'
    root = write(tmp_path, body, params_json='{"C": 1}')
    (root / "mlship.yaml").write_text(CASE)
    git(root, "add", "-A")
    git(root, "commit", "--quiet", "--message", "Configure")
    releases = []
    for value in (1, 10, 1000):
        (root / "params.json").write_text(json.dumps({"C": value}))
        code, answer, said = mlship(root, "train")
        assert (code, "trained from the same inputs" in said) == (0, False)
        assert "training read params.json: part of the release" in said
        code, again, said = mlship(root, "train")
        assert (code, release_of(again)) == (0, release_of(answer))
        assert "trained from the same inputs" in said
        releases.append(release_of(answer))
    assert len(set(releases)) == 3
    (root / "params.json").write_text(json.dumps({"C": 10}))
    assert release_of(mlship(root, "train")[1]) == releases[1]


def test_a_file_that_training_looked_for_makes_another_release_when_it_is_there(
    tmp_path: Path,
) -> None:
    body = "from pathlib import Path\nlocal = Path('ignored/local.json').exists()"
    root = write(tmp_path, body, ignored__a="")
    (root / "mlship.yaml").write_text(CASE)
    git(root, "add", "-A")
    git(root, "commit", "--quiet", "--message", "Configure")
    without = release_of(mlship(root, "train")[1])
    local = root / "ignored" / "local.json"
    local.write_text("{}")
    found = release_of(mlship(root, "train")[1])
    assert found != without
    local.write_text("[]")
    assert release_of(mlship(root, "train")[1]) not in (found, without)
    local.unlink()
    assert release_of(mlship(root, "train")[1]) == without


def test_a_course_that_writes_its_metrics_goes_all_the_way(tmp_path: Path) -> None:
    root = write(tmp_path, 'open("metrics.json", "w").write("{}")')
    (root / "mlship.yaml").write_text(CASE)
    git(root, "add", "-A")
    git(root, "commit", "--quiet", "--message", "Configure")
    try:
        code, answer, said = mlship(root, "train")
        assert code == 0, said
        assert "training wrote metrics.json: commit it, or add it to .gitignore" in said
        release = release_of(answer)
        steps = ("test", "deploy-staging", "verify-staging-workload", "deploy-production", "run")
        for step in (*steps, "train"):
            code, answer, said = mlship(root, step)
            assert (code, release_of(answer)) == (0, release), said
        # It is committed, and the next training changes it: still no change of anybody's.
        git(root, "add", "-A")
        git(root, "commit", "--quiet", "--message", "Metrics")
        (root / "pipeline.py").write_text(
            (root / "pipeline.py").read_text().replace('"{}"', '"{  }"')
        )
        git(root, "commit", "--quiet", "--all", "--message", "Space")
        assert mlship(root, "train")[0] == 0
        assert mlship(root, "run")[0] == 0
    finally:
        mlship(root, "down")


def test_data_that_change_while_training_runs_are_refused_by_name(tmp_path: Path) -> None:
    body = 'import subprocess\nsubprocess.run(["sh", "-c", "tail -1 data.csv >> data.csv"])'
    root = write(tmp_path, body)
    (root / "mlship.yaml").write_text(CASE)
    code, answer, _ = mlship(root, "train")
    assert code == ConflictError.exit_code
    assert answer["message"].startswith("data.csv changed while training ran")
    code, answer, _ = mlship(root, "test")
    assert code == 5
    assert "with uncommitted changes (data.csv, mlship.yaml) has no release" in answer["message"]
