"""The command `mlship batch --challenger`: what it tells of the two results."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from mlship import wire
from mlship.cli.main import app
from mlship.cli.session import Session
from mlship.domain import shapes
from mlship.domain.batch_record import Batched
from mlship.errors import RefusedError, UnavailableError
from mlship.steps.batch_scorer import Scorer
from tests.harness.batches import Contest

BROKEN = """
def postprocess(outputs):
    raise ValueError("no")
"""


def prepared(root: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> Contest:
    here = Contest(root, **options)
    here.write("a.parquet")
    monkeypatch.setattr(Session, "pipeline", lambda *_args, **_options: here.world.pipeline)
    monkeypatch.setattr(wire, "batching", lambda *_: here.ports)
    return here


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments])


def test_a_shadow_that_passed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = prepared(tmp_path, monkeypatch)
    done = run("--json", "batch", "--challenger", "shadow")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["release"] == str(here.release)
    assert told["shadow"]["release"] == str(here.challenger)
    assert told["shadow"]["facts"]["shadowed"] == told["facts"]["output"]
    lines = run("batch", "--challenger", "shadow").stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        f"batch {here.release}",
        f"batch {here.challenger}",
    ]
    assert any("nothing to do" in note for note in here.world.progress.notes)


def test_a_shadow_that_failed_is_told_with_what_is_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = prepared(tmp_path, monkeypatch, postprocess=BROKEN)
    done = run("batch", "--challenger", "shadow")
    assert f"batch {here.release}: passed" in done.stdout
    error = done.exception
    assert isinstance(error, RefusedError)
    assert f"what {here.release} answered is published" in error.message
    assert error.facts["verdict"] == "passed"
    assert error.facts["shadow"]["verdict"] == "failed"
    assert len(here.published) == 1


def test_whatever_happens_to_a_shadow_leaves_evidence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = prepared(tmp_path, monkeypatch)
    original = Scorer.of

    def of(pipeline: Any, workers: Any, release: Any, *others: Any) -> Scorer:
        if release == here.challenger:
            raise UnavailableError("the store cannot be reached")
        return original(pipeline, workers, release, *others)

    monkeypatch.setattr(Scorer, "of", of)
    error = run("--json", "batch", "--challenger", "shadow").exception
    assert isinstance(error, RefusedError)
    assert "the store cannot be reached" in error.message
    last = here.world.ledger.records()[-1]
    assert (last.evidence.release, last.evidence.verdict) == (here.challenger, "failed")
    assert shapes.of(last, Batched).shadowed == str(here.published[0])
    monkeypatch.setattr(Scorer, "of", original)
    assert run("batch", "--challenger", "shadow").exit_code == 0, "the same command goes on"


def test_a_split_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = prepared(tmp_path, monkeypatch)
    done = run("--json", "batch", "--challenger", "split")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["facts"]["side"] == "champion"
    assert told["facts"]["share"] == 70
    line = run("batch", "--challenger", "split").stdout
    assert f"batch {here.release}: passed" in line
    assert "as champion (70 %)" in line
