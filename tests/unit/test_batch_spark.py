"""Settings of Spark, checked before Java is started."""

import sys
from collections.abc import Mapping

import pytest

from mlship.config.spark import check_spark
from mlship.errors import ConfigError
from mlship.runtime.batches.spark import executors_python, failed_hint


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


def test_a_task_without_its_python_has_the_setting_as_the_next_action() -> None:
    for text in (
        "ModuleNotFoundError: No module named 'msgspec'",
        "Caused by: java.io.IOException: error=2, No such file or directory",
    ):
        assert "spark.pyspark.python in batch.spark" in failed_hint(text)
    assert failed_hint("ExecutorLostFailure").startswith("read what the executor printed")
