"""Settings of Spark, checked before Java is started."""

import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mlship.config.spark import check_spark
from mlship.errors import ConfigError, UnavailableError
from mlship.runtime.batches.spark import check_master, executors_python, failed_hint, printed


@pytest.mark.parametrize(
    "master",
    ["local", "local[2]", "local[*,4]", "spark://a:7077,b:7077", "k8s://https://a:6443", "yarn"],
)
def test_masters_of_spark_are_accepted(master: str) -> None:
    check_spark({"spark.master": master, "spark.executor.cores": "2"})


@pytest.mark.parametrize("master", ["", "lokal", "spark://a", "spark:/a:1", "local[x]", "http://a"])
def test_another_master_is_refused(master: str) -> None:
    with pytest.raises(ConfigError, match=r"invalid spark\.master in batch\.spark"):
        check_spark({"spark.master": master})


def test_a_name_that_spark_would_pass_over_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"batch\.spark has master, which is not a setting"):
        check_spark({"master": "local"})


@pytest.mark.parametrize(
    ("settings", "environment", "python"),
    [
        ({"spark.master": "local[2]"}, {}, sys.executable),
        ({"spark.master": "local[2]"}, {"PYSPARK_PYTHON": "/a"}, "/a"),
        ({"spark.master": "spark://a:7077"}, {}, ""),
        ({"spark.master": "yarn", "spark.pyspark.python": "/b"}, {"PYSPARK_PYTHON": "/a"}, "/b"),
    ],
)
def test_the_setting_names_the_python_of_executors(
    settings: Mapping[str, str], environment: Mapping[str, str], python: str
) -> None:
    assert executors_python(settings, environment) == python


def answering(monkeypatch: pytest.MonkeyPatch, *ports: int) -> list[int]:
    """Let only these ports answer; return those that are asked."""
    asked: list[int] = []

    def connect(place: tuple[str, int], timeout: float) -> Any:
        asked.append(place[1])
        if place[1] not in ports:
            raise ConnectionRefusedError(111, "Connection refused")
        return SimpleNamespace(close=lambda: None)

    monkeypatch.setattr(socket, "create_connection", connect)
    return asked


def test_one_master_of_several_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answering(monkeypatch, 2)
    check_master({"spark.master": "spark://a:1,b:2,c:3"})
    assert asked == [1, 2]


def test_a_master_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch)
    with pytest.raises(UnavailableError, match=r"spark://a:1: Connection refused") as found:
        check_master({"spark.master": "spark://a:1"})
    assert "spark.master" in (found.value.hint or "")


@pytest.mark.parametrize("master", ["local[2]", "k8s://https://a:1", "yarn", ""])
def test_only_standalone_masters_are_asked(monkeypatch: pytest.MonkeyPatch, master: str) -> None:
    asked = answering(monkeypatch)
    check_master({"spark.master": master})
    assert asked == []


def test_the_last_exception_of_java_is_told(tmp_path: Path) -> None:
    wanted = 'Exception in thread "main" a.SparkException: Executor memory must be positive'
    path = tmp_path / "stderr"
    path.write_text(f"{'x' * 9000}\nWARN: a\n{wanted}\n\tat a.main(a.scala:1)\n")
    with path.open("rb") as file:
        assert printed(file.fileno()) == wanted


def test_a_pipe_is_not_read() -> None:
    ends = os.pipe()
    try:
        os.write(ends[1], b"a.SparkException: no\n")
        assert printed(ends[0]) == ""
    finally:
        for end in ends:
            os.close(end)


def test_a_task_without_its_python_has_the_setting_as_the_next_action() -> None:
    for text in (
        "ModuleNotFoundError: No module named 'msgspec'",
        'java.io.IOException: Cannot run program "python3.9": error=2, No such file or directory',
    ):
        assert "spark.pyspark.python in batch.spark" in failed_hint(text)
    for text in ("ExecutorLostFailure", "No module named 'own'", "No such file: /lake/a.parquet"):
        assert failed_hint(text).startswith("read what the executor printed")
