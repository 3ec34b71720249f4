"""evaluate: compare champion and challenger on outcomes; the result is valid at every look."""

import math
from collections.abc import Iterable, Sequence
from datetime import datetime

from mlship.domain.bundle import Row
from mlship.domain.confidence import Comparison, Metric, compare, score
from mlship.domain.evidence import Record, Saw
from mlship.domain.facts import Evaluated
from mlship.domain.prediction import Outcome, Prediction, Truth
from mlship.domain.records import Records
from mlship.domain.release import Release
from mlship.errors import ConfigError, NotFoundError
from mlship.steps.pipeline import Pipeline


def evaluate(pipeline: Pipeline, records: Records | None = None) -> Record:
    """Compare the challenger with the champion on predictions whose outcomes are known.

    Only predictions since the deployment of the challenger count, for both releases, so that both
    saw the same period. Scores are in the order in which outcomes arrived.

    Returns:
        The evidence `evaluate` about the challenger: `passed`, `failed` or `undecided`.

    Raises:
        NotFoundError: production has no champion or no challenger.
        ConfigError: the task has no outcomes.
    """
    policy = pipeline.config.gates.promote
    if policy.metric == "none":
        raise ConfigError(
            f"{pipeline.config.name} predicts no target, so there are no outcomes to compare",
            hint="look at the reports, then run `mlship approve` and `mlship promote`",
        )
    records = pipeline.read(records)
    history = records.history
    champion, challenger, since = history.champion, history.challenger, history.challenger_since
    if champion is None or challenger is None or since is None:
        raise NotFoundError(
            "production has no challenger to evaluate",
            hint="run `mlship deploy-production` to start one",
        )
    pipeline.progress.note("joining predictions with outcomes")
    predictions = _by_prediction(pipeline.observations.predictions(), (champion, challenger), since)
    outcomes = pipeline.observations.outcomes()
    scores = _scores(outcomes, predictions, pipeline.config.data.targets, policy.metric)
    comparison = compare(
        [by_release[champion.id] for by_release in scores if champion.id in by_release],
        [by_release[challenger.id] for by_release in scores if challenger.id in by_release],
        paired=[
            (by_release[champion.id], by_release[challenger.id])
            for by_release in scores
            if champion.id in by_release and challenger.id in by_release
        ],
        metric=policy.metric,
        confidence=policy.confidence,
        margin=policy.margin,
        min_labels=policy.min_labels,
    )
    facts = _facts(comparison, champion, since=since, outcomes=len(outcomes))
    saw = Saw(champion=champion.id, challenger=challenger.id)
    return pipeline.learn(challenger, "evaluate", comparison.verdict, facts, saw, after=records)


def _by_prediction(
    predictions: Iterable[Prediction], players: tuple[Release, Release], since: datetime
) -> dict[str, dict[str, Prediction]]:
    ids = {player.id for player in players}
    by_id: dict[str, dict[str, Prediction]] = {}
    for prediction in predictions:
        if prediction.release in ids and prediction.time >= since:
            by_id.setdefault(prediction.id, {})[prediction.release] = prediction
    return by_id


def _scores(
    outcomes: Iterable[Outcome],
    predictions: dict[str, dict[str, Prediction]],
    targets: Sequence[str],
    metric: Metric,
) -> list[dict[str, float]]:
    return [
        {
            release: _score(metric, prediction.outputs, outcome.value, targets)
            for release, prediction in predictions[outcome.prediction].items()
        }
        for outcome in outcomes
        if outcome.prediction in predictions
    ]


def _score(metric: Metric, outputs: Row, outcome: Truth, targets: Sequence[str]) -> float:
    """Return the score of one prediction: the mean over the targets whose outcomes are known."""
    if len(targets) == 1 and not isinstance(outcome, dict):
        return score(metric, outputs.get(targets[0]), outcome)
    known = outcome if isinstance(outcome, dict) else {}
    scores = [score(metric, outputs.get(name), known[name]) for name in targets if name in known]
    return sum(scores) / len(scores) if scores else math.nan


def _facts(
    comparison: Comparison, champion: Release, *, since: datetime, outcomes: int
) -> Evaluated:
    return Evaluated(
        champion=str(champion),
        metric=comparison.metric,
        method=comparison.method,
        confidence=comparison.confidence,
        champion_mean=comparison.champion_mean,
        challenger_mean=comparison.challenger_mean,
        champion_n=comparison.champion_n,
        challenger_n=comparison.challenger_n,
        estimate=comparison.estimate,
        low=comparison.low,
        high=comparison.high,
        reason=comparison.reason,
        since=since,
        outcomes=outcomes,
    )
