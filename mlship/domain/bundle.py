"""A bundle: a folder with a trained model ready to serve, sealed by its manifest `bundle.json`.

    bundle.json          the manifest: schema, model, hooks, metrics, locked requirements, files
    model/               the model's file
    code/                the user's modules that the hooks need
    golden.jsonl         rows with the outputs that the model gave when it was made
    requirements.txt     what must be installed to serve it, pinned
    environment.txt      what was installed to train it, pinned

The bundle's digest is the sha256 of the manifest, which names the sha256 of every other file. A
bundle is data from elsewhere: `read` checks each byte before anything is loaded from it.
"""

from pathlib import Path, PurePosixPath
from typing import Literal, TypeAlias

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

Kind = Literal["number", "integer", "text", "boolean"]
Value: TypeAlias = float | int | str | bool | None
Row: TypeAlias = dict[str, Value]
"""One observation: a value for each column, in JSON's own types."""

Task = Literal["classification", "regression"]
ModelFormat = Literal["onnx", "skops", "xgboost", "lightgbm", "pickle"]


class Field(msgspec.Struct, frozen=True, kw_only=True):
    """One column. `choices` are the values seen in training for text (not a restriction)."""

    name: str
    kind: Kind
    nullable: bool = False
    choices: tuple[str, ...] = ()
    example: Value = None


class Schema(msgspec.Struct, frozen=True, kw_only=True):
    """The columns of a request and of an answer, in order."""

    inputs: tuple[Field, ...]
    outputs: tuple[Field, ...]


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """How the model's file is fed.

    Attributes:
        columns: the features in the model's own order, after `preprocess`.
        layout: `matrix` gives one array of shape (rows, columns), `columns` one (rows, 1) array
            for each column, `frame` a pandas DataFrame.
        dtype: the element type of a matrix and of numeric columns: `float64` or `float32`.
        classes: the labels in the order of the probabilities; empty for a regression.
    """

    format: ModelFormat
    path: str
    layout: Literal["matrix", "columns", "frame"]
    columns: tuple[Field, ...]
    dtype: Literal["float64", "float32"] = "float64"
    classes: tuple[str | int | bool | float, ...] = ()


class Hooks(msgspec.Struct, frozen=True, kw_only=True):
    """The user's functions beside the model, as `module:function` in `code/`."""

    preprocess: str | None = None
    postprocess: str | None = None


class File(msgspec.Struct, frozen=True, kw_only=True):
    """What a file of the bundle must be: its digest and its size in bytes."""

    digest: Digest
    size: int


class Bundle(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The manifest of a bundle.

    Attributes:
        target: the column that the model predicts; an output of that name always exists.
        metrics: measured on the held-out data when the model was made.
        requirements: `name==version` lines, all that serving needs.
        python: the minor version of Python that it was made with, `3.11`.
        files: every file beside the manifest, by its path with `/`.
    """

    version: Literal[1] = 1
    name: str
    task: Task
    target: str
    schema: Schema
    model: Model
    hooks: Hooks
    metrics: dict[str, float | str]
    requirements: tuple[str, ...]
    python: str
    files: dict[str, File] = {}


def seal(folder: Path, draft: Bundle) -> Digest:
    """Write the manifest of a folder: `draft` with every file in it. Return the bundle's digest.

    Raises:
        OSError: the disk is full or the folder cannot be written.
    """
    entries = {
        name: File(digest=digests.of_file(path), size=path.stat().st_size)
        for name, path in _contents(folder)
    }
    manifest = digests.canonical_json(msgspec.structs.replace(draft, files=entries))
    files.write_atomically(folder / MANIFEST, manifest)
    return digests.of_bytes(manifest)


def read(folder: Path, *, expected: Digest | None = None) -> Bundle:
    """Return the manifest of a folder after every byte of the bundle was checked.

    Args:
        folder: the bundle's folder.
        expected: the digest that the bundle must have, where the caller knows it.

    Raises:
        NotFoundError: there is no bundle.
        IntegrityError: a file is missing, changed, or not named by the manifest.
    """
    path = folder / MANIFEST
    if not path.is_file():
        message = f"no bundle in {folder}: it has no {MANIFEST}"
        raise NotFoundError(message, hint="make one with `mlship train`")
    manifest = path.read_bytes()
    found = digests.of_bytes(manifest)
    if expected is not None and found != expected:
        message = f"bundle {folder} has digest {found}, not {expected}"
        raise IntegrityError(message, hint="fetch the bundle again; somebody changed its manifest")
    bundle = _decode(manifest, folder)
    _check_files(folder, bundle)
    return bundle


def _decode(manifest: bytes, folder: Path) -> Bundle:
    try:
        return msgspec.json.decode(manifest, type=Bundle)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        message = f"{folder / MANIFEST} is not a bundle's manifest: {error}"
        raise IntegrityError(message, hint="train again, or update mlship") from error


def _check_files(folder: Path, bundle: Bundle) -> None:
    present = dict(_contents(folder))
    for name in sorted({*present, *bundle.files}):
        problem = _problem(name, present.get(name), bundle.files.get(name))
        if problem:
            message = f"bundle {folder}: {name} {problem}"
            raise IntegrityError(message, hint="fetch the bundle again; nothing was loaded from it")


def _problem(name: str, path: Path | None, entry: File | None) -> str:
    if entry is None:
        return "is not named by the manifest"
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        return "lies outside the bundle"
    if path is None:
        return "is missing"
    if path.is_symlink():
        return "is a link"
    if path.stat().st_size != entry.size or digests.of_file(path) != entry.digest:
        return f"is not what the manifest says ({entry.digest})"
    return ""


def _contents(folder: Path) -> list[tuple[str, Path]]:
    """List the files beside the manifest. A compiled module counts: Python would run it."""
    return sorted(
        (path.relative_to(folder).as_posix(), path)
        for path in folder.rglob("*")
        if (path.is_file() or path.is_symlink()) and path != folder / MANIFEST
    )
