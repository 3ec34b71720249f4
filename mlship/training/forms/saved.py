"""Models that the training function saved itself, and names by their path."""

import dataclasses
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from msgspec.structs import replace

from mlship.adapters.checkout import datafiles
from mlship.config.project import ModelConfig
from mlship.domain import digests
from mlship.domain.bundle import UNSUPERVISED, Field, Head, Label, Model, ModelFormat, Task
from mlship.errors import IntegrityError, MlshipError, ProjectError, RefusedError
from mlship.runtime import formats
from mlship.training import labels, order
from mlship.training.columns import rows_of
from mlship.training.data import Data
from mlship.training.fit import Prepared
from mlship.training.forms import conversion, nativefacts, onnxfile, signatures, skopsfile
from mlship.training.forms.nativefacts import Facts
from mlship.training.frameworks import (
    catboostfile,
    kerasnet,
    mlflowmodel,
    networks,
    onnxoutput,
    textnet,
    torchnet,
)
from mlship.training.heads import numbers_of, truth_of
from mlship.training.original import Original, held_out
from mlship.training.owncode import Trust
from mlship.training.proof.answers import Outputs, Predict, outputs_of
from mlship.training.script import PICKLES, check_link

_SAMPLE = 200
_CHANGED = (
    "nothing was loaded; find out who changed it, or set model.pickle_sha256 to what you made"
)
_NATIVE: dict[str, ModelFormat] = {
    ".onnx": "onnx",
    ".ubj": "xgboost",
    ".json": "xgboost",
    ".txt": "lightgbm",
}


@dataclass(frozen=True)
class Saved:
    """A model file that may be loaded: a pickle's digest was checked.

    Attributes:
        suffix: the ending that tells the format.
        folder: of a saved model of Hugging Face, instead of a file.
    """

    name: str
    suffix: str
    data: bytes
    folder: Path | None = None

    @property
    def is_native(self) -> bool:
        """Tell whether it is served as it is; others hold an estimator that is converted."""
        return self.suffix in _NATIVE


def read(root: Path, config: ModelConfig, returned: str | Path) -> Saved:
    """Return a saved model's file, with a pickle's digest checked.

    Raises:
        ProjectError: there is no such file, or its name tells no known format.
        RefusedError: it is a pickle, and pickles are not allowed; or it is not what its ending
            says, or a link out of the project.
        IntegrityError: it is not the pickle that the configuration allows, or an ONNX model that
            refers to other files or libraries.
    """
    path, name = root / returned, str(returned)
    suffix = path.suffix
    if mlflowmodel.is_model(path):
        path, suffix = mlflowmodel.member(path, name)
        name = f"{name}/{path.name}"
    elif textnet.is_folder(path):
        check_link(root, config, path)
        return Saved(name=name, suffix="", data=b"", folder=path)
    _check_path(config, path, name, suffix)
    datafiles.check_lfs(path, name)
    check_link(root, config, path)
    source = Saved(name=name, suffix=suffix, data=path.read_bytes())
    if suffix in PICKLES:
        _check_pickle(config, source)
    else:
        signatures.check(name, suffix, source.data)
    return source


def _check_path(config: ModelConfig, path: Path, name: str, suffix: str) -> None:
    known = (".skops", ".cbm", ".keras", *_NATIVE, *PICKLES)
    if path.is_dir():
        message = f"{config.source} returned {name}, which is a folder, not a model file"
        raise RefusedError(message, hint="return the path of the model file itself")
    if suffix in (".h5", ".hdf5", ".safetensors", ".bin", ".ckpt"):
        message = f"{config.source} returned {name}, which holds weights, or code beside them"
        hint = "return the model itself from the training function, or a file of a whole model: "
        raise RefusedError(message, hint=f"{hint}{', '.join(known)}")
    if suffix not in known:
        message = f"{config.source} returned the path {name}, which has no known format"
        raise ProjectError(message, hint=f"the known endings are {', '.join(known)}")
    if not path.is_file():
        message = f"{config.source} returned the path {name}, and there is no such file"
        raise ProjectError(message, hint="return the path that the model was saved to")


def of_booster(returned: object) -> Saved | None:
    """Return the file of a bare XGBoost or LightGBM booster; `None` for anything else."""
    origin = type(returned).__module__.partition(".")[0]
    if type(returned).__name__ != "Booster":
        return None
    booster: Any = returned
    if origin == "xgboost":
        return Saved(name="booster.ubj", suffix=".ubj", data=bytes(booster.save_raw("ubj")))
    if origin == "lightgbm":
        return Saved(name="booster.txt", suffix=".txt", data=booster.model_to_string().encode())
    return None


