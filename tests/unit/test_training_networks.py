"""Networks are served as ONNX graphs that answer labels and probabilities, and nothing is guessed.

The frameworks themselves are not installed here: graphs as they export them are made by hand, and
`benchmarks/corpus.py --frameworks` has the real ones.
"""

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
from onnx import TensorProto, helper, numpy_helper

from mlship.config.project import Config
from mlship.domain import bundle as bundles
from mlship.domain.bundle import Bundle
from mlship.errors import MlshipError, ProjectError, RefusedError
from mlship.runtime.model import Model
from mlship.training.frameworks import kerasnet, textnet, torchnet
from mlship.training.frameworks.exports import Network, NotExportedError
from mlship.training.train import train
from tests.harness.projects import InProcess, config, flowers, project, request

CLASSES = ["iris", "rose", "tulip"]
WEIGHTS = np.array([[-3, 0, 3], [1, 0, -1], [0, 0.1, 0]], dtype="float32")
BIAS = np.array([22, 1, -20], dtype="float32")
NUMBERS = ["length", "width", "leaves"]


def graph(weights: Any = WEIGHTS, bias: Any = BIAS, *last: str) -> onnx.ModelProto:
    """Return a graph as frameworks export it: one matrix in, one matrix of scores out."""
    nodes = [helper.make_node("Gemm", ["features", "w", "b"], ["x0"])]
    nodes += [
        helper.make_node(name, [f"x{place}"], [f"x{place + 1}"]) for place, name in enumerate(last)
    ]
    made = helper.make_graph(
        nodes,
        "main_graph",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["rows", len(weights)])],
        [
            helper.make_tensor_value_info(
                nodes[-1].output[0], TensorProto.FLOAT, ["rows", weights.shape[1]]
            )
        ],
        [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(bias, "b")],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def numeric(target: str = "species") -> pd.DataFrame:
    return flowers()[[*NUMBERS, target]]


def make(root: Path, setting: Config) -> Bundle:
    asked = request(root, setting)
    made = train(asked, InProcess())
    return bundles.read(asked.into, expected=made.bundle)


def saved(root: Path, model: onnx.ModelProto, target: str = "species", **options: Any) -> Bundle:
    (root / "m.onnx").write_bytes(model.SerializeToString())
    code = "def train(data, params):\n    return 'm.onnx'\n"
    module = project(root, code, numeric(target))
    return make(root, config(target, module, **options))


def softmax(scores: Any) -> Any:
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.mark.fits
@pytest.mark.parametrize(
    ("output", "last"), [("logits", ()), ("probabilities", ("Softmax",))], ids=str
)
def test_a_saved_graph_answers_what_its_output_is_said_to_be(
    output: str, last: tuple[str, ...], tmp_path: Path
) -> None:
    bundle = saved(tmp_path, graph(WEIGHTS, BIAS, *last), output=output, classes=CLASSES)
    assert (bundle.task, bundle.model.classes) == ("classification", tuple(CLASSES))
    row: bundles.Row = {"length": 9.0, "width": 2.5, "leaves": 4}
    answer = Model.load(tmp_path / "out" / "bundle", None).predict([row])[0]
    shares = softmax(np.array([list(row.values())], dtype="float64") @ WEIGHTS + BIAS)[0]
    assert answer["species"] == CLASSES[int(shares.argmax())]
    found = [answer[f"probability_{name}"] for name in CLASSES]
    assert np.allclose(np.array(found, dtype="float64"), shares, atol=1e-5)


@pytest.mark.fits
def test_one_column_is_the_second_class(tmp_path: Path) -> None:
    frame = numeric().assign(species=[True, False, True] * 30)
    (tmp_path / "m.onnx").write_bytes(graph(WEIGHTS[:, :1], BIAS[:1]).SerializeToString())
    module = project(tmp_path, "def train(data, params):\n    return 'm.onnx'\n", frame)
    bundle = make(tmp_path, config(module=module, output="logits"))
    assert bundle.model.classes == (False, True)
    row: bundles.Row = {"length": 9.0, "width": 2.5, "leaves": 4}
    answer = Model.load(tmp_path / "out" / "bundle", None).predict([row])[0]
    score = np.array([9.0, 2.5, 4]) @ WEIGHTS[:, 0] + BIAS[0]
    assert np.isclose(float(answer["probability_True"] or 0), 1 / (1 + np.exp(-score)), atol=1e-5)


