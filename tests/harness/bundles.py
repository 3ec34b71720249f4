"""Tiny bundles for tests, sealed by the conventions that training keeps."""

import functools
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from skl2onnx import to_onnx
from skl2onnx.common.data_types import DoubleTensorType
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from mlship.domain import bundle as bundles
from mlship.domain.bundle import Bundle, Field, Hooks, Model, Schema
from mlship.domain.digests import Digest

COLUMNS = ("sepal_length", "sepal_width", "petal_length", "petal_width")
CLASSES = ("setosa", "versicolor", "virginica")
SETOSA: dict[str, bundles.Value] = dict(zip(COLUMNS, (5.1, 3.5, 1.4, 0.2), strict=True))
VIRGINICA: dict[str, bundles.Value] = dict(zip(COLUMNS, (6.3, 3.3, 6.0, 2.5), strict=True))
FIELDS = tuple(Field(name=name, kind="number", example=SETOSA[name]) for name in COLUMNS)
OUTPUTS = (
    Field(name="species", kind="text", choices=CLASSES),
    *(Field(name=f"probability_{label}", kind="number") for label in CLASSES),
)


@functools.cache
def iris_estimator() -> tuple[Any, Any]:
    """Return a classifier fitted once on iris with texts as labels, and the data's matrix."""
    data, codes = load_iris(return_X_y=True)
    labels = np.array(CLASSES)[codes]
    return LogisticRegression(max_iter=1000).fit(data, labels), data


@functools.cache
def _iris_onnx() -> bytes:
    """Return the classifier of iris as it is converted, once."""
    estimator, _ = iris_estimator()
    onnx = to_onnx(
        estimator,
        initial_types=[("features", DoubleTensorType([None, len(COLUMNS)]))],
        options={"zipmap": False},
    )
    converted: bytes = onnx.SerializeToString()
    return converted


def iris_bundle(
    folder: Path,
    *,
    preprocess: str = "",
    postprocess: str = "",
    golden_error: float = 0.0,
    limit: float | None = None,
) -> Digest:
    """Write an ONNX bundle of iris. The hooks are the sources of functions of those names.

    The limit is that of the numbers that the model accepts.
    """
    estimator, data = iris_estimator()
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "model.onnx").write_bytes(_iris_onnx())
    picked = data[[0, 40, 60, 110, 149]]
    probabilities = estimator.predict_proba(picked) + golden_error
    lines = [
        {
            "inputs": dict(zip(COLUMNS, row.tolist(), strict=True)),
            "outputs": {"species": str(label)}
            | dict(zip([f.name for f in OUTPUTS[1:]], chances.tolist(), strict=True)),
        }
        for row, label, chances in zip(
            picked, estimator.predict(picked), probabilities, strict=True
        )
    ]
    (folder / bundles.GOLDEN).write_bytes(b"".join(msgspec.json.encode(x) + b"\n" for x in lines))
    hooks = Hooks(
        preprocess="shaping:preprocess" if preprocess else None,
        postprocess="shaping:postprocess" if postprocess else None,
    )
    if preprocess or postprocess:
        (folder / bundles.CODE).mkdir()
        source = f"import pandas as pd\n\n{preprocess}\n\n{postprocess}\n"
        (folder / bundles.CODE / "shaping.py").write_text(source)
    draft = iris_draft(hooks)
    fields = tuple(msgspec.structs.replace(field, limit=limit) for field in FIELDS)
    schema = msgspec.structs.replace(draft.schema, inputs=fields)
    return bundles.seal(folder, msgspec.structs.replace(draft, schema=schema))


def iris_draft(hooks: Hooks) -> Bundle:
    """Return the manifest of the ONNX bundle without its files."""
    return Bundle(
        name="iris",
        task="classification",
        target="species",
        schema=Schema(inputs=FIELDS, outputs=OUTPUTS),
        model=Model(
            format="onnx",
            path="model/model.onnx",
            layout="matrix",
            columns=FIELDS,
            classes=CLASSES,
        ),
        hooks=hooks,
        metrics={"accuracy": 0.97},
        requirements=("onnxruntime==1.31.1",),
        python="3.11",
    )
