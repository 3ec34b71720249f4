"""Kill deploy-production, promote and rollback at every changing call, run them again, compare.

The command line kills itself with SIGKILL before and after each call that changes ledger, store or
target; then the same command runs again. The state afterwards (replicas, route, aliases, archive,
roles, drift) must be the same as after an undisturbed command, each sub-step must be recorded once,
and no lock may be left. With a store in a directory, there is a kill at every write; with MLflow,
around each call.

    python benchmarks/resume.py --folder /tmp/resume
    BLUE=KUBECONFIG GREEN=KUBECONFIG python benchmarks/resume.py --clusters LANE

With `--clusters`, production has a cluster for champion and for challenger; LANE says which
commands are killed. Before a call, everything is as after the one before, so there is one kill
between any two calls. Each waits until the lock of the killed process has run out.
"""

import argparse
import csv
import os
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import demo  # noqa: E402 (the root must be on the path first)

from mlship.adapters.targets.local import locks  # noqa: E402
from mlship.domain.deployment import slot_of  # noqa: E402
from mlship.domain.release import Release  # noqa: E402
from tests.harness.kills import SIDES, Point, Project, substeps  # noqa: E402
from tests.harness.pair import Pair, pair, project_of  # noqa: E402
from tests.harness.twice import Shop, won  # noqa: E402

STORES = {
    "directory": "store: {kind: directory}",
    "mlflow": 'store: {kind: mlflow, uri: "sqlite:///.mlship/mlflow.db"}',
}
LANES = ("first", "deploy-retire", "promote-rollback")
HALVES = 2
"""So many namespaces share the kills of a lane, at once: most of the time is waiting."""
_PREPARING = threading.Lock()
PROOFS = ("train", "test", "deploy-staging", "verify-staging-workload")


class Round(NamedTuple):
    """One kill and its result; `problem` is empty if it is correct."""

    store: str
    step: str
    substep: str
    call: str
    side: str
    records: int
    problem: str


def main() -> None:
    """Run the rounds and print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--folder", type=Path, default=Path(tempfile.gettempdir()) / "mlship-resume"
    )
    parser.add_argument("--store", choices=[*STORES], help="one of the two only")
    parser.add_argument("--clusters", choices=LANES, help="production in two clusters")
    options = parser.parse_args()
    started = time.monotonic()
    rounds: list[Round] = []
    if options.clusters:
        with ThreadPoolExecutor(HALVES) as pool:
            halves = pool.map(partial(in_clusters, options.clusters), range(HALVES))
            rounds = [made for half in halves for made in half]
    for store in () if options.clusters else [options.store] if options.store else STORES:
        project = prepared(options.folder / store, store)
        try:
            play(project, store, rounds)
        finally:
            project.plain("down")
    same = sum(not one.problem for one in rounds)
    print(f"{time.monotonic() - started:.0f} s")
    print(f"{same} of {len(rounds)} kills resumed to the same state")
    sys.exit(same != len(rounds))


def prepared(folder: Path, store: str) -> Project:
    """Create a project with two verified releases, neither of them in production."""
    demo.new_repository(folder)
    config = folder / "mlship.yaml"
    edit(config, STORES["mlflow"], STORES[store])
    names = ", ".join(demo.MEASUREMENTS[:2]), ", ".join(demo.MEASUREMENTS)
    for number in range(2):
        if number:
            edit(config, f"features: [{names[0]}]", f"features: [{names[1]}]")
        demo.git(folder, "commit", "-q", "--allow-empty", "-am", f"Release {number + 1}")
        for step in PROOFS:
            demo.mlship(folder, step, quiet=True)
    return Project(folder)


def edit(path: Path, old: str, new: str) -> None:
    """Replace a line's text that must be there."""
    text = path.read_text()
    assert old in text, f"{path} has no {old!r}"
    path.write_text(text.replace(old, new))


def play(project: Project, store: str, rounds: list[Round]) -> None:
    """Kill each step at each point of it."""
    first, second = releases(project)
    project.plain("down")
    snapshot = project.folder.with_name(f"{project.folder.name}-before")
    shutil.rmtree(snapshot, ignore_errors=True)
    shutil.copytree(project.folder / ".mlship", snapshot)

    def never_deployed() -> None:
        project.plain("down")
        shutil.rmtree(project.folder / ".mlship")
        shutil.copytree(snapshot, project.folder / ".mlship")

    def duelling() -> None:
        project.plain("rollback")
        project.plain("deploy-production", second)
        project.plain("traffic", "challenger=20")

    everywhere = store == "directory"
    kill(project, store, rounds, ["deploy-production", first], never_deployed, everywhere)
    retire = lambda: project.plain("retire", "challenger")  # noqa: E731
    kill(project, store, rounds, ["deploy-production", second], retire, everywhere)
    win(project)
    kill(project, store, rounds, ["promote", "challenger"], duelling, everywhere)
    promote = lambda: project.plain("promote", "challenger")  # noqa: E731
    kill(project, store, rounds, ["rollback"], promote, everywhere)
    shutil.rmtree(snapshot)


