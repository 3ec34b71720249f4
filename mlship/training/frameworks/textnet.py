"""Text classification of Hugging Face: its tokenizer as a data file, its network as ONNX.

A saved folder is read for its weights in safetensors, its configuration and its tokenizer alone.
Code beside them (`trust_remote_code`) is never run, and weights that are pickles are refused.
"""

import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from mlship.config.project import ModelConfig
from mlship.domain.bundle import Head, Label, Task
from mlship.errors import ProjectError, RefusedError
from mlship.runtime import text_model
from mlship.training.data import Data
from mlship.training.fit import Prepared
from mlship.training.frameworks import onnxgraph
from mlship.training.frameworks.exports import Export, NotExportedError, exporting
from mlship.training.frameworks.onnxgraph import Output
from mlship.training.original import Original, held_out
from mlship.training.proof.answers import Outputs

_CONFIG: Final = "config.json"
_WEIGHTS: Final = "model.safetensors"
_READ: Final = frozenset(
    {_CONFIG, _WEIGHTS, text_model.TOKENIZER, "tokenizer_config.json", "special_tokens_map.json"}
)
"""The files of a saved folder that are read; others stay where they are."""
_REMOTE: Final = ("auto_map", "quantization_config", "custom_pipelines")
_PAIRS: Final = ("input_ids", "attention_mask", "token_type_ids")
_ENDLESS: Final = 1_000_000
"""From here on, the length is the library's word for none."""


def of(returned: object) -> Any:
    """Return a pipeline for text classification; `None` for anything else."""
    kinds = [(kind.__module__, kind.__name__) for kind in type(returned).__mro__]
    name = "transformers.pipelines.text_classification", "TextClassificationPipeline"
    return returned if name in kinds else None


def is_folder(path: Path) -> bool:
    """Tell whether a folder holds a saved model of Hugging Face."""
    return path.is_dir() and (path / _CONFIG).is_file()


def from_folder(path: Path, name: str) -> Any:
    """Return the pipeline of a saved folder.

    Raises:
        RefusedError: its weights are pickles, or it needs code of its own or of others.
        ProjectError: a file is missing, or is not read by the library.
    """
    _check(path, name)
    import transformers

    with tempfile.TemporaryDirectory() as copied:
        for member in sorted(_READ):
            if (path / member).is_file():
                shutil.copyfile(path / member, Path(copied) / member)
        options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        try:
            model = transformers.AutoModelForSequenceClassification.from_pretrained(
                copied,
                use_safetensors=True,
                attn_implementation="eager",
                dtype="float32",
                **options,
            )
            tokenizer = transformers.AutoTokenizer.from_pretrained(copied, use_fast=True, **options)
        except Exception as error:  # the library raises all kinds of errors
            reason = str(error).strip().splitlines()[0]
            message = f"the saved model {name} cannot be loaded: {reason}"
            raise ProjectError(message, hint="save it again with save_pretrained") from error
    return transformers.pipeline(
        "text-classification", model=model, tokenizer=tokenizer, truncation=True, device="cpu"
    )


def _check(path: Path, name: str) -> None:
    missing = [
        member for member in (_WEIGHTS, text_model.TOKENIZER) if not (path / member).is_file()
    ]
    if _WEIGHTS in missing and list(path.glob("pytorch_model*.bin")):
        message = f"{name} was refused: its weights are a pickle, which runs code when it is loaded"
        raise RefusedError(message, hint="save it with save_pretrained, which writes safetensors")
    if missing:
        message = f"{name} has no {missing[0]}"
        hint = "save the model and its fast tokenizer there with save_pretrained, in one file each"
        raise ProjectError(message, hint=hint)
    links = [member for member in sorted(_READ) if (path / member).is_symlink()]
    if links:
        message = f"{name} was refused: {links[0]} is a link"
        raise RefusedError(message, hint="copy the files into the folder")
    try:
        config = json.loads((path / _CONFIG).read_bytes())
        others = [key for key in _REMOTE if key in config]
    except (ValueError, TypeError) as error:
        message = f"{name} was refused: its {_CONFIG} is not JSON"
        raise RefusedError(message, hint="save it again with save_pretrained") from error
    if others:
        message = f"{name} was refused: {_CONFIG} has {others[0]}, which needs code of others"
        raise RefusedError(message, hint="use a model of the library itself, with plain weights")


@dataclass(frozen=True)
class _TextExport(Export):
    pipeline: Any
    output: Output
    classes: tuple[Label, ...]
    name: str = "the text classification pipeline"

    format = "transformers"
    layout = "series"
    modules = ("onnxruntime", "tokenizers")

    def files(self) -> Mapping[str, bytes]:
        graph = _graph(self.pipeline)
        data = onnxgraph.answering(graph, self.output, self.classes, max(len(self.classes), 1))
        return {"model.onnx": data, text_model.TOKENIZER: _tokenizer(self.pipeline)}


