"""Keras models, which are served as ONNX.

A `.keras` file is an archive: `config.json` names the classes of the layers, which Keras imports
and calls, and an HDF5 file has the weights. The names are read here before Keras sees the file.
"""

import io
import json
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from mlship.errors import RefusedError
from mlship.training.frameworks.exports import Network, exporting
from mlship.training.frameworks.onnxgraph import Output

_CONFIG: Final = "config.json"
_WEIGHTS: Final = "model.weights.h5"
_MEMBERS: Final = frozenset({_CONFIG, "metadata.json", _WEIGHTS})


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_LISTED: Final = {
    "keras": _names("Sequential Functional Model DTypePolicy"),
    "keras.src.models.functional": _names("Functional"),
    "keras.src.models.sequential": _names("Sequential"),
    "keras.layers": _names(
        "InputLayer Dense EinsumDense Identity Activation ReLU LeakyReLU PReLU ELU Softmax "
        "BatchNormalization LayerNormalization GroupNormalization UnitNormalization "
        "SpectralNormalization Normalization Rescaling Discretization CategoryEncoding "
        "Dropout AlphaDropout GaussianDropout GaussianNoise SpatialDropout1D "
        "ActivityRegularization Add Average Concatenate Dot Maximum Minimum Multiply Subtract "
        "Flatten Reshape Permute RepeatVector Masking Cropping1D ZeroPadding1D UpSampling1D "
        "Embedding Conv1D SeparableConv1D DepthwiseConv1D Conv1DTranspose "
        "MaxPooling1D AveragePooling1D GlobalMaxPooling1D GlobalAveragePooling1D "
        "SimpleRNN GRU LSTM SimpleRNNCell GRUCell LSTMCell RNN StackedRNNCells Bidirectional "
        "TimeDistributed Attention AdditiveAttention MultiHeadAttention GroupedQueryAttention"
    ),
    "keras.initializers": _names(
        "Zeros Ones Constant Identity RandomNormal RandomUniform TruncatedNormal VarianceScaling "
        "GlorotNormal GlorotUniform HeNormal HeUniform LecunNormal LecunUniform Orthogonal"
    ),
    "keras.regularizers": _names("L1 L2 L1L2 OrthogonalRegularizer"),
    "keras.constraints": _names("MaxNorm MinMaxNorm NonNeg UnitNorm"),
}
"""What a saved model may be made of, by module: each computes from its arguments alone."""

_TENSOR: Final = "__keras_tensor__"
_ACTIVATIONS: Final[dict[str, Output]] = {"softmax": "probabilities", "sigmoid": "probabilities"}


def of(returned: object) -> Network | None:
    """Return a Keras model as a network; `None` for anything else."""
    kinds = type(returned).__mro__
    if not any(kind.__name__ == "Model" and kind.__module__.startswith("keras.") for kind in kinds):
        return None
    model: Any = returned
    name = f"the Keras model {model.name}"

    def compute(matrix: Any) -> Any:
        import keras

        return np.asarray(keras.ops.convert_to_numpy(model(matrix, training=False)))

    return Network(name=name, compute=compute, export=lambda _: _graph(model), output=_last(model))


def from_file(data: bytes, name: str) -> Any:
    """Return the model in a `.keras` file.

    Raises:
        RefusedError: the file holds code, or is made of something that is not listed.
    """
    check(data, name)
    import keras

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        path.write_bytes(data)
        return keras.saving.load_model(path, compile=False, safe_mode=True)


def check(data: bytes, name: str) -> None:
    """Refuse a `.keras` file with anything but listed layers and their weights; nothing is loaded.

    Raises:
        RefusedError: with what it holds.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.namelist()
            config = json.loads(archive.read(_CONFIG))
            weights = archive.read(_WEIGHTS)
    except (zipfile.BadZipFile, KeyError, ValueError, RecursionError) as error:
        message = f"{name} was refused: it is not a Keras model"
        raise RefusedError(message, hint="save it again with model.save('model.keras')") from error
    others = sorted(set(members) - _MEMBERS)
    if others or len(members) != len(set(members)):
        what = f"it holds {', '.join(others[:3]) or 'a file twice'}"
        raise RefusedError(f"{name} was refused: {what}", hint=_HINT)
    config.pop("compile_config", None)  # it is not read: the model is only asked
    for module, kind in _named(config):
        if kind == "Lambda":
            raise RefusedError(f"{name} was refused: a Lambda layer holds code", hint=_HINT)
        if kind not in _LISTED.get(module, ()) and (module, kind) != ("", _TENSOR):
            what = f"{module}.{kind}" if module else kind
            raise RefusedError(f"{name} was refused: it is made of {what}", hint=_HINT)
    if _refers_elsewhere(weights):
        raise RefusedError(f"{name} was refused: its weights lie in another file", hint=_HINT)


_HINT: Final = "nothing was loaded; return the model itself from the training function instead"


def _refers_elsewhere(weights: bytes) -> bool:
    """Tell whether an HDF5 file has a link or a data set whose content is in another file."""
    import h5py

    with h5py.File(io.BytesIO(weights), "r") as file:
        waiting, known = [file], set[int]()
        while waiting:
            group = waiting.pop()
            place = h5py.h5o.get_info(group.id).addr
            if place in known:  # groups may lie in a circle
                continue
            known.add(place)
            for key in group:
                link = group.get(key, getlink=True)
                if not isinstance(link, h5py.HardLink):
                    return True
                node = group[key]
                if isinstance(node, h5py.Group):
                    waiting.append(node)
                elif node.external or node.is_virtual:
                    return True
    return False


def _named(node: Any) -> Iterator[tuple[str, str]]:
    """Yield the module and the name of each class or function that a configuration refers to."""
    if isinstance(node, list):
        for item in node:
            yield from _named(item)
    if not isinstance(node, dict):
        return
    if "class_name" in node:
        yield str(node.get("module") or ""), str(node["class_name"])
        if node.get("registered_name") not in (None, node["class_name"]):
            yield str(node["registered_name"]), "registered"
    for value in node.values():
        yield from _named(value)


def _last(model: Any) -> Output | None:
    """Return what a model's last layer makes of its output, if that is one of probabilities."""
    if type(model).__name__ not in ("Sequential", "Functional", "Model"):
        return None
    last = model.layers[-1]
    outputs = model.outputs
    if len(outputs) != 1 or last.output is not outputs[0]:
        return None
    if type(last).__name__ == "Softmax":
        return "probabilities"
    return _ACTIVATIONS.get(getattr(getattr(last, "activation", None), "__name__", ""))


def _graph(model: Any) -> Any:
    """Return the ONNX graph of a model.

    Raises:
        NotExportedError: Keras cannot export it.
    """
    import onnx

    with tempfile.TemporaryDirectory() as folder, exporting("Keras"):
        path = Path(folder) / "model.onnx"
        model.export(path, format="onnx", verbose=False)
        return onnx.load(str(path))
