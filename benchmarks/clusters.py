"""Champion and challenger in clusters of their own: the whole story and the faults, under load.

    BLUE=KUBECONFIG GREEN=KUBECONFIG python benchmarks/clusters.py story [REQUESTS]
    BLUE=... GREEN=... python benchmarks/clusters.py control|split
    BLUE=... GREEN=... python benchmarks/clusters.py fault KIND [SECONDS]
    BLUE=... GREEN=... python benchmarks/clusters.py command

Blue has the parent: mlship's own, or with the option `--gateway` the Gateway `gateway/gateway`. At
100 requests a second through it:

- `story`: champion in blue, challenger in green at 10 %, all pods of the parent and of the champion
  replaced, promote, rollback, promote, retire blue, the next challenger in blue; repeated until so
  many requests were sent. `control` is one turn whose pods end without draining.
- `split`: the split of 10,000 requests, and 1,000 users who ask twice.
- `fault`: at 20 % in green, for a minute: the Service by which the parent reaches the challenger is
  deleted (`entry`); green's API server is stopped (`server`); all processes of green's pods are
  killed, and none is started (`pods`); all packets to green are dropped (`network`); one of two
  pods of the parent is killed (`parent`). Then a rollback to the champion while green is still
  gone.
- `command`: how long `mlship rollback` and `mlship status` take while all packets to green, where
  the champion is, are dropped.

At a Gateway no pod of the parent is replaced or killed, and no user stays with a release.

The faults need clusters on this machine, in a network namespace each, as `kube-green`, whose state
is in the kubeconfig's folder. Only green, and the parent's pods, are harmed.
"""

import functools
import math
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import httpx

sys.path.insert(0, str(Path(__file__).parents[1]))

from mlship.adapters.targets.kubernetes import router_manifests
from mlship.domain import shapes
from mlship.domain.deployment import slot_of
from mlship.domain.facts import Crowned
from mlship.domain.release import Release
from mlship.steps.replay import kept
from tests.harness.clusters import GATEWAY
from tests.harness.pair import Pair, pair, project_of
from tests.harness.samples import release
from tests.harness.twice import Shop, won
from tests.integration.test_kubernetes_load import replace_router, restart

RATE = 100
NAMES = ["one", "two", "three", "four", "five", "six", "seven", "eight"]


class Answer(NamedTuple):
    """When a request was sent and answered, and by which slot, or why not."""

    sent: float
    ended: float
    slot: str
    fault: str


class Requests:
    """Sends requests when they are due, and keeps every answer."""

    def __init__(self, url: str) -> None:
        self.answers: list[Answer] = []
        self._url = url
        self._ended = threading.Event()

    def send(self, client: httpx.Client) -> None:
        """Send a request, and keep what became of it."""
        sent, slot, fault = time.monotonic(), "", ""
        try:
            response = client.post(self._url, json={})
            if response.is_success:
                slot = response.json()["slot"]
            else:
                fault = f"{response.status_code} {response.text[:120]}"
        except httpx.HTTPError as error:
            fault = type(error).__name__
        self.answers.append(Answer(sent, time.monotonic(), slot, fault))

    def run(self) -> None:
        """Send requests at the rate until the end."""
        with httpx.Client(timeout=10, limits=kept()) as client, ThreadPoolExecutor(48) as pool:
            due = time.monotonic()
            while not self._ended.is_set():
                pool.submit(self.send, client)
                due += 1 / RATE
                time.sleep(max(0.0, due - time.monotonic()))

    @contextmanager
    def running(self) -> Iterator[None]:
        """Send requests while the block runs."""
        thread = threading.Thread(target=self.run)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            thread.join()

    def said(self) -> str:
        """Return the number of requests and of failures, with their reasons."""
        faults = Counter(answer.fault for answer in self.answers if answer.fault)
        count = sum(faults.values())
        return f"{count} of {len(self.answers)} failed {dict(faults) or ''}".rstrip()


def story(place: Pair, requests: int) -> None:
    """Print the failures, and how long each change took."""
    names = iter(map(release, NAMES))
    champion = next(names)
    place.deploy(champion, replicas=2, **behaviour(place))
    place.route((champion, 100))
    took: dict[str, float] = {}
    sent = Requests(place.url)
    with sent.running():
        while True:
            challenger = next(names)
            turn(place, champion, challenger, took)
            champion = challenger
            print(f"  champion is in {cluster_of(place, champion)}; {sent.said()}", flush=True)
            if len(sent.answers) >= requests:
                break
    print(f"story        {sent.said()}; the slowest: {shown(took)}", flush=True)


