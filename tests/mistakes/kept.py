"""Mistakes with outcomes and predictions, and changes to what mlship keeps."""

import json
from pathlib import Path

from tests.mistakes.mistake import Mistake
from tests.mistakes.project import Project
from tests.mistakes.training import written


def predictions(project: Project) -> list[str]:
    """Return the ids of the predictions that production logged."""
    logs = sorted((project.folder / ".mlship/predictions/production").rglob("*.jsonl"))
    lines = [line for log in logs for line in log.read_text().splitlines()]
    return [str(json.loads(line)["id"]) for line in lines]


def outcomes(project: Project, *values: str) -> None:
    """Write a file with outcomes of the first prediction."""
    name = predictions(project)[0]
    rows = "".join(f"{name},{value}\n" for value in values)
    project.write("outcomes.csv", f"prediction_id,outcome\n{rows}")


def files(project: Project, pattern: str) -> list[Path]:
    """Return the files of mlship's state that a glob names."""
    return sorted(path for path in (project.folder / ".mlship").glob(pattern) if path.is_file())


def damage(path: Path) -> None:
    """Change one byte in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


OUTCOMES = (
    Mistake(
        name="feedback from a file that does not exist",
        on="shipped",
        command=("feedback", "outcomes.csv"),
        code=5,
        says="file outcomes.csv does not exist",
        hints="CSV",
    ),
    Mistake(
        name="feedback without the columns",
        on="shipped",
        do=written("outcomes.csv", "name,truth\na,setosa\n"),
        command=("feedback", "outcomes.csv"),
        code=2,
        says="outcomes.csv:2",
        hints="prediction_id and outcome",
    ),
    Mistake(
        name="feedback that is not JSON",
        on="shipped",
        do=written("outcomes.jsonl", '{"id": "a", "outcome": "setosa"}\n{"id": \n'),
        command=("feedback", "outcomes.jsonl"),
        code=2,
        says="outcomes.jsonl:2: not JSON",
        hints="outcome",
    ),
    Mistake(
        name="feedback from an empty file",
        on="shipped",
        do=written("outcomes.csv", ""),
        command=("feedback", "outcomes.csv"),
        code=2,
        says="outcomes.csv has no outcomes",
        hints="header",
    ),
    Mistake(
        name="feedback for predictions that nobody made",
        on="shipped",
        do=written("outcomes.csv", "prediction_id,outcome\na,setosa\nb,setosa\n"),
        command=("feedback", "outcomes.csv"),
        code=5,
        says="a, b",
        hints="id",
    ),
    Mistake(
        name="feedback that contradicts itself",
        on="shipped",
        do=lambda project: outcomes(project, "setosa", "virginica"),
        command=("feedback", "outcomes.csv"),
        code=8,
        says="different outcomes at once",
        hints="leave one outcome",
        mend=lambda project: outcomes(project, "setosa"),
    ),
    Mistake(
        name="feedback with a label that does not exist",
        on="shipped",
        do=lambda project: outcomes(project, "rose"),
        command=("feedback", "outcomes.csv"),
        code=2,
        says="outcomes.csv:2: the outcome of",
        hints="--new-labels",
        mend=lambda project: outcomes(project, "setosa"),
    ),
    Mistake(
        name="an erasure that does not say of what",
        on="shipped",
        command=("predictions", "erase"),
        code=2,
        says="give either --id or --where",
        hints="--where COLUMN=VALUE",
    ),
    Mistake(
        name="an erasure with a condition that is none",
        on="shipped",
        command=("predictions", "erase", "--where", "ada@example.org"),
        code=2,
        says="no COLUMN=VALUE",
        hints="--where email=",
    ),
    Mistake(
        name="pruning without a number of days",
        on="shipped",
        command=("predictions", "prune"),
        code=2,
        says="keep_days is not set",
        hints="set keep_days",
    ),
    Mistake(
        name="a trace of a prediction that nobody made",
        on="shipped",
        command=("trace", "a.0"),
        code=5,
        says="has the prediction a.0",
        hints="copy the id",
    ),
)

KEPT = (
    Mistake(
        name="a record of the ledger was changed",
        on="trained",
        do=lambda project: damage(files(project, "ledger/*/*.json")[0]),
        command=("status",),
        code=7,
        says="was changed",
        hints="backup",
    ),
    Mistake(
        name="a record of the ledger was removed",
        on="shipped",
        do=lambda project: max(
            files(project, "ledger/*/*.json"), key=lambda path: -path.stat().st_mtime
        ).unlink(),
        command=("status",),
        code=7,
        says="",
        hints="backup",
    ),
    Mistake(
        name="a foreign file in the ledger",
        on="trained",
        do=written(".mlship/ledger/notes.txt", "mine"),
        command=("status",),
        code=7,
        says="notes.txt is not a record",
        hints="move the file",
    ),
    Mistake(
        name="the prediction log was changed",
        on="shipped",
        do=lambda project: damage(files(project, "predictions/production/**/*.jsonl")[0]),
        command=("evaluate",),
        code=7,
        says="was changed",
        hints="backup",
    ),
)
