"""A bundle: a folder with a trained model, ready to serve, and its manifest `bundle.json`.

    bundle.json          the manifest: schema, model, hooks, metrics, locked requirements, files
    model/               the model file
    code/                the user's modules that the hooks import
    golden.jsonl         example rows with the outputs of the model at training time
    requirements.txt     pinned requirements for serving
    environment.txt      pinned packages of the training environment

The bundle's digest is the sha256 of the manifest, which lists the sha256 of every other file. A
bundle is untrusted input: `read` verifies every file before anything is loaded from it.
"""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Final, Literal, TypeAlias

import msgspec

from mlship import files
from mlship.domain import digests
from mlship.domain.digests import Digest
from mlship.errors import IntegrityError, NotFoundError

MANIFEST = "bundle.json"
GOLDEN = "golden.jsonl"
CODE = "code"
REQUIREMENTS = "requirements.txt"
ENVIRONMENT = "environment.txt"
_SPARSE = ("targets", "quantiles", "heads", "is_coded")

Kind = Literal["number", "integer", "text", "boolean"]
Value: TypeAlias = float | int | str | bool | None
Label: TypeAlias = str | int | bool | float
Row: TypeAlias = dict[str, Value]
"""One observation: a value for each column, in JSON types."""

Task = Literal["classification", "regression", "clustering", "anomaly"]
UNSUPERVISED: Final[tuple[Task, ...]] = ("clustering", "anomaly")
"""Tasks without a target: there is no true value to compare an answer with."""

CLUSTER: Final = "cluster"
ANOMALY: Final = "label"
SCORE: Final = "score"
"""The outputs of a clustering, and of an anomaly detector without labelled data."""
ID: Final = "id"
"""The name of a prediction's id, beside its outputs."""

ModelFormat = Literal["onnx", "skops", "xgboost", "lightgbm", "catboost", "transformers", "pickle"]
Layout = Literal["matrix", "columns", "frame", "series"]
Dtype = Literal["float64", "float32"]


