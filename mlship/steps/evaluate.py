"""evaluate: compare champion and challenger on outcomes; the result is valid at every look."""

import math
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import compress, islice
from operator import and_

from mlship.domain import gates, outcome_metrics, shapes, undelivered
from mlship.domain.bundle import Row, Value, probability_of, quantile_of
from mlship.domain.confidence import Comparison, compare
from mlship.domain.digests import Digest
from mlship.domain.evidence import Record, Saw, Verdict
from mlship.domain.facts import Evaluated, Tested
from mlship.domain.outcome_metrics import Metric
from mlship.domain.policy import PromotePolicy
from mlship.domain.prediction import Outcome, Prediction, Spool, Truth
from mlship.domain.records import Records
from mlship.domain.release import Release
from mlship.errors import ConfigError, NotFoundError, ProjectError
from mlship.steps.batch import Batching
from mlship.steps.batch_scores import Contests
from mlship.steps.pipeline import Pipeline
from mlship.steps.removal import erased_since

_FIRST = timedelta(minutes=5)
"""How long a challenger may be without a prediction while the champion's count already."""
_AT_ONCE = 100_000
"""So many predictions are given to a metric of the project together."""


class _Scores:
    """The scores of a release, one for each outcome; those without a prediction have none.

    They are in an array, since a million outcomes are usual.

    Args:
        size: the number of outcomes.
    """

    def __init__(self, size: int) -> None:
        self.values = array("d", bytes(8 * size))
        self.is_known = bytearray(size)

    def __setitem__(self, place: int, score: float) -> None:
        self.values[place] = score
        self.is_known[place] = True

    def known(self) -> Sequence[float]:
        """Return the scores of outcomes that have one."""
        return array("d", compress(self.values, self.is_known))


def evaluate(
    pipeline: Pipeline, records: Records | None = None, *, batching: Batching | None = None
) -> Record:
    """Compare the challenger with the champion on predictions whose outcomes are known.

    Only predictions since the deployment of the challenger count, for both releases, so that both
    saw the same period. Scores are in the order in which outcomes arrived. While predictions of
    one of them are on their way to the database, the challenger does not pass. Of batches, the
    rows count that both answered, or that a split gave to one of them.

    Args:
        pipeline: the project.
        records: of the ledger, if they are known.
        batching: the ports of batches, whose predictions are in no log.

    Returns:
        The evidence `evaluate` about the challenger: `passed`, `failed` or `undecided`.

    Raises:
        NotFoundError: production has no champion or no challenger.
        ConfigError: gates.promote.metric is none, so nothing is compared; or it cannot score what
            the challenger predicts.
        ProjectError: the project's own metric fails on a prediction.
        IntegrityError: the output of a batch is not as it was written.
    """
    policy = pipeline.config.gates.promote
    if policy.metric == "none":
        raise ConfigError(
            "gates.promote.metric is none: approvals decide, and no outcomes are compared",
            hint="look at the reports, then run `mlship approve` and `mlship promote`",
        )
    records = pipeline.read(records)
    history = records.history
    champion, challenger = history.champion, history.challenger
    if champion is None or challenger is None or history.challenger_since is None:
        raise NotFoundError(
            "production has no challenger to evaluate",
            hint="run `mlship deploy-production` to start one",
        )
    pipeline.progress.note("joining predictions with outcomes")
    players = {champion.id, challenger.id}
    # First, so that what arrives in between counts as on its way, and is not overlooked.
    spools = pipeline.observations.spools(players)
    since = _since(pipeline, challenger, records, history.challenger_since)
    predictions = _by_prediction(pipeline.observations.predictions(players), since)
    contests = Contests(batching, records, champion.id, challenger.id, since) if batching else None
    parts = contests.parts if contests else ()
    outcomes = pipeline.observations.outcomes(records.ids, parts)
    metric = _fitting(pipeline, records, challenger)
    joined = _joined(outcomes, predictions, contests)
    scores = _scores(pipeline, metric, outcomes, joined, players)
    comparison = _compared(scores, champion.id, challenger.id, metric, policy)
    facts = _facts(
        comparison,
        champion,
        since=since,
        outcomes=len(outcomes),
        corrected=sum(
            each.is_corrected and any(own.is_known[place] for own in scores.values())
            for place, each in enumerate(outcomes)
        ),
        spools=spools,
        erased=erased_since(records, players, since),
        notes=contests.notes if contests else (),
    )
    saw = Saw(
        champion=champion.id, challenger=challenger.id, policy=gates.digest_of_comparison(policy)
    )
    verdict = _complete(comparison.verdict, spools)
    return pipeline.learn(challenger, "evaluate", verdict, facts, saw, after=records)


