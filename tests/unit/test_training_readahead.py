"""Data that a fork reads while the libraries of training are imported."""

import functools
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest

from mlship.config.data import DataConfig
from mlship.errors import ProjectError
from mlship.training import data
from mlship.training.readahead import ReadAhead
from mlship.training.server import Request
from tests.harness.projects import config, request

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the server of jobs is Linux's")


@pytest.fixture
def output() -> Iterator[int]:
    with open(os.devnull, "wb") as nothing:  # noqa: PTH123 (a file descriptor is wanted)
        yield nothing.fileno()


def frame(rows: int) -> pd.DataFrame:
    random = np.random.default_rng(0)
    numbers = pd.DataFrame(random.normal(size=(rows, 4)), columns=list("abcd"))
    return numbers.assign(
        n=np.arange(rows),
        text=pd.Series(["x", None, "NA ", "ß"] * rows).head(rows),
        gaps=numbers["a"].where(numbers["b"] > 0),
        flag=numbers["c"] > 0,
        label=np.where(numbers["d"] > 0, "yes", "no"),
    )


@functools.cache
def text(rows: int = 20_000) -> str:
    """Return a table as CSV, which takes longer to write than to read."""
    return frame(rows).to_csv(index=False)


def asked(root: Path, output: int, job: str = "train") -> tuple[ReadAhead, DataConfig]:
    made = config(target="label")
    of_data = DataConfig(train="data.csv", test="data.csv", target="label")
    made = msgspec.structs.replace(made, data=of_data)
    question = root / "request.json"
    question.write_bytes(msgspec.json.encode(request(root, made), enc_hook=str))
    return ReadAhead(Request([job, str(question), "reply"], output)), of_data


def test_rows_are_those_that_the_job_itself_would_read(tmp_path: Path, output: int) -> None:
    (tmp_path / "data.csv").write_text(text())
    ahead, of_data = asked(tmp_path, output)
    loaded = ahead.take()
    pd.testing.assert_frame_equal(loaded["data.csv"], data.load(tmp_path, "data.csv"))
    read = data.read(tmp_path, of_data, loaded)
    assert read.fields == data.read(tmp_path, of_data).fields
    assert ahead.take() == {}


def test_job_opens_the_file_for_its_audit(
    tmp_path: Path, output: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data.csv").write_text(text())
    ahead, _ = asked(tmp_path, output)
    opened: list[Path] = []
    own = Path.open

    def noted(path: Path, *arguments: Any) -> Any:
        opened.append(path)
        return own(path, *arguments)

    monkeypatch.setattr(Path, "open", noted)
    assert ahead.take()
    assert tmp_path / "data.csv" in opened


def test_what_cannot_be_read_is_left_to_the_job(tmp_path: Path, output: int) -> None:
    whole = text()
    (tmp_path / "data.csv").write_bytes(whole.encode() + b"\xff,1\n")
    ahead, of_data = asked(tmp_path, output)
    loaded = ahead.take()
    assert loaded == {}
    with pytest.raises(ProjectError, match="is not in utf-8"):
        data.read(tmp_path, of_data, loaded)


@pytest.mark.parametrize(("rows", "job"), [(20, "train"), (20_000, "score")])
def test_small_files_and_other_jobs_need_no_process(
    rows: int, job: str, tmp_path: Path, output: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fork() -> int:
        raise AssertionError

    monkeypatch.setattr(os, "fork", fork)
    (tmp_path / "data.csv").write_text(text(rows))
    ahead, _ = asked(tmp_path, output, job)
    assert ahead.take() == {}


def test_fork_ends_when_nobody_takes_what_it_read(
    tmp_path: Path, output: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pids: list[int] = []
    own = os.fork

    def fork() -> int:
        pids.append(own())
        return pids[-1]

    monkeypatch.setattr(os, "fork", fork)
    (tmp_path / "data.csv").write_text(text())
    ahead, _ = asked(tmp_path, output)
    ahead.close()
    [pid] = pids
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