def estimator_of(source: Saved, trust: Trust) -> Any:
    """Return the model in a skops, CatBoost or Keras file, or a pickle whose digest was checked.

    Raises:
        IntegrityError: the skops file is made to mislead.
        ProjectError: the file is damaged, or holds types that are not trusted.
    """
    if source.folder:
        return textnet.from_folder(source.folder, source.name)
    try:
        if source.suffix == ".skops":
            return skopsfile.to_estimator(source.data, source.name, trust)
        if source.suffix in _READERS:
            return _READERS[source.suffix](source.data, source.name)
        import joblib

        return joblib.load(io.BytesIO(source.data))  # it reads plain pickles too
    except MlshipError:
        raise
    except Exception as error:  # unpickling runs code, which may raise anything
        message = f"the saved model {source.name} cannot be loaded: {type(error).__name__}: {error}"
        raise ProjectError(message, hint="save it again with what is installed here") from error


def adopt(
    config: ModelConfig, source: Saved, data: Data, prepared: Prepared, folder: Path
) -> tuple[Original, Model, tuple[str, ...]]:
    """Write a native file below `folder` as it is; return what it is, and the modules it needs.

    Raises:
        ProjectError: it does not load, does not fit the columns, predicts NaN, or does not say
            which of its classes is which label.
    """
    form = _NATIVE[source.suffix]
    source, facts, classes = _described(form, source, config, data)
    task = facts.task if config.task == "auto" else config.task
    columns = _columns(source, facts, prepared)
    nativefacts.check_categories(facts, source.name, columns)
    heads = _heads(source, task, config, data)
    model = Model(
        format=form,
        path=f"model/model{source.suffix}",
        layout=facts.layout,
        columns=columns,
        heads=heads if len(heads) > 1 else (),
    )
    path = folder / model.path
    _write(path, source.data)
    _try_predicting(path, model, task, prepared)
    if task == "classification":
        classes = classes or _classes(config, facts, (path, model), data, prepared)
        model = replace(model, classes=classes)
        heads = (Head(name=data.only.name, classes=classes),)
    predict = _predict(path, model, task, prepared)
    if config.output == "probabilities":
        networks.check_shares(predict(prepared.train.head(_SAMPLE)), source.name)
    if facts.names is None:
        trained = f"{config.source} fitted its model on an array"
        order.check(predict, heads, prepared.train, truth_of(heads, data), trained, order.BY_PLACE)
    original = Original(
        estimator=None,
        task=task,
        columns=columns,
        layout=model.layout,
        heads=heads,
        predict=predict,
        labels_of=lambda frame: predict(frame).labels,
        ask_held_out=lambda: held_out(predict, prepared.test, config.source),
    )
    more = ("pandas",) if model.layout == "frame" else ()
    return original, model, ("onnxruntime" if form == "onnx" else form, *more)


def _described(
    form: ModelFormat, source: Saved, config: ModelConfig, data: Data
) -> tuple[Saved, Facts, tuple[Label, ...]]:
    """Return a native file as it is kept, what it says of itself, and the classes of a network.

    Raises:
        ProjectError: it cannot be read.
    """
    classes: tuple[Label, ...] = ()
    try:
        if config.output != "auto":
            content, classes = onnxoutput.answering(source.name, source.data, config, data)
            source = dataclasses.replace(source, data=content)
        facts = _facts(form, source)
        # After the look in another process, which a hostile file may end.
        whole = nativefacts.whole(form, source.data, source.suffix)
    except MlshipError:
        raise
    except Exception as error:  # each library has errors of its own, some of them plain ones
        message = f"the saved model {source.name} cannot be read: {str(error).splitlines()[0]}"
        raise ProjectError(message, hint=f"save it as {form} itself does") from error
    return dataclasses.replace(source, data=whole), facts, classes


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _facts(form: ModelFormat, source: Saved) -> Facts:
    _survive(lambda: nativefacts.of(form, source.data), f"reading the saved model {source.name}")
    return nativefacts.of(form, source.data)


def _try_predicting(path: Path, model: Model, task: Task, prepared: Prepared) -> None:
    sample = rows_of(prepared.train.head(_SAMPLE))
    call = f"a prediction of the saved model {path.name}"
    _survive(lambda: formats.load(path, model, task)(sample), call)


def _survive(call: Callable[[], object], name: str) -> None:
    """Try in a process of its own what a file can make crash or never end.

    Whatever it raises is told where it is called again.

    Raises:
        ProjectError: it did not end in time, or ended its process.
    """

    def tried() -> None:
        with suppress(Exception):
            call()

    try:
        conversion.in_child(tried, name)
    except onnxfile.NotConvertedError as error:
        hint = "train the model again and save it anew; do not load this file"
        raise ProjectError(str(error), hint=hint) from error