def _compared(
    scores: Mapping[Digest, _Scores],
    champion: Digest,
    challenger: Digest,
    metric: Metric,
    policy: PromotePolicy,
) -> Comparison:
    """Compare the scores of both, and those of the same requests in pairs."""
    old, new = scores[champion], scores[challenger]
    both = bytes(map(and_, old.is_known, new.is_known))
    return compare(
        old.known(),
        new.known(),
        paired=(
            array("d", compress(old.values, both)),
            array("d", compress(new.values, both)),
        ),
        metric=metric,
        confidence=policy.confidence,
        margin=policy.margin,
        min_labels=policy.min_labels,
    )


def _complete(verdict: Verdict, spools: Sequence[Spool]) -> Verdict:
    """Return the verdict; what passes without some of the predictions is undecided."""
    return "undecided" if verdict == "passed" and undelivered.sentences(spools) else verdict


def _fitting(pipeline: Pipeline, records: Records, challenger: Release) -> Metric:
    """Return the metric of promotions.

    Raises:
        ConfigError: it cannot score what the challenger predicts.
    """
    metric = outcome_metrics.of(pipeline.config.gates.promote)
    tested = records.latest("test", challenger)
    task = shapes.of(tested, Tested).task if tested else ""
    if not outcome_metrics.fits(metric, task):
        is_labels = task == "classification"
        what, known = ("labels", "accuracy") if is_labels else ("numbers", "mae")
        raise ConfigError(
            f"gates.promote.metric is {metric.name}, and {challenger} predicts {what}",
            hint=f"set `metric: {known}` under gates.promote in mlship.yaml",
        )
    return metric


def _since(
    pipeline: Pipeline, challenger: Release, records: Records, deployed: datetime
) -> datetime:
    """Return since when predictions count: since the challenger's deployment.

    The recorded time is by the clock of the machine that deployed it, and predictions are by those
    of the replicas. So it counts as far as the challenger's first prediction bears it out, unless
    the release had been deployed before.
    """
    deployments = [
        record
        for record in records
        if record.evidence.step == "deploy-production" and record.evidence.release == challenger
    ]
    is_again = len(deployments) > 1 or records.history.challenger_by == "rollback"
    first = next(iter(pipeline.observations.predictions({challenger.id})), None)
    if is_again or first is None:
        return deployed
    # The prediction that it shadows is part of the same period.
    began = min(each.time for each in pipeline.observations.find(first.id))
    return min(max(deployed, began - _FIRST), began)


def _by_prediction(
    predictions: Iterable[Prediction], since: datetime
) -> dict[str, dict[str, Prediction]]:
    by_id: dict[str, dict[str, Prediction]] = {}
    for prediction in predictions:
        if prediction.time >= since:
            by_id.setdefault(prediction.id, {})[prediction.release] = prediction
    return by_id


def _joined(
    outcomes: Sequence[Outcome],
    predictions: dict[str, dict[str, Prediction]],
    contests: Contests | None,
) -> Iterator[tuple[int, Prediction]]:
    """Return each prediction whose outcome is known, with the outcome's place."""
    for place, outcome in enumerate(outcomes):
        for prediction in predictions.get(outcome.prediction, {}).values():
            yield place, prediction
    if contests is not None:
        yield from contests.answers(outcomes)


