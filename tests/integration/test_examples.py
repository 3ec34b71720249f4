"""The larger example: its data are made, and its release scores a lake and follows a topic."""

from pathlib import Path

import pytest

from mlship.config.layers import from_yaml, resolve
from tests.docs.blocks import ROOT, Reader
from tests.harness.workflows import SOURCE

EXAMPLES = ("iris_example", "churn_example")


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_has_sections_for_batches_and_for_streams(example: str) -> None:
    text = (ROOT / example / "mlship.yaml").read_text()
    head, section = text.split("\n# stream:\n")
    lines, rest = section.split("\n\n", 1)
    stream = "".join(f"{line.removeprefix('# ')}\n" for line in lines.splitlines())
    config = resolve([from_yaml(f"{head}\nstream:\n{stream}\n{rest}", example)]).config
    assert config.batch.input
    assert config.batch.output
    assert config.stream is not None
    assert config.stream.brokers == "localhost:9092"


def test_the_smaller_example_scores_its_file(tmp_path: Path) -> None:
    reader = Reader(tmp_path, is_cold=False)
    reader.environment |= {"MLSHIP_WORKFLOWS__MLSHIP": SOURCE, "MLSHIP_STORE__KIND": "directory"}
    try:
        told = reader.run("""
mlship init --example iris --yes iris && cd iris
git init --quiet && git add --all && git commit --quiet --message one
mlship train && mlship batch && git status --porcelain
""")
    finally:
        reader.leave()
    assert "passed. 30 rows in 1 part, in " in told.splitlines()[-1]


def test_the_larger_example_scores_its_lake(tmp_path: Path) -> None:
    reader = Reader(tmp_path, is_cold=False)
    reader.environment |= {"MLSHIP_WORKFLOWS__MLSHIP": SOURCE, "MLSHIP_STORE__KIND": "directory"}
    try:
        told = reader.run("""
mlship init --example churn --yes churn && cd churn
python generate.py --lake 150000
git init --quiet && git add --all && git commit --quiet --message one
mlship train && mlship test && mlship batch
git status --porcelain
python -c "
import pandas
scores = pandas.read_parquet('scores')
print(len(scores), scores.customer_id.nunique(), scores.churned.isna().sum())
"
""")
    finally:
        reader.leave()
    assert told.splitlines()[-1] == "150000 150000 0"
    assert "150,000 rows in 2 parts" in told
