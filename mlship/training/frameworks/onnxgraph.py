"""ONNX graphs as frameworks export them, made into what is served.

onnx is imported where a graph is changed: most trainings need none of it.
"""

from collections.abc import Sequence
from typing import Any, Final, Literal

import numpy as np

Output = Literal["logits", "probabilities", "values"]
"""What a network returns: scores before or after softmax or sigmoid, or numbers themselves."""

_TYPES: Final = {"i": "INT64", "f": "DOUBLE", "b": "BOOL", "O": "STRING"}
"""Element types of ONNX by the kinds of numpy's."""


def plain(model: Any) -> bytes:
    """Return a graph's bytes without what tells of the export: times, paths, texts for people."""
    graphs = (model, model.graph, *model.functions)
    nodes = [node for graph in (model.graph, *model.functions) for node in graph.node]
    values = (*model.graph.input, *model.graph.output, *model.graph.value_info)
    for message in (*graphs, *nodes, *values, *model.graph.initializer):
        message.doc_string = ""
        del message.metadata_props[:]
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def answering(model: Any, output: Output, classes: Sequence[object], width: int) -> bytes:
    """Return a graph with one output as one that answers values, or labels and probabilities.

    Args:
        model: the exported graph; its output has the shape (rows,) or (rows, width).
        output: what that output is.
        classes: the labels, in the order of the columns; for two of them, one column is enough.
        width: the number of columns, 1 for none.
    """
    from onnx import TensorProto, helper

    graph = model.graph
    source, kind = graph.output[0].name, graph.output[0].type.tensor_type.elem_type
    del graph.output[:]
    if output == "values":
        _add(graph, "Reshape", [source, _constant(graph, "flat", np.array([-1]))], "values")
        graph.output.append(helper.make_tensor_value_info(_named("values"), kind, None))
        return plain(model)
    shares = _shares(graph, (source, kind), output, width)
    labels = np.array(classes)
    labels = labels.astype(object) if labels.dtype.kind in "UO" else labels
    place = _add(graph, "ArgMax", [shares], "place", axis=1, keepdims=0)
    _add(graph, "Gather", [_constant(graph, "classes", labels), place], "label", axis=0)
    label = TensorProto.DataType.Value(_TYPES[labels.dtype.kind])
    graph.output.extend(
        [
            helper.make_tensor_value_info(_named("label"), label, None),
            helper.make_tensor_value_info(shares, kind, None),
        ]
    )
    return plain(model)


def _shares(graph: Any, scores: tuple[str, int], output: Output, width: int) -> str:
    """Add what makes probabilities of shape (rows, classes) of scores; return their name."""
    from onnx import helper

    source, kind = scores
    if width > 1:
        operator, options = ("Softmax", {"axis": 1}) if output == "logits" else ("Identity", {})
        return _add(graph, operator, [source], "probabilities", **options)
    shape = _constant(graph, "column", np.array([-1, 1]))
    column = _add(graph, "Reshape", [source, shape], "scores")
    if output == "logits":
        column = _add(graph, "Sigmoid", [column], "second")
    one = _constant(graph, "one", np.array(1, dtype=helper.tensor_dtype_to_np_dtype(kind)))
    first = _add(graph, "Sub", [one, column], "first")
    return _add(graph, "Concat", [first, column], "probabilities", axis=1)


def _named(name: str) -> str:
    return f"mlship_{name}"


def _add(graph: Any, operator: str, inputs: list[str], name: str, **options: Any) -> str:
    from onnx import helper

    graph.node.append(helper.make_node(operator, inputs, [_named(name)], _named(name), **options))
    return _named(name)


def _constant(graph: Any, name: str, values: Any) -> str:
    from onnx import numpy_helper

    graph.initializer.append(numpy_helper.from_array(values, _named(name)))
    return _named(name)
