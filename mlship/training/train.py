"""A training from the project's files to a sealed bundle."""

import shutil
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path

import pandas as pd

from mlship.adapters.checkout.children import TrainRequest
from mlship.config.project import Config, ModelConfig
from mlship.domain.bundle import ModelFormat
from mlship.domain.ports import Predictor
from mlship.domain.scores import Trained
from mlship.errors import ConfigError, ProjectError
from mlship.training import fit, heldout, seal
from mlship.training.blame import proven
from mlship.training.data import Data, read
from mlship.training.fit import Prepared
from mlship.training.forms import saved
from mlship.training.forms.convert import Converted, begun, convert, expected
from mlship.training.frameworks import (
    catboostfile,
    kerasnet,
    mlflowmodel,
    networks,
    textnet,
    torchnet,
)
from mlship.training.original import Original, examine
from mlship.training.owncode import Trust
from mlship.training.profile import profile_of
from mlship.training.proof import contract
from mlship.training.proof import trial as trials

Expect = Callable[[ModelFormat], None]
Loaded = Callable[[], Mapping[str, pd.DataFrame]]


def train(
    request: TrainRequest,
    predictor: Predictor,
    expect: Expect | None = None,
    loaded: Loaded = dict,
) -> Trained:
    """Read, preprocess, train, convert and seal into the folder that the request names.

    Args:
        request: the project, and the folder.
        predictor: asks the sealed bundle.
        expect: is told the format that a bundle without hooks will probably have.
        loaded: returns the data files that were read already, by their names.

    Raises:
        ProjectError: the user's code or data is wrong; the message says where.
        RefusedError, IntegrityError: a pickle is not allowed, or is another one.
    """
    root, config = request.root, request.config
    _check_batches(config)
    data = read(root, config.data, loaded())
    prepared = fit.prepare(root, data, config.model.preprocess)
    rows = None if config.data.test else heldout.place_of(root, config, request.into)
    try:
        returned = fit.fit(root, config, data, prepared, rows)
    finally:
        if rows is not None:
            shutil.rmtree(rows.parent, ignore_errors=True)
    request.into.mkdir(parents=True)
    with mlflowmodel.local(returned, config.store) as model, proven(root, config.model.source):
        converted = _converted(request, data, prepared, model, expect)
    making = seal.Making(root=root, config=config, data=data, converted=converted)
    with converted.held_out or nullcontext():
        digest = seal.seal(making, request.into, predictor)
    return Trained(
        bundle=digest,
        format=converted.model.format,
        rows=data.count,
        features=len(data.fields),
        notes=(*converted.notes, *contract.limits_of(data.fields, converted.trial.fields)),
        profile=profile_of(data, converted.trial.original.task),
    )


def _check_batches(config: Config) -> None:
    if config.data.batch_rows is None:
        return
    if config.model.command is not None:
        message = "mlship.yaml: data.batch_rows and model.command: a command reads its data itself"
        raise ConfigError(message, hint="remove data.batch_rows, or name a function in model.train")
    if config.model.preprocess is None:
        message = "mlship.yaml: data.batch_rows needs model.preprocess, whose features are kept"
        raise ConfigError(message, hint="name a function there, or remove data.batch_rows")


def _converted(
    request: TrainRequest,
    data: Data,
    prepared: Prepared,
    returned: object,
    expect: Expect | None,
) -> Converted:
    root, config = request.root, request.config.model
    prepare = fit.hook(root, config.preprocess)
    source = (
        saved.read(root, config, returned)
        if isinstance(returned, str | Path)
        else saved.of_booster(returned)
    )
    if source is not None and source.is_native:
        original, model, modules = saved.adopt(config, source, data, prepared, request.into)
        trial = trials.prepared(original, data, prepare)
        return Converted(model=model, trial=trial, modules=modules)
    trust = Trust(root=root, names=config.trust)
    if source is not None:
        returned = saved.estimator_of(source, trust)
    original = _examined(returned, config, data, prepared)
    has_hooks = config.preprocess is not None or config.postprocess is not None
    if expect is not None and not has_hooks:
        expect(expected(original))
    with begun(original, trust) as first:
        trial = trials.prepared(original, data, prepare)
        return convert(trial, request.into, trust, first, data.test)


def _examined(model: object, config: ModelConfig, data: Data, prepared: Prepared) -> Original:
    """Return what a model is, by the library that it is of."""
    if pipeline := textnet.of(model):
        return textnet.examine(pipeline, config, data, prepared)
    if network := kerasnet.of(model) or torchnet.of(model):
        return networks.examine(network, config, data, prepared)
    if config.output != "auto":
        message = f"mlship.yaml says model.output: {config.output}, and {config.source} returned "
        message += f"{type(model).__name__}, which says itself what it predicts"
        raise ProjectError(message, hint="remove model.output")
    return examine(catboostfile.of_any(model), config, data, prepared)
