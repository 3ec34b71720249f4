"""The page on streams works, with a real broker."""

from pathlib import Path

import pytest

from tests.docs.blocks import ROOT, Reader, blocks
from tests.harness import kafka
from tests.harness.workflows import SOURCE

PAGE = ROOT / "docs" / "guide" / "stream.md"
BEFORE = """
mlship init --example iris --yes iris && cd iris && git init --quiet
git add --all && git commit --quiet --message one
mlship run
"""
PROMISED = (
    "the stream runs in process",
    "mlship-prediction-id",
    'petal_width must be a number, not "wide"',
    "1 messages would be sent to features again",
    "1 messages sent to features again",
    "stopped process",
)


@pytest.mark.slow
@pytest.mark.service("kafka")
def test_the_page_on_streams_works(tmp_path: Path) -> None:
    with kafka.broker() as broker:
        broker.create("features", "predictions", "predictions.dead-letter")
        reader = Reader(tmp_path, is_cold=False)
        own = {"BROKERS": broker.address, "MLSHIP_STREAM__BROKERS": broker.address}
        reader.environment["MLSHIP_WORKFLOWS__MLSHIP"] = SOURCE
        try:
            reader.run(BEFORE)
            reader.environment.update(own)
            told = "\n".join(reader.run(block.text) for block in blocks(PAGE, "bash"))
        finally:
            reader.leave()
    for said in PROMISED:
        assert said in told, said
