"""The job of a stream for Spark: its file, and what an executor writes for messages."""

import runpy
from pathlib import Path
from typing import Any

import msgspec
import pandas as pd
import pytest

from mlship.domain import stream
from mlship.domain.digests import Digest
from mlship.domain.stream import Plan, Settings, Side, prediction_id
from mlship.runtime.stream import spark
from mlship.runtime.stream.link import Results
from mlship.runtime.stream.replies import Replies
from mlship.templates import stream_job

SETTINGS = Settings(brokers="b:1", group="g", input="in", output="out", dead_letter="dead")
SIDE = Side(
    slot="rone",
    release=Digest("sha256:1"),
    name="iris@one",
    bundle="/it's a bundle",
    digest=Digest("sha256:2"),
    weight=100,
)
PLAN = Plan(revision="1", sides=(SIDE,))


class Models:
    """Answers with the value in capitals; refuses `bad`."""

    def compute(self, asked: Any) -> dict[str, Results]:
        values = asked["rone"][1].values
        found = [None if each == b"bad" else each.upper() for each in values]
        faults = {n: ("no", "column") for n, each in enumerate(values) if each == b"bad"}
        return {"rone": Results(found, faults)}


def test_an_executor_writes_outputs_and_dead_letters_with_their_ids(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(spark._replies, "plan", Replies(SETTINGS, PLAN, Models()))
    frame = pd.DataFrame(
        {
            "key": [b"k", None],
            "value": [bytearray(b"a"), bytearray(b"bad")],
            "partition": [2, 2],
            "offset": [7, 8],
            "headers": [[{"key": "own", "value": bytearray(b"1")}], None],
            "time": [1000, 1001],
        }
    )
    [written] = spark.answered("", "plan", iter([frame]))
    assert list(written.topic) == ["out", "dead"]
    assert list(written.value) == [b"A", b"bad"]
    headers = [{each["key"]: each["value"] for each in row} for row in written.headers]
    assert headers[0]["own"] == b"1"
    assert headers[0][stream.PREDICTION] == prediction_id("in", 2, 7, 1000).encode()
    assert (headers[1][stream.REASON], headers[1][stream.OFFSET]) == (b"no", b"8")


def test_the_file_of_a_job_gives_what_was_rendered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(spark, "run", lambda *texts, checkpoint: told.extend((*texts, checkpoint)))
    monkeypatch.setattr("sys.argv", ["job", "kept"])
    (tmp_path / stream_job.NAME).write_text(stream_job.render(SETTINGS, PLAN))
    runpy.run_path(str(tmp_path / stream_job.NAME))
    assert msgspec.json.decode(told[0], type=Settings) == SETTINGS
    assert msgspec.json.decode(told[1], type=Plan) == PLAN
    assert told[2] == "kept"
