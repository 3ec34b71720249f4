"""batch: score files of rows with a release, all of them once, and publish the outputs as one."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from mlship.config.batch import BatchConfig, missing_texts
from mlship.domain import batch as batches
from mlship.domain import batch_gate, batch_profile, batch_schema, digests, shapes
from mlship.domain import bundle as bundles
from mlship.domain.batch import Finished, Input, Manifest, Plan, Reading
from mlship.domain.batch_ports import Files, Manifests, OpenRuns, Run, Workers
from mlship.domain.batch_record import Batched
from mlship.domain.batch_work import Inspect, Score
from mlship.domain.checks import Check, decide
from mlship.domain.digests import Digest
from mlship.domain.evidence import Record, Saw
from mlship.domain.profiles import Profile
from mlship.domain.records import Records
from mlship.domain.release import Release
from mlship.errors import ConfigError, shown
from mlship.steps.pipeline import Pipeline

_NOTE_SECONDS: Final = 5.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Batching:
    """The ports of a batch.

    Attributes:
        workers: starts processes that work in the folder of a bundle.
        runs: opens the runs in an output.
    """

    files: Files
    workers: Callable[[Path], Workers]
    runs: OpenRuns
    manifests: Manifests


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
    settings = pipeline.config.batch
    if not settings.patterns or settings.output is None:
        missing = "input" if not settings.patterns else "output"
        message = f"the batch has no {missing}"
        raise ConfigError(message, hint=f"set batch.{missing} in mlship.yaml, or give --{missing}")
    pipeline.check_may("batch")
    return _Batch(pipeline, batching, release, records, timer).run(settings.output)


class _Batch:
    """One batch: its plan, and what became of it."""

    def __init__(
        self,
        pipeline: Pipeline,
        batching: Batching,
        release: Release,
        records: Records,
        timer: Callable[[], float],
    ) -> None:
        self._pipeline = pipeline
        self._batching = batching
        self._release = release
        self._records = records
        self._timer = timer
        self._settings = pipeline.config.batch
        self._bundle = pipeline.bundle(release)
        self._schema = bundles.manifest(self._bundle, expected=release.bundle).schema
        self._workers = batching.workers(self._bundle)
        self._began = timer()

    def run(self, output: str) -> Batch:
        """Plan, score, judge and publish."""
        plan = self._plan()
        runs = self._batching.runs(output, self._schema.outputs)
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
        for record in reversed(self._records):
            evidence = record.evidence
            if evidence.step == "batch" and evidence.release == self._release:
                facts = shapes.of(record, Batched)
                if (facts.run, facts.output) == (plan.run, folder):
                    return Batch(record=record, folder=folder, is_new=False)
        checks = batch_gate.judge(
            manifest, self._before(), self._settings.gates, self._settings.max_rejected
        )
        return self._learnt(plan, manifest, folder, checks)

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
        batch_schema.check(self._schema, ordered, settings.keep)
        return Plan(
            release=self._release.id,
            inputs=ordered,
            parts=batches.parts_of(ordered),
            keep=settings.keep,
            format=settings.format,
            reading=reading,
        )

    def _inspected(self, requests: Sequence[Inspect]) -> dict[str, Input]:
        return {each.path: each for each in self._workers.inspect(requests)}

    def _scored(self, plan: Plan, run: Run) -> Batch:
        done = dict(run.finished())
        if done:
            self._pipeline.progress.note(f"{len(done)} of {len(plan.parts)} parts are done already")
        rejected = sum(part.rejected for part in done.values())
        limit = self._settings.max_rejected
        pace = _Pace(self._pipeline, len(plan.parts), self._timer)
        pending = [] if rejected > limit else self._requests(plan, run, done)
        for part in self._workers.score(pending):
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

    def _requests(self, plan: Plan, run: Run, done: dict[str, Finished]) -> list[Score]:
        inputs = {each.path: each for each in plan.inputs}
        return [
            Score(
                bundle=str(self._bundle.absolute()),
                digest=self._release.bundle,
                release=self._release.id,
                input=msgspec.structs.replace(inputs[part.input], blocks=(part.block,)),
                part=part.name,
                folder=run.folder,
                keep=plan.keep,
                format=plan.format,
                reading=plan.reading,
            )
            for part in plan.parts
            if part.name not in done
        ]

    def _refused(self, plan: Plan, run: Run, done: dict[str, Finished], rejected: int) -> Batch:
        """Stop: too many rows were rejected. Nothing is published, and finished parts are kept."""
        checks = (batch_gate.on_rejected(rejected, self._settings.max_rejected),)
        facts = msgspec.structs.replace(
            self._facts(plan, run.folder, checks),
            rows=sum(part.rows for part in done.values()),
            rejected=rejected,
        )
        record = self._learn(plan, facts, checks)
        reasons = batches.reasons_of(part for part in done.values() if part.rejected)
        return Batch(record=record, folder=run.folder, reasons=reasons)

    def _manifest(self, plan: Plan, run: Run, done: dict[str, Finished]) -> Manifest:
        time_ = self._pipeline.clock().isoformat()
        bundle = self._release.bundle
        manifest = batches.manifest_of(plan, list(done.values()), str(self._release), bundle, time_)
        counts = batch_profile.added(run.counts())
        rows = manifest.rows - manifest.rejected
        return msgspec.structs.replace(
            manifest,
            profile=batch_profile.profile(counts, self._schema.outputs, rows),
            seconds=round(self._timer() - self._began, 3),
        )

    def _before(self) -> Profile | None:
        """Return the profile of the last run of the project that was published."""
        for record in reversed(self._records):
            if record.evidence.step == "batch" and record.evidence.verdict == "passed":
                return shapes.of(record, Batched).profile
        return None

    def _learnt(
        self, plan: Plan, manifest: Manifest, folder: str, checks: Sequence[Check]
    ) -> Batch:
        facts = msgspec.structs.replace(
            self._facts(plan, folder, checks),
            table=self._table if decide(checks).verdict == "passed" else "",
            rows=manifest.rows,
            rejected=manifest.rejected,
            profile=manifest.profile,
            seconds=manifest.seconds,
        )
        record = self._learn(plan, facts, checks)
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
        )

    def _learn(self, plan: Plan, facts: Batched, checks: Sequence[Check]) -> Record:
        saw = Saw(data=plan.data, bundle=self._release.bundle, policy=policy(self._settings))
        verdict = decide(checks).verdict
        return self._pipeline.learn(
            self._release, "batch", verdict, facts, saw, after=self._records
        )


class _Pace:
    """Tells how fast rows are scored, and when the end is expected."""

    def __init__(self, pipeline: Pipeline, parts: int, timer: Callable[[], float]) -> None:
        self._progress, self._clock = pipeline.progress, pipeline.clock
        self._parts = parts
        self._timer = timer
        self._began = self._told = timer()
        self._own = self._rows = 0

    def tell(self, done: dict[str, Finished], rows: int) -> None:
        """Note the pace now and then."""
        self._own += 1
        self._rows += rows
        now = self._timer()
        # The first part waits until the model is loaded, which says nothing of the pace.
        if now - self._told < _NOTE_SECONDS or self._own == 1:
            return
        self._told = now
        seconds = max(now - self._began, 1e-6)
        left = seconds / self._own * (self._parts - len(done))
        self._progress.note(
            f"{len(done)} of {self._parts} parts, {self._rows / seconds:,.0f} rows/s, "
            f"about {_duration(left)} left"
        )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02} h" if hours else f"{minutes}:{rest:02} min"


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
