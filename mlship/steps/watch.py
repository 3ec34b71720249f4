"""watch: take a challenger off traffic that keeps failing or is slow; the champion never is."""

import time
from collections.abc import Callable
from datetime import timedelta
from typing import NamedTuple

import msgspec

from mlship.domain import shapes
from mlship.domain.counts import Counted, Look, grown
from mlship.domain.deployment import Split, slot_of
from mlship.domain.evidence import Record, Saw, Verdict
from mlship.domain.facts import Routed
from mlship.domain.records import Records
from mlship.domain.release import Release
from mlship.domain.watch import Judgement, Period, Side, Watched, judge, recent
from mlship.errors import ConfigError, ConflictError, MlshipError, UnavailableError
from mlship.steps.pipeline import PRODUCTION, Pipeline
from mlship.steps.traffic import give
from mlship.steps.transition import changing


class Watch(msgspec.Struct, frozen=True, kw_only=True):
    """How a watch ended.

    Attributes:
        challenger: empty if production has none with traffic; then nothing was compared.
        verdict: `failed` if it was taken off traffic.
        record: the evidence, if there is any.
        looks: how often the counts were read.
        missed: how often they could not be.
    """

    challenger: str = ""
    champion: str = ""
    verdict: Verdict = "undecided"
    reason: str
    champion_side: Side = Side()
    challenger_side: Side = Side()
    record: Record | None = None
    looks: int = 0
    missed: int = 0


class _Pair(NamedTuple):
    """Who is watched, and the split in which it was found."""

    champion: Release
    challenger: Release
    split: Split

    @property
    def share(self) -> int:
        """The challenger's percentage of the traffic."""
        return self.split.share(slot_of(self.challenger))

    @property
    def is_alone(self) -> bool:
        """Whether the champion gets no traffic."""
        return not self.split.share(slot_of(self.champion))


def watch(
    pipeline: Pipeline,
    *,
    every: float = 10.0,
    seconds: float | None = None,
    pause: Callable[[float], None] = time.sleep,
) -> Watch:
    """Compare the challenger with the champion again and again, until one of these is true.

    The challenger is beyond a bound of `challenger_bounds`: it is taken off traffic, and that is
    recorded. Or there is no challenger with traffic any more. Or `seconds` have passed.

    Args:
        pipeline: the project.
        every: seconds between two looks.
        seconds: how long; `None` is without an end.
        pause: waits.

    Raises:
        ConfigError: the load balancer of production is not mlship's, or a number is not positive.
        UnavailableError: at the end, the counts could not be read: nothing is known.
        ConflictError: at the end, the challenger could not be taken off, because another command
            was changing production.
    """
    if not every > 0 or (seconds is not None and not seconds > 0):
        raise ConfigError("--every and --seconds must be above 0", hint="give a number of seconds")
    window = pipeline.target_config(PRODUCTION).challenger_bounds.seconds
    if 2 * every > window:
        message = f"--every {every:g} is too long: nothing is decided in one look, and requests of "
        message += f"the last {window:g} s are compared"
        hint = f"give at most {window / 2:g}, or set "
        raise ConfigError(message, hint=f"{hint}targets.production.challenger_bounds.seconds")
    target = pipeline.target(PRODUCTION)
    if not isinstance(target, Counted):
        message = "the requests of production are not counted, so nothing can be compared"
        raise ConfigError(message, hint="let mlship bring the load balancer")
    return _Watcher(pipeline, target, every, seconds, pause).run()


