"""batch: score files of rows with a release, all of them once, and publish the outputs as one."""

import dataclasses
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import datetime
from pathlib import Path

import msgspec

from mlship.config.batch import BatchConfig, missing_texts
from mlship.domain import batch as batches
from mlship.domain import batch_gate, batch_profile, batch_schema, batch_sides, digests, shapes
from mlship.domain.batch import Finished, Input, Manifest, Part, Plan, Reading, Scored
from mlship.domain.batch_ports import Files, Manifests, OpenRuns, Outputs, Run, Workers
from mlship.domain.batch_record import Batched
from mlship.domain.batch_sides import Player, Selection
from mlship.domain.batch_work import Inspect, Score
from mlship.domain.checks import Check, decide
from mlship.domain.digests import Digest
from mlship.domain.evidence import Record, Saw
from mlship.domain.profiles import Profile
from mlship.domain.records import Records
from mlship.domain.release import Release
from mlship.errors import ConfigError, shown
from mlship.steps.batch_pace import Pace
from mlship.steps.batch_scorer import Scorer, of_player, profiled
from mlship.steps.pipeline import Pipeline


@dataclasses.dataclass(frozen=True, kw_only=True)
class Batching:
    """The ports of a batch.

    Attributes:
        workers: starts processes that work in the folder of a bundle.
        runs: opens the runs in an output.
        shadows: opens the runs of shadows of what an output has, apart from it.
    """

    files: Files
    workers: Callable[[Path], Workers]
    runs: OpenRuns
    shadows: OpenRuns
    manifests: Manifests
    outputs: Outputs


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a batch.

    Attributes:
        record: the evidence.
        folder: of the run; hidden if it was not published.
        reasons: those of the first rejected rows.
        is_new: whether anything was scored or published.
    """

    record: Record
    folder: str
    reasons: tuple[str, ...] = ()
    is_new: bool = True


def batch(
    pipeline: Pipeline,
    batching: Batching,
    release: Release,
    records: Records,
    timer: Callable[[], float] = time.monotonic,
) -> Batch:
    """Score the rows of `batch.input` and publish the outputs in `batch.output`.

    Run again after a kill, it goes on where it was; run again after it was published, it does
    nothing.

    Raises:
        ConfigError: no input or output is set, or a kept column has the name of an output.
        NotFoundError: there is no file to read.
        ProjectError: a file does not fit the model, and nothing was scored; or a hook fails.
        IntegrityError: an input was changed meanwhile, or a published part is gone.
        ConflictError: another batch writes the same run.
        UnavailableError: a file cannot be read or written.
    """
    output = output_of(pipeline)
    pipeline.check_may("batch")
    scorers = [Scorer.of(pipeline, batching.workers, release)]
    return Scoring(pipeline, batching, scorers, records, timer).run(output)


def output_of(pipeline: Pipeline) -> str:
    """Return where outputs go.

    Raises:
        ConfigError: no input or output is set.
    """
    settings = pipeline.config.batch
    if not settings.patterns or settings.output is None:
        missing = "input" if not settings.patterns else "output"
        message = f"the batch has no {missing}"
        raise ConfigError(message, hint=f"set batch.{missing} in mlship.yaml, or give --{missing}")
    return settings.output


class Scoring:
    """One batch: its plan, and what became of it.

    Args:
        pipeline: the project.
        batching: the ports of the batch.
        scorers: one release, or those of a split, the first one first.
        records: of the ledger.
        timer: seconds that only grow.
        shadowed: the published run whose rows a challenger answers, too.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        batching: Batching,
        scorers: Sequence[Scorer],
        records: Records,
        timer: Callable[[], float],
        *,
        shadowed: Batch | None = None,
    ) -> None:
        self._pipeline = pipeline
        self._batching = batching
        self._scorers = tuple(scorers)
        self._first = scorers[0]
        self._records = records
        self._timer = timer
        self._shadowed = shadowed
        self._settings = pipeline.config.batch
        self._players = tuple(each.player for each in scorers if each.player)
        self._began = timer()

    def run(self, output: str) -> Batch:
        """Plan, score, judge and publish."""
        plan = self._plan()
        runs = self._batching.runs(output, self._first.schema.outputs)
        self._table = runs.table
        committed = runs.committed(plan)
        if committed is not None:
            return self._known(plan, *committed)
        with runs.begin(plan) as run:
            # Another process may have published it while this one waited for the plan.
            if (committed := runs.committed(plan)) is not None:
                return self._known(plan, *committed)
            paths = [each.path for each in plan.inputs]
            with self._batching.files.held(self._settings.patterns, paths):
                return self._scored(plan, run)

    def _known(self, plan: Plan, folder: str, manifest: Manifest) -> Batch:
        """Return a run that was published before; its evidence is added if a kill prevented it."""
        kept = self._kept(plan, folder)
        if len(kept) == len(self._scorers):
            return Batch(record=kept[0], folder=folder, is_new=False)
        checks = batch_gate.judge(
            manifest, self._before(), self._settings.gates, self._settings.max_rejected
        )
        return self._learnt(plan, manifest, folder, checks)

    def _kept(self, plan: Plan, folder: str) -> list[Record]:
        """Return the evidence of a published run, in the order of its releases."""
        found: dict[Digest, Record] = {}
        for record in reversed(self._records):
            if record.evidence.step == "batch":
                facts = shapes.of(record, Batched)
                if (facts.run, facts.output) == (plan.run, folder):
                    found.setdefault(record.evidence.release.id, record)
        ids = [each.release.id for each in self._scorers]
        return [found[id_] for id_ in ids if id_ in found]

    def _plan(self) -> Plan:
        """Look at all inputs; nothing is scored before all of them fit."""
        settings, reading = self._settings, reading_of(self._pipeline)
        listed = self._batching.files.list(settings.patterns)
        for since in sorted({each.since for each in listed if each.since}):
            self._pipeline.progress.note(f"going on with the rows that were read at {since}")
        name = digests.short(digests.of_value((settings.patterns, reading)))
        known = self._batching.files.known(name)
        inputs = {
            each.path: known[each.path]
            for each in listed
            if each.path in known and known[each.path].version == each.version
        }
        unknown = [
            Inspect(path=each.path, format=each.format, reading=reading)
            for each in listed
            if each.path not in inputs
        ]
        if unknown:
            self._pipeline.progress.note(f"reading {len(unknown)} of {len(listed)} files")
        fresh = self._inspected(unknown)
        inputs |= fresh
        ordered = tuple(inputs[each.path] for each in listed)
        if fresh or len(known) != len(ordered):
            self._batching.files.remember(name, ordered)
        self._check(ordered)
        return Plan(
            release=self._first.release.id,
            inputs=ordered,
            parts=batches.parts_of(ordered, self._players),
            keep=settings.keep,
            format=settings.format,
            reading=reading,
            players=self._players,
            key=settings.key or "" if self._players else "",
            shadows=self._shadowed.record.evidence.release.id if self._shadowed else None,
        )

    def _check(self, inputs: Sequence[Input]) -> None:
        """Check that all files fit all releases, before the first row is scored."""
        own = (batch_sides.RELEASE, batch_sides.SIDE) if self._players else ()
        for scorer in self._scorers:
            batch_schema.check(scorer.schema, inputs, self._settings.keep, own)
            batch_schema.check_outputs(self._first.schema, scorer.schema, own)
        if self._players and self._settings.key:
            batch_schema.check_key(self._settings.key, inputs)

    def _inspected(self, requests: Sequence[Inspect]) -> dict[str, Input]:
        return {each.path: each for each in self._first.workers.inspect(requests)}

    def _scored(self, plan: Plan, run: Run) -> Batch:
        done = dict(run.finished())
        if done:
            self._pipeline.progress.note(f"{len(done)} of {len(plan.parts)} parts are done already")
        rejected = sum(part.rejected for part in done.values())
        limit = self._settings.max_rejected
        pace = Pace(self._pipeline, len(plan.parts), self._timer)
        for part in self._parts(plan, run, set(done)) if rejected <= limit else ():
            run.add(part)
            done[part.name] = part
            rejected += part.rejected
            pace.tell(done, part.rows)
            if rejected > limit:
                break
        if rejected > limit:
            return self._refused(plan, run, done, rejected)
        manifest = self._manifest(plan, run, done)
        checks = batch_gate.judge(manifest, self._before(), self._settings.gates, limit)
        if decide(checks).verdict != "passed":
            return self._learnt(plan, manifest, run.folder, checks)
        folder = run.commit(manifest)
        return self._learnt(plan, manifest, folder, checks)

    def _parts(self, plan: Plan, run: Run, done: Collection[str]) -> Iterator[Scored]:
        """Score what is left; a release after the other, since their code may have equal names."""
        for scorer in self._scorers:
            yield from scorer.workers.score(self._requests(scorer, plan, run, done))

    def _requests(self, scorer: Scorer, plan: Plan, run: Run, done: Collection[str]) -> list[Score]:
        inputs = {each.path: each for each in plan.inputs}
        return [
            Score(
                bundle=str(scorer.bundle.absolute()),
                digest=scorer.release.bundle,
                release=scorer.release.id,
                input=msgspec.structs.replace(inputs[part.input], blocks=(part.block,)),
                part=part.name,
                folder=run.folder,
                keep=plan.keep,
                format=plan.format,
                reading=plan.reading,
                ids=plan.shadows,
                selection=self._selection(scorer.player, plan, part) if scorer.player else None,
            )
            for part in plan.parts
            if part.name not in done and part.side == scorer.role
        ]

    def _selection(self, player: Player, plan: Plan, part: Part) -> Selection:
        return Selection(
            # In the order in which the load balancer has them, whoever is first here.
            sides=batch_sides.sides(sorted(self._players, key=lambda each: each.slot)),
            slot=player.slot,
            role=player.role,
            key=plan.key,
            block=part.of,
            is_first=player == self._first.player,
        )

    def _refused(self, plan: Plan, run: Run, done: dict[str, Finished], rejected: int) -> Batch:
        """Stop: too many rows were rejected. Nothing is published, and finished parts are kept."""
        checks = (batch_gate.on_rejected(rejected, self._settings.max_rejected),)
        facts = msgspec.structs.replace(
            self._facts(plan, run.folder, checks),
            rows=sum(part.rows for part in done.values()),
            rejected=rejected,
        )
        record = self._learn(plan, checks, [facts] * len(self._scorers))
        reasons = batches.reasons_of(part for part in done.values() if part.rejected)
        return Batch(record=record, folder=run.folder, reasons=reasons)

    def _manifest(self, plan: Plan, run: Run, done: dict[str, Finished]) -> Manifest:
        time_ = self._pipeline.clock().isoformat()
        release = self._first.release
        manifest = batches.manifest_of(
            plan, list(done.values()), str(release), release.bundle, time_
        )
        counts = batch_profile.added(run.counts())
        seconds = round(self._timer() - self._began, 3)
        if not self._players:
            rows = manifest.rows - manifest.rejected
            profile = batch_profile.profile(counts, self._first.schema.outputs, rows)
            return msgspec.structs.replace(manifest, profile=profile, seconds=seconds)
        players = tuple(profiled(each, counts, manifest) for each in self._scorers if each.player)
        return msgspec.structs.replace(manifest, players=players, seconds=seconds)

    def _before(self) -> Profile | None:
        """Return the profile of the last run of the project that was published."""
        for record in reversed(self._records):
            if record.evidence.step == "batch" and record.evidence.verdict == "passed":
                facts = shapes.of(record, Batched)
                if not facts.is_shadow and facts.side in ("", "champion"):
                    return facts.profile
        return None

    def _learnt(
        self, plan: Plan, manifest: Manifest, folder: str, checks: Sequence[Check]
    ) -> Batch:
        is_published = decide(checks).verdict == "passed"
        whole = msgspec.structs.replace(
            self._facts(plan, folder, checks),
            table=self._table if is_published else "",
            published=datetime.fromisoformat(manifest.time) if is_published else None,
            rows=manifest.rows,
            rejected=manifest.rejected,
            profile=manifest.profile,
            seconds=manifest.seconds,
        )
        facts = [of_player(whole, player, manifest) for player in manifest.players]
        record = self._learn(plan, checks, facts or [whole])
        return Batch(record=record, folder=folder, reasons=manifest.reasons)

    def _facts(self, plan: Plan, folder: str, checks: Sequence[Check]) -> Batched:
        return Batched(
            input=tuple(map(shown, self._settings.patterns)),
            files=len(plan.inputs),
            data=plan.data,
            run=plan.run,
            output=folder,
            parts=len(plan.parts),
            checks=tuple(checks),
            seconds=round(self._timer() - self._began, 3),
            challenger="split" if self._players else "shadow" if self._shadowed else "",
            shadowed=self._shadowed.folder if self._shadowed else "",
        )

    def _learn(self, plan: Plan, checks: Sequence[Check], facts: Sequence[Batched]) -> Record:
        """Add the evidence of each release that has none; return that of the first one."""
        verdict = decide(checks).verdict
        kept = {each.evidence.release.id: each for each in self._kept(plan, facts[0].output)}
        if verdict != "passed":
            kept = {}
        records = self._records
        # The last one is about the champion: it is the one that is shown.
        for scorer, own in reversed(list(zip(self._scorers, facts, strict=True))):
            release = scorer.release
            saw = Saw(data=plan.data, bundle=release.bundle, policy=policy(self._settings))
            record = kept.get(release.id) or self._pipeline.learn(
                release, "batch", verdict, own, saw, after=records
            )
            records = records if release.id in kept else records.plus(record)
        return record


def policy(settings: BatchConfig) -> Digest:
    """Return the digest of the bounds of a batch."""
    return digests.of_value((settings.gates, settings.max_rejected))


def reading_of(pipeline: Pipeline) -> Reading:
    """Return how files are read: text as `data.read` says, like the training data."""
    settings, read = pipeline.config.batch, pipeline.config.data.read
    return Reading(
        sep=read.sep,
        decimal=read.decimal,
        thousands=read.thousands or "",
        encoding=read.encoding or "",
        missing=missing_texts(read.na_values, keeps_default=read.keep_default_na),
        part_rows=settings.part_rows,
        part_bytes=settings.part_mb << 20,
    )
