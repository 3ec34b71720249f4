"""Streams on a real broker: what is lost or repeated under kills, the rate, and the latency.

    python benchmarks/stream.py chaos --messages 1000000 --kills 50 --restarts 5 --rebalances 20
    python benchmarks/stream.py chaos --messages 200000 --kills 20 --control
    python benchmarks/stream.py rate --messages 200000
    python benchmarks/stream.py latency --per-second 5000 --seconds 60
    python benchmarks/stream.py sides --keys 100000
    python benchmarks/stream.py route --messages 100000 --changes 100 --seconds 120
    python benchmarks/stream.py poison --messages 20000

Run it with the project's folder in PYTHONPATH; the broker is that of the tests (`.ci/kafka`). The
control writes outputs and then commits offsets, without transactions.
"""

import argparse
import contextlib
import functools
import http.client
import json
import os
import random
import signal
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgspec
from confluent_kafka import Consumer, Producer, TopicPartition

from mlship.adapters.streams.workers import LocalWorkers
from mlship.domain.deployment import slot_of
from mlship.domain.stream import Plan, Settings
from mlship.runtime.model import Model
from tests.harness import kafka, streams
from tests.harness.kafka import Broker
from tests.harness.streams import Notes, is_answer, row, running, settings, side

_ASKING = 8
CYCLE = 4000
"""So many different rows are sent in turn; outputs are compared with their answers offline."""


