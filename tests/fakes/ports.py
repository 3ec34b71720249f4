"""Small honest stand-ins for the ports, and a pipeline made of them."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from datetime import datetime, timedelta
from pathlib import Path

from mlship.config.data import DataConfig
from mlship.config.project import Config, ModelConfig
from mlship.domain import digests
from mlship.domain.bundle import Row, Task, Value
from mlship.domain.commit import Commit
from mlship.domain.digests import Digest
from mlship.domain.fence import KERNEL
from mlship.domain.inputs import Inputs, Opened
from mlship.domain.ports import Target
from mlship.domain.prediction import Answer, Outcome, Prediction, Spool, Taken
from mlship.domain.profiles import Profile
from mlship.domain.removal import Removed, Selection
from mlship.domain.scores import Scores, Server, Slices, Suite, TestRun, Trained
from mlship.errors import ConflictError
from mlship.steps.pipeline import Pipeline
from tests.fakes.engine import FakeEngine
from tests.fakes.forge import FakeForge
from tests.fakes.images import FakeImages
from tests.fakes.store import FakeLedger, FakeStore, tiny_bundle
from tests.fakes.target import FakeTarget
from tests.harness.samples import NOON


class FakeClock:
    """Tells a time that moves by a second at each look, and by as much as a test wants."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now


class FakeProgress:
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


class FakeSource:
    def __init__(self) -> None:
        self.sha, self.dirty = "a" * 40, False
        self.different: tuple[str, ...] = ()
        self.shared: tuple[str, ...] = ()
        self.branch = "develop"
        self.parents: dict[str, str] | None = None
        self.changes: dict[str, datetime] = {}

    def commit(self) -> Commit:
        return Commit(
            sha=self.sha,
            dirty=self.dirty,
            changes=("pipeline.py",) if self.dirty else (),
            branch=self.branch,
            author="ada@example.org",
            subject="Train on all columns",
        )

    def differences(self, commit: str, beside: Iterable[str] = ()) -> tuple[str, ...]:
        return (*self.different, *(path for path in beside if path in self.shared))

    def descends(self, commit: str, earlier: str) -> bool | None:
        """Follow `parents`; without them, the history is not known, as in a shallow clone."""
        if self.parents is None:
            return None
        while commit != earlier and commit in self.parents:
            commit = self.parents[commit]
        return commit == earlier

    def changed(self, path: str) -> datetime | None:
        return self.changes.get(path)


class FakeTrainer:
    """Makes a bundle whose bytes follow from `params`; scores are what a test set."""

    def __init__(self) -> None:
        self.params = "C=1"
        self.data = "same"
        self.golden = ""
        self.columns: Sequence[str] = ("x",)
        self.trainings = 0
        self.cost = 5.0
        self.metrics: dict[str, float | str] = {"accuracy": 0.9}
        self.champion: dict[str, float | str] = {"accuracy": 0.8}
        self.profile: Profile | None = None
        self.slices: Slices | None = None
        self.opened = Opened()
        self.outputs: tuple[str, ...] = ()
        self.files: dict[str, Digest] = {}
        self.exposed = ""
        self.task: Task = "classification"

    def inputs(self) -> Inputs:
        same = digests.of_bytes(b"same")
        data, params = (digests.of_bytes(text.encode()) for text in (self.data, self.params))
        return Inputs(
            data=data, params=params, environment=same, settings=same, sources={"train.csv": data}
        )

    def current(self, paths: Iterable[str]) -> Mapping[str, Digest | None]:
        return {path: self.files.get(path) for path in paths}

    def train(self, into: Path) -> Trained:
        self.trainings += 1
        digest = tiny_bundle(into, self.params, self.golden, self.columns)
        return Trained(
            bundle=digest,
            format="onnx",
            rows=30,
            features=1,
            profile=self.profile,
            opened=self.opened,
            outputs=self.outputs,
            exposed=self.exposed,
        )

    def score(self, bundle: Path, champion: Path | None, plots: Path) -> Scores:
        return Scores(
            task=self.task,
            data=digests.of_bytes(b"held out"),
            samples=30,
            metrics=self.metrics,
            baseline={"accuracy": 0.4},
            champion=self.champion if champion else {},
            slices=self.slices if champion else None,
        )

    def rate(
        self, function: str, predictions: Sequence[Prediction], truth: Sequence[Value]
    ) -> list[float]:
        """Return 0 for a prediction that is right, `cost` for one that is not."""
        outputs = [prediction.outputs["species"] for prediction in predictions]
        return [self.cost * (x != y) for x, y in zip(outputs, truth, strict=True)]


class FakeTester:
    def __init__(self) -> None:
        self.failed = 0

    def test(self, suite: Suite, *, bundle: Path | None, server: Server | None) -> TestRun | None:
        return TestRun(suite=suite, passed=3, failed=self.failed, skipped=0, seconds=0.1)


class FakePredictor:
    def __init__(self) -> None:
        self.shift = 0.0

    def predict(self, bundle: Path, rows: Sequence[Row]) -> list[Row]:
        return [{"species": "setosa", "score": 1.0 + self.shift} for _ in rows]

    @contextmanager
    def answers(self, bundle: Path, rows: Sequence[Row]) -> Iterator[Callable[[], list[Answer]]]:
        yield lambda: [Answer(outputs=outputs) for outputs in self.predict(bundle, rows)]


class FakeFence:
    """The fence of a lock that a test may let another process take over, by raising `last`."""

    def __init__(self, locks: "FakeLocks", name: str) -> None:
        self._locks, self._name = locks, name
        self.number = locks.last.get(name, 0)

    def check(self) -> None:
        self.confirm()

    def confirm(self) -> None:
        if self._locks.last.get(self._name, 0) != self.number:
            raise ConflictError(f"the lock of {self._name} was lost", hint="run it again")

    def enter(self, cluster: str) -> None:
        del cluster


