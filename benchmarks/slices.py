"""Slices of two models: false alarms for equal models, power for a planted error, and speed.

Held-out rows have 50 columns with 4 values: 200 slices, and 2 classes. Two equally good models are
wrong on different rows; then one of them is made worse on one slice. Our method is compared with a
95 % paired z-test on each slice. Our false alarms must be at most 2.5 %, the error on the worse
side; the planted error is the control that a difference can be found.
"""

import argparse
import dataclasses
import time
from typing import Any

import numpy as np
import pandas as pd

from mlship.domain.bundle import Field, Task, Value
from mlship.training.data import Data, Target
from mlship.training.profile import profile_of
from mlship.training.scoring import metrics, slices

COLUMNS, VALUES = 50, 4
RIGHT, WORSE = 0.85, 0.73
Z = 1.959964


def main() -> None:
    """Print false alarms and power with and without the correction, and the time taken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=400)
    parser.add_argument("--rows", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    started = time.perf_counter()
    print(f"{options.rounds} pairs of models, {options.rows} rows, {COLUMNS * VALUES} slices")
    tasks: tuple[Task, ...] = ("classification", "regression")
    for task in tasks:
        generator = np.random.default_rng(options.seed)
        equal, planted = [], []
        for _ in range(options.rounds):
            data = held_out(task, options.rows, COLUMNS, generator)
            equal.append(_told(task, data, generator, is_planted=False))
            planted.append(_told(task, data, generator, is_planted=True))
        alarms, naive = np.mean(equal, axis=0)[:2]
        found, naive_found = np.mean(planted, axis=0)[2:]
        print(
            f"{task:15} equal models, any slice called worse: mlship {alarms:.1%}, z-tests "
            f"{naive:.1%}   planted slice found: mlship {found:.0%}, z-tests {naive_found:.0%}"
        )
    _print_time(100_000, 20, np.random.default_rng(options.seed))
    print(f"{time.perf_counter() - started:.1f} s")


def held_out(task: Task, rows: int, columns: int, generator: Any) -> Data:
    """Return held-out rows of columns with four values each."""
    frame = pd.DataFrame(
        {
            f"c{place}": pd.Series(generator.choice(list("abcd"), rows), dtype=object)
            for place in range(columns)
        }
    )
    numbers = generator.normal(size=rows)
    target = numbers if task == "regression" else np.where(numbers > 0, "yes", "no").astype(object)
    truth = pd.Series(target, name="y")
    fields = tuple(Field(name=name, kind="text") for name in frame.columns)
    kind: Any = "number" if task == "regression" else "text"
    return Data(
        train=frame,
        test=frame,
        targets=(Target(train=truth, test=truth, kind=kind, place=0),),
        fields=fields,
    )


def predicted(task: Task, data: Data, generator: Any, weak: Any = None) -> list[Value]:
    """Return a model's predictions; `weak` are the rows on which it is worse."""
    truth, size = data.targets[0].test.to_numpy(), len(data.targets[0].test)
    is_weak = np.zeros(size, dtype=bool) if weak is None else weak
    if task == "regression":
        # Errors with heavy tails: a few are large.
        errors = generator.standard_t(4, size) * np.where(is_weak, 1.4, 1.0)
        return (truth + errors).tolist()  # type: ignore[no-any-return]
    is_right = generator.random(size) < np.where(is_weak, WORSE, RIGHT)
    other = np.where(truth == "yes", "no", "yes")
    return np.where(is_right, truth, other).tolist()  # type: ignore[no-any-return]


def _told(task: Task, data: Data, generator: Any, *, is_planted: bool) -> tuple[bool, ...]:
    """Return whether any slice is worse, and whether c0 = a is: by our method, and by z-tests."""
    weak = (data.test["c0"] == "a").to_numpy() if is_planted else None
    pair = predicted(task, data, generator, weak), predicted(task, data, generator)
    sides = {"y": pair[0]}, {"y": pair[1]}
    listed = slices.compare(task, data, sides).listed
    ours = {(one.column, one.value) for one in listed if one.is_worse}
    naive = _z_tests(task, data, pair)
    planted = ("c0", "a")
    return bool(ours), bool(naive), planted in ours, planted in naive


def _z_tests(task: Task, data: Data, pair: tuple[list[Value], list[Value]]) -> set[tuple[str, str]]:
    """Return the slices that are worse by a 95 % paired z-test for each slice."""
    truth = data.targets[0].test.to_numpy()
    ours, theirs = (np.array(side) for side in pair)
    if task == "classification":
        gaps = (theirs == truth).astype(float) - (ours == truth)
    else:
        gaps = np.abs(ours - truth) - np.abs(theirs - truth)
    worse = set()
    for name in data.test.columns:
        values = data.test[name].to_numpy()
        for value in "abcd":
            part = gaps[values == value]
            if part.mean() > Z * part.std(ddof=1) / np.sqrt(len(part)):
                worse.add((name, value))
    return worse


def _print_time(rows: int, columns: int, generator: Any) -> None:
    """Print the duration of the comparison, relative to the metrics."""
    data = held_out("classification", rows, columns // 2, generator)
    for place in range(columns - columns // 2):
        data.test[f"n{place}"] = generator.normal(size=rows)
    names = [str(name) for name in data.test.columns]
    fields = [Field(name=name, kind="text" if name[0] == "c" else "number") for name in names]
    data = dataclasses.replace(data, fields=tuple(fields))
    pair = tuple(predicted("classification", data, generator) for _ in range(2))
    truth = data.targets[0].test.tolist()
    outputs = [[{"y": value} for value in side] for side in pair]
    before = time.process_time()
    found = slices.compare("classification", data, ({"y": pair[0]}, {"y": pair[1]}))
    compared = time.process_time() - before
    before = time.process_time()
    metrics.differences("classification", truth, (outputs[0], outputs[1]), "y")
    measured = time.process_time() - before
    before = time.process_time()
    profile_of(data, "classification")
    profiled = time.process_time() - before
    print(
        f"{rows} rows, {columns} columns: {found.judged} slices in {compared:.2f} s of CPU, "
        f"{compared / measured:.1f} times what the metrics take ({measured:.2f} s); "
        f"a profile in {profiled:.2f} s"
    )


if __name__ == "__main__":
    main()
