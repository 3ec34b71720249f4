"""The whole story on the command line, under load: champion, challenger, outcomes, promotion.

    BLUE=KUBECONFIG GREEN=KUBECONFIG python benchmarks/story.py prepare FOLDER
    BLUE=KUBECONFIG GREEN=KUBECONFIG python benchmarks/story.py story FOLDER [--requests N]
    BLUE=KUBECONFIG GREEN=KUBECONFIG python benchmarks/story.py control FOLDER

Without GREEN, production is one cluster, which needs no Gateway. `prepare` trains, tests, builds
and pushes three releases of iris. `story` starts PostgreSQL for the predictions of all pods, and
runs at 100 requests a second: `deploy-production` (the challenger gets 10 %), `feedback`,
`evaluate`, `approve`, `promote`, `rollback`, `promote`, `retire`, and `deploy-production` of the
next challenger. In between, all pods of the load balancer and of the champion are replaced. Half of
the requests name one of 1,000 users, in the header that selects a release.

It prints how many requests failed, how long each switch of the traffic took, the split, how many
users stayed with a release, and which predictions the database has. `control` is the story until
the pods are replaced, with pods that end without draining.
"""

import argparse
import csv
import itertools
import math
import os
import random
import shutil
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import psycopg
import yaml

sys.path.insert(0, str(Path(__file__).parents[1]))

import demo

from mlship.adapters.ledgers.directory import DirectoryLedger
from mlship.adapters.targets.kubernetes.manifests import Scope
from mlship.domain.deployment import Slot
from mlship.steps.replay import kept
from tests.harness import postgres
from tests.harness.clusters import Cluster, new_namespace
from tests.harness.pair import production
from tests.harness.postgres import Server
from tests.integration.test_kubernetes_load import replace_router, restart

RATE = 100
USERS = 1000
CREDENTIALS = "predictions"
STEPS = ("train", "test", "containerize", "push-to-registry", "deploy-staging")
PROOF = "verify-staging-workload"
CHANGES = (
    ("features: [sepal_length, sepal_width]", f"features: [{', '.join(demo.MEASUREMENTS)}]"),
    ("C: 1.0", "C: 2.0"),
)


class Answer(NamedTuple):
    """When a request was sent and answered, for which user and with which outcome, and by whom.

    `fault` is empty if it succeeded; times are those of the machine's clock.
    """

    sent: float
    ended: float
    user: str
    outcome: str
    release: str
    prediction: str
    fault: str


