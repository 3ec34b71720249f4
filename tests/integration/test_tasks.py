"""Tasks of several targets and of none on the command line: from a commit to a new champion."""

import csv
import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest
import yaml

from tests.harness import commands
from tests.harness.repositories import QUICK

LABELS = """
import numpy as np
from sklearn.tree import DecisionTreeClassifier


def train(data, params):
    targets = data[["sunny", "windy"]]
    is_wrong = np.random.default_rng(1).random(targets.shape) < params["noise"]
    told = targets.where(~is_wrong, 1 - targets)
    return DecisionTreeClassifier(random_state=0).fit(data[["a", "b"]], told)
"""
NUMBERS = """
import numpy as np
from sklearn.tree import DecisionTreeRegressor


def train(data, params):
    targets = data[["heat", "rain"]]
    noise = params["noise"] * np.random.default_rng(1).normal(size=targets.shape)
    return DecisionTreeRegressor(random_state=0).fit(data[["a", "b"]], targets + noise)
"""
CLUSTERS = """
from sklearn.cluster import KMeans


def train(data, params):
    return KMeans(params["clusters"], n_init=2, random_state=0).fit(data)
"""


def measures(rows: int = 300) -> pd.DataFrame:
    generator = np.random.default_rng(6)
    return pd.DataFrame({name: generator.uniform(-1, 1, rows).round(3) for name in "ab"})


def labels() -> pd.DataFrame:
    frame = measures()
    return frame.assign(sunny=(frame.a > 0).astype(int), windy=(frame.b > 0.2).astype(int))


def numbers() -> pd.DataFrame:
    frame = measures()
    return frame.assign(heat=(2 * frame.a).round(3), rain=(3 * frame.b - frame.a).round(3))


class Project:
    """A repository whose targets are processes on this machine."""

    def __init__(self, folder: Path, code: str, frame: pd.DataFrame, **settings: Any) -> None:
        self.folder, self.frame = folder, frame
        frame.to_csv(folder / "data.csv", index=False)
        (folder / "pipeline.py").write_text(code)
        (folder / ".gitignore").write_text(".mlship/\n__pycache__/\n")
        self.settings: dict[str, Any] = {
            "name": "weather",
            "data": {
                "train": "data.csv",
                "split": {"fraction": 0.3, "seed": 1},
                **settings.pop("data", {}),
            },
            "model": {"train": "pipeline:train", **settings.pop("model", {})},
            "targets": {"staging": {}, "production": {"shadow": True}},
            "store": {"kind": "directory"},
            **settings,
        }
        self._git("init", "-q", "-b", "develop")

    def commit(self, **params: Any) -> None:
        self.settings["model"]["params"] = params
        (self.folder / "mlship.yaml").write_text(yaml.safe_dump(self.settings))
        self._git("add", "-A")
        self._git("commit", "-qm", "Change the parameters")

    def mlship(self, *words: str, code: int = 0) -> Any:
        done = commands.run(
            "--json", *words, folder=self.folder, environment=os.environ, seconds=300
        )
        assert done.returncode == code, (words, done.stdout[-3000:], done.stderr[-3000:])
        return json.loads(done.stdout) if code == 0 else done.stderr

    def predicted(self, count: int) -> list[dict[str, Any]]:
        """Send rows of the data to production, and return its predictions."""
        endpoint = self.mlship("status")["endpoints"]["production"]
        rows = self.frame[["a", "b"]].head(count).to_dict("records")
        with httpx.Client(base_url=endpoint, trust_env=False) as client:
            answers = [client.post("/predict", json=row).raise_for_status().json() for row in rows]
        return [answer["predictions"][0] for answer in answers]

    def role(self, release: str) -> str:
        releases = self.mlship("status")["releases"]
        return str(next(one["role"] for one in releases if one["release"] == release))

    def _git(self, *words: str) -> None:
        author = {"GIT_AUTHOR_NAME": "Ada", "GIT_AUTHOR_EMAIL": "ada@example.org"}
        author |= {"GIT_COMMITTER_NAME": "Ada", "GIT_COMMITTER_EMAIL": "ada@example.org"}
        subprocess.run(
            ["git", *QUICK, *words], cwd=self.folder, check=True, env=os.environ | author
        )


@contextmanager
def project(folder: Path, code: str, frame: pd.DataFrame, **settings: Any) -> Iterator[Project]:
    made = Project(folder, code, frame, **settings)
    try:
        yield made
    finally:
        made.mlship("down")


def running(ours: Project, champion: dict[str, Any], challenger: dict[str, Any]) -> str:
    """Run the pipeline for two commits; return the challenger."""
    for params in (champion, challenger):
        ours.commit(**params)
        ours.mlship("run")
    releases = ours.mlship("status")["releases"]
    return str(next(one["release"] for one in releases if one["role"] == "challenger"))


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("code", "frame", "targets", "metric", "noise"),
    [
        (LABELS, labels(), ["sunny", "windy"], "accuracy", 0.3),
        (NUMBERS, numbers(), ["heat", "rain"], "mae", 0.8),
    ],
    ids=["labels", "numbers"],
)
def test_a_better_model_of_several_targets_is_promoted(
    code: str,
    frame: pd.DataFrame,
    targets: Sequence[str],
    metric: str,
    noise: float,
    tmp_path: Path,
) -> None:
    gates = {"promote": {"metric": metric, "min_labels": 50}}
    data = {"target": targets}
    with project(tmp_path, code, frame, data=data, gates=gates) as ours:
        challenger = running(ours, {"noise": noise}, {"noise": 0.0})
        predictions = ours.predicted(200)
        assert set(targets) <= set(predictions[0])
        with (tmp_path / "outcomes.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["prediction_id", *targets])
            for row, prediction in zip(frame[targets].to_numpy(), predictions, strict=False):
                writer.writerow([prediction["id"], *row])
        assert ours.mlship("feedback", "outcomes.csv")["new"] == 200
        facts = ours.mlship("evaluate")["facts"]
        assert facts["challenger_n"] == 200
        assert "not promoted" in ours.mlship("promote", "challenger", code=3)
        ours.mlship("approve", "challenger", "--by", "grace@example.org")
        ours.mlship("promote", "challenger")
        assert ours.role(challenger) == "champion"
        metrics = {line["name"] for line in ours.mlship("report", challenger)["metrics"]}
        assert {f"{name}[{target}]" for name in ("accuracy", "mae") for target in targets} & metrics


@pytest.mark.timeout(600)
def test_a_clustering_is_promoted_by_approvals_alone(tmp_path: Path) -> None:
    gates = {"promote": {"metric": "none"}}
    model = {"task": "clustering"}
    with project(tmp_path, CLUSTERS, measures(), model=model, gates=gates) as ours:
        challenger = running(ours, {"clusters": 2}, {"clusters": 4})
        assert set(ours.predicted(3)[0]) == {"id", "cluster"}
        assert "no outcomes are compared" in ours.mlship("evaluate", code=2)
        assert "0 of 1 approvals" in ours.mlship("promote", "challenger", code=3)
        ours.mlship("approve", "challenger", "--by", "grace@example.org")
        ours.mlship("promote", "challenger")
        assert ours.role(challenger) == "champion"
        gate = next(
            line
            for line in ours.mlship("report", challenger)["gates"]
            if line["name"] == "promote/gate"
        )
        assert any("nothing was compared" in reason for reason in gate["reasons"])
