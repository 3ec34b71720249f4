"""Write customers: some to train and test on, many to score.

    python generate.py [--lake ROWS]

The same rows each time. What is in a file depends on its seed only, so a larger lake has the files
of a smaller one.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd

ROWS_A_FILE = 100_000


def customers(rows, seed, first=0):
    """Return a frame of customers with `rows` rows; the first one has the number `first`."""
    random = np.random.default_rng(seed)
    contract = random.choice(["monthly", "yearly", "two years"], rows, p=[0.55, 0.25, 0.2])
    payment = random.choice(["card", "transfer", "bill"], rows, p=[0.5, 0.3, 0.2])
    months = random.integers(1, 73, rows)
    charge = np.round(random.normal(62, 18, rows).clip(15, 140), 2)
    calls = random.poisson(1.2, rows)
    frame = {
        "customer_id": [f"c{number:09}" for number in range(first, first + rows)],
        "contract": contract,
        "payment": payment,
        "region": random.choice(["north", "east", "south", "west"], rows),
        "months": months,
        "monthly_charge": charge,
        "support_calls": calls,
        "data_gb": np.round(random.gamma(2.0, 9.0, rows), 1),
        "late_payments": random.poisson(0.4, rows),
        "devices": random.integers(1, 6, rows),
        "has_discount": random.random(rows) < 0.3,
    }
    return pd.DataFrame(frame)


def churned(frame, seed):
    """Return which of the customers left: a text `yes` or `no` for each."""
    score = (
        0.9 * (frame["contract"] == "monthly")
        - 1.1 * (frame["contract"] == "two years")
        + 0.5 * (frame["payment"] == "bill")
        - 0.045 * frame["months"]
        + 0.03 * (frame["monthly_charge"] - 62)
        + 0.55 * frame["support_calls"]
        + 0.7 * frame["late_payments"]
        - 0.6 * frame["has_discount"]
    )
    chance = 1 / (1 + np.exp(-score))
    return np.where(np.random.default_rng(seed).random(len(frame)) < chance, "yes", "no")


def write(folder, lake):
    """Write data/, workload/ and, if asked for, so many rows of a lake."""
    for name, rows, seed in (("train", 20_000, 1), ("test", 5_000, 2)):
        frame = customers(rows, seed)
        frame["churned"] = churned(frame, seed + 100)
        _parquet(frame.drop(columns="customer_id"), folder / "data" / f"{name}.parquet")
    requests = customers(50, 3).drop(columns="customer_id").to_dict("records")
    (folder / "workload").mkdir(exist_ok=True)
    with (folder / "workload" / "staging.jsonl").open("w") as file:
        for number, request in enumerate(requests):
            file.write(json.dumps({"name": f"customer {number}", "request": request}) + "\n")
    for number, first in enumerate(range(0, lake, ROWS_A_FILE)):
        rows = min(ROWS_A_FILE, lake - first)
        path = folder / "lake" / f"customers-{number:04}.parquet"
        _parquet(customers(ROWS_A_FILE, 1000 + number, first).head(rows), path)


def _parquet(frame, path):
    path.parent.mkdir(exist_ok=True)
    frame.to_parquet(path, index=False)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--lake", type=int, default=1_000_000, help="rows to score")
    write(Path(__file__).parent, parser.parse_args().lake)
