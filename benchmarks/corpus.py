"""Is what is served what was trained? Pairs of model and preprocessing, each served over HTTP.

    python benchmarks/corpus.py [--only PATTERN] [--every N] [--jobs 2] [--json FILE]
                                [--no-mlflow] [--without-probes] [--list] [--frameworks] [--pyfunc]

Each pair is a small project: mlship trains and seals it, `mlship.runtime serve` serves it on
loopback, and the answers are compared with those of the model that the same function returns in
the benchmark: on held-out rows and on at least 2,200 rows that the benchmark makes itself. What the
model raises on must be a 4xx that names the column; what it accepts must be answered equally.
Beside it, the same model is logged to MLflow and asked the same by its scoring, in process.

`--pyfunc` registers each served bundle in an MLflow store of its own, loads that version with
`mlflow.pyfunc.load_model`, and asks it as `mlflow models serve` does: its answers must be those
that were served.

`--frameworks` runs the pairs of CatBoost, PyTorch, Keras and Hugging Face instead, without MLflow:

    pip install catboost torch keras transformers onnxscript

`--without-probes` is the control: training compares forms on held-out rows only. The exit code is
1 if a served pair answers wrongly or with a 5xx.
"""

import argparse
import contextlib
import fnmatch
import http.client
import importlib
import json
import math
import multiprocessing
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy: pairs share the cores

# ruff: noqa: E402
import corpus_frameworks
import corpus_pairs
import corpus_tasks
import msgspec
import numpy as np
import pandas as pd
from corpus_pairs import HELD_OUT, Pair
from corpus_probes import Answered, Asked, Comparison, Contract, Several, answers, rows
from sklearn.base import is_classifier, is_outlier_detector

from mlship.adapters.checkout.children import TrainRequest
from mlship.adapters.checkout.predictor import ChildPredictor
from mlship.adapters.stores.mlflow import MlflowStore
from mlship.config import layers
from mlship.domain import bundle as bundles
from mlship.domain import digests
from mlship.domain.versions import Run
from mlship.errors import MlshipError
from mlship.runtime import serve
from mlship.runtime.options import Identity, Options
from mlship.training import train as training
from mlship.training.proof import trial
from mlship.training.proof.probes import ProbeKind, Probes
from tests.fakes.store import tiny_release
from tests.harness.projects import InProcess

PAIR_SECONDS = 400
BATCH = 200
MLFLOW_PROBES = 600
LIMIT = 2.0**53
TREES = ("Tree", "Forest", "Boost", "XGB", "LGBM", "xgboost.", "lightgbm.", "BaggingC", "BaggingR")
"""Models that only compare numbers, so that both sides of a jump must be exact."""
Result = dict[str, Any]
Replies = dict[int, tuple[int, Any]]


def main() -> int:
    """Run the pairs, print the table, and return the exit code."""
    options = _options()
    plain = [*corpus_pairs.pairs(), *corpus_tasks.pairs()]
    known = corpus_frameworks.pairs() if options.frameworks else plain
    options.mlflow = options.mlflow and not options.frameworks
    pairs = [
        pair
        for pair in known
        if any(fnmatch.fnmatch(pair.name, pattern) for pattern in options.only or ["*"])
    ][options.start :: options.every]
    if options.list:
        print("\n".join(pair.name for pair in pairs))
        return 0
    if options.mlflow:
        import mlflow.lightgbm
        import mlflow.sklearn
        import mlflow.xgboost  # noqa: F401
    started = time.perf_counter()
    results = []
    with tempfile.TemporaryDirectory() as folder:
        options.registry = Path(folder) / "mlflow.db"
        if options.pyfunc:
            _make_registry(options.registry)
        for result in _run(pairs, options):
            results.append(result)
            print(_line(result), flush=True)
    results.sort(key=lambda result: str(result["name"]))
    if options.json:
        options.json.write_text(json.dumps(results, indent=1, default=str))
    _print_table(results, options)
    print(f"{time.perf_counter() - started:.0f} s")
    checked = [*results, *(result["pyfunc"] for result in results if "pyfunc" in result)]
    return int(any(result["kind"] in ("wrong", "5xx", "failed", "hang") for result in checked))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", action="append", help="names of pairs, such as 'forest*'")
    parser.add_argument("--every", type=int, default=1, help="run each n-th pair")
    parser.add_argument("--start", type=int, default=0, help="leave out so many pairs")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--no-mlflow", dest="mlflow", action="store_false")
    parser.add_argument("--pyfunc", action="store_true")
    parser.add_argument("--without-probes", action="store_true")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--frameworks", action="store_true")
    return parser.parse_args()


