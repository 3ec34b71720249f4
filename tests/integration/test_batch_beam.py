"""Batches on the real Apache Beam: it answers what processes of this machine answer."""

from pathlib import Path

import pytest

from mlship.adapters.rows.beam import BeamWorkers
from mlship.adapters.rows.workers import ChildWorkers
from mlship.errors import ConfigError, ProjectError, UnavailableError
from tests.harness import beam
from tests.harness.batches import Here, parts

HOOK = """
def preprocess(data):
    import os
    if data["sepal_width"].max() > 90:
        os._exit(3)
    return data
"""


class OnBeam(Here):
    """A project whose batches run on Beam."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, HOOK, part_rows=10)
        self.variables = beam.environment()
        self.on_beam = BeamWorkers(self.bundle, {}, self.variables)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> OnBeam:
    made = OnBeam(tmp_path_factory.mktemp("beam"))
    made.write("a.parquet", rows=40)
    made.write("b.parquet", rows=30)
    return made


def test_beam_writes_the_bytes_that_processes_write(here: OnBeam) -> None:
    wanted = parts(here.score(ChildWorkers(here.bundle, 2, here.variables), "in-processes"))
    found = parts(here.score(here.on_beam, "on-beam"))
    assert len(found) == 7
    assert found == wanted


def test_a_file_that_is_cut_off_is_named(here: OnBeam) -> None:
    torn = here.root / "lake" / "torn.parquet"
    whole = (here.root / "lake/a.parquet").read_bytes()
    torn.write_bytes(whole[: len(whole) // 2])
    try:
        with pytest.raises(ProjectError, match=r"torn\.parquet"):
            here.score(here.on_beam, "torn")
    finally:
        torn.unlink()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_worker": 3}, r"Beam has no option num_worker"),
        ({"runner": "NoRunner", "temp_location": "."}, r"the runner NoRunner cannot be used"),
    ],
)
def test_an_invalid_option_is_named(
    here: OnBeam, options: dict[str, str | int], message: str
) -> None:
    workers = BeamWorkers(here.bundle, options, here.variables)
    with pytest.raises(ConfigError, match=message):
        here.score(workers, "nowhere")


def test_a_folder_that_cannot_be_written_is_named(here: OnBeam) -> None:
    options = {"temp_location": str(here.bundle / "bundle.json")}
    workers = BeamWorkers(here.bundle, options, here.variables)
    with pytest.raises(UnavailableError, match="cannot write to temp_location"):
        here.score(workers, "nowhere")


def test_a_worker_that_dies_ends_the_batch_which_then_goes_on(here: OnBeam, tmp_path: Path) -> None:
    made = OnBeam(tmp_path)
    made.write("a.parquet", rows=30)
    bad = made.write("b.parquet", rows=10, sepal_width=[99.0] * 10)
    with pytest.raises(ProjectError, match="the process with the session of Beam ended"):
        made.score(made.on_beam, "scores")
    assert not made.published
    bad.unlink()
    assert made.score(BeamWorkers(made.bundle, {}, made.variables), "scores").is_new
