"""What `mlship train` takes beyond the bare training script, as whole processes.

The data have 200,000 rows and 20 columns, of which 30 % are held out. The bare script reads the
CSV file, splits it, fits a model, predicts the held-out rows and prints the accuracy. `mlship
train` does the same, and proves, seals and records the bundle: up to the record in the ledger, with
a store that is a directory. Both run in turn, so that both meet the same load of the machine.

Each model has several sizes, so that what a training always takes is told from what grows with the
model. With the middle one of a forest and the larger one of boosting, the script takes some 15 s on
two cores.
"""

import argparse
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

SEED = 7
SHARE = 0.3
MODELS = {
    "boosting": (
        "from sklearn.ensemble import HistGradientBoostingClassifier",
        "HistGradientBoostingClassifier(max_iter={size}, early_stopping=False, random_state=0)",
        (400, 2_200),
    ),
    "forest": (
        "from sklearn.ensemble import RandomForestClassifier",
        "RandomForestClassifier({size}, min_samples_leaf=20, n_jobs=-1, random_state=0)",
        (12, 45, 60),
    ),
}
SCRIPT = """
import pandas as pd
from sklearn.metrics import accuracy_score
from sklearn.model_selection import train_test_split
from pipeline import train

data = pd.read_csv("data.csv")
fitted, held_out = train_test_split(data, test_size={share}, random_state={seed})
model = train(fitted, {{}})
print(accuracy_score(held_out.label, model.predict(held_out.drop(columns="label"))))
"""
PIPELINE = """
{imported}

def train(data, params):
    return {made}.fit(data.drop(columns="label"), data.label)
"""
SETTINGS = """
name: share
data:
  train: data.csv
  target: label
  split: {{fraction: {share}, seed: {seed}}}
model: {{train: "pipeline:train"}}
store: {{kind: directory}}
"""


def main() -> None:
    """Print the medians of both for each size, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--columns", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", choices=sorted(MODELS), action="append")
    parser.add_argument("--size", type=int, action="append", help="iterations or trees")
    options = parser.parse_args()
    print(f"{options.rows:,} rows x {options.columns} columns, median of {options.rounds}")
    for model in options.model or sorted(MODELS):
        sizes = options.size or MODELS[model][2]
        found = []
        for size in sizes:
            with tempfile.TemporaryDirectory() as folder:
                root = Path(folder)
                write(root, options.rows, options.columns, model, size)
                taken, used = measured(root, options.rounds)
            found.append(taken)
            print(f"{model} of {size}: {taken}; of the processor, {used}", flush=True)
        if len(set(sizes)) > 1:
            script, own = [pair.script for pair in found], [pair.own for pair in found]
            slope, fixed = np.polyfit(script, own, 1)
            print(f"{model}: mlship's own {fixed:.1f} s and {slope:.0%} of the script's seconds")


class Pair(NamedTuple):
    """Seconds of the bare script, and of `mlship train`."""

    script: float
    train: float

    @property
    def own(self) -> float:
        """What mlship takes beyond the script."""
        return self.train - self.script

    def __str__(self) -> str:
        """Say both, the difference and the ratio."""
        ratio = self.train / self.script
        return (
            f"script {self.script:.1f} s, mlship {self.train:.1f} s, +{self.own:.1f}, {ratio:.2f}"
        )


def measured(root: Path, rounds: int) -> tuple[Pair, Pair]:
    """Return the median seconds of both, and those of all processors."""
    bare, ours = [], []
    for number in range(rounds):
        bare.append(seconds([sys.executable, "script.py"], root))
        shutil.rmtree(root / ".mlship", ignore_errors=True)
        ours.append(seconds([sys.executable, "-m", "mlship", "train"], root))
        print(f"  {number + 1}: script {bare[-1]}, mlship train {ours[-1]}", flush=True)
    wall, used = (
        Pair(*(statistics.median(taken[place] for taken in each) for each in (bare, ours)))
        for place in (0, 1)
    )
    return wall, used


def write(root: Path, rows: int, columns: int, model: str, size: int) -> None:
    """Write the data, the script and the project, committed."""
    random = np.random.default_rng(SEED)
    numbers = random.normal(size=(rows, columns)).round(4)
    signal = numbers[:, 0] + numbers[:, 1] * numbers[:, 2] + np.sin(3 * numbers[:, 3])
    data = pd.DataFrame(numbers, columns=[f"x{place}" for place in range(columns)])
    data["label"] = np.where(signal + random.normal(size=rows) > 0, "yes", "no")
    data.to_csv(root / "data.csv", index=False)
    imported, made, _ = MODELS[model]
    files = {
        "pipeline.py": PIPELINE.format(imported=imported, made=made.format(size=size)),
        "script.py": SCRIPT.format(share=SHARE, seed=SEED),
        "mlship.yaml": SETTINGS.format(share=SHARE, seed=SEED),
        ".gitignore": ".mlship/\n__pycache__/\n",
    }
    for name, text in files.items():
        (root / name).write_text(text)
    identity = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org"]
    for argv in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-qm", "Begin"]):
        subprocess.run(["git", *argv], cwd=root, check=True)


def seconds(argv: Sequence[str], root: Path) -> tuple[float, float]:
    """Return how long a program takes from its start to its end, and on all processors."""
    started, used = time.perf_counter(), processor()
    result = subprocess.run(argv, cwd=root, capture_output=True, text=True, check=False)
    if result.returncode:
        sys.exit(result.stdout + result.stderr)
    return round(time.perf_counter() - started, 1), round(processor() - used, 1)


def processor() -> float:
    """Return the seconds that all processes which have ended took of the processors."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