def _run(pairs: Sequence[Pair], options: argparse.Namespace) -> Iterator[Result]:
    """Run each pair in a fork of its own, with a deadline."""
    context = multiprocessing.get_context("fork")
    waiting, running = list(pairs), list[Any]()
    while waiting or running:
        while waiting and len(running) < options.jobs:
            pair = waiting.pop(0)
            receiver, sender = context.Pipe(duplex=False)
            child = context.Process(target=_child, args=(pair, options, sender))
            child.start()
            sender.close()
            running.append((pair, child, receiver, time.monotonic()))
        time.sleep(0.05)
        for entry in list(running):
            pair, child, receiver, started = entry
            is_late = time.monotonic() - started > PAIR_SECONDS
            if not (receiver.poll() or child.exitcode is not None or is_late):
                continue
            result: Result = {"name": pair.name, "kind": "hang" if is_late else "failed"}
            with contextlib.suppress(EOFError):
                if receiver.poll():
                    result = receiver.recv()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid or 0, signal.SIGKILL)
            child.join()
            running.remove(entry)
            yield result | {"seconds": round(time.monotonic() - started, 1)}


def _child(pair: Pair, options: argparse.Namespace, sender: Any) -> None:
    os.setsid()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log.txt"
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT)
        for stream in (1, 2):
            os.dup2(descriptor, stream)
        try:
            result = _tried(pair, Path(folder), options)
        except Exception:  # noqa: BLE001 (a fault of the pair is a result)
            result = {"kind": "failed", "reason": traceback.format_exc()[-1500:]}
        if result["kind"] == "failed":
            result["log"] = log.read_text(errors="replace")[-1500:]
    sender.send({"name": pair.name, **result})


def _tried(pair: Pair, root: Path, options: argparse.Namespace) -> Result:
    train, test = _written(pair, root)
    server = _Server(root)
    started = time.perf_counter()
    result: Result = {}
    try:
        if options.without_probes:
            _switch_probes_off()
        predictor = ChildPredictor() if pair.config.get("preprocess") else InProcess()
        trained = training.train(_request(pair, root), predictor)
        result = {"kind": "served", "format": trained.format, "notes": trained.notes}
    except MlshipError as error:
        result = {"kind": "refused", "reason": error.message}
    result["training"] = round(time.perf_counter() - started, 2)
    if pair.name.startswith(corpus_frameworks.REFUSED):
        return result | ({"kind": "wrong"} if result["kind"] == "served" else {})
    original = _Original(root, train, pair)
    asked = rows(original.contract, test, original.labels, seed=11)
    answered = answers(original.answer, original.contract, asked)
    is_exact = any(word in pair.source.partition("def train(")[2] for word in TREES)
    make = Comparison if pair.is_plain else Several
    comparison = make(asked, answered, is_regression=original.is_regression, is_exact=is_exact)
    result |= {"rows": len(asked), "refusals": len(answered.refused)}
    if result["kind"] == "served":
        with server as port:
            replies, judged = _compared(port, root / "bundle", asked, answered, comparison)
            result |= judged
        if options.pyfunc:
            shutil.copyfile(options.registry, root / "mlflow.db")
            told = (asked, answered, comparison)
            result["pyfunc"] = _of_registry(root, told, replies)
    if options.mlflow and pair.is_plain:
        result["mlflow"] = _of_mlflow(original, root, (asked, answered, comparison))
    return result


