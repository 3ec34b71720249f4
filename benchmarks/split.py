"""Requests that fail while one side of a split has no replica, with and without the fall back.

    python benchmarks/split.py local [SECONDS]
    TEST_KUBECONFIG=... python benchmarks/split.py plain [SECONDS]
    python benchmarks/split.py poison [COUNT]
    python benchmarks/split.py slow [COUNT]

At 100 requests a second, each with a control in the same run in which the protection is off:

- `local` and `plain`: the champion at 80 % and the challenger at 20 %. For half of the time, the
  challenger is dead: all its replicas are killed, and none starts. `plain` is a cluster whose
  load balancer is mlship's own.
- `poison`: requests that end the replica that gets them, of two, one a second.
- `slow`: clients that send a request a byte at a time, half of them its headers and half its
  body. The control has Envoy's own deadlines.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest import mock

import httpx

sys.path.insert(0, str(Path(__file__).parents[1]))

from clusters import Requests, load_of_machine

from mlship.adapters.targets.envoy import limits, routes
from mlship.adapters.targets.kubernetes.api import path
from mlship.adapters.targets.local import Safeguards, envoy, loopback
from mlship.domain.deployment import Slot
from tests.harness import clusters
from tests.harness.clusters import Cluster
from tests.harness.places import Place, place
from tests.harness.samples import release
from tests.harness.sockets import unused_port

ONE, TWO = release("one"), release("two")


def local(seconds: float, *, is_guarded: bool) -> str:
    """Let the challenger of a local target be dead for half of the time."""
    with tempfile.TemporaryDirectory() as folder, place(Path(folder)) as target:
        target.target = target.again(safeguards=Safeguards(fallback=is_guarded))
        one, two = target.deploy(ONE), target.deploy(TWO)
        target.route({one: 80, two: 20})
        url = target.target.routes().endpoint
        return while_dead(url, two, seconds, lambda: no_replica(target, two))


@contextmanager
def no_replica(target: Place, slot: Slot) -> Iterator[None]:
    """Kill the replicas of a slot, and let each further one fail."""
    behaviour = target.folder / "bundles" / slot / "stand-in.json"
    behaviour.write_text('{"fail": "no memory"}')
    for replica in target.running.replicas:
        if replica.slot == slot:
            os.kill(replica.process.pid, signal.SIGKILL)
    try:
        yield
    finally:
        behaviour.write_text("{}")


def plain(seconds: float, *, is_guarded: bool) -> str:
    """Let the challenger of a plain cluster be dead for half of the time."""
    with ExitStack() as stack:
        if not is_guarded:
            stack.enter_context(mock.patch.object(routes, "others", return_value=[]))
        target = stack.enter_context(clusters.cluster(is_plain=True))
        one, two = target.deploy(ONE, replicas=2), target.deploy(TWO, replicas=2)
        target.route({one: 80, two: 20})
        url = target.target.routes().endpoint
        return while_dead(url, two, seconds, lambda: no_pod(target, two))


@contextmanager
def no_pod(target: Cluster, slot: Slot) -> Iterator[None]:
    """Kill the pods of a slot, and start no others."""
    scale(target, slot, 0)
    with target.api() as api:
        for pod in target.pods(slot):
            api.delete("Pod", pod["metadata"]["name"], grace=0)
    try:
        yield
    finally:
        scale(target, slot, 2)


def scale(target: Cluster, slot: Slot, replicas: int) -> None:
    """Set the number of pods of a slot."""
    where = path("Deployment", target.namespace, target.scope.object(slot))
    headers = {"content-type": "application/merge-patch+json"}
    target.kubectl("PATCH", where, json={"spec": {"replicas": replicas}}, headers=headers)


def while_dead(
    url: str,
    slot: Slot,
    seconds: float,
    dead: Callable[[], contextlib.AbstractContextManager[None]],
) -> str:
    """Send requests, half of the time while a slot is dead; return what became of them."""
    sent = Requests(f"{url}/predict")
    with sent.running():
        time.sleep(seconds / 4)
        started = time.monotonic()
        with dead():
            time.sleep(seconds / 2)
            ended = time.monotonic()
        time.sleep(seconds / 4)
    slowest = max(answer.ended - answer.sent for answer in sent.answers)
    shares = []
    for name, first, last in (
        ("before", 0.0, started),
        ("dead", started + 1, ended),
        ("after", ended, time.monotonic()),
    ):
        part = [answer.slot for answer in sent.answers if first <= answer.sent < last]
        shares.append(f"{name} {part.count(slot)} of {len(part)}")
    failures = [
        f"{answer.fault.partition(' ')[0]} at {answer.sent - started:+.2f} s of the death, after "
        f"{answer.ended - answer.sent:.2f} s"
        for answer in sent.answers
        if answer.fault
    ]
    text = f"{sent.said()}; the slowest answer {slowest:.2f} s; by the challenger: "
    return "; ".join([text + ", ".join(shares), *failures[:3]])


def poison(count: int, *, is_guarded: bool) -> str:
    """Send requests that end a replica; return how many replicas they cost, and other requests."""
    with ExitStack() as stack:
        if not is_guarded:
            former = "connect-failure,refused-stream,reset"
            stack.enter_context(mock.patch.object(routes, "RETRY_ON", former))
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        target = stack.enter_context(place(Path(folder)))
        slot = target.deploy(ONE, replicas=2)
        target.route({slot: 100})
        url = target.target.routes().endpoint
        sent, ends = Requests(f"{url}/predict"), []
        with sent.running():
            for _ in range(count):
                before = pids(target)
                httpx.post(url, json={}, headers={"poison": "yes"}, timeout=20)
                time.sleep(0.3)
                ends.append(len(before - pids(target)))
                clusters.until(lambda: target.target.inspect()[slot].ready == 2, seconds=60)
                # A replica that was ready for two seconds is started again at once.
                time.sleep(2.5)
    return f"{sent.said()}; replicas that a request ended: {dict(Counter(ends))}"


def pids(target: Place) -> set[int]:
    """Return the processes of all replicas."""
    return {replica.process.pid for replica in target.running.replicas}


def slow(count: int, *, is_guarded: bool) -> str:
    """Connect slow clients; return what the others got, and when the last slow one was let go."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        target = stack.enter_context(place(Path(folder)))
        slot = target.deploy(ONE, replicas=2)
        target.route({slot: 100})
        port = target.port if is_guarded else stack.enter_context(without_deadlines(target))
        ended: list[float] = []
        sent = Requests(f"http://127.0.0.1:{port}/predict")
        with sent.running():
            time.sleep(5)
            started = time.monotonic()
            trickle(port, count, ended)
    before, during = percentile(sent, 0, started), percentile(sent, started, time.monotonic())
    text = f"{sent.said()}; p99 {before * 1000:.0f} ms before, {during * 1000:.0f} ms meanwhile; "
    text += f"{len(ended)} of {count} slow clients let go"
    return text + (f", the last after {max(ended):.1f} s" if ended else "")


