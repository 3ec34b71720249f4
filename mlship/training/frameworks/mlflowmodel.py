"""Models that were logged in MLflow: the file inside, read by the reader of its own format.

`MLmodel` names flavors. A flavor whose file is data is read; nothing of MLflow loads it. A pickle
needs `allow_pickle` and its digest, as any other. A model that is only a Python function is code,
and is refused.
"""

import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, Final

import yaml

from mlship.config.backends import StoreConfig
from mlship.errors import NotFoundError, ProjectError, RefusedError

_MLMODEL: Final = "MLmodel"
_ADDRESS: Final = re.compile(r"(?:models|runs):/")
_FIXED: Final = re.compile(r"models:/[^/@]+/[1-9][0-9]*|models:/m-[0-9a-f]+|runs:/[0-9a-f]+/.+")
_FILES: Final[Mapping[str, tuple[str, str]]] = {
    "onnx": ("data", ".onnx"),
    "xgboost": ("data", ".ubj"),
    "lightgbm": ("data", ".txt"),
    "catboost": ("data", ".cbm"),
    "keras": ("data", ".keras"),
    "tensorflow": ("data", ".keras"),
    "sklearn": ("pickled_model", ".pkl"),
    "pytorch": ("model_data", ".pth"),
}
"""The flavors that are read, in the order of preference: the key of the file, and its ending."""

_INSIDE: Final = {"keras": "model.keras", "tensorflow": "model.keras", "pytorch": "model.pth"}
"""The file in the folder that these flavors name."""

_OWN: Final = (".skops", ".json", ".pkl", ".pickle", ".joblib", ".pth", ".keras")
"""Endings that tell the format of a file better than its flavor does."""


def is_model(path: Path) -> bool:
    """Tell whether a folder is a logged model."""
    return (path / _MLMODEL).is_file()


@contextmanager
def local(returned: object, store: StoreConfig) -> Iterator[object]:
    """Yield the folder of a logged model while it is needed; anything else as it is.

    Args:
        returned: by the training function: an address of MLflow such as `models:/houses/3`.
        store: the project's.

    Raises:
        RefusedError, ProjectError, NotFoundError: as `_fetched`.
    """
    if not (isinstance(returned, str) and _ADDRESS.match(returned)):
        yield returned
        return
    with tempfile.TemporaryDirectory() as folder:
        yield _fetched(returned, store, Path(folder))


def _fetched(address: str, store: StoreConfig, into: Path) -> Path:
    """Download a logged model from the project's store; return its folder.

    Raises:
        RefusedError: the address may mean another model tomorrow.
        ProjectError: MLflow is not installed, or the project's store is another one.
        NotFoundError: it cannot be downloaded.
    """
    if not _FIXED.fullmatch(address):
        message = f"{address} may mean another model tomorrow"
        raise RefusedError(message, hint="name a version: models:/NAME/3, or runs:/RUN/PATH")
    if store.kind != "mlflow":
        message = f"the model {address} is in MLflow, and the project's store is {store.kind}"
        raise ProjectError(message, hint="set `kind: mlflow` and `uri` under store in mlship.yaml")
    try:
        import mlflow
    except ImportError as error:
        message = f"the model {address} needs MLflow's client"
        raise ProjectError(message, hint="pip install mlflow-skinny") from error
    uri = store.uri or os.environ.get("MLFLOW_TRACKING_URI")
    if uri is not None:
        mlflow.set_tracking_uri(uri)
    try:
        return Path(mlflow.artifacts.download_artifacts(artifact_uri=address, dst_path=str(into)))
    except Exception as error:  # its stores raise all kinds of errors
        lines = str(error).strip().splitlines()
        message = f"the model {address} cannot be fetched: {lines[0] if lines else error!r}"
        hint = "check the address and `store.uri`; credentials of the training are only the "
        raise NotFoundError(
            message, hint=f"{hint}variables that model.environment names"
        ) from error


def member(path: Path, name: str) -> tuple[Path, str]:
    """Return the file of a logged model and the ending that tells its format.

    Raises:
        RefusedError: no flavor is data, or the file lies elsewhere.
        ProjectError: `MLmodel` is damaged.
    """
    flavors = _flavors(path, name)
    for flavor, (key, ending) in _FILES.items():
        if flavor not in flavors:
            continue
        text = str(flavors[flavor].get(key) or flavors[flavor].get("data") or "")
        inner = PurePosixPath(text)
        if not text or inner.is_absolute() or ".." in inner.parts:
            message = f"{name} was refused: its flavor {flavor} names the file {text or 'nothing'}"
            raise RefusedError(message, hint="nothing was loaded; log the model again")
        file = path / inner
        if file.is_dir() and flavor in _INSIDE:
            file /= _INSIDE[flavor]
        if not file.resolve().is_relative_to(path.resolve()):
            message = f"{name} was refused: {text} is a link out of the model"
            raise RefusedError(message, hint="nothing was loaded; log the model again")
        return file, file.suffix if file.suffix in _OWN else ending
    loader = flavors.get("python_function", {}).get("loader_module", "nothing that is known")
    shown = ", ".join(sorted(set(flavors) - {"python_function"})) or "python_function"
    message = f"{name} was refused: it is of the flavor {shown}, which {loader} loads by running "
    message += "its code"
    hint = f"log it in a flavor that is data ({', '.join(list(_FILES)[:4])}), or load it in the "
    raise RefusedError(message, hint=f"{hint}training function and return the model itself")


def _flavors(path: Path, name: str) -> dict[str, Any]:
    try:
        document = yaml.safe_load((path / _MLMODEL).read_text("utf-8"))
        flavors = document["flavors"]
        if all(isinstance(flavor, dict) for flavor in flavors.values()):
            return dict(flavors)
        reason = "a flavor is not a mapping"
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
    message = f"{name}/{_MLMODEL} cannot be read: {reason}"
    raise ProjectError(message, hint="log the model again")
