"""Every command is run twice, on two real clusters: changes made by the second run.

    TEST_KUBECONFIG=... TEST_KUBECONFIG_PRODUCTION=... python benchmarks/twice.py

A project is created from the example: its images go to the tests' registry, its models to MLflow in
a file, its predictions to a private PostgreSQL. A line for each command has the exit codes of both
runs and, for the second: objects of the clusters with another metadata.generation or other changes
(except their status), pods that were created or deleted, records added to the ledger, and whether
the model registry changed. Leases, which every change acquires and releases, are left out.
"""

import csv
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).parents[1]))

import demo
import yaml

from tests.harness import clusters, postgres
from tests.harness.twice import Shop, Twice, target

_REQUESTS = 1500
_PROOF = (
    ("train",),
    ("test",),
    ("containerize",),
    ("test", "--container"),
    ("push-to-registry",),
    ("deploy-staging",),
    ("verify-staging-workload",),
)
_COLUMNS = ("command", "codes", "generations", "writes", "pods", "versions", "records", "said")


def main() -> None:
    """Print a line for each command, then all changes of the second runs by name."""
    started = time.monotonic()
    print(" | ".join(_COLUMNS))
    changed: list[str] = []
    with ExitStack() as stack:
        for found in play(shop(stack)):
            print(line(found), flush=True)
            changed += [f"{found.command}: {name}" for name in found.generations + found.writes]
    print("\n".join(["", "changed by a second run:", *(changed or ["nothing"])]))
    print(f"{time.monotonic() - started:.0f} s")


def shop(stack: ExitStack) -> Shop:
    """Create a project with one release, and all its services."""
    staging = stack.enter_context(clusters.cluster())
    production = stack.enter_context(clusters.cluster("TEST_KUBECONFIG_PRODUCTION"))
    url = stack.enter_context(postgres.server(production.host())).create("predictions")
    password = str(urlsplit(url).password)
    address = url.replace(f":{password}@", "@")
    production.secret("predictions", MLSHIP_LOG=address, PGPASSWORD=password)
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "iris"
    demo.new_repository(folder)
    settings = folder / "mlship.yaml"
    values = yaml.safe_load(settings.read_text())
    values["gates"]["staging"]["p99_ms"] = {"max": 2000}
    repository = f"{clusters.REGISTRY}/twice-{uuid.uuid4().hex[:8]}/iris"
    values["image"] = {
        "repository": repository,
        "base": f"{clusters.REGISTRY}/library/python:3.11-slim",
    }
    values["targets"] = {
        "staging": target(staging),
        "production": target(production, env_from_secret="predictions"),  # noqa: S106 (its name)
    }
    values["observations"] = {"kind": "postgres", "url": address}
    settings.write_text(yaml.safe_dump(values, sort_keys=False))
    demo.git(folder, "commit", "-qam", "Run in two clusters")
    places = {"staging": staging, "production": production}
    return Shop(folder, places, {"PGPASSWORD": password})


def play(ours: Shop) -> Iterator[Twice]:
    """Run the whole life cycle of two releases, each command twice."""
    for command in _PROOF:
        yield ours.twice(*command)
    yield ours.twice("deploy-production")
    settings = ours.folder / "mlship.yaml"
    values = yaml.safe_load(settings.read_text())
    values["model"]["params"]["features"] = list(demo.MEASUREMENTS)
    settings.write_text(yaml.safe_dump(values, sort_keys=False))
    demo.git(ours.folder, "commit", "-qam", "Look at the petals too")
    for command in _PROOF:
        ours.done(*command)
    yield ours.twice("deploy-production")
    yield ours.twice("traffic", "challenger=50", "--override", "a measurement")
    endpoint = ours.pipeline().target("production").routes().endpoint
    outcomes = ours.folder / ".mlship" / "outcomes.csv"
    with outcomes.open("w", newline="") as file:
        rows = demo.send(endpoint, demo.flowers(ours.folder), _REQUESTS)
        csv.writer(file).writerows([("prediction_id", "outcome"), *rows])
    yield ours.twice("feedback", str(outcomes))
    yield ours.twice("evaluate")
    yield ours.twice("approve", "challenger", "--by", "grace@example.org")
    yield ours.twice("promote", "challenger")
    yield ours.twice("rollback")
    ours.done("promote")
    yield ours.twice("retire", "--early")


def line(found: Twice) -> str:
    """Return a line of the table."""
    cells = (
        found.command.replace(str(Path(tempfile.gettempdir())), "..."),
        "{} {}".format(*found.codes),
        len(found.generations),
        len(found.writes),
        found.pods,
        "changed" if found.versions else "same",
        ", ".join(found.records) or "none",
        found.said[:110],
    )
    return " | ".join(str(cell) for cell in cells)


if __name__ == "__main__":
    main()
