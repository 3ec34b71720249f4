"""watch: take a challenger off traffic that keeps failing or is slow; the champion never is."""

import time
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from mlship.domain import shapes
from mlship.domain.counts import Counted, Look, grown
from mlship.domain.deployment import Split, slot_of
from mlship.domain.evidence import Record, Saw, Verdict
from mlship.domain.records import Records
from mlship.domain.release import Release
from mlship.domain.watch import MIN_PERIODS, Judgement, Period, Side, Watched, judge, recent, worse
from mlship.errors import (
    ConfigError,
    ConflictError,
    MlshipError,
    NotFoundError,
    TimedOutError,
    UnavailableError,
)
from mlship.steps.drift import split_record, undone
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
    """Who is watched, the split in which it was found, and the record of that split."""

    champion: Release
    challenger: Release
    split: Split
    set_by: Record | None

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
    timer: Callable[[], float] = time.monotonic,
) -> Watch:
    """Compare the challenger with the champion again and again, until one of these is true.

    The challenger is beyond a bound of `challenger_bounds`: it is taken off traffic, and that is
    recorded. Or there is no challenger with traffic any more. Or `seconds` have passed.

    Args:
        pipeline: the project.
        every: seconds between two looks.
        seconds: how long; `None` is without an end.
        pause: waits.
        timer: returns seconds; setting the clock of the machine does not change them.

    Raises:
        ConfigError: the load balancer of production is not mlship's, or a number is not positive.
        UnavailableError: at the end, the counts could not be read: nothing is known. Or the
            champion has no ready replica, so that the challenger keeps its traffic. Or the route
            without the challenger is written, and was not seen to be applied.
        ConflictError: at the end, the challenger could not be taken off, or its pass not be
            recorded, because another command was changing production.
        TimedOutError: at the end, the load balancer did not take the route in time.
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
    return _Watcher(pipeline, target, every, seconds, pause, timer).run()


class _Watcher:
    """One watch: what it has seen so far."""

    def __init__(
        self,
        pipeline: Pipeline,
        target: Counted,
        every: float,
        seconds: float | None,
        pause: Callable[[float], None],
        timer: Callable[[], float],
    ) -> None:
        self._pipeline = pipeline
        self._target = target
        self._bounds = pipeline.target_config(PRODUCTION).challenger_bounds
        self._every = every
        self._pause = pause
        self._timer = timer
        self._until = None if seconds is None else timer() + seconds
        self._records = Records()
        self._pair: _Pair | None = None
        self._before: Look | None = None
        self._looked = 0.0
        self._periods: tuple[Period, ...] = ()
        self._decision: Record | None = None
        self._beyond = ""
        self._is_stale = False
        self._looks = 0
        self._missed = 0

    def run(self) -> Watch:
        """Look until the watch ends."""
        while True:
            fault: MlshipError | None = None
            self._beyond = ""
            try:
                ended = self._step()
            except (UnavailableError, ConflictError, TimedOutError) as error:
                fault = error
                self._missed += isinstance(error, UnavailableError) and not self._beyond
                self._pipeline.progress.note(f"{error.message}; looking again")
            else:
                if ended is not None:
                    return ended
            if not self._wait():
                break
        if fault is None:
            return self._end()
        raise _told(fault, self._meaning()) from fault

    def _meaning(self) -> str:
        """Return what a fault at the end means for the challenger."""
        if self._beyond:
            found, but = f"is beyond a bound ({self._beyond})", " and keeps its traffic"
        elif self._decision is not None:
            reason = shapes.of(self._decision, Watched).reason
            found, but = f"was beyond a bound ({reason})", " and is not taken off yet"
        else:
            return "nothing is known of the challenger at the end of the watch"
        if self._is_written():
            but = "; the route without it is written, not confirmed"
        return f"the challenger {found}{but}"

    def _is_written(self) -> bool:
        """Return whether the route as it is written sends the challenger nothing."""
        if self._pair is None:
            return False
        try:
            split = self._pipeline.target(PRODUCTION).routes().split
        except MlshipError:
            split = self._pair.split
        return not split.share(slot_of(self._pair.challenger))

    def _step(self) -> Watch | None:
        """Look once; return how the watch ends, `None` if it goes on."""
        pair = self._find()
        decision = undone(self._records, pair.challenger) if pair is not None else None
        self._decision = decision
        if pair is None or (not pair.share and decision is None):
            return self._ended(pair, "production has no challenger with traffic")
        if decision is not None and not pair.share:
            return self._take_off(pair, decision)
        judgement = self._look(pair)
        if decision is not None:
            return self._carry_out(pair, decision, judgement)
        return self._take_off(pair, judgement) if judgement.verdict == "failed" else None

    def _carry_out(self, pair: _Pair, decision: Record, judgement: Judgement) -> Watch | None:
        """Take the challenger off by a decision of before, unless there is a reason against it.

        It may be old: nothing is done in one period, as with a new decision. If the challenger is
        within its bounds, that is recorded at once, so that the decision is not carried out later.
        """
        if len(self._periods) < MIN_PERIODS:
            return None
        if judgement.verdict == "passed":
            try:
                self._pass(pair, self._facts(pair, judgement))
            except ConflictError as error:
                self._pipeline.progress.note(f"{error.message}; looking again")
            return None
        if judgement.verdict != "failed" and not pair.is_alone and worse(self._periods):
            return None
        return self._take_off(pair, decision)

    def _find(self) -> _Pair | None:
        """Return who is watched.

        The ledger is read again only if the split has changed, or somebody may have written to it.
        What was seen is kept until the two have changed, or somebody has set their split.
        """
        split = self._pipeline.target(PRODUCTION).routes().split
        if self._pair is None or self._pair.split != split or self._is_stale:
            self._records = self._pipeline.read()
            self._is_stale = False
            history = self._records.history
            pair, set_by = None, split_record(self._records)
            if history.champion is not None and history.challenger is not None:
                pair = _Pair(history.champion, history.challenger, split, set_by)
            if pair != self._pair:
                self._pair, self._before, self._periods = pair, None, ()
        return self._pair

    def _look(self, pair: _Pair) -> Judgement:
        counts = self._target.counts()
        self._looks += 1
        before, since = self._before, self._looked
        # A router that is not ready at one look is compared with its last counts when it is back.
        self._before, self._looked = {**(before or {}), **counts}, self._timer()
        if before is not None:
            period = Period(
                since,
                self._looked,
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
            TimedOutError: the load balancer does not have the route in time.
        """
        record = decision if isinstance(decision, Record) else None
        if isinstance(decision, Record):
            facts = shapes.of(decision, Watched)
        else:
            facts = self._facts(pair, decision)
        self._beyond = facts.reason
        self._is_stale = True
        with changing(self._pipeline, self._records) as (fenced, records):
            _check_unchanged(fenced, pair, self._records, records)
            _check_ready(fenced, pair.champion)
            if record is None:
                record = _learn(fenced, pair, facts, "failed", records)
                self._decision = record
            try:
                give(fenced, records.plus(record), 0)
            except NotFoundError as error:
                raise _not_ready(pair.champion) from error
        return self._watch(pair, facts, "failed", record)

    def _end(self) -> Watch:
        """Return the result at the end of the time.

        Raises:
            ConflictError: a pass is to be recorded, and another command is changing production, or
                has changed it since.
        """
        pair = self._pair
        if pair is None:
            return self._ended(None, "nothing was compared")
        judgement = self._judgement(pair)
        facts = self._facts(pair, judgement)
        last = self._records.latest("watch", pair.challenger)
        is_news = last is not None and last.evidence.verdict == "failed"
        record = self._pass(pair, facts) if is_news and judgement.verdict == "passed" else None
        return self._watch(pair, facts, judgement.verdict, record)

    def _pass(self, pair: _Pair, facts: Watched) -> Record:
        try:
            with changing(self._pipeline, self._records) as (fenced, records):
                _check_unchanged(fenced, pair, self._records, records)
                record = _learn(fenced, pair, facts, "passed", records)
        except ConflictError as error:
            raise _told(error, "the challenger is within its bounds, but not recorded") from error
        self._records, self._decision = records.plus(record), None
        return record

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
            left = self._until - self._timer()
            if left <= 0:
                return False
            seconds = min(seconds, left)
        self._pause(seconds)
        return True


