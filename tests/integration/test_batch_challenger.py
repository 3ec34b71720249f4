"""Rows of a batch with a challenger, computed again in a process of the release that answered."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from mlship.adapters.checkout.predictor import ChildPredictor
from mlship.domain.batch_sides import Mode
from mlship.steps.trace import trace
from tests.harness.batches import Contest


@pytest.mark.parametrize(("mode", "releases"), [("shadow", 1), ("split", 2)])
def test_rows_are_reproduced(tmp_path: Path, mode: Mode, releases: int) -> None:
    here = Contest(tmp_path)
    here.write("a.parquet")
    object.__setattr__(here.world.pipeline, "predictor", ChildPredictor())
    published = here.compare(mode).published
    own = {row["species"]: row["id"] for row in pq.read_table(published.folder).to_pylist()}
    assert len(own) == releases, "champion and challenger never answer the same"
    for species, prediction in own.items():
        found = trace(here.world.pipeline, prediction, reproduce=True, batching=here.ports)
        assert found.reproduced is not None
        assert found.reproduced["species"] == species
        assert (found.shadow is None) is (mode == "split")
        if mode == "shadow":
            assert found.shadow_reproduced is not None
            assert found.shadow_reproduced["species"] == "virginica"
