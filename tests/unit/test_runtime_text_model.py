"""A transformer is served by its tokenizer's file and an ONNX graph."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mlship.domain.bundle import Field, Model
from mlship.errors import IntegrityError
from mlship.runtime import formats

tokenizers = pytest.importorskip("tokenizers", reason="the extra transformers is not installed")

MODEL = Model(
    format="transformers",
    path="model/model.onnx",
    layout="series",
    columns=(Field(name="text", kind="text", dtype="object"),),
    classes=("bad", "good"),
)
LONGEST = 6


def folder(root: Path, name: str = "input_ids") -> Path:
    """Write a tokenizer of five words, and a graph that counts the word `good` in a text."""
    words = {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "good": 3, "bad": 4}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    tokenizer.enable_truncation(LONGEST)
    path = root / "model" / "model.onnx"
    path.parent.mkdir()
    tokenizer.save(str(path.parent / "tokenizer.json"))
    nodes = [
        helper.make_node("Equal", [name, "good"], ["is_good"]),
        helper.make_node("Cast", ["is_good"], ["ones"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["ones", "axis"], ["count"], keepdims=1),
        helper.make_node("Sub", ["six", "count"], ["rest"]),
        helper.make_node("Concat", ["rest", "count"], ["shares"], axis=1),
        helper.make_node("ArgMax", ["shares"], ["place"], axis=1, keepdims=0),
        helper.make_node("Gather", ["labels", "place"], ["label"]),
    ]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(name, TensorProto.INT64, [1, "tokens"])],
        [
            helper.make_tensor_value_info("label", TensorProto.STRING, [1]),
            helper.make_tensor_value_info("shares", TensorProto.FLOAT, [1, 2]),
        ],
        [
            numpy_helper.from_array(np.array(3), "good"),
            numpy_helper.from_array(np.array([1]), "axis"),
            numpy_helper.from_array(np.array([[6]], dtype="float32"), "six"),
            numpy_helper.from_array(np.array(["bad", "good"], dtype=object), "labels"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, str(path))
    return path


def test_each_text_is_answered_by_itself_and_cut_off(tmp_path: Path) -> None:
    compute = formats.load(folder(tmp_path), MODEL, "classification")
    texts = ["good", "", "bad good 你好", "good " * 500]
    raw = compute([{"text": text} for text in texts])
    assert raw.probabilities[:, 1].tolist() == [1, 0, 1, LONGEST - 2]
    assert raw.labels.tolist() == ["bad", "bad", "bad", "good"]


def test_a_null_is_no_text(tmp_path: Path) -> None:
    compute = formats.load(folder(tmp_path), MODEL, "classification")
    with pytest.raises(TypeError, match="a text is needed, not null"):
        compute([{"text": None}])


def test_a_graph_with_another_input_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="has an input pixels"):
        formats.load(folder(tmp_path, "pixels"), MODEL, "classification")