def turn(place: Pair, champion: Release, challenger: Release, took: dict[str, float]) -> None:
    """Take a challenger from its deployment to champion, and retire the old one."""
    home = cluster_of(place, champion)
    place.deploy(challenger, replicas=2, **behaviour(place))
    steps: list[tuple[str, tuple[tuple[Release, int], ...]]] = [
        ("challenge", ((champion, 90), (challenger, 10))),
        ("promote", ((challenger, 100),)),
        ("roll back", ((champion, 100),)),
        ("promote", ((challenger, 100),)),
    ]
    for name, shares in steps:
        seconds = timed(functools.partial(place.route, *shares))
        took[name] = max(took.get(name, 0.0), seconds)
        time.sleep(8)
        if name == "challenge":
            if place.config.kubernetes.gateway is None:
                replace_router(place.blue)
            restart(place.blue if home == "blue" else place.green, slot_of(champion))
    place.target.remove(slot_of(champion))


def behaviour(place: Pair) -> dict[str, bool]:
    """Return how pods end: at a Gateway as those of the runtime, for nobody repeats a request."""
    return {"drains": True} if place.config.kubernetes.gateway is not None else {}


def shares_and_users(place: Pair) -> None:
    """Print the split of 10,000 requests, and how many of 1,000 users stay with a release."""
    one, two = release("one"), release("two")
    place.deploy(one)
    place.route((one, 100))
    place.deploy(two)
    place.route((one, 90), (two, 10))
    count = 10_000
    with httpx.Client(timeout=10) as client:
        by_slot = Counter(asked(client, place.url) for _ in range(count))
    sigmas = (by_slot[slot_of(two)] - 0.1 * count) / math.sqrt(count * 0.1 * 0.9)
    print(f"split        {dict(by_slot)}: {sigmas:+.2f} sigma from 10 %", flush=True)
    if place.config.kubernetes.gateway is not None:
        return
    with httpx.Client(timeout=10) as client:
        first = [asked(client, place.url, str(user)) for user in range(1000)]
    with httpx.Client(timeout=10) as client:
        second = [asked(client, place.url, str(user)) for user in range(1000)]
    stayed = sum(before == after for before, after in zip(first, second, strict=True))
    print(f"sticky       {stayed} of 1000 users stayed, {len(set(first))} slots", flush=True)


def asked(client: httpx.Client, url: str, user: str = "") -> str:
    """Return the slot that answers, or the status."""
    response = client.post(url, json={}, headers={"x-user": user} if user else {})
    return str(response.json()["slot"]) if response.is_success else str(response.status_code)


def fault(place: Pair, kind: str, seconds: float) -> None:
    """Print who answers while something is broken, and how long the fall back took."""
    one, two = release("one"), release("two")
    place.deploy(one, replicas=2)
    place.route((one, 100))
    place.deploy(two, replicas=2)
    place.route((one, 80), (two, 20))
    sent = Requests(place.url)
    back = ""
    with sent.running():
        time.sleep(5)
        with FAULTS[kind](place, two):
            broken = time.monotonic()
            time.sleep(seconds)
            if kind != "parent":
                back = rolled_back(place, one)
                time.sleep(2)
    report(kind, sent, broken, slot_of(two), back)


def rolled_back(place: Pair, former: Release) -> str:
    """Do what `mlship rollback` does in the clusters; return how long it took."""
    ready = timed(functools.partial(place.deploy, former, replicas=2))
    moved = timed(functools.partial(place.route, (former, 100)))
    return f"; rollback {ready + moved:.2f} s, of which the route {moved:.2f} s"


def report(kind: str, sent: Requests, broken: float, slot: str, back: str) -> None:
    """Print who answered since something broke."""
    after = [answer for answer in sent.answers if answer.ended >= broken]
    late = max((a.ended - a.sent for a in after), default=math.nan)
    failed = [answer for answer in after if answer.fault]
    last_fault = max((a.ended - broken for a in failed), default=0.0)
    last = max((a.ended - broken for a in after if a.slot == slot), default=0.0)
    by_slot = dict(Counter(answer.slot or answer.fault for answer in after))
    text = f"fault {kind:8} {sent.said()}; since then {by_slot}; the slowest answer {late:.2f} s"
    text += f", the last failure after {last_fault:.2f} s, the last by the challenger {last:.2f} s"
    text += f"; {load_of_machine()}"
    print(f"{text}{back}", flush=True)


