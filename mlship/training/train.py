"""A training from the project's files to a sealed bundle."""

from pathlib import Path

from mlship.adapters.checkout.children import TrainRequest
from mlship.domain.ports import Predictor
from mlship.domain.scores import Trained
from mlship.training import fit, saved, seal
from mlship.training import trial as trials
from mlship.training.convert import Converted, convert, limits_of
from mlship.training.data import Data, read
from mlship.training.fit import Prepared
from mlship.training.original import examine
from mlship.training.owncode import Trust
from mlship.training.profile import profile_of


def train(request: TrainRequest, predictor: Predictor) -> Trained:
    """Read, preprocess, train, convert and seal into the folder that the request names.

    Raises:
        ProjectError: the user's code or data is wrong; the message says where.
        RefusedError, IntegrityError: a pickle is not allowed, or is another one.
    """
    root, config = request.root, request.config
    data = read(root, config.data)
    prepared = fit.prepare(root, data, config.model.preprocess)
    returned = fit.fit(root, config, data, prepared)
    request.into.mkdir(parents=True)
    converted = _converted(request, data, prepared, returned)
    making = seal.Making(root=root, config=config, data=data, converted=converted)
    digest = seal.seal(making, request.into, predictor)
    return Trained(
        bundle=digest,
        format=converted.model.format,
        rows=len(data.train),
        features=len(data.fields),
        notes=(*converted.notes, *limits_of(data.fields, converted.trial.fields)),
        profile=profile_of(data, converted.trial.original.task),
    )


def _converted(
    request: TrainRequest, data: Data, prepared: Prepared, returned: object
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
    original = examine(returned, config, data, prepared)
    return convert(trials.prepared(original, data, prepare), request.into, trust)
