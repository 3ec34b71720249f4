"""An MLflow model around a bundle: what MLflow loads, serves and shows without configuration.

    MLmodel                flavors, signature, input example
    bundle/                the sealed bundle, unchanged
    code.zip               the runtime of this mlship, under a name of its own
    requirements.txt       pinned requirements, beside conda.yaml and python_env.yaml
    input_example.json     a row of the training data; serving_input_example.json as a request

The files are written without importing MLflow. mlship itself reads nothing of them but the bundle.
See https://mlflow.org/docs/latest/ml/model/ and decision 34.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Any, Final

import msgspec
import yaml

from mlship.adapters.mlflow import loader
from mlship.config.installation import DISTRIBUTION, MODULE
from mlship.domain import bundle as bundles
from mlship.domain.bundle import Bundle, Field, Kind, Row
from mlship.domain.release import Release

BUNDLE: Final = "bundle"

_CODE: Final = "code.zip"
_EXAMPLE: Final = "input_example.json"
_SERVING_EXAMPLE: Final = "serving_input_example.json"
_TYPES: Final[Mapping[Kind, str]] = {
    "number": "double",
    "integer": "long",
    "text": "string",
    "boolean": "boolean",
}
_CLASSES: Final = {
    "xgboost": ("xgboost", "xgb_version", "xgboost.core.Booster"),
    "lightgbm": ("lightgbm", "lgb_version", "lightgbm.basic.Booster"),
}


def write(
    folder: Path,
    bundle: Path,
    manifest: Bundle,
    release: Release,
    *,
    run: str,
    model: str,
    created: datetime,
) -> dict[str, Path]:
    """Write the files of a model; return them and those of the bundle by their path in it.

    Args:
        folder: where to write; it exists.
        bundle: the folder of the verified bundle.
        manifest: of the bundle.
        release: that the bundle belongs to.
        run: the id of its run in MLflow.
        model: the id of the logged model.
        created: the time of creation, in UTC.

    Raises:
        OSError: the disk is full or the folder is not writable.
    """
    code = loader.archive()
    pins = _pins(bundle, manifest)
    example = _example(bundle, manifest)
    document = {
        "flavors": _flavors(manifest, pins, code.package),
        "metadata": {"mlship": {"release": release.id, "bundle": release.bundle}},
        "model_id": model,
        "model_size_bytes": sum(file.size for file in manifest.files.values()),
        "model_uuid": release.id.removeprefix("sha256:")[:32],
        "run_id": run,
        "saved_input_example_info": {
            "artifact_path": _EXAMPLE,
            "pandas_orient": "split",
            "serving_input_path": _SERVING_EXAMPLE,
            "type": "dataframe",
        },
        "signature": signature(manifest.schema),
        "utc_time_created": created.replace(tzinfo=None).isoformat(sep=" "),
    }
    contents = {
        "MLmodel": _yaml(document),
        _CODE: code.data,
        _EXAMPLE: msgspec.json.encode(example),
        _SERVING_EXAMPLE: msgspec.json.encode({"dataframe_split": example}),
        **_environment(manifest, pins),
    }
    files = {f"{BUNDLE}/{name}": bundle / name for name in _names(manifest)}
    for name, data in contents.items():
        (folder / name).write_bytes(data)
        files[name] = folder / name
    return files


def signature(schema: bundles.Schema) -> dict[str, str | None]:
    """Return MLflow's signature of a schema: columns as JSON texts.

    Inputs have the type `any`: MLflow's conversions to others change values (a null in a boolean
    column becomes false, 5.5 in a column of whole numbers becomes 5) or refuse what the model
    accepts. The bundle's schema is checked instead. A column that may be null is optional.
    """
    inputs = [
        {"type": "any", "name": field.name, "required": not field.nullable}
        for field in schema.inputs
    ]
    outputs = [
        {"type": _output_type(field), "name": field.name, "required": not field.nullable}
        for field in schema.outputs
    ]
    return {"inputs": _json(inputs), "outputs": _json(outputs), "params": None}


def _output_type(field: Field) -> str:
    """Return the type of an output; whole numbers with nulls are floats in pandas."""
    return "double" if field.kind == "integer" and field.nullable else _TYPES[field.kind]


def _names(manifest: Bundle) -> Sequence[str]:
    return (*manifest.files, bundles.MANIFEST)


def _flavors(manifest: Bundle, pins: Mapping[str, str], package: str) -> dict[str, Any]:
    flavors: dict[str, Any] = {
        "python_function": {
            "code": _CODE,
            "data": BUNDLE,
            "env": {"conda": "conda.yaml", "virtualenv": "python_env.yaml"},
            "loader_module": f"{package}.runtime.pyfunc",
            "python_version": manifest.python,
        }
    }
    if manifest.hooks.preprocess or manifest.hooks.postprocess:
        return flavors
    path = str(PurePosixPath(BUNDLE, manifest.model.path))
    kind = manifest.model.format
    if kind == "onnx":
        flavors["onnx"] = {
            "data": path,
            "onnx_version": pins.get("onnx", ""),
            "providers": ["CPUExecutionProvider"],
        }
    elif kind in _CLASSES:
        name, version, model_class = _CLASSES[kind]
        flavors[name] = {"data": path, "model_class": model_class, version: pins.get(name, "")}
    elif kind == "catboost":
        is_classifier = manifest.task == "classification"
        flavors[kind] = {
            "data": path,
            "model_type": "CatBoostClassifier" if is_classifier else "CatBoostRegressor",
            "save_format": "cbm",
            "catboost_version": pins.get(kind, ""),
        }
    return flavors


def _pins(bundle: Path, manifest: Bundle) -> dict[str, str]:
    """Return the versions to install: the bundle's own, and what MLflow and the loader need.

    The versions of these are those of the training environment, or else those that are installed.
    An empty version leaves the choice to the installer.
    """
    known = (
        _versions((bundle / bundles.ENVIRONMENT).read_text("utf-8").splitlines())
        if (bundle / bundles.ENVIRONMENT).is_file()
        else {}
    )
    pins = {name: known.get(name) or _installed(name) for name in ("msgspec", "pandas")}
    pins["mlflow"] = _installed("mlflow-skinny") or _installed("mlflow")
    pins |= _versions(manifest.requirements)
    # They are the runtime, which is in the model as files. On package indexes, `mlship` is another
    # program.
    return {name: pins[name] for name in sorted(pins) if name not in (MODULE, DISTRIBUTION)}


def _versions(lines: Sequence[str]) -> dict[str, str]:
    pairs = (line.split(";")[0].strip().partition("==") for line in lines)
    return {name.strip().lower(): version.strip() for name, _, version in pairs if version}


def _installed(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _environment(manifest: Bundle, pins: Mapping[str, str]) -> dict[str, bytes]:
    lines = [f"{name}=={version}" if version else name for name, version in pins.items()]
    conda = {
        "name": "mlflow-env",
        "channels": ["conda-forge"],
        "dependencies": [f"python={manifest.python}", "pip", {"pip": lines}],
    }
    python = {
        "python": manifest.python,
        "build_dependencies": ["pip"],
        "dependencies": ["-r requirements.txt"],
    }
    return {
        "conda.yaml": _yaml(conda),
        "python_env.yaml": _yaml(python),
        "requirements.txt": "".join(f"{line}\n" for line in lines).encode(),
    }


def _example(bundle: Path, manifest: Bundle) -> dict[str, Any]:
    """Return the first golden example, or else the schema's, as pandas' `split` format."""
    names = [field.name for field in manifest.schema.inputs]
    row: Row = {field.name: field.example for field in manifest.schema.inputs}
    golden = bundle / bundles.GOLDEN
    if golden.is_file() and (first := golden.read_bytes().partition(b"\n")[0].strip()):
        row = msgspec.json.decode(first)["inputs"]
    return {"columns": names, "data": [[row.get(name) for name in names]]}


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _yaml(value: object) -> bytes:
    return yaml.safe_dump(value, allow_unicode=True, width=1000).encode()
