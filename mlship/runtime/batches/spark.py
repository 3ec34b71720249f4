"""The worker of a batch on Spark: each request is a task, which an executor answers.

Spark only decides where a request is answered: an executor reads, scores and writes as a process
of this machine does, with the same function. A task that Spark tries again, or twice at the same
time, writes the same file under the same name.

An executor needs Python with `mlship-cd[serve,batch]`; the bundle comes with the session.

Below `spark-submit`, whose JVM is there already, the session is one of that JVM, and its settings
are those of `spark-submit`.
"""

import os
import re
import shutil
import socket
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
_GATEWAY: Final = "PYSPARK_GATEWAY_PORT"
"""The variable by which `spark-submit` tells what it starts where its JVM is."""
_NO_PYTHON: Final = re.compile(
    r"Cannot run program|No module named '(mlship|msgspec|numpy|pandas|pyarrow|xxhash)\b"
)
"""What Spark says of an executor whose Python is not there, or lacks what a task needs."""
_EXITED: Final = "JAVA_GATEWAY_EXITED"
"""What PySpark says when Java ended: why is only in what Java printed."""
_LAST_BYTES: Final = 4000
_CONNECT_SECONDS: Final = 10.0
_NEEDED: Final[Mapping[str, str]] = {
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    # One task, one request: nothing is there to be planned anew.
    "spark.sql.adaptive.enabled": "false",
    # As the processes of replicas have it.
    "spark.executorEnv.PYTHONHASHSEED": "1",
}
_SHARED: Final[Mapping[str, str]] = {
    # As PySpark has it in a context of its own: sessions see the archives of the context.
    "spark.sql.artifact.isolation.enabled": "false",
}
_DEFAULTS: Final[Mapping[str, str]] = {
    "spark.app.name": "mlship batch",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    **_NEEDED,
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
        # Its own name: below spark-submit, the releases of a split share a context.
        name = f"{_NAME}-{bundle.name}"
        packed = shutil.make_archive(f"{folder}/{name}", "zip", bundle)
        session.sparkContext.addArchive(f"{packed}#{name}")
        _answer_all(session, replies, name)
    # Whoever asked is gone: nobody would take the answers of tasks that run.
    os._exit(0)


def _answer_all(session: Any, replies: Replies, archive: str) -> None:
    """Answer the requests on stdin until it ends."""
    ask = _asking(session, archive)
    decode = msgspec.json.Decoder(Request).decode
    # A thread waits for each task that can run at the same time. One more that is queued would
    # be written before the end of the one before is noted: two parts to score again after a crash.
    threads = ThreadPoolExecutor(session.sparkContext.defaultParallelism)
    with os.fdopen(0, "rb", closefd=False) as lines:
        for line in lines:
            if line.strip():  # Spark does not care which requests belong together
                threads.submit(lambda request: replies.send(ask(request)), decode(line))


def _session(settings: Mapping[str, str]) -> Any:
    """Return a session of Spark.

    Raises:
        ConfigError: there is no Java.
        UnavailableError: no master answers, or the session does not start.
    """
    from pyspark.errors import PySparkException

    is_submitted = _GATEWAY in os.environ
    if not is_submitted:
        _check_java()
        check_master(settings)
    # For executors in the JVM that this process starts; others get the setting.
    os.environ["PYTHONHASHSEED"] = "1"
    try:
        session = _submitted() if is_submitted else _started(settings)
        session.sparkContext.setLogLevel("ERROR")
    except Exception as error:
        if not isinstance(error, PySparkException) and not _is_java(error):
            raise
        place = f"at {settings.get('spark.master', '')}"
        hint = "check batch.spark in mlship.yaml"
        if is_submitted:
            place, hint = "of spark-submit", "check its settings, and what it printed"
        why = reason(error)
        if _EXITED in why:
            why = printed(2) or why
        message = f"Spark {place} does not start: {why}"
        raise UnavailableError(message, hint=hint) from error
    return session


def check_master(settings: Mapping[str, str]) -> None:
    """Check that the master of a standalone cluster answers, which Spark tries for minutes.

    Raises:
        UnavailableError: it does not; of several, none does.
    """
    master = settings.get("spark.master", "")
    why: OSError | None = None
    for place in master.removeprefix("spark://").split(",") if "spark://" in master else ():
        host, _, port = place.rpartition(":")
        try:
            socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()
        except OSError as error:
            why = error
        else:
            return
    if why is not None:
        message = f"no master of Spark answers at {master}: {why.strerror or why}"
        raise UnavailableError(message, hint="check spark.master in batch.spark, or start it")


def printed(stream: int) -> str:
    """Return the last exception that Java printed to a file; empty if it is none, as a pipe.

    Args:
        stream: its descriptor; that of stderr is a file of the command.
    """
    try:
        begin = max(0, os.fstat(stream).st_size - _LAST_BYTES)
        text = os.pread(stream, _LAST_BYTES, begin).decode("utf-8", "replace")
    except OSError:
        return ""
    return reason(Exception(text)) if text.strip() else ""


def _started(settings: Mapping[str, str]) -> Any:
    """Return a session with a JVM of its own."""
    from pyspark.sql import SparkSession

    if python := executors_python(settings, os.environ):
        os.environ["PYSPARK_PYTHON"] = python
    is_local = settings.get("spark.master", "").startswith("local")
    builder: Any = SparkSession.builder
    for name, value in {**_DEFAULTS, **(_LOCAL if is_local else {}), **settings}.items():
        builder = builder.config(name, value)
    return builder.getOrCreate()


def executors_python(settings: Mapping[str, str], environment: Mapping[str, str]) -> str:
    """Return the Python of the executors; empty if Spark finds theirs.

    Outside of spark-submit, Spark reads it from the variable `PYSPARK_PYTHON` only.
    """
    if python := settings.get("spark.pyspark.python") or environment.get("PYSPARK_PYTHON"):
        return python
    return sys.executable if settings.get("spark.master", "").startswith("local") else ""


def _submitted() -> Any:
    """Return a session in the JVM of `spark-submit`.

    A JVM has one context. Another process of the command, for another release, may have made it.
    """
    from pyspark import SparkConf, SparkContext
    from pyspark.java_gateway import launch_gateway
    from pyspark.sql import SparkSession

    gateway: Any = launch_gateway()
    own = gateway.jvm.org.apache.spark.SparkConf()
    for name, value in {**_NEEDED, **_SHARED}.items():
        own.set(name, value)
    context = gateway.jvm.JavaSparkContext(
        gateway.jvm.org.apache.spark.SparkContext.getOrCreate(own)
    )
    conf = SparkConf(_jvm=gateway.jvm)
    return SparkSession(SparkContext(gateway=gateway, jsc=context, conf=conf))


def _check_java() -> None:
    home = os.environ.get("JAVA_HOME", "")
    java = shutil.which("java", path=f"{home}/bin") if home else shutil.which("java")
    if java is None:
        lacks = f"JAVA_HOME, {home}, has no bin/java" if home else "no program java is found"
        message = f"batch.engine is spark, and Spark needs Java: {lacks}"
        raise ConfigError(message, hint="install Java 17, or set JAVA_HOME to its folder")


def _asking(session: Any, archive: str) -> Callable[[Request], Answer | UnavailableError]:
    """Return a function that answers a request by a task of Spark."""

    def ask(request: Request) -> Answer | UnavailableError:
        line = msgspec.json.encode(request).decode()
        try:
            # The request is in the function, which is sent anyway: a column of a DataFrame would
            # take Spark longer to plan.
            one = session.range(0, 1, 1, 1)
            [row] = one.mapInPandas(partial(_answered, line, archive), "answer string").collect()
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
    if _NO_PYTHON.search(text):
        needs = "executors need a Python with mlship-cd[spark]"
        return f"{needs}: name it as spark.pyspark.python in batch.spark, {again}"
    return f"read what the executor printed, {again}"


def _answered(request: str, archive: str, frames: Iterator[Any]) -> Iterator[Any]:
    """Answer a request in an executor.

    Args:
        request: as JSON.
        archive: the name under which the bundle was sent.
        frames: one of one row, which says nothing.
    """
    import pandas as pd
    from pyspark import SparkFiles

    from mlship.runtime.batches import executor

    bundle = Path(SparkFiles.get(archive))
    for _ in frames:
        yield pd.DataFrame({"answer": [executor.answer(request, bundle)]})


def _is_java(error: Exception) -> bool:
    return type(error).__module__.startswith("py4j")
