"""A stream as a job of Spark's Structured Streaming, for those who have Spark.

The executors answer with the same processes of models as other workers. Spark's sink for Kafka has
no transactions: after a crash, outputs of the last micro-batch may be written again. They have the
same prediction ids then, by which a reader removes them. The plan is that of the route when the job
was rendered.

An executor needs Python with `mlship-cd[serve,kafka]`; the bundles come with the session.
"""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from typing import Any, Final

import msgspec

from mlship.domain.stream import Plan, Settings
from mlship.runtime.stream.brokers import Received
from mlship.runtime.stream.models import Models, own_environment
from mlship.runtime.stream.replies import Replies

_SCHEMA: Final = (
    "topic string, key binary, value binary, headers array<struct<key:string,value:binary>>"
)
_COLUMNS: Final = ("key", "value", "partition", "offset", "headers")
_replies: dict[str, Replies] = {}
"""Of this process of an executor, by the plan: its models stay loaded for the next micro-batch."""


def run(settings_text: str, plan_text: str, checkpoint: str) -> None:
    """Answer messages until the query ends.

    Args:
        settings_text: of the stream, as JSON.
        plan_text: whose releases answer, as JSON.
        checkpoint: where Spark keeps what was read; the same one continues.
    """
    from pyspark.sql import SparkSession

    settings = msgspec.json.decode(settings_text, type=Settings)
    plan = msgspec.json.decode(plan_text, type=Plan)
    builder: Any = SparkSession.builder
    session = builder.appName(f"mlship stream {settings.group}").getOrCreate()
    with tempfile.TemporaryDirectory() as folder:
        for side in plan.sides:
            name = _archive(side.slot)
            packed = shutil.make_archive(f"{folder}/{name}", "zip", side.bundle)
            session.sparkContext.addArchive(f"{packed}#{name}")
        _query(session, settings, plan_text, checkpoint).awaitTermination()


def _query(session: Any, settings: Settings, plan_text: str, checkpoint: str) -> Any:
    own = {f"kafka.{name}": value for name, value in settings.options.items()}
    own["kafka.bootstrap.servers"] = settings.brokers
    source = {
        **own,
        "subscribe": settings.input,
        "startingOffsets": "earliest",
        "includeHeaders": "true",
        "kafka.isolation.level": "read_committed",
        "maxOffsetsPerTrigger": str(settings.max_rows * session.sparkContext.defaultParallelism),
    }
    messages = session.readStream.format("kafka").options(**source).load()
    settings_text = msgspec.json.encode(settings).decode()
    replies = messages.selectExpr(*_COLUMNS, "unix_millis(timestamp) AS time").mapInPandas(
        partial(answered, settings_text, plan_text), _SCHEMA
    )
    sink = replies.writeStream.format("kafka").options(**own)
    return sink.option("checkpointLocation", checkpoint).start()


def answered(settings_text: str, plan_text: str, frames: Iterator[Any]) -> Iterator[Any]:
    """Return what is written for messages, in an executor.

    Args:
        settings_text: of the stream, as JSON.
        plan_text: whose releases answer, as JSON.
        frames: of messages, tables of pandas.

    Raises:
        MlshipError: no message is to blame; Spark tries the task again.
    """
    import pandas as pd

    replies = _replies.get(plan_text)
    if replies is None:
        replies = _replies[plan_text] = _loaded(settings_text, plan_text)
    for frame in frames:
        sent = list(replies.to(list(_received(frame))))
        yield pd.DataFrame(
            {
                "topic": [each.topic for each in sent],
                "key": [each.key for each in sent],
                "value": [each.value for each in sent],
                "headers": [
                    [{"key": name, "value": value} for name, value in each.headers] for each in sent
                ],
            }
        )


def _received(frame: Any) -> Iterator[Received]:
    for row in frame.itertuples(index=False):
        headers = [(each["key"], _bytes(each["value"])) for each in _each(row.headers)]
        yield Received(
            int(row.partition),
            int(row.offset),
            int(row.time),
            _bytes(row.key),
            _bytes(row.value),
            headers,
        )


def _each(headers: Any) -> Any:
    return () if headers is None else headers


def _bytes(value: Any) -> bytes | None:
    return bytes(value) if isinstance(value, bytes | bytearray | memoryview) else None


def _loaded(settings_text: str, plan_text: str) -> Replies:
    """Load the models of a plan, each in a process of its own that ends with this one."""
    from pyspark import SparkFiles

    settings = msgspec.json.decode(settings_text, type=Settings)
    plan = msgspec.json.decode(plan_text, type=Plan)
    sides = tuple(
        msgspec.structs.replace(side, bundle=SparkFiles.get(_archive(side.slot)))
        for side in plan.sides
    )
    plan = msgspec.structs.replace(plan, sides=sides)
    models = Models(settings, own_environment(os.environ, settings), _note)
    models.want(plan)
    models.arrived(wait=True)
    return Replies(settings, plan, models)


def _note(text: str) -> None:
    sys.stderr.write(f"mlship stream: {text}\n")


def _archive(slot: str) -> str:
    return f"mlship-bundle-{slot}"