def _scores(
    pipeline: Pipeline,
    metric: Metric,
    outcomes: Sequence[Outcome],
    joined: Iterator[tuple[int, Prediction]],
    players: Iterable[Digest],
) -> Mapping[Digest, _Scores]:
    """Return the scores of each release."""
    targets = pipeline.config.data.targets
    scores = {each: _Scores(len(outcomes)) for each in players}
    if metric.is_own:
        while some := list(islice(joined, _AT_ONCE)):
            pairs = [(outcomes[place].value, prediction) for place, prediction in some]
            found = _own_scores(pipeline, metric, pairs)
            for (place, prediction), score in zip(some, found, strict=True):
                scores[prediction.release][place] = score
        return scores
    for place, prediction in joined:
        actual = outcomes[place].value
        scores[prediction.release][place] = _score(metric, prediction.outputs, actual, targets)
    return scores


def _own_scores(
    pipeline: Pipeline, metric: Metric, joined: Sequence[tuple[Truth, Prediction]]
) -> list[float]:
    """Return the scores by a function of the project, which gets one release's outputs at a time.

    An outcome that has no form in the type of its prediction scores NaN, as with other metrics.
    """
    target = pipeline.config.data.targets[0]
    scores = [math.nan] * len(joined)
    places: dict[str, list[int]] = {}
    truth: list[Value] = [
        None
        if isinstance(actual, dict)
        else outcome_metrics.typed(each.outputs.get(target), actual)
        for actual, each in joined
    ]
    for place, (_, prediction) in enumerate(joined):
        if truth[place] is not None:
            places.setdefault(prediction.release, []).append(place)
    for own in places.values():
        found = pipeline.trainer.rate(
            metric.name, [joined[place][1] for place in own], [truth[place] for place in own]
        )
        for place, score in zip(own, found, strict=True):
            if not metric.admits(score):
                low, high = metric.range or (-math.inf, math.inf)
                raise ProjectError(
                    f"{metric.name} returned {score:g} for prediction {joined[place][1].id}, "
                    f"which is not between {low:g} and {high:g}",
                    hint="correct the function, or gates.promote.range in mlship.yaml",
                )
            scores[place] = score
    return scores


def _score(metric: Metric, outputs: Row, outcome: Truth, targets: Sequence[str]) -> float:
    """Return the score of one prediction: the mean over the targets whose outcomes are known."""
    known = outcome if isinstance(outcome, dict) else {targets[0]: outcome}
    scores = [
        outcome_metrics.score(metric, _alone(metric, outputs, name, targets), name, known[name])
        for name in targets
        if name in known
    ]
    return sum(scores) / len(scores) if scores else math.nan


def _alone(metric: Metric, outputs: Row, target: str, targets: Sequence[str]) -> Row:
    """Return the outputs of one target as if it were the only one, of a quantile's own output."""
    quantile = metric.name.removeprefix("pinball[").removesuffix("]")
    if quantile != metric.name:
        own = quantile_of(float(quantile), target)
        return {target: outputs.get(own, outputs.get(target))}
    if len(targets) == 1:
        return outputs
    prefix = probability_of("", target)
    shares = {name: value for name, value in outputs.items() if name.startswith(prefix)}
    named = {probability_of(name.removeprefix(prefix)): value for name, value in shares.items()}
    return {target: outputs.get(target), **named}


def _facts(
    comparison: Comparison,
    champion: Release,
    *,
    since: datetime,
    outcomes: int,
    corrected: int,
    spools: Sequence[Spool],
    erased: int,
    notes: Sequence[str],
) -> Evaluated:
    words = [f"{corrected} outcomes were corrected"] if corrected else []
    words += [f"{erased} predictions were erased and do not count"] if erased else []
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
        reason="; ".join([comparison.reason, *undelivered.sentences(spools), *words, *notes]),
        since=since,
        outcomes=outcomes,
        undelivered=sum(spool.rows for spool in spools),
        erased=erased,
        corrected=corrected,
    )
