"""ONNX files of networks, whose one output mlship.yaml explains with `model.output`."""

from mlship.config.project import ModelConfig
from mlship.domain.bundle import Label
from mlship.errors import ProjectError
from mlship.runtime import onnx_contents
from mlship.training import labels
from mlship.training.data import Data
from mlship.training.frameworks import onnxgraph


def answering(
    name: str, content: bytes, config: ModelConfig, data: Data
) -> tuple[bytes, tuple[Label, ...]]:
    """Return an ONNX file with one output as one that answers, and the labels that it answers.

    Args:
        name: of the file.
        content: of the file.
        config: with `output`, which is not `auto`.
        data: the project's.

    Raises:
        ProjectError: it is no such file, or its classes are not known.
    """
    import onnx

    told = f"mlship.yaml says model.output: {config.output}, and {name}"
    if not onnx_contents.is_model(content):
        raise ProjectError(f"{told} says itself what it returns", hint="remove model.output")
    graph = onnx.load_from_string(content)
    outputs = graph.graph.output
    kind = outputs[0].type.tensor_type
    if len(outputs) != 1 or kind.elem_type not in (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE):
        names = ", ".join(output.name for output in outputs)
        message = f"{told} has the outputs {names}, not one of numbers"
        raise ProjectError(message, hint="remove model.output, or export the file with one output")
    shape = [size.dim_value for size in kind.shape.dim]
    width = shape[1] if len(shape) > 1 else 1
    match config.output:
        case "logits" | "probabilities" as output:
            width = width or len(config.classes) or data.only.train.nunique()
            classes = labels.of_codes(config, data, max(width, 2))
            return onnxgraph.answering(graph, output, classes, width), classes
        case _:
            return onnxgraph.answering(graph, "values", (), width), ()