def in_clusters(lane: str, half: int) -> list[Round]:
    """Kill the commands of a lane in namespaces of their own, at every second point of them."""
    blue, green = Path(os.environ["BLUE"]), Path(os.environ["GREEN"])
    with pair(blue, green) as place, tempfile.TemporaryDirectory() as folder:
        both = (place.blue, place.green)
        with _PREPARING:  # both halves push the same images
            project, champion, challenger = project_of(both, Path(folder))
        rounds: list[Round] = []
        if lane == "first":
            first_deployment(project, place, champion, rounds, half)
            return rounds
        project.plain("deploy-production", str(champion))
        deploy = ["deploy-production", str(challenger)]
        if lane == "deploy-retire":
            back_and_forth(project, rounds, half, deploy, ["retire", str(challenger)])
        else:
            project.plain(*deploy)
            won(Shop(project.folder, {}), champion, challenger)
            back_and_forth(project, rounds, half, ["promote", "challenger"], ["rollback"])
        return rounds


def first_deployment(
    project: Project, place: Pair, release: Release, rounds: list[Round], half: int
) -> None:
    """Kill the deployment of the first release, which brings the parent."""
    ledger = project.folder / ".mlship" / "ledger"
    snapshot = project.folder / "before"
    shutil.copytree(ledger, snapshot)

    def never_deployed() -> None:
        place.route()
        place.target.remove(slot_of(release))
        project.pipeline().store.point("champion", None)
        shutil.rmtree(ledger)
        shutil.copytree(snapshot, ledger)

    command = ["deploy-production", str(release)]
    calls, expected, gained = undisturbed(project, command)
    for number in range(half, len(calls) + 1, HALVES):
        never_deployed()
        once(project, rounds, command, calls, number, expected, gained)


def back_and_forth(
    project: Project, rounds: list[Round], half: int, there: list[str], back: list[str]
) -> None:
    """Kill a command and the one that undoes it, in turn, at each point of both."""
    plans = [(command, *undisturbed(project, command)) for command in (there, back)]
    for number in range(half, max(len(calls) for _, calls, _, _ in plans) + 1, HALVES):
        for command, calls, expected, gained in plans:
            once(project, rounds, command, calls, min(number, len(calls)), expected, gained)


def undisturbed(
    project: Project, command: list[str]
) -> tuple[list[str], dict[str, Any], Counter[str]]:
    """Run a command; return its calls, the state after it, and its records."""
    before = project.steps()
    calls = project.run(*command)
    expected = project.observed()
    assert not expected["drift"], expected["drift"]
    return calls, expected, project.steps() - before


def once(
    project: Project,
    rounds: list[Round],
    command: list[str],
    calls: list[str],
    number: int,
    expected: dict[str, Any],
    gained: Counter[str],
) -> None:
    """Kill a command after a call, or before the first one, and run it again."""
    point: Point = ("after", number) if number else ("before", 1)
    call = max(0, number - 1)
    problem, records = one(project, command, point, expected, gained)
    step = substeps(calls)[call]
    made = Round("clusters", command[0], step, calls[call], point[0], records, problem)
    rounds.append(made)
    show(made)


def kill(
    project: Project,
    store: str,
    rounds: list[Round],
    command: list[str],
    again: Callable[[], object],
    everywhere: bool,  # noqa: FBT001
) -> None:
    """Run a command undisturbed, then killed at each point; `again` resets the state."""
    before = project.steps()
    calls = project.run(*command)
    expected, gained = project.observed(), project.steps() - before
    assert not expected["drift"], expected["drift"]
    for number, (call, substep) in enumerate(zip(calls, substeps(calls), strict=True), start=1):
        for side in SIDES if everywhere or call.startswith("store.") else ():
            again()
            problem, records = one(project, command, (side, number), expected, gained)
            made = Round(store, command[0], substep, call, side, records, problem)
            rounds.append(made)
            show(made)


def one(
    project: Project,
    command: list[str],
    point: Point,
    expected: dict[str, Any],
    gained: dict[str, int],
) -> tuple[str, int]:
    """Kill a command, run it again; return what differs, and how often it was recorded."""
    before = project.steps()
    project.run(*command, point=point)
    if locks.is_held(project.folder / ".mlship" / "locks" / "production.lock"):
        return "the lock is still held", 0
    try:
        project.plain(*command)
    except AssertionError as error:
        return str(error), 0
    problems = project.differences(expected)
    now = project.steps() - before
    if now != gained:
        problems.append(f"records {dict(now)} are not {dict(gained)}")
    return "; ".join(problems), now[command[0]]


def releases(project: Project) -> tuple[str, str]:
    """Return the names of the two releases, the older first."""
    records = project.pipeline().ledger.records()
    names = [str(record.evidence.release) for record in records if record.evidence.step == "train"]
    assert len(names) == 2, names
    return names[0], names[1]


def win(project: Project) -> None:
    """Record outcomes on which the challenger wins, and an approval."""
    folder = project.folder
    outcomes = demo.send(demo.production(folder), demo.flowers(folder), 1500)
    path = folder / ".mlship" / "outcomes.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("prediction_id", "outcome"), *outcomes])
    project.plain("feedback", str(path))
    project.plain("evaluate")
    project.plain("approve", "challenger", "--by", "grace@example.org")


def show(made: Round) -> None:
    """Print one line of the table."""
    verdict = "same" if not made.problem else f"DIFFERS: {made.problem}"
    records = f"{made.records} record{'s'[: made.records != 1]}"
    print(
        f"{made.store:9} {made.substep:26} {made.side:6} {made.call:40} {verdict}, {records}",
        flush=True,
    )


if __name__ == "__main__":
    main()