def examine(pipeline: Any, config: ModelConfig, data: Data, prepared: Prepared) -> Original:
    """Return what a pipeline is and what it answers to the held-out rows.

    Raises:
        ProjectError: the data have not one column of text, the pipeline gives several labels for
            a text, or its labels are not those of the target.
    """
    texts = [field for field in prepared.columns if field.kind == "text"]
    if len(prepared.columns) != 1 or len(texts) != 1:
        shown = ", ".join(field.name for field in prepared.columns)
        message = f"a text classification takes one column of text, and the data have {shown}"
        raise ProjectError(message, hint="return the one column from `preprocess`")
    pipeline.model = pipeline.model.cpu().eval()
    pipeline.device = pipeline.model.device
    output, task = _output(pipeline)
    classes = _classes(pipeline, config, data) if task == "classification" else ()
    names = np.array(classes, dtype=object)
    column = texts[0].name

    def predict(frame: pd.DataFrame) -> Outputs:
        scores = _scores(pipeline, frame[column].tolist())
        if output == "values":
            return Outputs(labels=scores[:, 0])
        return Outputs(labels=names[scores.argmax(axis=1)], probabilities=scores)

    return Original(
        estimator=_TextExport(pipeline=pipeline, output=output, classes=classes),
        task=task,
        columns=prepared.columns,
        layout="series",
        heads=(Head(name=data.only.name, classes=classes),),
        predict=predict,
        labels_of=lambda frame: predict(frame).labels,
        ask_held_out=lambda: held_out(predict, prepared.test, config.source),
    )


def _output(pipeline: Any) -> tuple[Output, Task]:
    """Return what a pipeline makes of its network's scores.

    Raises:
        ProjectError: it judges each label by itself.
    """
    config = pipeline.model.config
    if config.num_labels == 1 and config.problem_type == "regression":
        return "values", "regression"
    applied = pipeline._postprocess_params.get("function_to_apply")  # noqa: SLF001
    applied = getattr(applied, "value", applied) or getattr(config, "function_to_apply", None)
    is_several = config.num_labels == 1 or config.problem_type == "multi_label_classification"
    if is_several or str(applied or "softmax").lower() != "softmax":
        message = "the pipeline judges each label by itself, and a classification has one for a row"
        hint = "train it for one label (problem_type single_label_classification), with softmax"
        raise ProjectError(message, hint=hint)
    return "logits", "classification"


def _classes(pipeline: Any, config: ModelConfig, data: Data) -> tuple[Label, ...]:
    """Return the labels: those of mlship.yaml, or the model's own names, or its numbers.

    Raises:
        ProjectError: none of them are the target's.
    """
    known = pipeline.model.config.id2label
    count = len(known)
    if config.classes:
        if len(config.classes) == count:
            return config.classes
        message = (
            f"mlship.yaml: model.classes has {len(config.classes)} classes, and the model has "
        )
        raise ProjectError(f"{message}{count}", hint="list all of them, in the model's order")
    names = tuple(known[place] for place in range(count))
    labels = data.only.train.unique().tolist()
    if set(labels) <= set(names):
        return names
    if set(labels) <= set(range(count)):
        return tuple(range(count)) if data.only.kind != "boolean" else (False, True)
    message = f"the pipeline answers {', '.join(names[:5])}, and {data.only.name} holds "
    message += ", ".join(str(label) for label in sorted(labels)[:5])
    hint = "say which is which: `classes: [...]` under `model`, in the order of the model's labels"
    raise ProjectError(message, hint=hint)


def _scores(pipeline: Any, texts: list[Any]) -> Any:
    """Return the scores of texts, of shape (texts, labels), in the model's order."""
    known = pipeline.model.config.label2id
    rows = []
    for text in texts:
        if not isinstance(text, str):
            message = f"a text is needed, not {text}"
            raise TypeError(message)
    for scores in pipeline(texts, top_k=None, batch_size=1):
        row = [0.0] * len(scores)
        for score in scores:
            row[known[score["label"]]] = score["score"]
        rows.append(row)
    return np.array(rows)


def _tokenizer(pipeline: Any) -> bytes:
    """Return the tokenizer's file, which cuts off texts as the pipeline does and pads none."""
    from tokenizers import Tokenizer

    own = pipeline.tokenizer
    if not own.is_fast:
        message = f"{type(own).__name__} has no tokenizer.json: it is a slow tokenizer"
        raise NotExportedError(message)
    tokenizer = Tokenizer.from_str(own.backend_tokenizer.to_str())
    tokenizer.no_padding()
    tokenizer.no_truncation()
    parameters = pipeline._preprocess_params  # noqa: SLF001
    if parameters.get("truncation"):
        longest = int(parameters.get("max_length") or own.model_max_length)
        if longest < _ENDLESS:
            tokenizer.enable_truncation(longest, direction=own.truncation_side)
    text: str = tokenizer.to_str()
    return text.encode()


def _graph(pipeline: Any) -> Any:
    """Return the graph from tokens to scores.

    Raises:
        NotExportedError: PyTorch cannot export it.
    """
    import inspect

    import torch

    model = pipeline.model.eval()
    encoded = pipeline.tokenizer(["a text and another"], return_tensors="pt")
    taken = inspect.signature(model.forward).parameters
    names = [name for name in _PAIRS if name in encoded and name in taken]

    class Scores(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *tensors: Any) -> Any:
            return self.model(**dict(zip(names, tensors, strict=True))).logits

    with exporting("PyTorch"):
        model.set_attn_implementation("eager")
        program = torch.onnx.export(
            Scores().eval(),
            tuple(encoded[name] for name in names),
            dynamo=True,
            input_names=names,
            output_names=["scores"],
            dynamic_shapes=(tuple({1: torch.export.Dim.AUTO} for _ in names),),
            external_data=False,
            verbose=False,
        )
    return program.model_proto