def _check_unchanged(pipeline: Pipeline, pair: _Pair, before: Records, now: Records) -> None:
    """Check under the lock that nobody has decided about the challenger since the last look.

    Raises:
        ConflictError: the split was set, or another watch has recorded a decision.
    """
    split = pipeline.target(PRODUCTION).routes().split
    if (split, split_record(now)) != (pair.split, pair.set_by):
        message = "the traffic split of production was set in the meantime"
        raise ConflictError(message, hint="check `mlship traffic`")
    if before.latest("watch", pair.challenger) != now.latest("watch", pair.challenger):
        message = f"another watch has recorded a decision about {pair.challenger} in the meantime"
        raise ConflictError(message, hint="check `mlship report challenger`")


def _check_ready(pipeline: Pipeline, champion: Release) -> None:
    """Check that the champion can take the traffic.

    Of a cluster that did not answer at once, nothing is known: setting the route asks it for
    longer, and its error has the name of the cluster.

    Raises:
        UnavailableError: it cannot; a challenger that fails less is better than nobody.
    """
    deployment = pipeline.target(PRODUCTION).inspect().get(slot_of(champion))
    if deployment is not None and not deployment.observed:
        return
    if deployment is None or not deployment.ready:
        raise _not_ready(champion)


def _not_ready(champion: Release) -> UnavailableError:
    message = f"{champion}, the champion, has no ready replica"
    return UnavailableError(message, hint="check `mlship status`")


def _told(fault: MlshipError, what: str) -> MlshipError:
    """Return an error of the same kind that says what it means for the watch."""
    hint = fault.hint or "look at `mlship status`, then run the command again"
    return type(fault)(f"{what}: {fault.message}", hint=hint)


def _learn(
    pipeline: Pipeline, pair: _Pair, facts: Watched, verdict: Verdict, records: Records
) -> Record:
    saw = Saw(champion=pair.champion.id, challenger=pair.challenger.id)
    return pipeline.learn(pair.challenger, "watch", verdict, facts, saw, after=records)
