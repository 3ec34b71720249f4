"""The job of a stream on a real Spark: after a crash, ids tell outputs that were written again."""

import json
import time
from collections import Counter
from pathlib import Path

import pytest
from confluent_kafka import Message

from mlship.domain import stream
from mlship.domain.stream import Plan
from mlship.runtime.model import Model
from mlship.templates import stream_job
from tests.harness import kafka, spark
from tests.harness.streams import is_answer, messages, row, settings, side

pytestmark = [pytest.mark.service("kafka"), pytest.mark.service("spark"), pytest.mark.cold]

COUNT = 40
SLOW = 12.5
_WAITS = """
import pathlib, time

def preprocess(rows):
    while (rows.sepal_length == {slow}).any() and not pathlib.Path({go!r}).exists():
        time.sleep(0.05)
    return rows
"""


def id_of(message: Message) -> bytes:
    return dict(message.headers() or ())[stream.PREDICTION] or b""


def test_outputs_that_are_written_again_after_a_crash_have_the_ids_of_the_first(
    tmp_path: Path,
) -> None:
    go = tmp_path / "go"
    chosen = side(tmp_path, preprocess=_WAITS.format(slow=SLOW, go=str(go)))
    with kafka.broker() as broker:
        told = settings(broker, "spark")
        broker.create(told.input, told.output, told.dead_letter, partitions=2)
        # The task of one partition ends, and that of the other waits, when Spark is killed.
        first = [{**each, "partition": 0} for each in messages(COUNT)]
        slow = {"key": "-1", "value": json.dumps({**row(0), "sepal_length": SLOW}), "partition": 1}
        broker.send(told.input, [*first, slow])
        job = tmp_path / stream_job.NAME
        job.write_text(stream_job.render(told, Plan(revision="1", sides=(chosen,))))
        running = spark.StreamJob(job, tmp_path / "checkpoint", tmp_path / "log")
        try:
            end = time.monotonic() + 150
            while len(broker.read(told.output)) < COUNT:
                running.check()
                assert time.monotonic() < end, running.log.read_text()[-3000:]
                time.sleep(0.5)  # each look is a consumer that begins and ends
            running.kill()
            go.touch()
            running = spark.StreamJob(job, tmp_path / "checkpoint", tmp_path / "log")
            outputs = broker.read(told.output, 2 * COUNT + 1)
            running.check()
        finally:
            running.kill()
    times = Counter(map(id_of, outputs))
    assert len(times) == COUNT + 1
    assert sum(count > 1 for count in times.values()) == COUNT
    kept = {id_of(each): each for each in reversed(outputs)}
    expected = Model.load(Path(chosen.bundle), None).predict([row(n) for n in range(COUNT)])
    numbers = sorted(int(each.key() or b"") for each in kept.values())
    assert numbers == [-1, *range(COUNT)]
    for each in kept.values():
        number = int(each.key() or b"")
        assert number == -1 or is_answer(each.value(), expected[number])