@contextmanager
def stream(
    arguments: argparse.Namespace, **changed: Any
) -> Iterator[tuple[Broker, Settings, Path]]:
    """Give a broker with the topics of a stream, and a folder."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        broker = stack.enter_context(kafka.broker())
        changed = {"is_transactional": not arguments.control, **changed}
        told = settings(broker, "bench", **changed)
        broker.create(told.input, told.output, told.dead_letter, partitions=arguments.partitions)
        yield broker, told, folder


def feed(broker: Broker, topic: str, count: int, per_second: float = 0.0) -> None:
    """Write numbered messages, at a rate if one is given."""
    values = [json.dumps(row(number)).encode() for number in range(CYCLE)]
    options = {
        "bootstrap.servers": broker.address,
        "log_level": "2",
        "linger.ms": "2",
        "enable.idempotence": "true",
    }
    producer = Producer({**options, "message.timeout.ms": "300000"})
    started = time.monotonic()
    for number in range(count):
        while True:
            try:
                producer.produce(topic, values[number % CYCLE], str(number))
                break
            except BufferError:
                producer.poll(0.05)
        if number % 50 == 0:
            producer.poll(0)
            if per_second:
                time.sleep(max(0.0, started + number / per_second - time.monotonic()))
    producer.flush(300)


def outputs(broker: Broker, topic: str, least: int, seconds: float) -> Iterator[Any]:
    """Yield committed messages of a topic until there are so many, and some time after."""
    consumer = Consumer(
        {
            "bootstrap.servers": broker.address,
            "group.id": "reader",
            "log_level": "2",
            "enable.auto.commit": "false",
            "isolation.level": "read_committed",
        }
    )
    numbers = consumer.list_topics(topic, timeout=30).topics[topic].partitions
    consumer.assign([TopicPartition(topic, number, 0) for number in numbers])
    seen, quiet, end = 0, 0, time.monotonic() + seconds
    while time.monotonic() < end and quiet < 20:
        batch = [each for each in consumer.consume(5000, 0.1) if each.error() is None]
        seen += len(batch)
        quiet = quiet + 1 if not batch and seen >= least else 0
        yield from batch
    consumer.close()


def chaos(arguments: argparse.Namespace) -> dict[str, Any]:
    """Kill workers and brokers while messages flow, and count what comes out."""
    done: Counter[str] = Counter()
    with stream(arguments, max_rows=arguments.max_rows) as (broker, told, folder):
        chosen = side(folder)
        plan = Plan(revision="1", sides=(chosen,))
        notes = Notes()
        started = time.monotonic()
        with running(folder / "state", told, plan, 2, notes) as workers:
            argv = (broker, told.input, arguments.messages, arguments.messages / arguments.seconds)
            feeder = threading.Thread(target=feed, args=argv)
            feeder.start()
            disturb(arguments, broker, workers, (folder, told, plan), done)
            feeder.join()
            counted: Counter[int] = Counter()
            expected = answers(Path(chosen.bundle))
            wrong = 0
            for each in outputs(broker, told.output, arguments.messages, arguments.seconds + 600):
                number = int(each.key())
                counted[number] += 1
                wrong += not is_answer(each.value(), expected[number % CYCLE])
    return {
        "mode": "at least once" if arguments.control else "exactly once",
        "messages": arguments.messages,
        "disturbed": dict(done),
        "missing": arguments.messages - len(counted),
        "twice": sum(times - 1 for times in counted.values()),
        "wrong": wrong,
        "aborted": sum("aborted a transaction" in line for line in notes.lines),
        "seconds": round(time.monotonic() - started, 1),
    }


def answers(bundle: Path) -> list[dict[str, Any]]:
    """Return the outputs of the rows, computed offline."""
    return list(Model.load(bundle, None).predict([row(number) for number in range(CYCLE)]))


def disturb(
    arguments: argparse.Namespace,
    broker: Broker,
    workers: LocalWorkers,
    another: tuple[Path, Settings, Plan],
    done: Counter[str],
) -> None:
    """Kill and pause workers, restart the broker, and have a worker join and leave."""
    generator = random.Random(arguments.seed)
    deeds = ["kills"] * arguments.kills + ["restarts"] * arguments.restarts
    deeds += ["rebalances"] * arguments.rebalances + ["pauses"] * arguments.pauses
    generator.shuffle(deeds)
    folder, told, plan = another
    pause = arguments.seconds / (len(deeds) + 1)
    for deed in deeds:
        time.sleep(pause * generator.uniform(0.2, 1.0))
        if deed == "kills":
            alive = processes(workers)
            if alive:
                os.kill(generator.choice(alive), signal.SIGKILL)
        elif deed == "pauses":
            # Longer than a session: its partitions go to the other worker, and it is fenced.
            process = generator.choice(processes(workers))
            os.kill(process, signal.SIGSTOP)
            time.sleep(14)
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGCONT)
        elif deed == "restarts":
            broker.stop(generator.choice((signal.SIGTERM, signal.SIGKILL)))
            broker.start()
        else:
            environment = {**os.environ}
            third = LocalWorkers(folder / "third", told, environment, Notes(), host="third")
            third.start(plan, 1)
            time.sleep(0.5)
            third.stop()
        done[deed] += 1


def processes(workers: LocalWorkers) -> list[int]:
    """Return the ids of the processes of workers that run."""
    found = [each.process for each in workers._workers]  # noqa: SLF001 (what a kill needs)
    return [each._popen.pid for each in found if each is not None and each.is_alive]  # noqa: SLF001


def rate(arguments: argparse.Namespace) -> dict[str, Any]:
    """Compare the messages per second with those of the control, in turns."""
    rates: dict[str, list[float]] = {"exactly once": [], "at least once": []}
    for number in range(2 * arguments.turns):
        name = list(rates)[number % 2]
        with stream(arguments, is_transactional=name == "exactly once", max_ms=100) as parts:
            broker, told, folder = parts
            told = msgspec.structs.replace(told, max_rows=arguments.max_rows)
            feed(broker, told.input, arguments.messages)
            plan = Plan(revision="1", sides=(side(folder),))
            with running(folder / "state", told, plan, arguments.workers):
                started = time.monotonic()
                first = 0.0
                seen = 0
                for _ in outputs(broker, told.output, arguments.messages, 300):
                    first = first or time.monotonic()
                    seen += 1
                    if seen == arguments.messages:
                        break
                rates[name].append(seen / (time.monotonic() - (first or started)))
    exactly, least = (statistics.median(rates[name]) for name in rates)
    return {
        "messages": arguments.messages,
        "exactly once per second": round(exactly),
        "at least once per second": round(least),
        "ratio": round(exactly / least, 3),
    }


def latency(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure the time from the write of a message to the read of its committed output."""
    count = int(arguments.per_second * arguments.seconds)
    with stream(arguments) as (broker, told, folder):
        plan = Plan(revision="1", sides=(side(folder),))
        with running(folder / "state", told, plan, arguments.workers):
            argv = (broker, told.input, count, arguments.per_second)
            feeder = threading.Thread(target=feed, args=argv)
            feeder.start()
            read = outputs(broker, told.output, count, arguments.seconds + 60)
            taken = [time.time() * 1000 - each.timestamp()[1] for each in read]
            feeder.join()
    taken = taken[count // 10 :]
    cut = statistics.quantiles(taken, n=1000)
    return {
        "per second": arguments.per_second,
        "messages": count,
        "p50 ms": round(cut[499]),
        "p99 ms": round(cut[989]),
        "max ms": round(max(taken)),
    }


def sides(arguments: argparse.Namespace) -> dict[str, Any]:
    """Compare the side of each key with the one that Envoy gives it over HTTP."""
    from mlship.config.project import TargetConfig
    from mlship.runtime.stream.sides import Choice
    from tests.harness.places import place
    from tests.harness.samples import release

    config = TargetConfig(ready_seconds=20, drain_seconds=3, sticky_header="x-user")
    with tempfile.TemporaryDirectory() as folder, place(Path(folder), config) as local:
        releases = [release(name) for name in ("one", "two", "three")]
        for each in releases:
            local.deploy(each)
        weights = dict(zip(map(slot_of, releases), (35, 5, 60), strict=True))
        local.route(weights)
        choice = Choice(
            [
                msgspec.structs.replace(
                    streams.side(Path(folder), "a"), slot=slot, weight=weights[slot]
                )
                for slot in sorted(weights)
            ]
        )
        port = local.port

        def differ(numbers: range) -> int:
            """Ask for keys on a connection of its own; return how many are on another side."""
            connection, other = http.client.HTTPConnection("127.0.0.1", port, timeout=30), 0
            for number in numbers:
                key = f"customer-{number}-{number * 7919 % 10007}"
                connection.request("POST", "/predict", b"{}", {"x-user": key})
                slot = json.loads(connection.getresponse().read())["slot"]
                other += choice.of(key.encode()).slot != slot
            return other

        with ThreadPoolExecutor(_ASKING) as pool:
            parts = [range(first, arguments.keys, _ASKING) for first in range(_ASKING)]
            other = sum(pool.map(differ, parts))
    return {"keys": arguments.keys, "on another side than over HTTP": other}


def route(arguments: argparse.Namespace) -> dict[str, Any]:
    """Change the route while messages flow, and measure until all workers follow it."""
    notes = Notes()
    with stream(arguments) as (broker, told, folder):
        one, two = side(folder, "a"), side(folder, "b")
        plan = Plan(revision="0", sides=(one,))
        with running(folder / "state", told, plan, 2, notes) as workers:
            argv = (broker, told.input, arguments.messages, arguments.messages / arguments.seconds)
            feeder = threading.Thread(target=feed, args=argv)
            feeder.start()
            taken = []
            for number in range(1, arguments.changes + 1):
                chosen = (two, one)[number % 2 == 0]
                started = time.monotonic()
                workers.follow(Plan(revision=str(number), sides=(chosen,)))
                streams.until(functools.partial(are_following, notes, number))
                taken.append(time.monotonic() - started)
                time.sleep(max(0.0, arguments.seconds / arguments.changes - taken[-1]))
            feeder.join()
            counted = Counter(
                int(each.key()) for each in outputs(broker, told.output, arguments.messages, 120)
            )
    return {
        "changes": arguments.changes,
        "messages": arguments.messages,
        "missing": arguments.messages - len(counted),
        "twice": sum(times - 1 for times in counted.values()),
        "restarts": sum("starts again" in line for line in notes.lines),
        "first change s": round(taken[0], 2),
        "median s": round(statistics.median(taken), 3),
        "longest later s": round(max(taken[1:]), 2),
    }


def are_following(notes: Notes, number: int) -> bool:
    """Tell whether both workers follow a route."""
    return sum(f"follows route {number}:" in line for line in notes.lines) == 2


def poison(arguments: argparse.Namespace) -> dict[str, Any]:
    """Send messages of which every other one is poison, and count outputs and dead letters."""
    kinds = [b"{", b"[]", b"", b'{"sepal_length": "x"}', json.dumps({**row(1), "more": 1}).encode()]
    with stream(arguments) as (broker, told, folder):
        good = json.dumps(row(1)).encode()
        sent = [
            {"key": str(n), "value": good if n % 2 else kinds[n // 2 % len(kinds)]}
            for n in range(arguments.messages)
        ]
        broker.send(told.input, sent)
        with running(folder / "state", told, Plan(revision="1", sides=(side(folder),))):
            half = arguments.messages // 2
            answered = [int(each.key()) for each in outputs(broker, told.output, half, 120)]
            dead = [int(each.key()) for each in outputs(broker, told.dead_letter, half, 120)]
    return {
        "poison": half,
        "in the dead-letter topic": len(set(dead)),
        "there twice": len(dead) - len(set(dead)),
        "good ones answered": len(set(answered)),
        "on the wrong side": sum(n % 2 == 0 for n in answered) + sum(n % 2 for n in dead),
    }


def main() -> None:
    """Run a measurement and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=tuple(MEASURES))
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--restarts", type=int, default=1)
    parser.add_argument("--rebalances", type=int, default=4)
    parser.add_argument("--pauses", type=int, default=0)
    parser.add_argument("--partitions", type=int, default=6)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--max-rows", type=int, default=5000)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--per-second", type=float, default=5000.0)
    parser.add_argument("--changes", type=int, default=100)
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--control", action="store_true", help="without transactions")
    arguments = parser.parse_args()
    print(json.dumps(MEASURES[arguments.what](arguments), indent=2))


MEASURES = {
    "chaos": chaos,
    "rate": rate,
    "latency": latency,
    "sides": sides,
    "route": route,
    "poison": poison,
}


if __name__ == "__main__":
    main()