def by_command(place: Pair) -> None:
    """Print how long a rollback by the command line takes while green is gone."""
    with tempfile.TemporaryDirectory() as folder:
        project, former, champion = project_of((place.blue, place.green), Path(folder))
        for made in (former, champion):
            project.plain("deploy-production", str(made))
        won(Shop(project.folder, {}), former, champion)
        project.plain("promote", "challenger")
        with no_network(place, champion):
            whole = timed(lambda: project.plain("rollback"))
            shown = timed(lambda: project.plain("status"))
        last = project.pipeline().read().history.last
        assert last is not None
        moved = shapes.of(last, Crowned).seconds
    text = f"rollback by the command {whole:.2f} s, of which its sub-steps {moved:.2f} s"
    print(f"{text}; status {shown:.2f} s; {load_of_machine()}", flush=True)


@contextmanager
def no_entry(place: Pair, challenger: Release) -> Iterator[None]:
    """Delete the challenger's Service."""
    with place.green.api() as api:
        api.delete("Service", place.scope.object(slot_of(challenger)))
    yield


@contextmanager
def no_server(place: Pair, challenger: Release) -> Iterator[None]:
    """Stop green's API server."""
    del challenger
    pid = int((place.green.path.parent / "run" / "kube-apiserver.pid").read_text())
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextmanager
def no_pods(place: Pair, challenger: Release) -> Iterator[None]:
    """Kill all processes of green's pods, while its kubelet stands still and starts no others.

    Pods that start again and again would take the processors from blue, which is on this machine.
    """
    del challenger
    home = place.green.path.parent
    kubelet = int((home / "run" / "kubelet.pid").read_text())
    socket = f"/run/kubenode/{home.name}/containerd.sock"
    argv = ["ctr", "--address", socket, "-n", "k8s.io", "tasks", "ls"]
    os.kill(kubelet, signal.SIGSTOP)
    try:
        lines = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
        for line in lines.splitlines()[1:]:
            # A task that has ended has no process.
            with suppress(ProcessLookupError, IndexError, ValueError):
                os.kill(int(line.split()[1]), signal.SIGKILL)
        yield
    finally:
        os.kill(kubelet, signal.SIGCONT)


@contextmanager
def no_network(place: Pair, challenger: Release) -> Iterator[None]:
    """Drop all packets to green."""
    del challenger
    home = place.green.path.parent
    link = f"kube{(home / 'number').read_text().strip()}n"
    base = ["nsenter", f"--net=/run/netns/kube-{home.name}", "iptables", "-t", "raw"]
    rule = ["PREROUTING", "-i", link, "-j", "DROP"]
    subprocess.run([*base, "-I", *rule], check=True)
    try:
        yield
    finally:
        subprocess.run([*base, "-D", *rule], check=True)


@contextmanager
def one_parent(place: Pair, challenger: Release) -> Iterator[None]:
    """Kill one of the parent's pods."""
    del challenger
    with place.blue.api() as api:
        pod = api.list("Pod", router_manifests.selector_of(place.scope))[0]
        api.delete("Pod", pod["metadata"]["name"], grace=0)
    yield


FAULTS = {
    "entry": no_entry,
    "server": no_server,
    "pods": no_pods,
    "network": no_network,
    "parent": one_parent,
}


def cluster_of(place: Pair, made: Release) -> str:
    """Return where a release runs."""
    return place.target.inspect()[slot_of(made)].cluster


def load_of_machine() -> str:
    """Return how many processes wanted a core in the last minute, for comparisons."""
    return f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"


def timed(act: Callable[[], object]) -> float:
    """Return the duration of something."""
    started = time.monotonic()
    act()
    return time.monotonic() - started


def shown(took: dict[str, float]) -> str:
    """Return durations for people."""
    return ", ".join(f"{name} {seconds:.2f} s" for name, seconds in took.items())


def main(what: str, *rest: str) -> None:
    """Run one part of the benchmark."""
    blue, green = Path(os.environ["BLUE"]), Path(os.environ["GREEN"])
    gateway = GATEWAY if "--gateway" in rest else None
    rest = tuple(each for each in rest if each != "--gateway")
    with pair(blue, green, gateway) as place:
        if what == "fault":
            fault(place, rest[0], float(rest[1]) if rest[1:] else 60)
        elif what == "command":
            by_command(place)
        elif what == "control":
            place.target = place.again(drain_seconds=0, kubernetes_prestop_seconds=0)
            story(place, 0)
        elif what == "split":
            shares_and_users(place)
        else:
            story(place, int(rest[0]) if rest else 20_000)


if __name__ == "__main__":
    main(*sys.argv[1:])
