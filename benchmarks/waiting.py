"""How long threads of OpenMP may spin while they wait: one training alone, and three at once.

The training is a HistGradientBoostingClassifier of scikit-learn, whose threads meet many thousand
times. It runs with what mlship sets, with threads that sleep at once, and with the default of GNU's
OpenMP, in turn. Alone, 140,000 rows are fitted; of three at once, each has 20,000.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from mlship.domain.environment import WAITING

SETTINGS: Mapping[str, Mapping[str, str]] = {
    "mlship": WAITING,
    "asleep at once": {**WAITING, "GOMP_SPINCOUNT": "0"},
    "OpenMP's default": {},
}
FIT = """
import resource, sys
import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
rows, iterations = int(sys.argv[1]), int(sys.argv[2])
random = np.random.default_rng(0)
X = random.normal(size=(rows, 20))
y = X[:, 0] + X[:, 1] * X[:, 2] + random.normal(size=rows) > 0
model = HistGradientBoostingClassifier(max_iter=iterations, early_stopping=False)
print("ready", flush=True)
sys.stdin.readline()
model.fit(X, y)
"""


class Taken(NamedTuple):
    """Seconds until the last training ended, and of the processors for all of them."""

    wall: float
    processor: float


def main() -> None:
    """Print the medians of each setting, and its ratio to what mlship sets."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    for name, count, rows, iterations in (("alone", 1, 140_000, 300), ("three", 3, 20_000, 60)):
        rounds = [
            {setting: fitted(count, rows, iterations, SETTINGS[setting]) for setting in SETTINGS}
            for _ in range(options.rounds)
        ]
        median = {
            setting: Taken(
                *map(statistics.median, zip(*(of[setting] for of in rounds), strict=True))
            )
            for setting in SETTINGS
        }
        for setting, taken in median.items():
            ratio = taken.wall / median["mlship"].wall
            print(
                f"{name}, {setting}: {taken.wall:.1f} s ({ratio:.2f}), "
                f"{taken.processor:.1f} s of the processors",
                flush=True,
            )


def fitted(count: int, rows: int, iterations: int, setting: Mapping[str, str]) -> Taken:
    """Fit in some processes at once; they begin together, with all that they need imported."""
    plain = {name: value for name, value in os.environ.items() if name not in WAITING}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", FIT, str(rows), str(iterations)],
            env={**plain, **setting},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(count)
    ]
    for process in running:
        assert process.stdout is not None
        process.stdout.readline()
    before, started = sum(map(_processor, running)), time.perf_counter()
    for process in running:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    used = 0.0
    for process in running:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            sys.exit(f"a training ended with exit code {process.returncode}")
        used += usage.ru_utime + usage.ru_stime
    return Taken(time.perf_counter() - started, used - before)


def _processor(process: "subprocess.Popen[str]") -> float:
    """Return the seconds of the processors that a process has used so far."""
    fields = Path(f"/proc/{process.pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
