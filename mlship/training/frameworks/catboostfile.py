"""CatBoost models as ONNX or in the library's own format; the same model gives the same bytes.

A `.cbm` file is a FlatBuffers message, which CatBoost verifies and reads without running any code.
"""

import tempfile
from pathlib import Path
from typing import Any, Final

from mlship.training import parts
from mlship.training.forms.onnxfile import NoConverterError
from mlship.training.frameworks import onnxgraph

_VARYING: Final = ("train_finish_time", "model_guid")
"""What CatBoost writes into a model that differs from training to training."""


def is_catboost(estimator: object) -> bool:
    """Tell whether an estimator is CatBoost's own, or of a class derived from one."""
    kinds = type(estimator).__mro__
    return any(kind.__module__ == "catboost.core" and kind.__name__ == "CatBoost" for kind in kinds)


def from_file(data: bytes) -> Any:
    """Return the classifier or the regressor that a `.cbm` file holds.

    Raises:
        CatBoostError: it is damaged.
    """
    import catboost

    model = catboost.CatBoostClassifier().load_model(blob=data)
    return model if len(model.classes_) else catboost.CatBoostRegressor().load_model(blob=data)


def of_any(returned: object) -> object:
    """Return a bare `CatBoost` as the classifier or regressor that it is; others as they are."""
    is_bare = is_catboost(returned) and type(returned).__name__ == "CatBoost"
    return from_file(to_file(returned)) if is_bare else returned


def to_file(estimator: Any) -> bytes:
    """Return a model as a `.cbm` file without the times of its training."""
    forget_times(estimator)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.cbm"
        estimator.save_model(str(path))
        return path.read_bytes()


def forget_times(estimator: Any) -> None:
    """Take what differs from training to training out of each CatBoost model in an estimator."""
    for part in parts.of(estimator):
        if is_catboost(part):
            facts = part.get_metadata()
            for name in _VARYING:
                if name in facts:
                    facts[name] = ""


def to_onnx(estimator: Any) -> bytes:
    """Return a model as ONNX: a matrix in single precision to labels and probabilities, or values.

    Raises:
        NoConverterError: CatBoost exports no such model, such as one with categorical columns.
    """
    import catboost
    import onnx

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        try:
            estimator.save_model(str(path), format="onnx")
        except catboost.CatBoostError as error:
            reason = str(error).strip().splitlines()[0].partition(": ")[2] or str(error)
            raise NoConverterError(f"CatBoost has no ONNX form for it: {reason}") from error
        model = onnx.load(str(path))
    graph = model.graph
    if graph.node[-1].op_type == "ZipMap":  # it makes dicts of the probabilities
        tensor = graph.node.pop().input[0]
        shares = onnx.helper.make_tensor_value_info(tensor, onnx.TensorProto.FLOAT, None)
        del graph.output[1:]
        graph.output.append(shares)
    return onnxgraph.plain(model)


def has_categories(estimator: object) -> bool:
    """Tell whether a model takes columns of categories, texts or embeddings, beside numbers."""
    if not is_catboost(estimator):
        return False
    model: Any = estimator
    others = (
        model.get_cat_feature_indices,
        model.get_text_feature_indices,
        model.get_embedding_feature_indices,
    )
    return any(indices() for indices in others)