def _heads(source: Saved, task: Task, config: ModelConfig, data: Data) -> tuple[Head, ...]:
    """Return the heads of a native file, before their classes are known.

    Raises:
        ProjectError: it has several, with labels that it does not tell, or no target.
    """
    if task in UNSUPERVISED:
        message = f"the saved model {source.name} does not say that it is for {task}"
        raise ProjectError(message, hint="return the fitted estimator, or save it as skops")
    heads = numbers_of(config, data)
    if len(heads) > 1 and task == "classification":
        message = f"the saved model {source.name} does not say which labels its targets have"
        hint = "return the fitted estimator, or save it as skops"
        raise ProjectError(message, hint=hint)
    return heads


def _check_pickle(config: ModelConfig, source: Saved) -> None:
    if not config.allow_pickle or config.pickle_sha256 is None:
        message = f"{config.source} returned {source.name}; loading a pickle runs its code"
        hint = "save it as skops or ONNX, or set model.allow_pickle and model.pickle_sha256"
        raise RefusedError(message, hint=hint)
    found = digests.of_bytes(source.data).removeprefix("sha256:")
    if found != config.pickle_sha256.removeprefix("sha256:").lower():
        message = f"{source.name} has sha256 {found}, not model.pickle_sha256"
        raise IntegrityError(message, hint=_CHANGED)


def _columns(source: Saved, facts: Facts, prepared: Prepared) -> tuple[Field, ...]:
    known = {field.name: field for field in prepared.columns}
    if facts.names is not None and set(facts.names) <= set(known):
        return tuple(known[name] for name in facts.names)
    if facts.count in (None, len(known)):
        return prepared.columns
    message = f"the saved model {source.name} takes {facts.count} columns, and the data have "
    message += f"{len(known)}: {', '.join(known)}"
    raise ProjectError(message, hint="train it on these, or drop the others in `preprocess`")


def _classes(
    config: ModelConfig,
    facts: Facts,
    file: tuple[Path, Model],
    data: Data,
    prepared: Prepared,
) -> tuple[Label, ...]:
    """Return the labels in the order of the model's classes: as told, or as the model says.

    Raises:
        ProjectError: neither tells them.
    """
    count = facts.classes or len(config.classes) or data.only.train.nunique()
    if facts.has_labels and not config.classes:
        return _own_labels(file, count, prepared)
    return labels.of_codes(config, data, count)


def _own_labels(file: tuple[Path, Model], count: int, prepared: Prepared) -> tuple[Label, ...]:
    """Return the label that goes with each probability in the model's own answers.

    Raises:
        ProjectError: not all of them were answered for the training rows.
    """
    path, model = file
    with _named(path):
        raw = formats.load(path, model, "classification")(rows_of(prepared.train))
    if raw.probabilities is None:
        return tuple(sorted(set(np.asarray(raw.labels).tolist())))
    places = np.asarray(raw.probabilities).argmax(axis=1).tolist()
    known = dict(zip(places, np.asarray(raw.labels).tolist(), strict=True))
    if sorted(known) != list(range(count)):
        message = f"the saved model {path.name} does not say the order of its {count} classes"
        hint = "list them under `model` in mlship.yaml: `classes: [...]`, in the model's order"
        raise ProjectError(message, hint=hint)
    return tuple(known[place] for place in range(count))


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Name the file whose library raises.

    Raises:
        ProjectError: it does.
    """
    try:
        yield
    except MlshipError:
        raise
    except Exception as error:  # each library has errors of its own
        said = onnxfile.first_line(error, longest=300)
        message = f"the saved model {path.name} does not predict the rows of the data: {said}"
        hint = "save a model that was trained on these columns, and takes any number of rows"
        raise ProjectError(message, hint=hint) from error


def _predict(path: Path, model: Model, task: Task, prepared: Prepared) -> Predict:
    """Return what answers rows, which has answered some of the data.

    Raises:
        ProjectError: its library raises.
    """
    with _named(path):
        compute = formats.load(path, model, task)
        compute(rows_of(prepared.train.head(_SAMPLE)))

    def predict(frame: pd.DataFrame) -> Outputs:
        return outputs_of(model, compute(rows_of(frame)))

    return predict


_READERS: dict[str, Callable[[bytes, str], Any]] = {
    ".cbm": lambda data, _: catboostfile.from_file(data),
    ".keras": kerasnet.from_file,
    **dict.fromkeys((".pt", ".pth", ".pt2"), torchnet.from_file),
}