class Requests:
    """Sends requests when they are due, and keeps every answer."""

    def __init__(self, url: str, rows: list[tuple[dict[str, float], str]]) -> None:
        self.answers: list[Answer] = []
        self._url, self._rows = url, rows
        self._ended = threading.Event()

    def send(self, client: httpx.Client, number: int) -> None:
        """Send a request, and keep what became of it; every second one has a user."""
        row, outcome = random.Random(number).choice(self._rows)
        user = "" if number % 2 else str(number // 2 % USERS)
        sent, release, prediction, fault = time.time(), "", "", ""
        try:
            response = client.post(self._url, json=row, headers={"x-user": user} if user else {})
            if response.is_success:
                body = response.json()
                release, prediction = body["release"], body["predictions"][0]["id"]
            else:
                fault = f"{response.status_code} {response.text[:80]}"
        except httpx.HTTPError as error:
            fault = type(error).__name__
        answer = Answer(sent, time.time(), user, outcome, release, prediction, fault)
        self.answers.append(answer)

    def run(self) -> None:
        """Send requests at the rate until the end."""
        with httpx.Client(timeout=10, limits=kept()) as client, ThreadPoolExecutor(48) as pool:
            due = time.monotonic()
            for number in itertools.count():
                if self._ended.is_set():
                    return
                pool.submit(self.send, client, number)
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


class Story:
    """A prepared project, its clusters, and the database for its predictions."""

    def __init__(self, folder: Path, places: list[Cluster], database: Server) -> None:
        self.folder, self.places = folder, places
        self._database = database
        self._url = database.create("iris")
        os.environ["PGPASSWORD"] = database.password
        for place in places:
            place.scope = Scope(project="iris", target="production")
            place.secret(CREDENTIALS, PGPASSWORD=database.password)

    def configure(self, **settings: Any) -> None:
        """Write production, its clusters and the database into mlship.yaml, and commit it."""
        kubernetes = {"env_from_secret": CREDENTIALS, **settings.pop("kubernetes", {})}
        production = production_of(self.places, kubernetes, **settings)
        write(self.folder, production, self._url.replace(f":{self._database.password}@", "@"))
        demo.git(self.folder, "commit", "-qam", "Name the clusters and the database")

    def run(self, *arguments: str) -> None:
        """Run a command."""
        demo.mlship(self.folder, *arguments)

    def releases(self) -> list[str]:
        """Return the names of all releases, the oldest first."""
        records = DirectoryLedger(self.folder / ".mlship" / "ledger").records()
        steps = [record.evidence for record in records if record.evidence.step == "train"]
        return [str(evidence.release) for evidence in steps]

    def answered(self) -> Requests:
        """Return requests to production, none of which is sent yet."""
        url = f"{demo.production(self.folder)}/predict"
        return Requests(url, demo.flowers(self.folder))

    def learn_outcomes(self, sent: Requests) -> None:
        """Take in the outcomes of all predictions so far."""
        path = self.folder / ".mlship" / "outcomes.csv"
        with path.open("w", newline="") as file:
            rows = [(a.prediction, a.outcome) for a in list(sent.answers) if a.prediction]
            csv.writer(file).writerows([("prediction_id", "outcome"), *rows])
        self.run("feedback", str(path))

    def cluster_of(self, release: str) -> Cluster:
        """Return the cluster in which a release runs."""
        if len(self.places) == 1:
            return self.places[0]
        seen = demo.status(self.folder)["seen"]
        name = next(each["cluster"] for each in seen if release.startswith(each["release"]))
        return self.places[("blue", "green").index(name)]

    def replace_pods(self, release: str) -> None:
        """Replace all pods of the load balancer and of a release."""
        replace_router(self.places[0])
        place = self.cluster_of(release)
        restart(place, Slot(f"r{release.partition('@')[2]}"))

    def switches(self, sent: Requests) -> list[str]:
        """Return for each switch its duration, and how long the release before it answered."""
        found, since = [], math.nan
        records = DirectoryLedger(self.folder / ".mlship" / "ledger").records()
        last = Counter[str]()
        for record in records:
            step, _, part = record.evidence.step.partition("/")
            at = record.evidence.time.timestamp()
            if part == "route" and step in ("promote", "rollback"):
                # Another switch may follow seconds later, so only those in between count.
                others = [
                    answer.ended
                    for answer in sent.answers
                    if since <= answer.sent <= at and answer.release != str(record.evidence.release)
                ]
                last[step] += 1
                late = max(others, default=since) - since
                found.append(f"{step} {at - since:.2f} s (others answered for {late:.2f} s)")
            since = at
        return found

    def logged(self) -> Counter[tuple[str, str]]:
        """Count the rows of the database by prediction and release."""
        with psycopg.connect(self._url) as connection:
            rows = connection.execute("SELECT id, release FROM mlship_predictions")
            return Counter((str(one), str(by)) for one, by in rows)


def prepare(folder: Path, places: list[Cluster]) -> None:
    """Make three releases: trained, tested, pushed, and verified in staging on this machine."""
    demo.new_repository(folder)
    write(folder, production_of(places, {}), None)
    for number in range(3):
        if number:
            path = folder / "mlship.yaml"
            text = path.read_text()
            for old, new in CHANGES[:number]:
                text = text.replace(old, new)
            path.write_text(text)
        demo.git(folder, "commit", "-q", "--allow-empty", "-am", f"Release {number + 1}")
        for step in (*STEPS, PROOF):
            demo.mlship(folder, step, quiet=True)
    demo.mlship(folder, "down")


def production_of(places: list[Cluster], kubernetes: dict[str, Any], **settings: Any) -> Any:
    """Return the section of production."""
    both = {"replicas": 2, "challenger_replicas": 2, "challenger_weight": 10, "warm_minutes": 0}
    return production(places, kubernetes=kubernetes, sticky_header="x-user", **both, **settings)


def write(folder: Path, production: Any, database: str | None) -> None:
    """Write the target, the image and the database into mlship.yaml."""
    path = folder / "mlship.yaml"
    config = yaml.safe_load(path.read_text())
    config["targets"]["production"] = production
    config["targets"]["staging"] = {"kind": "local", "replicas": 1}
    config["store"] = {"kind": "directory"}
    config["gates"]["container"] = False
    config["gates"]["staging"]["p99_ms"] = {"max": 5000}
    config["image"] = {
        "repository": "localhost:5000/mlship-benchmarks/iris",
        "base": "localhost:5000/library/python:3.11-slim",
    }
    if database:
        config["observations"] = {"kind": "postgres", "url": database}
    path.write_text(yaml.safe_dump(config, sort_keys=False, default_flow_style=None))


def play(story: Story, requests: int) -> Requests:
    """Tell the whole story; return the requests and their answers."""
    first, second, third = story.releases()
    story.run("deploy-production", first)
    sent = story.answered()
    with sent.running():
        story.run("deploy-production", second)
        beside = time.time()
        wait(sent, len(sent.answers) + 4 * USERS + RATE)
        compare(story, sent, (beside, time.time()), second)
        story.replace_pods(first)
        story.learn_outcomes(sent)
        story.run("evaluate")
        story.run("approve", "challenger", "--by", "grace@example.org")
        for step in (["promote", "challenger"], ["rollback"], ["promote", "challenger"]):
            story.run(*step)
            time.sleep(5)
        story.run("retire")
        story.run("deploy-production", third)
        story.run("status")
        wait(sent, requests)
    return sent


def compare(story: Story, sent: Requests, between: tuple[float, float], challenger: str) -> None:
    """Print the split and the users, of the time in which champion and challenger answered."""
    begin, end = between
    answers = [a for a in list(sent.answers) if a.sent >= begin and a.ended <= end and a.release]
    anyone = [a for a in answers if not a.user]
    share = sum(a.release == challenger for a in anyone)
    count = len(anyone)
    sigmas = (share - 0.1 * count) / math.sqrt(count * 0.09)
    print(f"split        {share} of {count}: {sigmas:+.2f} sigma from 10 %", flush=True)
    releases: dict[str, Counter[str]] = defaultdict(Counter)
    for answer in answers:
        if answer.user:
            releases[answer.user][answer.release] += 1
    asked = [counts for counts in releases.values() if counts.total() > 1]
    stayed = sum(len(counts) == 1 for counts in asked)
    theirs = sum(challenger in counts for counts in asked)
    print(f"sticky       {stayed} of {len(asked)} users stayed, {theirs} with the challenger")
    if len(story.places) > 1:
        where = [story.cluster_of(one).path.parent.name for one in story.releases()[:2]]
        print(f"clusters     champion in {where[0]}, challenger in {where[1]}", flush=True)


def wait(sent: Requests, count: int) -> None:
    """Wait until so many requests were answered."""
    while len(sent.answers) < count:
        time.sleep(0.2)


def report(story: Story, sent: Requests) -> None:
    """Print the failures, the switches, and what the database has."""
    print(f"story        {sent.said()}")
    slowest = max(answer.ended - answer.sent for answer in sent.answers)
    print(f"answers      the slowest took {slowest:.2f} s")
    print(f"switches     {', '.join(story.switches(sent))}")
    logged = story.logged()
    by_id = Counter(one for one, _ in logged)
    answered = {answer.prediction for answer in sent.answers if answer.prediction}
    missing, twice = answered - set(by_id), [one for one in logged.values() if one > 1]
    places = Counter(by for _, by in logged)
    print(
        f"predictions  {len(answered)} acknowledged, {len(missing)} of them missing in the "
        f"database, {len(twice)} twice; its rows by release: {dict(places)}",
        flush=True,
    )


def control(story: Story) -> None:
    """Print the failures while pods that do not drain are replaced."""
    first, second, _ = story.releases()
    story.run("deploy-production", first)
    sent = story.answered()
    with sent.running():
        story.run("deploy-production", second)
        story.replace_pods(first)
    print(f"control      {sent.said()}", flush=True)


def main() -> None:
    """Run one part of the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["prepare", "story", "control"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--requests", type=int, default=20_000)
    options = parser.parse_args()
    paths = [Path(os.environ[name]) for name in ("BLUE", "GREEN") if os.environ.get(name)]
    namespace = f"story-{uuid.uuid4().hex[:8]}"
    places = [Cluster(path, namespace, is_plain=True) for path in paths]
    if options.what == "prepare":
        prepare(options.folder, places)
        return
    with ExitStack() as held:
        for place in places:
            held.enter_context(new_namespace(place))
        database = held.enter_context(postgres.server(places[0].host()))
        temporary = held.enter_context(tempfile.TemporaryDirectory())
        folder = shutil.copytree(options.folder, Path(temporary) / "iris")
        story = Story(folder, places, database)
        if options.what == "control":
            story.configure(drain_seconds=0, kubernetes={"prestop_seconds": 0})
            control(story)
        else:
            story.configure()
            report(story, play(story, options.requests))


if __name__ == "__main__":
    main()