class FakeLocks:
    """Locks in memory. They have no number, as those of files, unless a test gives them one."""

    def __init__(self) -> None:
        self.held: set[str] = set()
        self.last: dict[str, int] = {}

    @contextmanager
    def exclusive(self, name: str) -> Iterator[FakeFence]:
        if name in self.held:
            raise ConflictError(f"{name} is being changed by another command", hint="wait for it")
        if name in self.last:
            self.last[name] += 1
        self.held.add(name)
        try:
            yield FakeFence(self, name)
        finally:
            self.held.remove(name)


class FakeObservations:
    def __init__(self) -> None:
        self.made: list[Prediction] = []
        self.taken: list[Outcome] = []
        self.spooled: list[Spool] = []

    def predictions(self, releases: Collection[Digest]) -> Iterator[Prediction]:
        return (one for one in self.made if one.release in releases)

    def find(self, prediction: str) -> Sequence[Prediction]:
        return [one for one in self.made if one.id == prediction]

    def outcomes(
        self, releases: Collection[Digest], parts: Collection[str] = ()
    ) -> Sequence[Outcome]:
        own = {one.id for one in self.predictions(releases)}
        return [
            one
            for one in self.taken
            if one.prediction in own or one.prediction.partition(".")[0] in parts
        ]

    def take(
        self,
        outcomes: Iterable[Outcome],
        releases: Collection[Digest],
        *,
        corrects: bool = False,
        check: Callable[[Prediction], None] = lambda _: None,
        scored: Collection[str] = (),
    ) -> Taken:
        new = list(outcomes)
        for one in self.predictions(releases):
            if one.id in {each.prediction for each in new}:
                check(one)
        own = {one.id for one in self.predictions(releases)}
        if foreign := {one.id for one in self.made} & {one.prediction for one in new} - own:
            raise ConflictError(f"predictions of others: {foreign}", hint="take them elsewhere")
        self.taken += new
        return Taken(new=len(new), known=0)

    def spools(self, releases: Collection[Digest]) -> Sequence[Spool]:
        return [one for one in self.spooled if one.release in releases]


class FakeRemovals:
    """Removes from fake observations; `broken` is raised half-way, when outcomes are gone."""

    def __init__(self, observations: FakeObservations) -> None:
        self._kept = observations
        self.broken: BaseException | None = None

    def count(self, selection: Selection, releases: Collection[Digest]) -> Removed:
        gone = [one for one in self._kept.predictions(releases) if selection.has(one)]
        names = {one.id for one in gone} | selection.ids
        return Removed(
            predictions=Counter(one.release for one in gone),
            outcomes=len({one.prediction for one in self._kept.taken} & names),
        )

    def remove(self, selection: Selection, releases: Collection[Digest]) -> Removed:
        removed = self.count(selection, releases)
        gone = [one for one in self._kept.predictions(releases) if selection.has(one)]
        names = {one.id for one in gone} | selection.ids
        self._kept.taken = [one for one in self._kept.taken if one.prediction not in names]
        if self.broken is not None:
            raise self.broken
        self._kept.made = [one for one in self._kept.made if one not in gone]
        return removed

    def unreached(self, releases: Collection[Digest]) -> Sequence[Spool]:
        return self._kept.spools(releases)


@dataclasses.dataclass(kw_only=True)
class World:
    """A pipeline of fakes, and the fakes themselves for a test to turn."""

    pipeline: Pipeline
    source: FakeSource
    trainer: FakeTrainer
    tester: FakeTester
    predictor: FakePredictor
    ledger: FakeLedger
    store: FakeStore
    observations: FakeObservations
    removals: "FakeRemovals"
    locks: FakeLocks
    clock: FakeClock
    progress: FakeProgress
    targets: dict[str, Target]
    forge: FakeForge
    images: FakeImages
    engine: FakeEngine


CONFIG = Config(
    name="iris",
    data=DataConfig(train="train.csv", test="test.csv", target="species"),
    model=ModelConfig(train="pipeline:train"),
    workload=None,
)


def world(root: Path, config: Config = CONFIG) -> World:
    """Return a new world in a folder."""
    clock, progress = FakeClock(), FakeProgress()
    source, trainer, tester, predictor = FakeSource(), FakeTrainer(), FakeTester(), FakePredictor()
    ledger, store, locks, observations = FakeLedger(), FakeStore(), FakeLocks(), FakeObservations()
    targets: dict[str, Target] = {"staging": FakeTarget(), "production": FakeTarget()}
    images = FakeImages()
    removals = FakeRemovals(observations)
    engine = FakeEngine(images)
    forge = FakeForge()
    pipeline = Pipeline(
        root=root,
        state=root / ".mlship",
        config=config,
        actor="ada",
        clock=clock,
        progress=progress,
        source=source,
        trainer=trainer,
        tester=tester,
        predictor=predictor,
        ledger=ledger,
        locks=locks,
        store=store,
        observations=observations,
        removals=removals,
        forge=forge,
        target=lambda name, fence=KERNEL: targets[name],
        images=lambda: images,
        engine=lambda: nullcontext(engine),
    )
    return World(
        pipeline=pipeline,
        source=source,
        trainer=trainer,
        tester=tester,
        predictor=predictor,
        ledger=ledger,
        store=store,
        observations=observations,
        removals=removals,
        locks=locks,
        clock=clock,
        progress=progress,
        targets=targets,
        forge=forge,
        images=images,
        engine=engine,
    )
