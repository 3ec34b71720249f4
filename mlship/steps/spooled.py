"""Predictions in the spools of pods: what is lost when the pods of a release are removed."""

import time
from collections.abc import Callable, Sequence
from typing import Final

from mlship.domain import undelivered
from mlship.domain.deployment import slot_of
from mlship.domain.prediction import Spool
from mlship.domain.release import Release
from mlship.errors import RefusedError, UnavailableError
from mlship.steps.pipeline import PRODUCTION, Pipeline

WAIT_SECONDS: Final = 10.0
"""Replicas report every three seconds what they have delivered."""
_PAUSE = 1.0
_LOSE = "or lose them: `mlship retire {} --lose-spooled`"


def goes_with_pods(pipeline: Pipeline) -> bool:
    """Return whether a spool of production is a volume of its pod, and is deleted with it."""
    target = pipeline.target_config(PRODUCTION)
    in_pods = target.kind != "local" and target.kubernetes.spool_claim is None
    return in_pods and pipeline.config.observations.when_away == "spool"


def check_delivered(
    pipeline: Pipeline,
    release: Release,
    wait_seconds: float = 0,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Check that removing a release loses no prediction.

    Args:
        pipeline: the project.
        release: whose pods are to be removed. If they are gone, nothing can be lost any more.
        wait_seconds: how long predictions may take that are on their way.
        sleep: waits for seconds.

    Raises:
        RefusedError: predictions are only in its pods, or may be.
        UnavailableError: the database does not say it.
    """
    if not goes_with_pods(pipeline):
        return
    if slot_of(release) not in pipeline.target(PRODUCTION).inspect():
        return
    left = wait_seconds
    while found := undelivered.sentences(spools := _spools(pipeline, release)):
        if left <= 0 or not any(spool.rows for spool in spools):
            message = f"{release} is not removed, which would lose predictions: {'; '.join(found)}"
            hint = "wait until `mlship status` does not list them any more, "
            raise RefusedError(message, hint=hint + _LOSE.format(release))
        sleep(_PAUSE)
        left -= _PAUSE


def _spools(pipeline: Pipeline, release: Release) -> Sequence[Spool]:
    try:
        return pipeline.observations.spools({release.id})
    except UnavailableError as error:
        message = f"{release} is not removed, because its pods may have predictions that are not "
        message += f"in the database: {error.message}"
        raise UnavailableError(message, hint=f"{error.hint}; {_LOSE.format(release)}") from error
