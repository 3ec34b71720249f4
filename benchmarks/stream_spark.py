"""A stream as a job of Spark: killed while messages flow, and continued.

    python benchmarks/stream_spark.py --messages 20000

Spark and its connector for Kafka are those of the tests (`.ci/spark`). The job is the file that
`mlship stream render --engine spark` writes. Its sink writes at least once: outputs are counted
before and after those of an id that was there already are removed.
"""

import argparse
import json
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from stream import answers, feed, outputs

from mlship.domain import stream
from mlship.domain.stream import Plan
from mlship.templates import stream_job
from tests.harness import kafka, spark
from tests.harness.streams import is_answer, settings, side

CYCLE = 4000


def measure(count: int, seconds: float) -> dict[str, Any]:
    """Run the job, kill it, run it again, and count."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name, kafka.broker() as broker:
        folder = Path(name)
        told = settings(broker, "spark", max_rows=500)
        broker.create(told.input, told.output, told.dead_letter)
        chosen = side(folder)
        job, log = folder / stream_job.NAME, folder / "log"
        job.write_text(stream_job.render(told, Plan(revision="1", sides=(chosen,))))
        broker.send(told.input, [{"value": b"no", "key": b"-1"}])
        feeder = threading.Thread(target=feed, args=(broker, told.input, count, count / seconds))
        feeder.start()
        process = spark.StreamJob(job, folder / "checkpoint", log)
        before = 0
        deadline = time.monotonic() + 120
        while before < count // 3 and time.monotonic() < deadline:
            before = len(broker.read(told.output, 0, 5))
            process.check()
        process.kill()
        process = spark.StreamJob(job, folder / "checkpoint", log)
        counted: Counter[str] = Counter()
        keys, wrong = set(), 0
        expected = answers(Path(chosen.bundle))
        for each in outputs(broker, told.output, count, seconds + 150):
            counted[(dict(each.headers() or ())[stream.PREDICTION] or b"").decode()] += 1
            number = int(each.key())
            keys.add(number)
            wrong += not is_answer(each.value(), expected[number % CYCLE])
        feeder.join()
        process.kill()
        dead = [each.key() for each in broker.read(told.dead_letter, 1, 10)]
    return {
        "messages": count,
        "outputs before the kill": before,
        "missing": count - len(keys),
        "wrong": wrong,
        "written twice": sum(counted.values()) - len(counted),
        "twice after ids that were there are removed": len(counted) - len(keys),
        "dead letters": len(dead),
    }


def main() -> None:
    """Print the figures; exit with 1 if a message was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=40.0)
    arguments = parser.parse_args()
    found = measure(arguments.messages, arguments.seconds)
    print(json.dumps(found, indent=2))
    sys.exit(bool(found["missing"] or found["wrong"]))


if __name__ == "__main__":
    main()
