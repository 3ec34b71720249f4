"""The real Spark, which is too large for the tests' own environment."""

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.harness import java
from tests.harness.services import require

_KEPT: Final = Path.home() / ".cache" / "mlship-spark" / "4.0.0"
_JARS: Final = Path.home() / ".cache" / "mlship-spark-kafka" / "4.0.0"
_NOT_SPARKS: Final = ("hadoop-", "scala-library", "slf4j", "snappy", "lz4", "spark-tags")
"""Jars that the connector names, and Spark itself has."""
_LOOPBACK: Final = (
    *("--conf", "spark.driver.host=127.0.0.1", "--conf", "spark.driver.bindAddress=127.0.0.1"),
    *("--conf", "spark.ui.enabled=false"),
)

OPTIONS: Final = "JDK_JAVA_OPTIONS"
"""What each `java` reads, also the one that only finds out how to start the other."""


def environment() -> Mapping[str, str]:
    """Return variables with which Python finds pyspark; the test is skipped where there is none.

    It is looked for where TEST_SPARK says and where `.ci/spark` puts it.
    """
    folder = Path(os.environ.get("TEST_SPARK", _KEPT))
    is_there = (folder / "pyspark").is_dir() or importlib.util.find_spec("pyspark") is not None
    require("Spark", is_there, "run .ci/spark")
    require("Java", shutil.which("java") is not None, "install Java 17")
    paths = [str(folder), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        OPTIONS: " ".join(java.QUICK),
    }


def submit(*arguments: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """Run a job to its end by spark-submit, with two cores of this machine.

    Args:
        arguments: its file, and what the job gets.
        folder: the current folder.
    """
    variables = {**environment(), "PYSPARK_PYTHON": sys.executable}
    home = Path(os.environ.get("TEST_SPARK", _KEPT)) / "pyspark"
    if not home.is_dir():
        found = importlib.util.find_spec("pyspark")
        assert found is not None
        assert found.origin is not None
        home = Path(found.origin).parent
    return subprocess.run(
        [str(home / "bin/spark-submit"), "--master", "local[2]", *_LOOPBACK, *arguments],
        cwd=folder,
        env={**variables, "SPARK_HOME": str(home)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )


class StreamJob:
    """A job of Structured Streaming as a driver of its own, with two cores of this machine.

    Args:
        file: the job.
        checkpoint: where it keeps what was read.
        log: the file for its lines.
    """

    def __init__(self, file: Path, checkpoint: Path, log: Path) -> None:
        self.log = log
        found = sorted(Path(os.environ.get("TEST_SPARK_KAFKA", _JARS)).glob("*.jar"))
        require("Spark's connector for Kafka", bool(found), "run .ci/spark")
        jars = ",".join(str(each) for each in found if not each.name.startswith(_NOT_SPARKS))
        # Else a query that waits for messages looks for them a hundred times a second.
        slow = "spark.sql.streaming.pollingDelay=200ms"
        flags = [*_LOOPBACK, "--conf", slow, "--jars", jars]
        variables = {
            **environment(),
            "PYSPARK_SUBMIT_ARGS": " ".join(["--master", "local[2]", *flags, "pyspark-shell"]),
            "PYSPARK_PYTHON": sys.executable,
        }
        with log.open("ab") as lines:
            self.process = subprocess.Popen(
                [sys.executable, str(file), str(checkpoint)],
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=lines,
                stderr=lines,
                start_new_session=True,
            )

    def check(self) -> None:
        """Fail, with the end of its log, if it has ended."""
        assert self.process.poll() is None, self.log.read_text()[-3000:]

    def kill(self) -> None:
        """Kill the driver, its JVM, and the processes of its executors."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
