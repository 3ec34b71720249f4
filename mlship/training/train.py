"""A training from the project's files to a sealed bundle."""

from pathlib import Path

from mlship.adapters.checkout.children import TrainRequest
from mlship.domain.ports import Predictor
from mlship.domain.scores import Trained
from mlship.training import convert, fit, original, saved, seal
from mlship.training.columns import rows_of
from mlship.training.convert import Converted
from mlship.training.data import Data, read
from mlship.training.fit import Prepared
from mlship.training.original import Original
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
    model, converted = _converted(request, data, prepared, returned)
    making = seal.Making(root=root, config=config, data=data, original=model, converted=converted)
    digest = seal.seal(making, request.into, predictor)
    return Trained(
        bundle=digest,
        format=converted.model.format,
        rows=len(data.train),
        features=len(data.fields),
        notes=converted.notes,
        profile=profile_of(data, model.task),
    )


def _converted(
    request: TrainRequest, data: Data, prepared: Prepared, returned: object
) -> tuple[Original, Converted]:
    config = request.config.model
    source = (
        saved.read(request.root, config, returned)
        if isinstance(returned, str | Path)
        else saved.of_booster(returned)
    )
    if source is not None and source.is_native:
        return saved.adopt(config, source, data, prepared, request.into)
    trust = Trust(root=request.root, names=config.trust)
    if source is not None:
        returned = saved.estimator_of(source, trust)
    found = original.examine(returned, config, data, prepared)
    rows = rows_of(prepared.test)
    return found, convert.convert(found, rows, request.into, trust)
