"""What V1 and V2 say of the server and of the model, beside predictions."""

from collections.abc import Sequence
from typing import Any, Final

from mlship import __version__
from mlship.domain.bundle import Bundle, Field
from mlship.domain.digests import Digest
from mlship.runtime.dialects import tensors

EXTENSIONS: Final = (
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "statistics",
)


def server() -> dict[str, Any]:
    """Return the server's metadata."""
    return {"name": "mlship", "version": __version__, "extensions": EXTENSIONS}


def model(bundle: Bundle, release: str, version: str, ids: tuple[Digest, Digest]) -> dict[str, Any]:
    """Return the model's metadata.

    Args:
        bundle: the served bundle.
        release: the name of the release.
        version: the model's version in V2.
        ids: the id of the release, and the digest of the bundle.
    """
    return {
        "name": bundle.name,
        "versions": [version],
        "platform": bundle.model.format,
        "inputs": _tensors(bundle.schema.inputs),
        "outputs": _tensors(bundle.schema.outputs),
        "parameters": {"release": release, "id": ids[0], "bundle": ids[1]},
    }


def config(bundle: Bundle) -> dict[str, Any]:
    """Return the model's configuration in the form of Triton, without what has no meaning here."""
    return {
        "name": bundle.name,
        "platform": bundle.model.format,
        "backend": "mlship",
        "max_batch_size": 0,
        "input": _configured(bundle.schema.inputs),
        "output": _configured(bundle.schema.outputs),
    }


def index(name: str, version: str, state: str, failure: str) -> list[dict[str, str]]:
    """Return the repository's models: the one that is served."""
    is_ready = state == "ready"
    return [
        {
            "name": name,
            "version": version,
            "state": "READY" if is_ready else "UNAVAILABLE",
            "reason": "" if is_ready else failure or state,
        }
    ]


def _tensors(fields: Sequence[Field]) -> list[dict[str, Any]]:
    """Return name, datatype and shape of each column; `-1` stands for the number of rows."""
    return [
        {"name": field.name, "datatype": tensors.datatype_of(field), "shape": [-1]}
        for field in fields
    ]


def _configured(fields: Sequence[Field]) -> list[dict[str, Any]]:
    return [
        {
            "name": tensor["name"],
            "data_type": "TYPE_" + tensor["datatype"].replace(tensors.BYTES, "STRING"),
            "dims": tensor["shape"],
        }
        for tensor in _tensors(fields)
    ]