@pytest.mark.fits
def test_values_are_a_regression(tmp_path: Path) -> None:
    bundle = saved(tmp_path, graph(WEIGHTS[:, :1], BIAS[:1]), "price", output="values")
    assert (bundle.task, bundle.model.classes) == ("regression", ())


@pytest.mark.fits
def test_scores_are_no_probabilities(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match="which are no probabilities"):
        saved(tmp_path, graph(), output="probabilities", classes=CLASSES)


def test_classes_that_are_not_told_are_not_guessed(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match="counts its classes from 0 to 2") as raised:
        saved(tmp_path, graph(), output="logits")
    assert "classes: [...]" in raised.value.hint


CODE = """
class Net:
    pass

def train(data, params):
    return Net()
"""


def scored(matrix: Any) -> Any:
    return matrix @ WEIGHTS + BIAS


def framework(
    monkeypatch: pytest.MonkeyPatch,
    root: Path,
    export: Callable[[int], Any],
    frame: pd.DataFrame | None = None,
    **options: Any,
) -> Bundle:
    """Train a project whose function returns a network that exports a graph."""

    def of(model: object) -> Network | None:
        return Network(name="the network Net", compute=scored, export=export)

    monkeypatch.setattr(torchnet, "of", of)
    module = project(root, CODE, numeric() if frame is None else frame)
    return make(root, config(module=module, **options))


@pytest.mark.fits
def test_a_network_is_served_as_its_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = framework(monkeypatch, tmp_path, lambda _: graph(), output="logits", classes=CLASSES)
    assert (bundle.model.format, bundle.model.layout) == ("onnx", "matrix")
    assert not any(line.startswith(("torch", "scikit")) for line in bundle.requirements)
    assert float(bundle.metrics["accuracy"]) > 0.5


@pytest.mark.fits
def test_what_the_export_has_of_the_machine_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def export(_columns: int) -> onnx.ModelProto:
        model = graph()
        model.doc_string = "/home/me/pipeline.py"
        model.graph.node[0].doc_string = "/home/me/pipeline.py"
        trace = model.graph.node[0].metadata_props.add()
        trace.key, trace.value = "stack_trace", "/home/me/pipeline.py"
        return model

    framework(monkeypatch, tmp_path, export, output="logits", classes=CLASSES)
    assert b"/home/me" not in (tmp_path / "out/bundle/model/model.onnx").read_bytes()


@pytest.mark.fits
def test_a_graph_that_answers_otherwise_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ProjectError, match="ONNX form of the network Net does not answer"):
        framework(
            monkeypatch,
            tmp_path,
            lambda _: graph(WEIGHTS, BIAS + np.array([0, 0.01, 0], dtype="float32")),
            output="logits",
            classes=CLASSES,
        )


def test_a_network_that_cannot_be_exported_is_refused_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def export(_columns: int) -> Any:
        message = "PyTorch cannot export it to ONNX: a loop"
        raise NotExportedError(message)

    with pytest.raises(ProjectError, match="cannot be served: PyTorch cannot export it"):
        framework(monkeypatch, tmp_path, export, output="logits", classes=CLASSES)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"classes": CLASSES}, "does not say what it returns"),
        ({"output": "values"}, "returns 3 values for a row"),
        ({"output": "logits", "task": "regression"}, "says model.task: regression"),
        ({"output": "logits", "classes": ["a", "b"]}, "model.classes has 2 classes"),
    ],
)
def test_what_is_not_told_is_asked_for(
    options: dict[str, Any], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ProjectError, match=reason):
        framework(monkeypatch, tmp_path, lambda _: graph(), **options)


def test_a_column_of_text_is_no_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = flowers()[["length", "colour", "species"]]
    with pytest.raises(ProjectError, match="the column colour is text"):
        framework(monkeypatch, tmp_path, lambda _: graph(), frame, output="logits")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("m.pt", "loading a pickle runs its code"),
        ("m.pth", "loading a pickle runs its code"),
        ("m.h5", "holds weights, or code beside them"),
        ("model.safetensors", "holds weights, or code beside them"),
    ],
)
def test_files_that_are_code_or_weights_are_refused(name: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"PK\x03\x04")
    module = project(tmp_path, f"def train(data, params):\n    return {name!r}\n", numeric())
    with pytest.raises(RefusedError, match=reason):
        make(tmp_path, config(module=module))