class _Watcher:
    """One watch: what it has seen so far."""

    def __init__(
        self,
        pipeline: Pipeline,
        target: Counted,
        every: float,
        seconds: float | None,
        pause: Callable[[float], None],
    ) -> None:
        self._pipeline = pipeline
        self._target = target
        self._bounds = pipeline.target_config(PRODUCTION).challenger_bounds
        self._every = every
        self._pause = pause
        self._until = None if seconds is None else pipeline.clock() + timedelta(seconds=seconds)
        self._records = Records()
        self._pair: _Pair | None = None
        self._before: Look | None = None
        self._periods: tuple[Period, ...] = ()
        self._looks = 0
        self._missed = 0

    def run(self) -> Watch:
        """Look until the watch ends."""
        while True:
            fault: MlshipError | None = None
            try:
                ended = self._step()
            except (UnavailableError, ConflictError) as error:
                fault = error
                self._missed += isinstance(error, UnavailableError)
                self._pipeline.progress.note(f"{error.message}; looking again")
            else:
                if ended is not None:
                    return ended
            if not self._wait():
                break
        if fault is None:
            return self._end()
        hint = fault.hint or "look at `mlship status`, then run the command again"
        message = f"nothing is known of the challenger at the end of the watch: {fault.message}"
        raise type(fault)(message, hint=hint)

    def _step(self) -> Watch | None:
        """Look once; return how the watch ends, `None` if it goes on."""
        pair = self._find()
        if pair is not None and (decision := _unfinished(self._records, pair.challenger)):
            return self._take_off(pair, decision)
        if pair is None or not pair.share:
            return self._ended(pair, "production has no challenger with traffic")
        judgement = self._look(pair)
        return self._take_off(pair, judgement) if judgement.verdict == "failed" else None

    def _find(self) -> _Pair | None:
        """Return who is watched; the ledger is read again only if the split has changed."""
        split = self._pipeline.target(PRODUCTION).routes().split
        if self._pair is None or self._pair.split != split:
            self._records = self._pipeline.read()
            history = self._records.history
            self._pair, self._before, self._periods = None, None, ()
            if history.champion is not None and history.challenger is not None:
                self._pair = _Pair(history.champion, history.challenger, split)
        return self._pair

    def _look(self, pair: _Pair) -> Judgement:
        counts = self._target.counts()
        self._looks += 1
        before, self._before = self._before, counts
        if before is not None:
            period = Period(
                self._pipeline.clock(),
                grown(before, counts, slot_of(pair.champion)),
                grown(before, counts, slot_of(pair.challenger)),
            )
            self._periods = recent((*self._periods, period), self._bounds)
        return self._judgement(pair)

    def _judgement(self, pair: _Pair) -> Judgement:
        return judge(self._periods, self._bounds, alone=pair.is_alone)

    def _take_off(self, pair: _Pair, decision: Judgement | Record) -> Watch:
        """Record why, if that is not recorded yet, then give the champion all traffic.

        Raises:
            ConflictError: another command is changing production, or has changed it since.
            UnavailableError: the champion has no replica that is ready.
        """
        expected, self._pair = self._records, None
        with changing(self._pipeline, expected) as (fenced, records):
            _check_ready(fenced, pair.champion)
            if isinstance(decision, Record):
                record = decision
            else:
                facts = self._facts(pair, decision)
                record = _learn(fenced, pair, facts, "failed", records)
            give(fenced, records.plus(record), 0)
        facts = shapes.of(record, Watched)
        return self._watch(pair, facts, "failed", record)

    def _end(self) -> Watch:
        """Return the result at the end of the time."""
        pair = self._pair
        if pair is None:
            return self._ended(None, "nothing was compared")
        judgement = self._judgement(pair)
        facts = self._facts(pair, judgement)
        last = self._records.latest("watch", pair.challenger)
        is_news = last is not None and last.evidence.verdict == "failed"
        record = None
        if is_news and judgement.verdict == "passed":
            record = _learn(self._pipeline, pair, facts, "passed", self._pipeline.read())
        return self._watch(pair, facts, judgement.verdict, record)

    def _facts(self, pair: _Pair, judgement: Judgement) -> Watched:
        return Watched(
            champion=str(pair.champion),
            share=pair.share,
            seconds=self._bounds.seconds,
            bounds=self._bounds,
            champion_side=judgement.champion,
            challenger_side=judgement.challenger,
            reason=judgement.reason,
        )

    def _watch(self, pair: _Pair, facts: Watched, verdict: Verdict, record: Record | None) -> Watch:
        return Watch(
            challenger=str(pair.challenger),
            champion=facts.champion,
            verdict=verdict,
            reason=facts.reason,
            champion_side=facts.champion_side,
            challenger_side=facts.challenger_side,
            record=record,
            looks=self._looks,
            missed=self._missed,
        )

    def _ended(self, pair: _Pair | None, reason: str) -> Watch:
        challenger = str(pair.challenger) if pair else ""
        return Watch(challenger=challenger, reason=reason, looks=self._looks, missed=self._missed)

    def _wait(self) -> bool:
        """Wait until the next look; return whether there is one."""
        seconds = self._every
        if self._until is not None:
            left = (self._until - self._pipeline.clock()).total_seconds()
            if left <= 0:
                return False
            seconds = min(seconds, left)
        self._pause(seconds)
        return True


def _unfinished(records: Records, challenger: Release) -> Record | None:
    """Return the decision to take a challenger off that was recorded and not carried out."""
    for record in reversed(records):
        if record.evidence.release == challenger and record.evidence.step == "watch":
            return record if record.evidence.verdict == "failed" else None
        if isinstance(shapes.read(record), Routed):
            return None
    return None


def _check_ready(pipeline: Pipeline, champion: Release) -> None:
    """Check that the champion can take the traffic.

    Raises:
        UnavailableError: it cannot; a challenger that fails less is better than nobody.
    """
    deployment = pipeline.target(PRODUCTION).inspect().get(slot_of(champion))
    if deployment is None or not deployment.ready:
        message = (
            f"the challenger keeps its traffic: {champion}, the champion, has no ready replica"
        )
        raise UnavailableError(message, hint="check `mlship status`")


def _learn(
    pipeline: Pipeline, pair: _Pair, facts: Watched, verdict: Verdict, records: Records
) -> Record:
    saw = Saw(champion=pair.champion.id, challenger=pair.challenger.id)
    return pipeline.learn(pair.challenger, "watch", verdict, facts, saw, after=records)