def _written(pair: Pair, root: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Write the project; return its training rows as pandas reads them, and held-out features."""
    frame = {**corpus_pairs.DATA, **corpus_tasks.DATA}[pair.data]()
    suffix = corpus_pairs.suffix_of(pair.data)
    parts = {"train": frame.iloc[:-HELD_OUT], "test": frame.iloc[-HELD_OUT:]}
    read = []
    for name, part in parts.items():
        path = root / f"{name}.{suffix}"
        if suffix == "csv":
            part.to_csv(path, index=False)
            read.append(pd.read_csv(path))
        else:
            part.reset_index(drop=True).to_parquet(path)
            read.append(pd.read_parquet(path))
    (root / "pipeline.py").write_text(pair.source)
    return read[0], read[1].drop(columns=list(pair.targets))


def _request(pair: Pair, root: Path) -> TrainRequest:
    suffix = corpus_pairs.suffix_of(pair.data)
    values: dict[str, Any] = {
        "name": "pair",
        "data": {
            "train": f"train.{suffix}",
            "test": f"test.{suffix}",
            "target": pair.targets or None,
        },
        "gates": {"promote": {"metric": "accuracy" if pair.targets else "none"}},
        "model": {"train": "pipeline:train", **pair.config},
    }
    config = layers.resolve([layers.Layer(name="mlship.yaml", values=values)]).config
    return TrainRequest(root=root, config=config, into=root / "bundle")


def _switch_probes_off() -> None:
    """Let a form prove itself on held-out rows only."""
    own = trial.prepared

    def prepared(original: Any, data: Any, prepare: Any) -> Any:
        count = len(data.test)
        kind: ProbeKind = "held-out row"
        held_out = Probes(data.test, (kind,) * count, ("",) * count, (0,) * count)
        trial.probes.make = lambda *_: held_out  # type: ignore[attr-defined]
        trial.boundaries.make = lambda *_, **__: None  # type: ignore[attr-defined]
        return own(original, data, prepare)

    training.trials.prepared = prepared  # type: ignore[attr-defined]


class _Original:
    """The model that the project's function returns, trained once more."""

    def __init__(self, root: Path, train: pd.DataFrame, pair: Pair) -> None:
        sys.path.insert(0, str(root))
        self.module = importlib.import_module("pipeline")
        self.pair = pair
        self.features = train.drop(columns=list(pair.targets))
        is_csv = (root / "test.csv").exists()
        held_out = (
            pd.read_csv(root / "test.csv") if is_csv else pd.read_parquet(root / "test.parquet")
        )
        self.contract = Contract(self.features, held_out.drop(columns=list(pair.targets)))
        self._hook = getattr(self.module, "preprocess", None)
        given = (
            train
            if self._hook is None
            else self._hook(self.features.copy()).assign(target=train["target"])
        )
        np.random.seed(0)
        self.model = self.module.train(given.copy(), {})
        self.has_hook = self._hook is not None
        self._is_array = "to_numpy()" in pair.source
        self._series = "features['text']" in pair.source or "features['dose']" in pair.source
        own = getattr(self.module, "answer", None)
        self._own: Callable[..., Any] | None = own
        self.is_regression = own is not None and "of_values(" in pair.source.rpartition("answer")[2]
        if own is None:
            has_classes = is_classifier(self.model) or is_outlier_detector(self.model)
            self.is_regression = not has_classes
        if not pair.is_plain:
            self.is_regression = corpus_tasks.is_of_numbers(pair, self.model)
        self._usual_score = 1.0
        if hasattr(self.model, "decision_function"):
            scores = self.model.decision_function(self.prepared(self.features))
            self._usual_score = float(np.median(np.abs(scores))) or 1.0

    def prepared(self, frame: pd.DataFrame) -> Any:
        frame = frame if self._hook is None else self._hook(frame.copy())
        names = getattr(self.model, "feature_names_in_", None)
        if self._series:
            return frame.iloc[:, 0]
        if self._is_array:
            return frame.to_numpy()
        return frame if names is None else frame[list(names)]

    def answer(self, frame: pd.DataFrame) -> tuple[Any, Any, Any]:
        """Return labels, probabilities and margins; the last two may be `None`."""
        data = self.prepared(frame)
        if not self.pair.is_plain:
            return corpus_tasks.answer(self.pair, self.model, data)
        if self._own is not None:
            labels, shares = self._own(self.model, data)
            return labels, shares, None if shares is None else _margin(shares)
        # CatBoost gives labels of several classes as a column.
        labels = np.asarray(self.model.predict(data)).reshape(len(frame))
        if self.is_regression:
            return labels, None, None
        if hasattr(self.model, "predict_proba"):
            shares = np.asarray(self.model.predict_proba(data))
            return labels, shares, _margin(shares)
        if hasattr(self.model, "decision_function"):
            scores = np.asarray(self.model.decision_function(data)) / self._usual_score
            return labels, None, np.abs(scores) if scores.ndim == 1 else _margin(scores)
        return labels, None, None

    def labels(self, frame: pd.DataFrame) -> Any:
        found = np.asarray(self.answer(frame)[0])
        if found.ndim == 2 and found.shape[1] > 1:  # a jump of any head is a jump
            return np.array([str(row) for row in found.tolist()])
        return found.reshape(len(frame))


def _margin(scores: Any) -> Any:
    if scores.shape[1] < 2:
        return np.ones(len(scores))
    best = np.sort(np.nan_to_num(scores), axis=1)
    return best[:, -1] - best[:, -2]


class _Server:
    """`mlship.runtime serve` in a fork that imported nothing of the project and ran no model."""

    def __init__(self, root: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        context = multiprocessing.get_context("fork")
        reader, self._go = context.Pipe(duplex=False)
        self._process = context.Process(target=self._serve, args=(root, reader))
        self._process.start()
        reader.close()

    def _serve(self, root: Path, reader: Any) -> None:
        self._go.close()
        try:
            reader.recv()
        except EOFError:
            return
        serve.serve(
            Options(
                bundle=root / "bundle",
                identity=Identity(
                    release=digests.parse(f"sha256:{'0' * 64}"), name="pair", slot="champion"
                ),
                expected=None,
                host="127.0.0.1",
                port=self.port,
                log=str(root / "log"),
                shutdown_seconds=5,
            )
        )

    def __enter__(self) -> int:
        """Serve the bundle; return the port."""
        self._go.send("serve")
        _wait_until_ready(self.port, self._process)
        return self.port

    def __exit__(self, *_: object) -> None:
        """Stop the server."""
        self._process.terminate()
        self._process.join(20)


def _wait_until_ready(port: int, server: Any) -> None:
    for _ in range(600):
        assert server.is_alive(), "the server ended"
        with contextlib.suppress(OSError):
            connection = http.client.HTTPConnection("127.0.0.1", port)
            connection.request("GET", "/v2/health/ready")
            answer = connection.getresponse()
            body = answer.read()
            if answer.status == 200:
                return
            assert b'"failed"' not in body, f"the server did not become ready: {body!r}"
        time.sleep(0.05)
    message = "the server did not become ready"
    raise AssertionError(message)


class _Client:
    """Posts rows, many at a time; a batch that is refused is halved."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)

    def post(self, some: Sequence[Asked]) -> tuple[int, Any]:
        body = msgspec.json.encode([one.row for one in some])
        self._connection.request("POST", "/predict", body, {"content-type": "application/json"})
        answer = self._connection.getresponse()
        return answer.status, msgspec.json.decode(answer.read())

    def each(
        self, asked: Sequence[Asked], numbers: Sequence[int]
    ) -> Iterator[tuple[int, int, Any]]:
        """Yield for each row its number, the status, and its prediction or fault."""
        if not numbers:
            return
        status, body = self.post([asked[number] for number in numbers])
        if status == 200:
            for number, prediction in zip(numbers, body["predictions"], strict=True):
                yield number, status, prediction
        elif len(numbers) == 1:
            yield numbers[0], status, body
        else:
            middle = len(numbers) // 2
            yield from self.each(asked, numbers[:middle])
            yield from self.each(asked, numbers[middle:])


def _compared(
    port: int, bundle: Path, asked: Sequence[Asked], answered: Answered, comparison: Comparison
) -> tuple[Replies, Result]:
    """Return the status and the body of each row's reply, and what is wrong with them."""
    replies: Replies = {}
    manifest = bundles.read(bundle)
    client = _Client(port)
    accepted = [number for number in range(len(asked)) if number not in answered.refused]
    wrong: list[str] = []
    counts: Counter[str] = Counter()
    batches = [accepted[n : n + BATCH] for n in range(0, len(accepted), BATCH)]
    batches += [[number] for number in answered.refused]
    for batch in batches:
        for number, status, body in client.each(asked, batch):
            replies[number] = (status, body)
            counts["5xx"] += status >= 500
            what = _judged(manifest, asked[number], (number, status, body), answered, comparison)
            if what.startswith("limit"):
                counts["limited"] += 1
            elif what == "beside":
                counts["beside"] += 1
            elif what.startswith("unnamed"):
                counts["unnamed"] += 1
            elif what:
                row = {name: str(value)[:40] for name, value in asked[number].row.items()}
                wrong.append(f"{what} ({asked[number].column or 'mixture'}: {row})")
    kind = "5xx" if counts["5xx"] else "wrong" if wrong else "served"
    return replies, {"kind": kind, "wrong": len(wrong), "examples": wrong[:4], **counts}


def _make_registry(path: Path) -> None:
    """Make an empty MLflow database, which each pair copies: its migrations take seconds."""
    from mlflow import MlflowClient

    MlflowClient(f"sqlite:///{path}").search_registered_models()


def _of_registry(
    root: Path, told: tuple[Sequence[Asked], Answered, Comparison], replies: Replies
) -> Result:
    """Register the bundle, load the version as pyfunc, and compare its answers to those served.

    A batch of other rows may sum up in another order. Where an answer is not the served one to the
    last digits, it must be that of the original, as a served one must.
    """
    import mlflow

    asked, answered, comparison = told
    bundle = root / "bundle"
    manifest = bundles.read(bundle)
    release = tiny_release(digests.of_file(bundle / bundles.MANIFEST))
    uri = f"sqlite:///{root}/mlflow.db"
    store = MlflowStore(uri, release.name, root / "artifacts", {})
    store.record(Run(release=release, bundle=bundle))
    store.point("champion", release)
    mlflow.set_tracking_uri(uri)
    loaded = mlflow.pyfunc.load_model(f"models:/{release.name}@champion")
    sampled = {*range(HELD_OUT), *np.linspace(HELD_OUT, len(asked) - 1, MLFLOW_PROBES, dtype=int)}
    numbers = sorted(int(number) for number in sampled)
    accepted = [number for number in numbers if replies[number][0] == 200]
    batches = [accepted[start : start + BATCH] for start in range(0, len(accepted), BATCH)]
    batches += [[number] for number in numbers if replies[number][0] != 200]
    wrong = [
        f"pyfunc: {answer}, served: {replies[number]}"
        for batch in batches
        for number, answer in _loaded_answers(loaded, asked, batch)
        if not _is_same(answer, *replies[number])
        and (
            isinstance(answer, Exception)
            or _judged(manifest, asked[number], (number, 200, answer), answered, comparison)
            not in ("", "beside")
        )
    ]
    kind = "wrong" if wrong else "served"
    return {"kind": kind, "rows": len(numbers), "wrong": len(wrong), "examples": wrong[:2]}


def _loaded_answers(
    loaded: Any, asked: Sequence[Asked], numbers: list[int]
) -> Iterator[tuple[int, dict[str, Any] | Exception]]:
    """Yield for each row its number, and what a loaded version answers or refuses it with."""
    from mlflow.pyfunc.scoring_server import infer_and_parse_data

    records = [asked[number].row for number in numbers]
    try:
        schema = loaded.metadata.get_input_schema()
        frame = infer_and_parse_data({"dataframe_records": records}, schema)
        answers = json.loads(json.dumps(loaded.predict(frame).to_dict("records")))
    except Exception as error:  # noqa: BLE001 (a refusal of any kind)
        if len(numbers) == 1:
            yield numbers[0], error
            return
        middle = len(numbers) // 2
        yield from _loaded_answers(loaded, asked, numbers[:middle])
        yield from _loaded_answers(loaded, asked, numbers[middle:])
        return
    yield from zip(numbers, answers, strict=True)


def _is_same(answer: dict[str, Any] | Exception, status: int, body: dict[str, Any]) -> bool:
    """Tell whether outputs are equal, but for the order in which a batch is summed up."""
    if isinstance(answer, Exception) or status != 200:
        return isinstance(answer, Exception) and status != 200
    return answer.keys() == body.keys() - {"id"} and all(
        math.isclose(answer[name], value, rel_tol=1e-9, abs_tol=1e-12)
        if isinstance(value, float) and isinstance(answer[name], float)
        else answer[name] == value
        for name, value in body.items()
        if name != "id"
    )


def _judged(
    manifest: bundles.Bundle,
    one: Asked,
    reply: tuple[int, int, Any],
    answered: Answered,
    comparison: Comparison,
) -> str:
    """Say what is wrong with a reply; empty if nothing is."""
    number, status, body = reply
    refusal = answered.refused.get(number)
    if status >= 500:
        return f"{status} {body} where the model {refusal or 'answers'}"
    if status != 200:
        return _refusal(manifest, one, body, refusal)
    if refusal:
        return f"{body} where the model refuses: {refusal}"
    label, shares = _reply_of(manifest, body)
    if shares is None and answered.probabilities is not None:
        return "no probabilities"
    what = comparison.difference(number, label, shares)
    return "beside" if what and comparison.is_beside(number, label, shares) else what


def _reply_of(manifest: bundles.Bundle, body: Any) -> tuple[Any, list[float] | None]:
    """Return the label or value of a response, or those of all heads, and the probabilities."""
    heads = manifest.model.heads
    if manifest.quantiles:
        assert body["target"] == body["target_q0.5"]
    names = [f"probability_{label}" for label in manifest.model.classes]
    names += [f"probability_{head.name}_{label}" for head in heads for label in head.classes]
    if manifest.task == "anomaly":
        names = ["score"]
    shares = [body[name] for name in names] if names and names[0] in body else None
    if heads:
        return [body[head.name] for head in heads], shares
    label = body[manifest.target]
    return (label if manifest.task in ("classification", "regression") else [label]), shares


def _refusal(manifest: bundles.Bundle, one: Asked, body: Any, refusal: str | None) -> str:
    fault = body.get("error", body)
    column = fault.get("field", "").partition(".")[2]
    if refusal is None:
        fields = {entry.name: entry for entry in manifest.schema.inputs}
        limit = fields[column].limit if column in fields else None
        value = one.row.get(column)
        if limit is not None and limit >= LIMIT and isinstance(value, int | float):
            return "limit"
        return f"refused where the model answers: {fault}"
    if one.column and column != one.column:
        return f"the refusal names {column or 'no column'} instead of {one.column}: {fault}"
    return "" if column else "unnamed"


def _of_mlflow(
    original: _Original, root: Path, told: tuple[Sequence[Asked], Answered, Comparison]
) -> Result:
    """Log the model, load it as pyfunc, and ask its scoring the held-out rows and some others."""
    import mlflow
    from mlflow.pyfunc.scoring_server import infer_and_parse_data

    asked, answered, comparison = told
    numbers = [*range(HELD_OUT), *np.linspace(HELD_OUT, len(asked) - 1, MLFLOW_PROBES).astype(int)]
    try:
        given = original.prepared(original.features)
        if isinstance(given, pd.Series | np.ndarray):
            given = original.features
        labels = original.labels(original.features)
        signature = mlflow.models.infer_signature(given, labels)
        module = type(original.model).__module__.partition(".")[0]
        flavour = importlib.import_module(
            f"mlflow.{module}" if module in ("xgboost", "lightgbm") else "mlflow.sklearn"
        )
        _log(flavour, original.model, root / "mlflow", signature)
        loaded = mlflow.pyfunc.load_model(str(root / "mlflow"))
    except Exception as error:  # noqa: BLE001 (MLflow refuses the model)
        return {"kind": "refused", "reason": f"{type(error).__name__}: {str(error)[:200]}"}
    schema = loaded.metadata.get_input_schema()
    found: dict[int, Any] = {}
    deadline = time.monotonic() + 90

    def visit(some: list[int]) -> None:
        try:
            records = [asked[number].row for number in some]
            if original.has_hook:  # MLflow's model has none: its caller applies it
                frame = original.prepared(original.contract.frame(records))
            else:
                frame = infer_and_parse_data({"dataframe_records": records}, schema)
            array = np.asarray(loaded.predict(frame))
            values = array.tolist() if array.ndim == 1 else list(array)
            found.update(dict(zip(some, values, strict=True)))
        except Exception as error:  # noqa: BLE001 (a refusal of its scoring)
            if len(some) == 1 or time.monotonic() > deadline:
                found.update(dict.fromkeys(some, error))
                return
            visit(some[: len(some) // 2])
            visit(some[len(some) // 2 :])

    for start in range(0, len(numbers), BATCH):
        visit([int(number) for number in numbers[start : start + BATCH]])
    wrong = [
        what
        for number, value in found.items()
        if (what := _mlflow_difference(number, value, answered, comparison))
    ]
    is_served = not any(isinstance(found[number], Exception) for number in range(HELD_OUT))
    kind = "wrong" if wrong else "served"
    return {"kind": kind if is_served else "refused", "wrong": len(wrong), "examples": wrong[:2]}


def _log(flavour: Any, model: Any, folder: Path, signature: Any) -> None:
    """Save a model as MLflow does by default, or as a pickle where that is refused."""
    options = {"signature": signature, "pip_requirements": ["scikit-learn"]}
    try:
        flavour.save_model(model, str(folder), **options)
    except Exception:  # noqa: BLE001
        shutil.rmtree(folder, ignore_errors=True)
        flavour.save_model(model, str(folder), serialization_format="cloudpickle", **options)


def _mlflow_difference(number: int, value: Any, answered: Answered, comparison: Comparison) -> str:
    refused = answered.refused.get(number)
    if isinstance(value, Exception):
        return "" if refused else f"refused where the model answers: {str(value)[:150]}"
    values = np.ravel(value)
    if refused:
        is_number = values.dtype.kind == "f"
        return "" if is_number and not np.isfinite(values).all() else f"{value} where it refuses"
    if len(values) > 1 or (answered.probabilities is not None and values.dtype.kind == "f"):
        own = np.asarray(answered.probabilities[number])
        shares = values if len(values) == len(own) else np.array([1 - values[0], values[0]])
        return comparison.difference(number, answered.labels[number], shares.tolist())
    return comparison.difference(number, values.tolist()[0], None)


def _line(result: Result) -> str:
    form = result.get("format", "")
    beside = result.get("mlflow", {}).get("kind", "")
    line = f"{result['kind']:8} {form:9} {result['seconds']:6.1f} s  {result['name']:48} {beside:8}"
    if result["kind"] == "refused":
        line += f" {result['reason'][:160]}"
    if "pyfunc" in result:
        line += f" pyfunc {result['pyfunc']['kind']}"
    for example in [*result.get("examples", []), *result.get("pyfunc", {}).get("examples", [])][:3]:
        line += f"\n         {example[:400]}"
    if result["kind"] == "failed":
        line += f"\n{result.get('reason', '')[-400:]}\n{result.get('log', '')[-300:]}"
    return line


def _print_table(results: Sequence[Result], options: argparse.Namespace) -> None:
    groups: dict[str, Counter[str]] = {}
    for result in results:
        kind = result["kind"] if result["kind"] != "served" else result["format"]
        groups.setdefault(result["name"].partition(" / ")[0], Counter())[kind] += 1
    kinds = sorted({kind for counter in groups.values() for kind in counter})
    print(f"\n{'model':32}" + "".join(f"{kind:>10}" for kind in kinds))
    for name, counter in sorted(groups.items()):
        print(f"{name:32}" + "".join(f"{counter[kind] or '':>10}" for kind in kinds))
    total = sum(groups.values(), Counter())
    print(f"{'all':32}" + "".join(f"{total[kind]:>10}" for kind in kinds))
    served = [r for r in results if r["kind"] in ("served", "wrong", "5xx")]
    equal = sum(r["kind"] == "served" for r in served)
    share = len(served) / max(len(results), 1)
    asked = sum(r.get("rows", 0) for r in served)
    print(
        f"\n{len(results)} pairs: {len(served)} served ({share:.1%}), {equal} of them equal to the "
        f"original on {asked:,} rows, {sum(r['kind'] == '5xx' for r in results)} with a 5xx"
    )
    print(
        f"rows refused for a limit beyond 2^53: {sum(r.get('limited', 0) for r in served)}; "
        f"labels of the other side of a jump within one unit of single precision: "
        f"{sum(r.get('beside', 0) for r in served)}; "
        f"refusals of a combination that name no column: {sum(r.get('unnamed', 0) for r in served)}"
    )
    if options.mlflow:
        beside = Counter(r.get("mlflow", {}).get("kind", "none") for r in results)
        answering = beside["served"] + beside["wrong"]
        print(
            f"MLflow's scoring: {answering} served, {beside['wrong']} of them answer otherwise "
            "than the model"
        )
        print(
            f"ratio: mlship answers otherwise in {len(served) - equal} of {len(served)}, MLflow in "
            f"{beside['wrong']} of {answering}"
        )
    if options.pyfunc:
        loaded = [r["pyfunc"] for r in results if "pyfunc" in r]
        print(
            f"mlflow.pyfunc.load_model: {sum(p['kind'] == 'served' for p in loaded)} of "
            f"{len(loaded)} versions give the served answers on {sum(p['rows'] for p in loaded):,} "
            "rows"
        )
    if options.without_probes:
        print(
            f"control: without probes {len(served) - equal} of {len(served)} served pairs answer "
            "wrongly"
        )


if __name__ == "__main__":
    sys.exit(main())
