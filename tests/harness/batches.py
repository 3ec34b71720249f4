"""A project whose release scores files, on real folders."""

from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from mlship.domain.batch_ports import Workers
from mlship.domain.batch_sides import Mode
from mlship.domain.deployment import Artifact, Split, slot_of
from mlship.domain.facts import Deployed
from mlship.steps.batch import Batch, Batching, batch
from mlship.steps.batch_challenger import Compared, compared
from tests.fakes.batch import InProcessWorkers, batching
from tests.fakes.ports import CONFIG, World, world
from tests.harness import samples
from tests.harness.bundles import COLUMNS, SETOSA, iris_bundle

DIFFERENT = """
def postprocess(outputs):
    return outputs.assign(species="virginica")
"""
"""A challenger that answers virginica to each row."""


class Here:
    """A project with a release that was made, and its batch.

    Args:
        root: its folder.
        preprocess: the source of the hook, if the release has one; likewise `postprocess`.
        settings: of the batch.
    """

    def __init__(
        self, root: Path, preprocess: str = "", postprocess: str = "", **settings: Any
    ) -> None:
        self.root = root
        self.workers = InProcessWorkers()
        self.world: World = world(root)
        digest = iris_bundle(
            root / "bundle", preprocess=preprocess, postprocess=postprocess, limit=100.0
        )
        made = samples.release()
        self.release = msgspec.structs.replace(made, bundle=digest)
        folder = self.world.pipeline.bundle_folder(digest)
        folder.parent.mkdir(parents=True)
        (root / "bundle").rename(folder)
        self.world.pipeline.learn(self.release, "train", "passed", samples.nothing("train"))
        self.configure(**{"input": "lake", "output": "scores", "part_rows": 10, **settings})

    @property
    def bundle(self) -> Path:
        """The folder of the bundle."""
        return self.world.pipeline.bundle_folder(self.release.bundle)

    def configure(self, **settings: Any) -> None:
        """Change settings of the batch."""
        old = self.world.pipeline.config.batch
        config = msgspec.structs.replace(CONFIG, batch=msgspec.structs.replace(old, **settings))
        object.__setattr__(self.world.pipeline, "config", config)

    @property
    def ports(self) -> Batching:
        """The ports of the batch."""
        return batching(self.root, self.workers)

    def run(self) -> Batch:
        """Run the batch."""
        pipeline = self.world.pipeline
        return batch(pipeline, self.ports, self.release, pipeline.read())

    def score(self, workers: Workers, output: str) -> Batch:
        """Run the batch with these workers into a folder."""
        self.configure(output=output)
        pipeline = self.world.pipeline
        return batch(pipeline, batching(self.root, workers), self.release, pipeline.read())

    def write(self, name: str, rows: int = 25, group: int = 10, **columns: Any) -> Path:
        """Write a file of rows, with columns of its own beside those of the model."""
        path = self.root / "lake" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        own = {
            column: [SETOSA[column] + 0.01 * row for row in range(rows)]  # type: ignore[operator]
            for column in COLUMNS
        }
        table = pa.table(own | columns)
        pq.write_table(table, path, row_group_size=group)
        return path

    @property
    def hidden(self) -> list[Path]:
        """The folders of runs that were not published."""
        return list(self.root.glob("scores/*/.run-*"))

    @property
    def published(self) -> list[Path]:
        """The folders of runs that were published."""
        return list(self.root.glob("scores/*/run-*"))


def parts(done: Batch) -> dict[str, bytes]:
    """Return the files of outputs that a batch wrote."""
    return {path.name: path.read_bytes() for path in Path(done.folder).glob("part-*")}


class Contest(Here):
    """The same with a champion and a challenger in production.

    Args:
        root: its folder.
        weight: the challenger's share of the route in percent.
        postprocess: the source of the challenger's hook.
        settings: of the batch.
    """

    def __init__(
        self, root: Path, weight: int = 30, postprocess: str = DIFFERENT, **settings: Any
    ) -> None:
        super().__init__(root, **settings)
        digest = iris_bundle(root / "bundle", postprocess=postprocess, limit=100.0)
        self.challenger = msgspec.structs.replace(samples.release("two"), bundle=digest)
        folder = self.world.pipeline.bundle_folder(digest)
        (root / "bundle").rename(folder)
        learn = self.world.pipeline.learn
        learn(self.challenger, "train", "passed", samples.nothing("train"))
        learn(self.release, "deploy-production", "passed", Deployed(role="champion"))
        learn(self.challenger, "deploy-production", "passed", Deployed(role="challenger"))
        target = self.world.targets["production"]
        for each in (self.release, self.challenger):
            artifact = Artifact(kind="bundle", digest=each.bundle, location="here")
            target.deploy(each, artifact, slot_of(each), replicas=1)
        self.roles = ((self.release, "champion"), (self.challenger, "challenger"))
        self.weigh(100 - weight)

    def weigh(self, champion: int) -> None:
        """Give the champion a share of the route, and the challenger the rest."""
        target = self.world.targets["production"]
        weights = {slot_of(self.release): champion, slot_of(self.challenger): 100 - champion}
        target.route(Split(weights=weights), expected=target.routes().revision)

    def compare(self, mode: Mode) -> Compared:
        """Run the batch with the challenger."""
        pipeline = self.world.pipeline
        return compared(pipeline, self.ports, self.release, pipeline.read(), mode)