class Field(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One column: what a request may send for it, and the type in which the model gets it.

    Attributes:
        choices: the values of a text column in the training data.
        example: a value of the training data that the model accepts.
        dtype: the pandas dtype that hooks and models get: as `read_csv` or `read_parquet` gave it.
            `date` and `decimal` are objects of Python's types. Empty in manifests without it.
        categories: the values of a column of dtype `category`, in its order; others are refused.
        is_ordered: whether these categories have an order.
        is_closed: whether values that `choices` lacks are refused, as the model refuses them.
        limit: numbers of a larger magnitude are refused; `None` if the model accepts all.
    """

    name: str
    kind: Kind
    nullable: bool = False
    choices: tuple[str, ...] = ()
    example: Value = None
    dtype: str = ""
    categories: tuple[str | int | float | bool, ...] = ()
    is_ordered: bool = False
    is_closed: bool = False
    limit: float | None = None


class Schema(msgspec.Struct, frozen=True, kw_only=True):
    """The columns of a request and of a response, in order."""

    inputs: tuple[Field, ...]
    outputs: tuple[Field, ...]


class Head(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One of several columns of a model's answer.

    Attributes:
        classes: the labels in the order of the probabilities; empty for a number.
    """

    name: str
    classes: tuple[Label, ...] = ()


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """The model file and the shape of its input.

    Attributes:
        columns: the features in the model's order, after `preprocess`.
        layout: `matrix` is one array of shape (rows, columns), `columns` one array of shape
            (rows, 1) per column, `frame` a pandas DataFrame, `series` its only column.
        dtype: the element type of a matrix and of numeric columns: `float64` or `float32`.
        classes: the labels in the order of the probabilities; empty for a regression, and for a
            model with heads.
        heads: the columns of the answer if there are several, in order; the manifest of a model
            with one has no such key.
        is_coded: whether its file answers with the places of labels in `classes`, not with labels;
            the manifest of a model that does not has no such key.
        missing: the number that stands for a missing value, for XGBoost; NaN is always one.
        types: the project's own types and functions in a skops file, each from `code/`.
        trusted: those of other libraries that the project's `model.trust` vouches for.
    """

    format: ModelFormat
    path: str
    layout: Layout
    columns: tuple[Field, ...]
    dtype: Dtype = "float64"
    classes: tuple[Label, ...] = ()
    heads: tuple[Head, ...] = ()
    is_coded: bool = False
    missing: float | None = None
    types: tuple[str, ...] = ()
    trusted: tuple[str, ...] = ()


class Hooks(msgspec.Struct, frozen=True, kw_only=True):
    """The user's pre- and post-processing functions, as `module:function` in `code/`."""

    preprocess: str | None = None
    postprocess: str | None = None


class File(msgspec.Struct, frozen=True, kw_only=True):
    """The digest and the size in bytes of a file in the bundle."""

    digest: Digest
    size: int


class Bundle(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The manifest of a bundle.

    Attributes:
        target: the column that the model predicts, or the first of several; there is always an
            output of that name.
            A clustering predicts `cluster`, and an anomaly detector `label`: -1 or 1.
        targets: the columns that it predicts if there are several; one alone has no such key.
        quantiles: those of the target that it predicts, ascending; a model of none has no such key.
        metrics: metrics on the held-out data at training time.
        requirements: `name==version` lines, everything that serving needs.
        python: the minor version of Python at training time, such as `3.11`.
        files: every file but the manifest, by its path with `/`.
    """

    version: Literal[1] = 1
    name: str
    task: Task
    target: str
    targets: tuple[str, ...] = ()
    quantiles: tuple[float, ...] = ()
    schema: Schema
    model: Model
    hooks: Hooks
    metrics: dict[str, float | str]
    requirements: tuple[str, ...]
    python: str
    files: dict[str, File] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """Return the columns that the model predicts, each of which is an output."""
        return self.targets or (self.target,)


def probability_of(label: Label, target: str = "") -> str:
    """Return the name of the output for a class probability, such as `probability_setosa`.

    With several targets it has the target's name: `probability_species_setosa`.
    """
    return f"probability_{target}_{label}" if target else f"probability_{label}"


def quantile_of(quantile: float, target: str) -> str:
    """Return the name of the output for a quantile, such as `price_q0.9`."""
    return f"{target}_q{quantile:g}"


def middle_of(quantiles: Sequence[float], target: str) -> str:
    """Return the output that is the target's own value: the quantile nearest to the median."""
    return quantile_of(min(quantiles, key=lambda quantile: abs(quantile - 0.5)), target)


def seal(folder: Path, draft: Bundle) -> Digest:
    """Write the manifest: `draft` with every file of the folder. Return the bundle's digest.

    Raises:
        OSError: the disk is full or the folder is not writable.
    """
    entries = {
        name: File(digest=digests.of_file(path), size=path.stat().st_size)
        for name, path in _contents(folder)
    }
    manifest = _encoded(msgspec.structs.replace(draft, files=entries))
    files.write_atomically(folder / MANIFEST, manifest)
    return digests.of_bytes(manifest)


def _encoded(bundle: Bundle) -> bytes:
    """Return a manifest's bytes, without the keys that few models need where they say nothing."""
    values = msgspec.to_builtins(bundle, str_keys=True)
    for section, keys in ((values, _SPARSE), (values["model"], _SPARSE)):
        for key in keys:
            if not section.get(key, True):
                del section[key]
    return digests.canonical_json(values)


def read(folder: Path, *, expected: Digest | None = None) -> Bundle:
    """Verify every file of a bundle, then return its manifest.

    Args:
        folder: the bundle's folder.
        expected: the digest that the bundle must have, if the caller knows it.

    Raises:
        NotFoundError: there is no bundle.
        IntegrityError: a file is missing, was changed, or is not listed in the manifest.
    """
    bundle = manifest(folder, expected=expected)
    _check_files(folder, bundle)
    return bundle


def manifest(folder: Path, *, expected: Digest | None = None) -> Bundle:
    """Return the manifest of a bundle, whose other files need not be there yet.

    Args:
        folder: the bundle's folder.
        expected: the digest that the bundle must have, if the caller knows it.

    Raises:
        NotFoundError: there is no bundle.
        IntegrityError: the manifest was changed, is not valid, or lists a file outside of the
            bundle.
    """
    path = folder / MANIFEST
    if not path.is_file():
        message = f"no bundle in {folder}: {MANIFEST} not found"
        raise NotFoundError(message, hint="run `mlship train` to create one")
    content = path.read_bytes()
    digest = digests.of_bytes(content)
    if expected is not None and digest != expected:
        message = f"bundle {folder} has digest {digest}, expected {expected}"
        raise IntegrityError(message, hint="fetch the bundle again; its manifest was changed")
    bundle = _decode(content, folder)
    for name in bundle.files:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            message = f"bundle {folder}: {name} is outside the bundle"
            raise IntegrityError(message, hint="fetch the bundle again; nothing was loaded from it")
    return bundle


def _decode(content: bytes, folder: Path) -> Bundle:
    try:
        return msgspec.json.decode(content, type=Bundle)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        message = f"{folder / MANIFEST} is not a valid manifest: {error}"
        raise IntegrityError(message, hint="train again, or update mlship") from error


def _check_files(folder: Path, bundle: Bundle) -> None:
    present = dict(_contents(folder))
    for name in sorted({*present, *bundle.files}):
        problem = _problem(present.get(name), bundle.files.get(name))
        if problem:
            message = f"bundle {folder}: {name} {problem}"
            raise IntegrityError(message, hint="fetch the bundle again; nothing was loaded from it")


def _problem(path: Path | None, entry: File | None) -> str:
    if entry is None:
        return "is not listed in the manifest"
    if path is None:
        return "is missing"
    if path.is_symlink():
        return "is a symbolic link"
    if path.stat().st_size != entry.size or digests.of_file(path) != entry.digest:
        return f"does not match its digest in the manifest ({entry.digest})"
    return ""


def _contents(folder: Path) -> list[tuple[str, Path]]:
    """List all files but the manifest. Compiled modules count too: Python would run them."""
    return sorted(
        (path.relative_to(folder).as_posix(), path)
        for path in folder.rglob("*")
        if (path.is_file() or path.is_symlink()) and path != folder / MANIFEST
    )