def dense(**changes: Any) -> dict[str, Any]:
    layer = {"module": "keras.layers", "class_name": "Dense", "registered_name": None}
    return {**layer, "config": {"units": 3, "activation": "softmax"}, **changes}


def keras_file(layer: dict[str, Any], *others: str) -> bytes:
    config = {"layers": [dense(), layer], "name": "net"}
    model = {"module": "keras", "class_name": "Sequential", "config": config}
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("config.json", json.dumps(model))
        for name in ("metadata.json", "model.weights.h5", *others):
            archive.writestr(name, b"{}")
    return file.getvalue()


HOSTILE = {
    "a Lambda layer": (dense(class_name="Lambda"), "a Lambda layer holds code"),
    "a class of another module": (dense(module="os", class_name="system"), "it is made of os"),
    "a function": (
        dense(config={"activation": {"module": "builtins", "class_name": "function"}}),
        "it is made of builtins.function",
    ),
    "a part of keras that is not listed": (
        dense(module="keras.utils", class_name="get_file"),
        "it is made of keras.utils.get_file",
    ),
    "a class that a project registered": (
        dense(registered_name="package>Dense"),
        "it is made of package>Dense",
    ),
    "a lambda deep inside": (
        dense(config={"layer": {"x": [{"class_name": "__lambda__"}]}}),
        "it is made of __lambda__",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_keras_file_is_made_of_listed_layers_alone(name: str) -> None:
    layer, reason = HOSTILE[name]
    with pytest.raises(RefusedError, match=reason):
        kerasnet.check(keras_file(layer), "m.keras")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"PK\x03\x04", "it is not a Keras model"),
        (keras_file(dense(), "assets/vocabulary.txt"), "it holds assets/vocabulary.txt"),
    ],
    # A zip file holds the time at which it was made, and all workers have to collect the same.
    ids=["no archive", "another file"],
)
def test_a_keras_file_has_no_other_content(data: bytes, reason: str) -> None:
    with pytest.raises(RefusedError, match=reason):
        kerasnet.check(data, "m.keras")


def text_folder(root: Path, *names: str, **settings: Any) -> Path:
    folder = root / "saved"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", **settings}))
    for name in names:
        (folder / name).write_bytes(b"{}")
    return folder


@pytest.mark.parametrize(
    ("names", "settings", "reason"),
    [
        (("pytorch_model.bin", "tokenizer.json"), {}, "its weights are a pickle"),
        (("model.safetensors",), {}, "has no tokenizer.json"),
        (
            ("model.safetensors", "tokenizer.json"),
            {"auto_map": {"AutoModel": "modeling.Own"}},
            "auto_map, which needs code of others",
        ),
    ],
)
def test_a_folder_of_hugging_face_is_weights_and_a_tokenizer(
    names: tuple[str, ...], settings: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    folder = text_folder(tmp_path, *names, **settings)
    with pytest.raises(MlshipError, match=reason):
        textnet.from_folder(folder, "saved")


@pytest.mark.parametrize("kind", ["a link", "an external data set"])
def test_weights_of_a_keras_file_lie_in_it(kind: str, tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="the extra keras is not installed")
    path = tmp_path / "weights.h5"
    with h5py.File(path, "w") as file:
        group = file.create_group("layers")
        group["own"] = np.zeros(3)
        group["circle"] = group
        if kind == "a link":
            group["kernel"] = h5py.ExternalLink("/etc/passwd", "/kernel")
        else:
            group.create_dataset("kernel", (3,), "u1", external=[("/etc/passwd", 0, 3)])
    file_with_others = with_weights(keras_file(dense()), path.read_bytes())
    with pytest.raises(RefusedError, match="its weights lie in another file"):
        kerasnet.check(file_with_others, "m.keras")


def with_weights(data: bytes, weights: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(file, "w") as new:
        for name in old.namelist():
            is_weights = name == "model.weights.h5"
            new.writestr(name, weights if is_weights else old.read(name))
    return file.getvalue()
