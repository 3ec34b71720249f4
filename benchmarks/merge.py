"""The time from a merge to main to the challenger's first response in production, by step.

    TEST_KUBECONFIG=... TEST_KUBECONFIG_PRODUCTION=... python benchmarks/merge.py [ROUNDS]

act runs the jobs, each on a clean machine: it creates a virtual environment and installs mlship
from a wheel in the repository, and everything else from the package index, with an empty cache.
Only the download of uv is left out. The registry, the tracking server, the database and both
clusters are real and on this machine. Dependencies do not change between the rounds.
"""

import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from installs import build

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.harness.act import Ran
from tests.harness.team import Team, team

_FLOWER = {"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2}
_ALLOWED = 90.0
_INSTALLS = ("set up Python", "set up uv", "install the project", "install mlship")


def main(rounds: int) -> int:
    """Print a line for each step of each job, and the total."""
    with tempfile.TemporaryDirectory(prefix="mlship-merge-") as folder:
        wheel = build(Path(folder))
        with team(Path(folder), wheel) as ours:
            check(ours.pushed("main.yml", "main"))
            measured = [challenge(ours, number) for number in range(1, rounds + 1)]
    print(f"{'job':22} {'step':28} seconds, median of {rounds}")
    for place, (job, step, _) in enumerate(measured[0][1].times):
        seconds = statistics.median(ran.times[place].seconds for _, ran in measured)
        print(f"{job:22} {step:28} {seconds:7.1f}")
    whole = sorted(seconds for seconds, _ in measured)
    middle = statistics.median(whole)
    installed = statistics.median(
        sum(took.seconds for took in ran.times if took.step in _INSTALLS) for _, ran in measured
    )
    print(f"{'all':22} {'installations':28} {installed:7.1f}")
    print(f"merge to the challenger's first response: {middle:.1f} s, at most {whole[-1]:.1f} s")
    return 0 if middle <= _ALLOWED else 1


def challenge(ours: Team, number: int) -> tuple[float, Ran]:
    """Merge another model into main; return the seconds to its first response, and the run."""
    branch = f"feature/{number}"
    ours.commit(branch, f"Regularise less: {number}", {"model.params.C": 1.0 + number})
    for head, base in ((branch, "develop"), ("develop", "main")):
        pull = ours.ask("ada", "POST", "pulls", head=head, base=base, title=branch)
        merged = time.monotonic()
        ours.ask("ada", "PUT", f"pulls/{pull['number']}/merge")
    endpoint = ours.mlship("status")["endpoints"]["production"]
    with second_release(endpoint) as answered:
        ran = check(ours.pushed("main.yml", "main"))
    ours.mlship("retire", "challenger", "--early")
    return answered[0] - merged, ran


@contextmanager
def second_release(endpoint: str) -> Iterator[list[float]]:
    """Send requests to production; append the time when a second release responds."""
    found: list[float] = []
    ended = threading.Event()

    def ask() -> None:
        seen: set[str] = set()
        with httpx.Client(base_url=endpoint) as client:
            while not (found or ended.wait(0.05)):
                answer = client.post("/predict", json=_FLOWER).raise_for_status().json()
                seen.add(answer["release"])
                if len(seen) > 1:
                    found.append(time.monotonic())

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield found
    finally:
        ended.set()
        thread.join()


def check(ran: Ran) -> Ran:
    """Return a run that succeeded."""
    if ran.code:
        sys.exit(ran.log)
    return ran


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if sys.argv[1:] else 3))
