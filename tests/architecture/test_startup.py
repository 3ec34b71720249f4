"""What the quick commands load: no vendor's library, and no numpy, pandas or sklearn."""

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from mlship.adapters.ledgers.directory import DirectoryLedger
from mlship.domain import digests
from mlship.domain.prediction import Prediction
from tests.fakes.store import tiny_bundle
from tests.harness.samples import NOON, record, release
from tests.harness.signing import HERE

HEAVY = {"mlflow", "numpy", "pandas", "sklearn", "onnxruntime", "uvloop", "matplotlib"}
HEAVY |= {"google", "grpc", "opentelemetry"}
PROJECT = """
name: iris
data: {train: data/train.csv, test: data/test.csv}
model: {train: "pipeline:train"}
image: {repository: europe-west1-docker.pkg.dev/iris-1/models/iris, create: true}
"""


def loaded(folder: Path, *arguments: str) -> set[str]:
    """Return the names of the modules that a command has loaded when it ends."""
    program = (
        "import sys, atexit\n"
        "atexit.register(lambda: print('\\n'.join(sys.modules), file=sys.stderr))\n"
        f"sys.argv = ['mlship', *{list(arguments)!r}]\n"
        "from mlship.cli.main import main\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return set(done.stderr.split())


def test_skops_is_imported_without_all_of_scikit_learn() -> None:
    program = (
        "import sys; from mlship.runtime import trust; io = trust.skops_io()\n"
        "import sklearn.utils; from sklearn.utils.discovery import all_estimators\n"
        "assert sklearn.utils.all_estimators is all_estimators\n"
        "assert 'sklearn.gaussian_process' not in sys.modules\n"
        "from sklearn.gaussian_process import GaussianProcessClassifier\n"
        "assert io.get_untrusted_types(data=io.dumps(GaussianProcessClassifier())) == []\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_server_loads_neither_traces_nor_grpc_nor_a_model() -> None:
    program = (
        "import sys; import mlship.runtime.front\n"
        "loaded = {'opentelemetry', 'grpc', 'numpy', 'requests'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_help_loads_neither_a_vendor_nor_a_backend(tmp_path: Path) -> None:
    modules = loaded(tmp_path, "--help")
    assert not modules & (HEAVY | {"rich", "yaml"})
    # What all steps write and read is a third of the time until a command begins.
    assert not modules & {"mlship.domain.facts", "mlship.steps", "mlship.adapters"}


@pytest.mark.parametrize("arguments", [("status",), ("status", "--json"), ("status", "--all")])
def test_status_loads_nothing_heavy(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    (tmp_path / "mlship.yaml").write_text(PROJECT)
    assert not loaded(tmp_path, *arguments) & HEAVY


@pytest.mark.parametrize(
    "arguments",
    [
        ("report", "RELEASE"),
        ("report", "RELEASE", "--markdown"),
        ("report", "RELEASE", "--json"),
        ("trace", "p.0"),
        ("trace", "p.0", "--json"),
    ],
)
def test_report_and_trace_load_nothing_heavy(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    (tmp_path / "mlship.yaml").write_text(PROJECT)
    state = tmp_path / ".mlship"
    digest = tiny_bundle(state / "bundle")
    (state / "bundles").mkdir()
    (state / "bundle").rename(state / "bundles" / digests.short(digest))
    trained = msgspec.structs.replace(release(), bundle=digest)
    DirectoryLedger(state / "ledger", HERE).append(record(trained, "train").evidence)
    prediction = Prediction(
        id="p.0",
        release=trained.id,
        slot="champion",
        time=NOON,
        inputs={"x": 1.0},
        outputs={"species": "setosa", "score": 1.0},
        latency_ms=0.5,
    )
    log = state / "predictions" / "production" / "champion.jsonl"
    log.parent.mkdir(parents=True)
    log.write_bytes(msgspec.json.encode(prediction) + b"\n")
    words = [word.replace("RELEASE", str(trained)) for word in arguments]
    assert not loaded(tmp_path, *words) & HEAVY
