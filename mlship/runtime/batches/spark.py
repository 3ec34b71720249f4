"""The worker of a batch on Spark: each request is a task, which an executor answers.

Spark only decides where a request is answered: an executor reads, scores and writes as a process
of this machine does, with the same function. A task that Spark tries again, or twice at the same
time, writes the same file under the same name.

An executor needs Python with `mlship-cd[serve,batch]`; the bundle comes with the session.
"""

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec

from mlship.domain.batch_work import Answer, Request, place_of
from mlship.errors import ConfigError, MlshipError, UnavailableError
from mlship.runtime.batches.replies import Replies, reason

_NAME: Final = "mlship-bundle"
_DEFAULTS: Final[Mapping[str, str]] = {
    "spark.app.name": "mlship batch",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    # One task, one request: nothing is there to be planned anew.
    "spark.sql.adaptive.enabled": "false",
    # As the processes of replicas have it.
    "spark.executorEnv.PYTHONHASHSEED": "1",
}
_LOCAL: Final[Mapping[str, str]] = {
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
}


def work(bundle: Path, settings: Mapping[str, str]) -> None:
    """Answer the requests on stdin, each when its task is done, until stdin ends.

    Args:
        bundle: its folder, which is sent to the executors.
        settings: of Spark, such as `spark.master`.
    """
    replies = Replies()
    with tempfile.TemporaryDirectory(prefix=f"{_NAME}-") as folder:
        try:
            session = _session(settings)
        except MlshipError as error:
            replies.send(error)
            return
        # Executors fetch it with their first task.
        packed = shutil.make_archive(f"{folder}/{_NAME}", "zip", bundle)
        session.sparkContext.addArchive(f"{packed}#{_NAME}")
        _answer_all(session, replies)
    # Whoever asked is gone: nobody would take the answers of tasks that run.
    os._exit(0)


def _answer_all(session: Any, replies: Replies) -> None:
    """Answer the requests on stdin until it ends."""
    ask = _asking(session)
    decode = msgspec.json.Decoder(Request).decode
    # A thread waits for each task that can run at the same time, and one more is always queued.
    threads = ThreadPoolExecutor(session.sparkContext.defaultParallelism + 1)
    with os.fdopen(0, "rb", closefd=False) as lines:
        for line in lines:
            if line.strip():  # Spark does not care which requests belong together
                threads.submit(lambda request: replies.send(ask(request)), decode(line))


def _session(settings: Mapping[str, str]) -> Any:
    """Return a session of Spark.

    Raises:
        ConfigError: there is no Java.
        UnavailableError: the session does not start.
    """
    from pyspark.errors import PySparkException
    from pyspark.sql import SparkSession

    _check_java()
    master = settings.get("spark.master", "")
    is_local = master.startswith("local")
    if python := executors_python(settings, os.environ):
        os.environ["PYSPARK_PYTHON"] = python
    # For executors in the JVM that this process starts; others get the setting.
    os.environ["PYTHONHASHSEED"] = "1"
    builder: Any = SparkSession.builder
    for name, value in {**_DEFAULTS, **(_LOCAL if is_local else {}), **settings}.items():
        builder = builder.config(name, value)
    try:
        session = builder.getOrCreate()
        session.sparkContext.setLogLevel("ERROR")
    except Exception as error:
        if not isinstance(error, PySparkException) and not _is_java(error):
            raise
        message = f"Spark at {master} does not start: {reason(error)}"
        hint = "check batch.spark in mlship.yaml, and what Spark printed above"
        raise UnavailableError(message, hint=hint) from error
    return session


def executors_python(settings: Mapping[str, str], environment: Mapping[str, str]) -> str:
    """Return the Python of the executors; empty if Spark finds theirs.

    Outside of spark-submit, Spark reads it from the variable `PYSPARK_PYTHON` only.
    """
    if python := settings.get("spark.pyspark.python") or environment.get("PYSPARK_PYTHON"):
        return python
    return sys.executable if settings.get("spark.master", "").startswith("local") else ""


def _check_java() -> None:
    home = os.environ.get("JAVA_HOME", "")
    java = shutil.which("java", path=f"{home}/bin") if home else shutil.which("java")
    if java is None:
        lacks = f"JAVA_HOME, {home}, has no bin/java" if home else "no program java is found"
        message = f"batch.engine is spark, and Spark needs Java: {lacks}"
        raise ConfigError(message, hint="install Java 17, or set JAVA_HOME to its folder")


def _asking(session: Any) -> Callable[[Request], Answer | UnavailableError]:
    """Return a function that answers a request by a task of Spark."""

    def ask(request: Request) -> Answer | UnavailableError:
        line = msgspec.json.encode(request).decode()
        try:
            # The request is in the function, which is sent anyway: a column of a DataFrame would
            # take Spark longer to plan.
            one = session.range(0, 1, 1, 1)
            [row] = one.mapInPandas(partial(_answered, line), "answer string").collect()
        except Exception as error:  # noqa: BLE001 (Spark raises all kinds; the command says which)
            text = reason(error)
            message = f"a task of Spark failed at {place_of(request)}: {text}"
            return UnavailableError(message, hint=f"{failed_hint(text)}: finished parts are kept")
        answer: Answer = msgspec.json.decode(row.answer, type=Answer)
        return answer

    return ask


def failed_hint(text: str) -> str:
    """Return the next action for the reason of a task that failed."""
    again = "then run `mlship batch` again"
    if "ModuleNotFoundError" in text or "No such file" in text:
        needs = "executors need a Python with mlship-cd[spark]"
        return f"{needs}: name it as spark.pyspark.python in batch.spark, {again}"
    return f"read what the executor printed, {again}"


def _answered(request: str, frames: Iterator[Any]) -> Iterator[Any]:
    """Answer a request in an executor.

    Args:
        request: as JSON.
        frames: one of one row, which says nothing.
    """
    import pandas as pd
    from pyspark import SparkFiles

    from mlship.runtime.batches import executor

    bundle = Path(SparkFiles.get(_NAME))
    for _ in frames:
        yield pd.DataFrame({"answer": [executor.answer(request, bundle)]})


def _is_java(error: Exception) -> bool:
    return type(error).__module__.startswith("py4j")