def percentile(sent: Requests, first: float, last: float) -> float:
    """Return the 99th percentile of the latencies of requests that were sent in a time."""
    took = sorted(each.ended - each.sent for each in sent.answers if first <= each.sent < last)
    return took[len(took) * 99 // 100]


@contextmanager
def without_deadlines(target: Place) -> Iterator[int]:
    """Run a second router with Envoy's own deadlines; give its port."""
    document = json.loads(target.state.bootstrap.read_text())
    (listener,) = document["static_resources"]["listeners"]
    (chain,) = listener["filter_chains"]
    for name in limits.DEADLINES:
        del chain["filters"][0]["typed_config"][name]
    port = unused_port()
    listener["address"]["socket_address"]["port_value"] = port
    document["admin"]["address"]["pipe"]["path"] = str(target.folder / "second.socket")
    written = target.folder / "second.json"
    written.write_text(json.dumps(document))
    argv = [envoy.program(), "-c", str(written), "--disable-hot-restart", "--log-level", "error"]
    with subprocess.Popen([*argv, "--concurrency", "2"]) as process:
        try:
            clusters.until(lambda: loopback.listens(port, seconds=1))
            time.sleep(2)
            yield port
        finally:
            process.terminate()


def trickle(port: int, count: int, ended: list[float]) -> None:
    """Send a byte a second on each connection, until the router closes it or 45 s are over."""
    head = b"POST /predict HTTP/1.1\r\nhost: iris\r\ncontent-length: 1000\r\n\r\n"
    started = time.monotonic()
    alive = {}
    for number in range(count):
        made = socket.create_connection(("127.0.0.1", port), timeout=10)
        made.settimeout(0)
        made.send(head[:30] if number % 2 else head)
        alive[made] = number
    while alive and time.monotonic() - started < 45:
        time.sleep(0.5)
        for made in list(alive):
            try:
                made.send(b"x")
                if made.recv(1000) is not None:
                    raise ConnectionResetError
            except BlockingIOError:
                continue
            except OSError:
                ended.append(time.monotonic() - started)
                made.close()
                del alive[made]
    for made in alive:
        made.close()


def main(what: str, amount: str = "") -> None:
    """Print a line for each side."""
    if what in ("local", "plain"):
        run = {"local": local, "plain": plain}[what]
        print(f"protected   {run(float(amount or 60), is_guarded=True)}", flush=True)
        print(f"not         {run(float(amount or 60), is_guarded=False)}", flush=True)
    else:
        tried = {"poison": poison, "slow": slow}[what]
        default = {"poison": 10, "slow": 500}[what]
        print(f"protected   {tried(int(amount or default), is_guarded=True)}", flush=True)
        print(f"not         {tried(int(amount or default), is_guarded=False)}", flush=True)
    print(load_of_machine())


if __name__ == "__main__":
    main(*sys.argv[1:])
