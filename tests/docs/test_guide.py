"""What the pages tell a reader to type works, in order, from an empty folder."""

import re
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.blocks import PAGES, ROOT, Reader, blocks, dialogue, fits
from tests.harness.artifacts import answers
from tests.harness.services import require
from tests.harness.workflows import SOURCE

GUIDE = ROOT / "docs" / "guide"
EXECUTED = [
    ROOT / "README.md",
    GUIDE / "from-a-script.md",
    GUIDE / "first-promotion.md",
    GUIDE / "monorepo.md",
    GUIDE / "batch.md",
    GUIDE / "schedules.md",
    GUIDE / "when-it-fails.md",
]
LONG = {"batch", "first-promotion", "monorepo", "schedules"}
"""Half a minute and several trainings: pages that only `make test` executes."""
PROMISED = {
    "README": ["wrote mlship.yaml", "champion, 100 %", "accuracy", "the supervisor"],
    "first-promotion": [
        "the chain is whole",
        "challenger, 20 %",
        "gets 50 % of the traffic, and 20 % are configured",
        "1200 new outcomes",
        "as champion (50 %)",
        "in the shadow of ",
        "30 new outcomes",
        *(f"\n{step} iris@" for step in ("evaluate", "approve", "promote", "rollback", "retire")),
        "former champion",
        "reproduced",
    ],
    "from-a-script": [
        "command: python train.py",
        "saved: artifacts/model.joblib",
        "unit: test_model.py",
        "champion, 100 %",
        '"species":"setosa"',
        "brought back what training wrote: artifacts/model.joblib, metrics.csv",
        "2 passed",
    ],
    "monorepo": [
        "command: python train.py",
        "churn-main.yml\nchurn-release.yml\nfraud-develop.yml\n",
        '      - "models/churn/**"\n      - "shared/**"\n',
        "deploy-production churn@",
        "challenger, 10 %, http",
        "the supervisor",
    ],
    "batch": [
        "60 rows in 2 parts",
        "f0",
        "90 rows in 3 parts, 1 rejected",
        "20 new outcomes, 0 already known",
        '"reason":"petal_width must be a number, not \\"wide\\""',
        "reproduced",
    ],
    "schedules": [
        "passed. schedule weekly, ",
        ": mlship train, mlship test",
        "UTC was run before",
        "wrote .github/workflows/ticks.yml",
        'schedule=CronTriggerTimetable("0 3 * * 1", timezone="UTC")',
        "deploy/kubernetes/iris-daily.yaml",
    ],
    "when-it-fails": [],
}
"""What a page's commands must have said, by page: that they end well is not all they promise."""


@pytest.fixture
def reader(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Reader]:
    # What a reader of the README types first runs as theirs will.
    reader = Reader(tmp_path, is_cold="README" in request.node.name)
    # Of a reader who has installed mlship from git; without it, there are no workflows.
    reader.environment["MLSHIP_WORKFLOWS__MLSHIP"] = SOURCE
    yield reader
    reader.leave()


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=page.stem, marks=[pytest.mark.slow] if page.stem in LONG else [])
        for page in EXECUTED
    ],
)
def test_every_block_of_a_page_works(page: Path, reader: Reader) -> None:
    told = []
    for block in blocks(page, "bash", "console"):
        if block.language == "bash":
            told.append(reader.run(block.text))
            continue
        for command, expected in dialogue(block):
            output = reader.run(command, check=False)
            assert fits(expected, output), f"{page.name}:{block.line}: {command}\n{output}"
    for said in PROMISED[page.stem]:
        assert said in "\n".join(told), said


@pytest.mark.slow
@pytest.mark.service("registry")
def test_a_homework_works_without_a_server_but_a_registry(reader: Reader) -> None:
    require("registry", answers(), "services up registry")
    reader.environment["USER"] = f"reader-{uuid.uuid4().hex}"
    page = GUIDE / "without-a-server.md"
    told = "\n".join(reader.run(block.text) for block in blocks(page, "bash"))
    for said in ("champion, 100 %", '"mlship.iris.record.', '"mlship.iris.fact.', "the supervisor"):
        assert said in told, said
    before, after, elsewhere = re.findall(r"(\d+) records, the chain is whole", told)
    assert before == "0"
    assert int(after) > 5
    assert elsewhere == after, "the release was found, and nothing was trained again"
    assert len(set(re.findall(r"iris@[0-9a-f]{12}", told))) == 1


def test_only_the_pages_that_are_executed_have_dialogues() -> None:
    assert not [page for page in PAGES if page not in EXECUTED and blocks(page, "console")]


def test_a_page_that_shows_another_output_is_found_out() -> None:
    assert fits("error: no ... here\n next: go", "error: no file here\n next: go\n")
    assert not fits("error: no ... here", "error: none")
