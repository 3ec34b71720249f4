"""A batch that champion and challenger of production score: each row both, or each row one."""

import dataclasses
import time
from collections.abc import Callable

import msgspec

from mlship.domain.batch_record import Batched
from mlship.domain.batch_sides import Mode, Player
from mlship.domain.checks import Check
from mlship.domain.deployment import slot_of
from mlship.domain.evidence import Saw
from mlship.domain.history import History
from mlship.domain.records import Records
from mlship.domain.release import Release
from mlship.errors import ConfigError, MlshipError
from mlship.steps import stream
from mlship.steps.batch import Batch, Batching, Scoring, batch, output_of, policy
from mlship.steps.batch_scorer import Scorer
from mlship.steps.pipeline import PRODUCTION, Pipeline


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a batch with a challenger.

    Attributes:
        published: of the run that is published.
        shadow: of the challenger's own outputs; `None` without a shadow.
    """

    published: Batch
    shadow: Batch | None = None

    @property
    def is_new(self) -> bool:
        """Whether anything was scored or published."""
        return self.published.is_new or (self.shadow is not None and self.shadow.is_new)


def compared(
    pipeline: Pipeline,
    batching: Batching,
    release: Release,
    records: Records,
    mode: Mode,
    timer: Callable[[], float] = time.monotonic,
) -> Compared:
    """Score the rows of `batch.input` by champion and challenger of production.

    In a shadow, the champion's outputs are published first, as without a challenger. Then the
    challenger scores the same rows; if it fails, its evidence says so, and the champion's outputs
    stay. In a split, both sides are published together or not at all. Without a challenger, the
    champion scores all rows.

    Raises:
        ConfigError: the release is not the champion, or in a split, both have other outputs.
        MlshipError: as of `batch`.
    """
    history = records.history
    if release != history.champion:
        message = f"a batch with a challenger is the champion's, and {release} is not champion"
        raise ConfigError(message, hint="run `mlship batch champion`, or omit --challenger")
    if history.challenger is None:
        pipeline.progress.note("production has no challenger: the champion scores all rows")
        return Compared(published=batch(pipeline, batching, release, records, timer))
    if mode == "shadow":
        return _shadow(pipeline, batching, release, history.challenger, records, timer)
    return Compared(published=_split(pipeline, batching, release, records, timer))


def _shadow(
    pipeline: Pipeline,
    batching: Batching,
    champion: Release,
    challenger: Release,
    records: Records,
    timer: Callable[[], float],
) -> Compared:
    published = batch(pipeline, batching, champion, records, timer)
    if published.record.evidence.verdict != "passed":
        return Compared(published=published)
    records = records.plus(published.record)
    pipeline.progress.note(f"published in {published.folder}; the challenger scores the rows, too")
    try:
        scorers = [Scorer.of(pipeline, batching.workers, challenger)]
        apart = dataclasses.replace(batching, runs=batching.shadows)
        scoring = Scoring(pipeline, apart, scorers, records, timer, shadowed=published)
        shadow = scoring.run(output_of(pipeline))
    except MlshipError as error:
        # Whatever it is: what readers get is published, so the command says that, too.
        shadow = _failed(pipeline, published, challenger, records, error)
    return Compared(published=published, shadow=shadow)


def _failed(
    pipeline: Pipeline,
    published: Batch,
    challenger: Release,
    records: Records,
    error: MlshipError,
) -> Batch:
    """Record that a challenger cannot score rows that the champion scored."""
    facts = Batched(
        challenger="shadow",
        shadowed=published.folder,
        checks=(Check(name="shadow", holds=False, text=error.message),),
    )
    saw = Saw(bundle=challenger.bundle, policy=policy(pipeline.config.batch))
    record = pipeline.learn(challenger, "batch", "failed", facts, saw, after=records)
    return Batch(record=record, folder="")


def _split(
    pipeline: Pipeline,
    batching: Batching,
    champion: Release,
    records: Records,
    timer: Callable[[], float],
) -> Batch:
    """Divide the rows as the route of production divides requests."""
    output = output_of(pipeline)
    pipeline.check_may("batch")
    releases = {each.id: each for each in records.releases}
    sides = stream.plan_of(pipeline, pipeline.target(PRODUCTION).routes()).sides
    players = [
        Player(
            role=_role(records.history, releases[side.release]),
            slot=side.slot,
            release=side.release,
            name=side.name,
            bundle=side.digest,
            weight=side.weight,
        )
        for side in sides
        if side.weight
    ]
    if [each.release for each in players] == [champion.id]:
        pipeline.progress.note("the route gives the challenger no share: the champion scores all")
        return batch(pipeline, batching, champion, records, timer)
    # The champion first: it is what a run without a challenger is named by.
    players.sort(key=lambda each: (each.release != champion.id, each.slot))
    scorers = [
        Scorer.of(pipeline, batching.workers, releases[each.release], each) for each in players
    ]
    return Scoring(pipeline, batching, scorers, records, timer).run(output)


def _role(history: History, release: Release) -> str:
    role = history.role(release)
    return role if role in ("champion", "challenger") else slot_of(release)
